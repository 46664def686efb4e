# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The file that a run writes as it goes: one JSON object an image, so that an interrupted run goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from nre_ros.errors import EvaluationError


class RecordFile:
    """Appends lines to ``path``; ``done`` are the images that it holds already.

    A last line that was cut short (the process was killed) is taken off.  Raises ``EvaluationError``
    for a file that cannot be written or holds something else.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        try:
            _drop_torn_line(self.path)
            self.done = {line["image"] for line in read_records(self.path)}
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise EvaluationError(f"{self.path} cannot be written: {error.strerror}") from error

    def write(self, record: dict) -> None:
        """Adds one image's record; it is on its way to the disk when this returns."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        self.done.add(record["image"])

    def __enter__(self) -> RecordFile:
        return self

    def __exit__(self, *_) -> None:
        self._file.close()


def read_records(path: Path) -> Iterator[dict]:
    """The records of a file, one at a time; none where there is no file."""
    if not Path(path).exists():
        return
    with Path(path).open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                record = json.loads(line)
                record["image"], record["success"]
            except (ValueError, TypeError, KeyError):
                raise EvaluationError(f"{path}: line {number} is no record of an evaluation: {line[:60]!r}") from None
            yield record


def _drop_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        end = file.seek(0, 2)
        while end:
            start = max(0, end - 4096)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                file.truncate(start + newline + 1)
                return
            end = start
        file.truncate(0)
