# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The tables of a map file and their versions.

``keyframes`` has a row for each keyframe, with what retrieval scans. ``points`` has what the estimator loads for the few
retrieved keyframes, and ``thumbnails`` the pictures. The last column of every row is a checksum over its other columns.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nre_ros.errors import MapFormatError
from nre_ros.keyframes.storage.blobs import row_checksum
from nre_ros.untrusted_sqlite import SCHEMA_QUERY, active_schema_entry

APPLICATION_ID = 0x4E52454D
"""``PRAGMA application_id`` of a map ("NREM")."""
SCHEMA_VERSION = 4
"""``PRAGMA user_version`` of the newest maps that can be read. It is raised with every change of the format."""
_WRITTEN_VERSION = 2
"""Version to which a writer brings an older map, by the steps in ``UPGRADES``. All programs since read such a map."""
ORIGIN_VERSION = 3
"""Version of a map with an origin (``map_origin``), which older programs must refuse. Its tables are those of version 2."""
PACKED_VERSION = 4
"""Version of a map with packed descriptors (``blobs``), which older programs must refuse. It has an origin, maybe zero."""

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
_TABLES_1 = {"metadata", "cameras", "keyframes", "points", "thumbnails"}
_TABLES_2 = _TABLES_1 | {"changes", "retrieval_index"}


def create_schema(db: sqlite3.Connection, metadata_rows: list[tuple[Any, ...]]) -> None:
    """Writes the tables of an empty map with its metadata, in one transaction.

    Args:
        db: Connection to an empty file.
        metadata_rows: Key, value and checksum of each entry.
    """
    # rows have 2.4 and 60 kB: half the default page size wastes 3 kB less for each keyframe
    db.execute("PRAGMA page_size = 2048")
    db.executescript(f"BEGIN; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1; {_VERSION_1}")
    db.executemany("INSERT INTO metadata VALUES (?, ?, ?)", metadata_rows)
    _upgrade(db)
    db.execute("COMMIT")


def schema_version(db: sqlite3.Connection) -> int:
    """Returns the file's schema version; a reader may have a file of an older version than ``SCHEMA_VERSION``.

    Args:
        db: Connection to the file.
    """
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def upgrade_schema(db: sqlite3.Connection) -> None:
    """Brings a map of an older version to version 2 in one transaction.

    Args:
        db: Connection to the file, for writing.
    """
    if schema_version(db) >= _WRITTEN_VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        _upgrade(db)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def raise_version(db: sqlite3.Connection, version: int) -> None:
    """Marks a map as one that older programs must not read; only inside a transaction.

    Args:
        db: Connection to the file, for writing.
        version: The version that a program must know.
    """
    if schema_version(db) < version:
        db.execute(f"PRAGMA user_version = {version}")


def check_schema(db: sqlite3.Connection, path: Path) -> None:
    """Checks that an open file is a map of a known version with all its tables.

    Args:
        db: Connection to the file.
        path: The file, for the error message.

    Raises:
        MapFormatError: The file belongs to another program, is of a newer version, lacks a table, or contains what no
            map has: SQLite would run a trigger, or compute a view or a virtual table.
    """
    application_id = db.execute("PRAGMA application_id").fetchone()[0]
    version = schema_version(db)
    if application_id != APPLICATION_ID:
        raise MapFormatError(f"{path} is no map: an SQLite file of another program")
    if version > SCHEMA_VERSION:
        raise MapFormatError(
            f"map {path} has format version {version}, this nre_ros reads up to {SCHEMA_VERSION}: update nre_ros"
        )
    entries = db.execute(SCHEMA_QUERY).fetchall()
    if active := active_schema_entry(entries):
        raise MapFormatError(f"map {path} is damaged or malicious: it contains {active}")
    tables = {name for kind, name, _ in entries if kind == "table"}
    missing = (_TABLES_2 if version > 1 else _TABLES_1) - tables
    if missing:
        raise MapFormatError(f"map {path} is damaged: it lacks the tables {sorted(missing)}")


def _upgrade(db: sqlite3.Connection) -> None:
    """Applies the missing steps inside the caller's transaction: all or none."""
    for version in range(schema_version(db), _WRITTEN_VERSION):  # read inside: only one of two writers upgrades
        UPGRADES[version](db)
        db.execute(f"PRAGMA user_version = {version + 1}")


def _from_1_to_2(db: sqlite3.Connection) -> None:
    """Adds tables for changes and the retrieval index, and the number of keyframes, which reveals lost rows."""
    for statement in _VERSION_2.split(";\n"):
        db.execute(statement)
    count = ("keyframes", str(db.execute("SELECT COUNT(*) FROM keyframes NOT INDEXED").fetchone()[0]))
    db.execute("INSERT OR REPLACE INTO metadata VALUES (?, ?, ?)", (*count, row_checksum(*count)))


UPGRADES: dict[int, Callable[[sqlite3.Connection], None]] = {1: _from_1_to_2}
"""Version -> the step to the next version."""
