# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The record file of a run: one JSON object per image, appended at once, so that an interrupted run can continue."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nre_ros.errors import EvaluationError


class RecordFile:
    """Appends records to a file. An incomplete last line, left by a killed process, is removed first.

    Attributes:
        path: The file.
        done: Names of the images that the file contains.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file, or creates it.

        Args:
            path: File to append to.

        Raises:
            EvaluationError: The file cannot be written or does not contain records.
        """
        self.path = path
        try:
            _remove_incomplete_line(path)
            self.done: set[str] = {record["image"] for record in read_records(path)}
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise EvaluationError(f"{path}: cannot be written ({error.strerror})") from error

    def write(self, record: dict[str, Any]) -> None:
        """Appends the record of one image and flushes it to the operating system.

        Args:
            record: JSON values with at least ``image`` and ``success``.
        """
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        self.done.add(record["image"])

    def __enter__(self) -> RecordFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """Reads the records of a file one at a time.

    Args:
        path: File to read; a missing file has no records.

    Yields:
        The record of each image.

    Raises:
        EvaluationError: A line is not a record.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                record = json.loads(line)
                _check_record(record)
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
                raise EvaluationError(f"{path}: line {number} is not an evaluation record: {line[:60]!r}") from None
            yield record


def _check_record(record: dict[str, Any]) -> None:
    """Raises an error of Python for what ``collect_results`` cannot read."""
    if not (isinstance(record["image"], str) and isinstance(record["success"], bool)):
        raise TypeError
    numbers: list[Any] = [record.get("points_used", 0), *(record.get("milliseconds") or {}).values()]
    numbers += [] if record.get("confidence") is None else [record["confidence"]]
    if record["success"]:
        if not (len(record["position"]) == 3 and len(record["quaternion"]) == 4):
            raise ValueError
        numbers += [*record["position"], *record["quaternion"]]
        if (covariance := record.get("covariance")) is not None:
            if [len(row) for row in covariance] != [6] * 6:
                raise ValueError
            numbers += [number for row in covariance for number in row]
    if not all(isinstance(number, (int, float)) for number in numbers):
        raise TypeError
    array("d", numbers)  # numbers that are too large
    array("q", [record.get("stamp", 0), *record.get("keyframes", ())])
    if not isinstance(record.get("reason", ""), str) or record.get("accepted") not in (None, True, False):
        raise TypeError


def _remove_incomplete_line(path: Path) -> None:
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
