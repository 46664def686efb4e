# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Opening map files: the schema and its versions, and every way in which a file can be no map of ours.

A map is one SQLite file.  While it is written it is in WAL mode (readers go on reading, a
killed writer loses at most the keyframe it was writing); closing the writer folds the log back
in and leaves one plain file that can be copied and opened from a read-only folder.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from contextlib import closing, contextmanager
from pathlib import Path

from nre_ros.errors import MapError, MapFormatError
from nre_ros.keyframes.storage.blobs import row_checksum

APPLICATION_ID = 0x4E52454D
_SQLITE = b"SQLite format 3\0"
"""``PRAGMA application_id`` of our maps ("NREM")."""

SCHEMA_VERSION = 2
"""``PRAGMA user_version``: raised with every change of the schema, together with a step in ``_STEPS``."""

_VERSION_1 = """
CREATE TABLE metadata (key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE cameras (
    id INTEGER PRIMARY KEY, model TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    intrinsics BLOB NOT NULL, -- fx fy cx cy and the distortion coefficients
    checksum INTEGER NOT NULL);
CREATE TABLE keyframes (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,
    stamp INTEGER NOT NULL, -- nanoseconds since the epoch, 0: unknown
    camera_id INTEGER NOT NULL REFERENCES cameras (id),
    pose BLOB NOT NULL, -- camera to map, 4 x 4
    global_descriptor BLOB NOT NULL, global_scale REAL NOT NULL,
    point_count INTEGER NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE points (
    keyframe_id INTEGER PRIMARY KEY REFERENCES keyframes (id) ON DELETE CASCADE,
    xyz BLOB NOT NULL, source_ids BLOB, coarse BLOB NOT NULL, coarse_scale BLOB NOT NULL,
    fine BLOB NOT NULL, fine_scale BLOB NOT NULL, background BLOB NOT NULL,
    background_scale BLOB NOT NULL, background_cells INTEGER NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE thumbnails (
    keyframe_id INTEGER PRIMARY KEY REFERENCES keyframes (id) ON DELETE CASCADE,
    jpeg BLOB NOT NULL, checksum INTEGER NOT NULL);
"""

_VERSION_2 = """
CREATE TABLE changes ( -- keyframes that were changed or removed after they had been added
    revision INTEGER PRIMARY KEY AUTOINCREMENT, keyframe_id INTEGER NOT NULL UNIQUE, checksum INTEGER NOT NULL);
CREATE TABLE retrieval_index (part INTEGER PRIMARY KEY, data BLOB NOT NULL, checksum INTEGER NOT NULL);
"""


