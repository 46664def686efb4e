# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Recordings that broke off or are damaged in the middle: what can still be read of them.

A recorder that is killed leaves an MCAP file without its index and footer, and no metadata.yaml.
Specification of the format: https://mcap.dev/spec
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path

from rosbags.highlevel import AnyReader

from nre_ros.errors import ImportSourceError
from nre_ros.messages.bag import open_reader, storage_files

_MAGIC = b"\x89MCAP0\r\n"
_END_OF_DATA = struct.pack("<BQI", 0x0F, 4, 0)
_FOOTER = struct.pack("<BQQQI", 0x02, 20, 0, 0, 0) + _MAGIC
_FIRST_STEP = 100_000_000
"""Nanoseconds that are left out behind a damaged place at first; doubled until messages come again."""


def open_what_is_left(path: Path | str) -> tuple[AnyReader, str]:
    """An open reader of a bag, and what is wrong with the bag in one line (empty: nothing).

    Raises ``ImportSourceError`` when nothing can be read.
    """
    path = Path(path)
    if not path.exists():
        raise ImportSourceError(f"bag {path} does not exist")
    try:
        return open_reader([path]), ""
    except Exception as error:  # a damaged file makes the reader fail in any way
        problem = " ".join(str(error).split()) or type(error).__name__
    files = storage_files(path)
    if not files:
        raise ImportSourceError(f"{path} is no bag: {problem}")
    try:
        reader = open_reader([_TornMcap(file) if file.suffix == ".mcap" else file for file in files])
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImportSourceError(f"bag {path} cannot be read: {reason}") from error
    if not reader.connections:
        reader.close()
        raise ImportSourceError(f"bag {path} has no whole message: {problem}")
    return reader, problem


def messages_that_are_left(reader: AnyReader, connections, damage: list[str]) -> Iterator[tuple]:
    """(connection, log time, raw message) of the connections; stretches that cannot be read are left out.

    damage: a line is added for each such stretch.
    """
    start, step, last = reader.start_time, 0, None
    while True:
        try:
            for item in reader.messages(connections, start=start):
                yield item
                last, step = item[1], 0
            return
        except GeneratorExit:
            raise
        except Exception as error:  # whatever the reader or a decompressor makes of damaged bytes
            if step == 0:
                where = last if last is not None else reader.start_time
                reason = " ".join(str(error).split()) or type(error).__name__
                damage.append(f"damaged {(where - reader.start_time) / 1e9:.1f} s after its start: {reason}")
                start = where + 1
            step = 2 * step or _FIRST_STEP
            start += step
            if start > reader.end_time:
                return


class _TornMcap:
    """An MCAP file that ends after its last whole record, for a reader that asks for an end.

    Has the methods of a path that rosbags calls; the end is added while reading, not in the file.
    """

    def __init__(self, path: Path):
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        return self.path.exists()

    def is_dir(self) -> bool:
        return False

    def stat(self, *, follow_symlinks: bool = True):
        return self.path.stat(follow_symlinks=follow_symlinks)

    @property
    def stem(self) -> str:
        return self.path.stem

    @property
    def suffix(self) -> str:
        return self.path.suffix

    def open(self, mode: str = "rb") -> io.BufferedIOBase:
        file = self.path.open(mode)
        end = _end_of_records(file)
        file.seek(0)
        return _Extended(file, end, _END_OF_DATA + _FOOTER)


def _end_of_records(file) -> int:
    """Where the last whole record before the index ends."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if file.read(len(_MAGIC)) != _MAGIC:
        return 0
    end = len(_MAGIC)
    while True:
        file.seek(end)
        head = file.read(9)
        if len(head) < 9:
            return end
        opcode, length = struct.unpack("<BQ", head)
        if opcode in (0x02, 0x0F) or end + 9 + length > size:
            return end
        end += 9 + length


class _Extended(io.RawIOBase):
    """The first ``length`` bytes of a file, followed by ``tail``."""

    def __init__(self, file, length: int, tail: bytes):
        self._file, self._length, self._tail, self._at = file, length, tail, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length + len(self._tail)}[whence]
        self._at = min(max(base + offset, 0), self._length + len(self._tail))
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._length + len(self._tail)
        stop = end if size is None or size < 0 else min(self._at + size, end)
        self._file.seek(self._at)
        data = self._file.read(max(min(stop, self._length) - self._at, 0))
        data += self._tail[max(self._at - self._length, 0) : max(stop - self._length, 0)]
        self._at = stop
        return data

    def close(self) -> None:
        self._file.close()
        super().close()
