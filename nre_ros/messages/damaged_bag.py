# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Reading of recordings that broke off or are damaged in the middle.

A recorder that is killed leaves an MCAP file without its index and footer, and no metadata.yaml. The whole messages of
such a file are readable still. Specification of the format: https://mcap.dev/spec
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection

from nre_ros.errors import ImportSourceError, one_line
from nre_ros.messages.bag import open_reader, storage_files

_MCAP_MAGIC = b"\x89MCAP0\r\n"
_OP_FOOTER, _OP_DATA_END = 0x02, 0x0F
_DATA_END = struct.pack("<BQI", _OP_DATA_END, 4, 0)
_FOOTER = struct.pack("<BQQQI", _OP_FOOTER, 20, 0, 0, 0) + _MCAP_MAGIC
_FIRST_SKIP = 100_000_000
"""Nanoseconds skipped behind a damaged place at first; doubled until messages can be read again."""


def open_readable(path: Path | str) -> tuple[AnyReader, str]:
    """Opens a bag, or what is readable of a damaged one.

    Args:
        path: Folder of a rosbag2, or one of its files.

    Returns:
        The open reader, and what is wrong with the bag in one line; empty if nothing is.

    Raises:
        ImportSourceError: No message can be read.
    """
    path = Path(path)
    if not path.exists():
        raise ImportSourceError(f"bag {path} does not exist")
    files = storage_files(path)
    try:
        return open_reader([path]), ""
    except ImportSourceError as error:
        if not files:
            raise
        problem = _reason(error, path)
    try:
        # rosbags takes whatever has a path's methods
        reader = open_reader([_TruncatedMcap(file) if file.suffix == ".mcap" else file for file in files])  # type: ignore[misc]
    except ImportSourceError as error:
        raise ImportSourceError(f"bag {path} cannot be read: {_reason(error, path)}") from error
    if not reader.connections:
        reader.close()
        raise ImportSourceError(f"bag {path} has no whole message: {problem}")
    return reader, problem


def readable_messages(
    reader: AnyReader, connections: Sequence[Connection], damage: list[str]
) -> Iterator[tuple[Connection, int, bytes]]:
    """Reads messages and skips the parts of the recording that are damaged.

    Args:
        reader: An open reader.
        connections: The connections to read.
        damage: List that receives a line for each damaged part.

    Yields:
        Connection, log time in nanoseconds and serialized message.
    """
    start, skip, last = reader.start_time, 0, None
    while True:
        try:
            for item in reader.messages(connections, start=start):
                yield item
                last, skip = item[1], 0
            return
        except GeneratorExit:
            raise
        except Exception as error:  # whatever a reader or a decompressor makes of damaged bytes
            if skip == 0:
                where = last if last is not None else reader.start_time
                damage.append(f"damaged {(where - reader.start_time) / 1e9:.1f} s after its start: {_reason(error)}")
                start = where + 1
            skip = 2 * skip or _FIRST_SKIP
            start += skip
            if start > reader.end_time:
                return


def _reason(error: Exception, path: Path | None = None) -> str:
    """What the reader of bags said in the first place; of its own errors, without the name of the bag."""
    cause = error.__cause__ or error
    text = one_line(cause) or type(cause).__name__
    return text.removeprefix(f"bag {path} ")


class _TruncatedMcap:
    """An MCAP file that ends after its last whole record, for a reader that needs an end.

    The class has those methods of ``pathlib.Path`` that rosbags calls. The end is added while reading, not in the file.
    """

    def __init__(self, path: Path):
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        return self.path.exists()

    def is_dir(self) -> bool:
        return False

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        return self.path.stat(follow_symlinks=follow_symlinks)

    @property
    def stem(self) -> str:
        return self.path.stem

    @property
    def suffix(self) -> str:
        return self.path.suffix

    def open(self, mode: str = "rb") -> io.RawIOBase:
        file = self.path.open("rb")
        end = _end_of_records(file)
        file.seek(0)
        return _FileWithTail(file, end, _DATA_END + _FOOTER)


def _end_of_records(file: BinaryIO) -> int:
    """Returns where the last whole record before the index ends, in bytes."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if file.read(len(_MCAP_MAGIC)) != _MCAP_MAGIC:
        return 0
    end = len(_MCAP_MAGIC)
    while True:
        file.seek(end)
        head = file.read(9)
        if len(head) < 9:
            return end
        opcode, length = struct.unpack("<BQ", head)
        if opcode in (_OP_FOOTER, _OP_DATA_END) or end + 9 + length > size:
            return end
        end += 9 + length


class _FileWithTail(io.RawIOBase):
    """The first ``length`` bytes of a file, followed by ``tail``."""

    def __init__(self, file: BinaryIO, length: int, tail: bytes):
        self._file, self._length, self._tail, self._position = file, length, tail, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        end = self._length + len(self._tail)
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: end}[whence]
        self._position = min(max(base + offset, 0), end)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        end = self._length + len(self._tail)
        stop = end if size is None or size < 0 else min(self._position + size, end)
        self._file.seek(self._position)
        data = self._file.read(max(min(stop, self._length) - self._position, 0))
        data += self._tail[max(self._position - self._length, 0) : max(stop - self._length, 0)]
        self._position = stop
        return data

    def close(self) -> None:
        self._file.close()
        super().close()
