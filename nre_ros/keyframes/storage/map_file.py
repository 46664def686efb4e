# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Creating, opening, closing and replacing map files, and every way in which a file can fail to be a map.

A map is one SQLite file. A writer switches the file to WAL mode: readers continue to read, and a killed writer loses at
most the keyframe that it was writing. When the writer closes, the log is folded back in, and one plain file remains
that can be copied and opened from a read-only folder.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from nre_ros.errors import MapError, MapFormatError, one_line
from nre_ros.keyframes.storage.schema import APPLICATION_ID, check_schema, create_schema, upgrade_schema
from nre_ros.untrusted_sqlite import UNTRUSTED_FILE_PRAGMAS

_SQLITE_MAGIC = b"SQLite format 3\0"
_SQLITE_HEADER_BYTES = 100
_BUSY_SECONDS = 5.0
"""How long a writer waits for its turn."""


@contextmanager
def map_errors(path: Path) -> Iterator[None]:
    """Turns SQLite's errors inside the context into errors of one line that names the file.

    Args:
        path: The map file.

    Raises:
        MapError: The file is locked, was removed, or cannot be read or written.
        MapFormatError: The file is damaged.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise MapError(f"map {path} is being written by another process") from error
        if "UTF-8" in str(error):
            raise MapFormatError(f"map {path} is damaged: a text that is not UTF-8") from error
        if not path.exists():
            raise MapError(f"map {path} was removed while it was open ({error})") from error
        raise MapError(f"map {path}: {error}") from error
    except UnicodeDecodeError as error:
        raise MapFormatError(f"map {path} is damaged: a text that is not UTF-8") from error
    except sqlite3.Error as error:
        raise MapFormatError(f"map {path} is damaged: {one_line(error)}") from error


def create_map_file(path: Path, metadata_rows: list[tuple[Any, ...]]) -> None:
    """Writes an empty map with its metadata.

    The file is written under another name and then renamed. Whenever the process is killed, there is a complete map at
    ``path`` or none.

    Args:
        path: Where no file is.
        metadata_rows: Key, value and checksum of each entry.

    Raises:
        MapError: The file cannot be written, or another process has just created it.
    """
    new = path.with_name(path.name + ".new")
    with map_errors(path):
        try:
            new.unlink(missing_ok=True)
            new.touch(0o644)
            with closing(_connect(new, "rw")) as db:
                create_schema(db, metadata_rows)
            try:
                os.link(new, path)  # fails for one of two processes that create the same map
                new.unlink()
            except FileExistsError:
                raise
            except OSError:  # a file system without links
                os.replace(new, path)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise MapError(f"map {path} cannot be created: {error.strerror}") from error


def open_map_file(path: Path, readonly: bool, exclusive: bool = False) -> sqlite3.Connection:
    """Opens an existing map.

    A reader creates and changes nothing. A writer upgrades a map of an older version.

    Args:
        path: The map file.
        readonly: Whether to open the file for reading only.
        exclusive: Whether a writer keeps all other processes from opening the file.

    Returns:
        The connection, in autocommit mode.

    Raises:
        MapError: There is no such file, or it cannot be read.
        MapFormatError: The file is no map, is damaged or is of a newer version.
    """
    header = read_header(path)
    if not header:
        raise MapFormatError(f"map {path} is empty (0 bytes)")
    if not header.startswith(_SQLITE_MAGIC):
        raise MapFormatError(f"{path} is no map: not an SQLite file")
    _check_length(path, header)
    with map_errors(path):
        if readonly:
            _finish_interrupted_close(path)
        db = _connect(path, _read_mode(path, header) if readonly else "rw")
    try:
        with map_errors(path):
            check_schema(db, path)
            if not readonly:
                _prepare_writer(db, exclusive)
    except BaseException:
        db.close()
        raise
    return db


def close_writer(db: sqlite3.Connection) -> None:
    """Closes a writer's connection: folds the log into the file and leaves WAL mode where no reader holds the file.

    Args:
        db: The connection.
    """
    try:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        db.execute("PRAGMA journal_mode = DELETE").fetchall()
    except sqlite3.OperationalError:
        pass  # a reader holds the file: it stays in WAL mode and is complete
    finally:
        db.close()


def read_header(path: Path) -> bytes:
    """Reads the first 100 bytes of a file.

    Args:
        path: The file.

    Returns:
        The bytes, fewer of a shorter file.

    Raises:
        MapError: The file does not exist or cannot be read.
    """
    try:
        if not path.exists():
            raise MapError(f"map {path} does not exist")
        if not path.is_file():
            raise MapError(f"map {path} is not a file")
        with open(path, "rb") as file:
            return file.read(_SQLITE_HEADER_BYTES)
    except OSError as error:
        raise MapError(f"map {path} cannot be read: {error.strerror}") from error


def is_map(header: bytes) -> bool:
    """Returns whether a file is a map, intact or not.

    Args:
        header: The first bytes of the file, from ``read_header``. The application_id is at byte 68.
    """
    return header.startswith(_SQLITE_MAGIC) and header[68:72] == APPLICATION_ID.to_bytes(4, "big")


def sidecars(path: Path) -> list[Path]:
    """Returns the files that SQLite may keep beside a map: log, shared memory and rollback journal.

    Args:
        path: The map file.
    """
    return [path.with_name(path.name + suffix) for suffix in ("-wal", "-shm", "-journal")]


def check_replaceable(path: Path) -> None:
    """Checks that there is nothing but a map at a path, since replacing the file would destroy it.

    Args:
        path: The file to write.

    Raises:
        MapError: There is a folder or a file of another kind, or the path cannot be used.
    """
    try:
        if not path.name:
            raise MapError(f"map {path} is no file's name")
        if path.is_dir():
            raise MapError(f"map {path} is a folder")
        if not path.exists():
            return
    except OSError as error:
        raise MapError(f"map {path} cannot be written: {error.strerror}") from error
    try:
        header = read_header(path)
    except MapError as error:
        raise MapError(f"{error}, it is not replaced") from error
    if header and not is_map(header):
        raise MapError(f"{path} is a file of another kind, it is not replaced")


@contextmanager
def write_then_rename(path: Path) -> Iterator[Path]:
    """Replaces a map only when the new one is complete.

    Args:
        path: The file to write or replace.

    Yields:
        Another path in the same folder, where the new map is to be written. At the end of the context the new map takes
        the name ``path``. After an error nothing is left of the new map.

    Raises:
        MapError: The file cannot be written.
    """
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        with _write_errors(path):
            unfinished.unlink(missing_ok=True)
        yield unfinished
        with _write_errors(path):
            for old in sidecars(path):  # the log of the replaced map must not be read into the new one
                old.unlink(missing_ok=True)
            os.replace(unfinished, path)
    finally:
        for file in (unfinished, *sidecars(unfinished)):
            with suppress(OSError):  # a path that cannot be written was reported already
                file.unlink(missing_ok=True)


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MapError(f"map {path} cannot be written: {error.strerror}") from error


def _finish_interrupted_close(path: Path) -> None:
    """Rolls back what a writer that was killed while it left WAL mode has left; a reader may not do that."""
    journal = sidecars(path)[2]
    if journal.exists() and journal.stat().st_size and os.access(path.parent, os.W_OK):
        with closing(_connect(path, "rw")) as db:
            db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()


def _check_length(path: Path, header: bytes) -> None:
    """Raises ``MapFormatError`` for a truncated file: SQLite notices only when it needs a missing page."""
    if len(header) < _SQLITE_HEADER_BYTES or any(file.exists() for file in sidecars(path)):  # pages may lie in the log
        return
    page_size, changed, pages, pages_counted_at = struct.unpack(">16xH6xII60xI4x", header)
    expected = (65536 if page_size == 1 else page_size) * pages
    size = path.stat().st_size
    if changed == pages_counted_at and size < expected:
        raise MapFormatError(f"map {path} is damaged: truncated to {size} of {expected} bytes")


def _read_mode(path: Path, header: bytes) -> str:
    """Returns read-only, or immutable for a WAL file in a folder where SQLite cannot put its lock file."""
    in_wal_mode = len(header) > 18 and header[18] == 2
    wal = sidecars(path)[0]
    if in_wal_mode and not os.access(path.parent, os.W_OK) and not (wal.exists() and wal.stat().st_size):
        return "ro&immutable=1"
    return "ro"


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    # Path.as_uri escapes ? # and %, which would end the file's name
    uri = f"{path.resolve().as_uri()}?mode={mode}"
    db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS)
    for pragma in UNTRUSTED_FILE_PRAGMAS:
        db.execute(pragma)
    return db


def _prepare_writer(db: sqlite3.Connection, exclusive: bool) -> None:
    if exclusive:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")  # a committed keyframe survives a power cut too
    db.execute("PRAGMA foreign_keys = ON")
    upgrade_schema(db)