@contextmanager
def map_errors(path: Path):
    """Turns what SQLite and the decoders raise into errors of one line that name the file."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise MapError(f"map {path} is being written by another process") from error
        if not path.exists():
            raise MapError(f"map {path} was removed while it was open ({error})") from error
        raise MapError(f"map {path}: {error}") from error
    except UnicodeDecodeError as error:
        raise MapFormatError(f"map {path} is damaged: a text that is not UTF-8") from error
    except sqlite3.Error as error:
        raise MapFormatError(f"map {path} is damaged: {error}") from error


def create_database(path: Path, metadata_rows: list[tuple]) -> None:
    """Writes an empty map, complete with its metadata (key, value, checksum), where no file is.

    It is made under another name first: at ``path`` there is never half a map, whenever the
    process is killed.
    """
    new = path.with_name(path.name + ".new")
    with map_errors(path):
        try:
            new.unlink(missing_ok=True)
            new.touch(0o644)
            with closing(_connect(new, "rw")) as db:
                # rows of 2.4 and 92 kB: half the default page wastes 3 kB a keyframe less
                db.execute("PRAGMA page_size = 2048")
                db.executescript(
                    f"BEGIN; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1; {_VERSION_1}"
                )
                db.executemany("INSERT INTO metadata VALUES (?, ?, ?)", metadata_rows)
                _upgrade(db)
                db.execute("COMMIT")
            try:
                os.link(new, path)  # of two processes that create the same map, one is told
                new.unlink()
            except FileExistsError:
                raise
            except OSError:  # a file system without links
                os.replace(new, path)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise MapError(f"map {path} cannot be created: {error.strerror}") from error


def open_database(path: Path, readonly: bool, exclusive: bool = False) -> sqlite3.Connection:
    """An existing map.  Raises ``MapError``, ``MapFormatError``.

    A reader creates and changes nothing; a writer brings a map of an older version to this one.
    exclusive: no other process may open it meanwhile (of writers).
    """
    header = read_header(path)
    if not header:
        raise MapFormatError(f"map {path} is empty (0 bytes)")
    if not header.startswith(_SQLITE):
        raise MapFormatError(f"{path} is no map: not an SQLite file")
    _check_length(path, header)
    with map_errors(path):
        if readonly:
            _finish_interrupted_close(path)
        db = _connect(path, _mode(path, header) if readonly else "rw")
    try:
        with map_errors(path):
            _check_identity(db, path)
            if not readonly:
                _prepare_writer(db, exclusive)
    except BaseException:
        db.close()
        raise
    return db


def _finish_interrupted_close(path: Path) -> None:
    """Rolls back what a writer that was killed while it left WAL mode has left; a reader may not do that."""
    journal = sidecars(path)[2]
    if journal.exists() and journal.stat().st_size and os.access(path.parent, os.W_OK):
        with closing(_connect(path, "rw")) as db:
            db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()


def close_writer(db: sqlite3.Connection) -> None:
    """Folds the write-ahead log into the file and, where no reader holds it, leaves WAL mode."""
    try:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        db.execute("PRAGMA journal_mode = DELETE").fetchall()
    except sqlite3.OperationalError:
        pass  # a reader holds the file: it stays in WAL mode, which is complete as it is
    finally:
        db.close()


def read_header(path: Path) -> bytes:
    """The first 100 bytes of a file, fewer of a shorter one; ``MapError`` where there is none that can be read."""
    try:
        if not path.exists():
            raise MapError(f"map {path} does not exist")
        if not path.is_file():
            raise MapError(f"map {path} is not a file")
        with open(path, "rb") as file:
            return file.read(100)
    except OSError as error:
        raise MapError(f"map {path} cannot be read: {error.strerror}") from error


def is_map(header: bytes) -> bool:
    """Whether a file with this header is a map, in whatever state (application_id stands at byte 68)."""
    return header.startswith(_SQLITE) and header[68:72] == APPLICATION_ID.to_bytes(4, "big")


def sidecars(path: Path) -> list[Path]:
    """The files that SQLite may keep beside a map."""
    return [path.with_name(path.name + suffix) for suffix in ("-wal", "-shm", "-journal")]


def _check_length(path: Path, header: bytes) -> None:
    """``MapFormatError`` for a file that ends before its last page: SQLite notices only when it needs that page."""
    if len(header) < 100 or any(file.exists() for file in sidecars(path)):  # pages may lie in the log
        return
    page_size, changed, pages, pages_counted_at = struct.unpack(">16xH6xII60xI4x", header)
    expected = (65536 if page_size == 1 else page_size) * pages
    size = path.stat().st_size
    if changed == pages_counted_at and size < expected:
        raise MapFormatError(f"map {path} is damaged: truncated to {size} of {expected} bytes")


def _mode(path: Path, header: bytes) -> str:
    """Read-only, or immutable for a WAL file in a folder where SQLite cannot put its lock file."""
    in_wal_mode = len(header) > 18 and header[18] == 2
    wal = sidecars(path)[0]
    if in_wal_mode and not os.access(path.parent, os.W_OK) and not (wal.exists() and wal.stat().st_size):
        return "ro&immutable=1"
    return "ro"


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    # Path.as_uri escapes ? # and %, which would end the file's name
    uri = f"{path.resolve().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=5.0)


def _prepare_writer(db: sqlite3.Connection, exclusive: bool) -> None:
    if exclusive:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")  # a committed keyframe survives a power cut too
    db.execute("PRAGMA foreign_keys = ON")
    if schema_version(db) < SCHEMA_VERSION:
        db.execute("BEGIN IMMEDIATE")
        try:
            _upgrade(db)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


def schema_version(db: sqlite3.Connection) -> int:
    """The file's ``PRAGMA user_version``; a reader may hold an older one than ``SCHEMA_VERSION``."""
    return db.execute("PRAGMA user_version").fetchone()[0]


def _upgrade(db: sqlite3.Connection) -> None:
    """Brings a map to this version, step by step, inside the caller's transaction: all or nothing."""
    for version in range(schema_version(db), SCHEMA_VERSION):  # read in the transaction: of two writers one does it
        _STEPS[version](db)
        db.execute(f"PRAGMA user_version = {version + 1}")


def _from_1_to_2(db: sqlite3.Connection) -> None:
    """Tables for changes and the retrieval index, and the number of keyframes, which tells of lost rows."""
    for statement in _VERSION_2.split(";\n"):
        db.execute(statement)
    count = ("keyframes", str(db.execute("SELECT COUNT(*) FROM keyframes NOT INDEXED").fetchone()[0]))
    db.execute("INSERT OR REPLACE INTO metadata VALUES (?, ?, ?)", (*count, row_checksum(*count)))


_STEPS = {1: _from_1_to_2}
"""Version -> the step to the next one."""


def _check_identity(db: sqlite3.Connection, path: Path) -> None:
    application_id = db.execute("PRAGMA application_id").fetchone()[0]
    version = schema_version(db)
    if application_id != APPLICATION_ID:
        raise MapFormatError(f"{path} is no map: an SQLite file of another program")
    if version > SCHEMA_VERSION:
        raise MapFormatError(
            f"map {path} has format version {version}, this nre_ros reads up to {SCHEMA_VERSION}: update nre_ros"
        )
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    expected = {"metadata", "cameras", "keyframes", "points", "thumbnails"}
    missing = (expected | {"changes", "retrieval_index"} if version > 1 else expected) - tables
    if missing:
        raise MapFormatError(f"map {path} is damaged: it lacks the tables {sorted(missing)}")
