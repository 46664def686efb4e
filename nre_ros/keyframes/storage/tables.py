# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One open map file: its connection, whose turn it is, and rows that are checked before they are used."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

from nre_ros.errors import MapError, MapFormatError
from nre_ros.keyframes.storage.blobs import row_checksum
from nre_ros.keyframes.storage.database import close_writer, map_errors, open_database, schema_version


class MapTables:
    """The tables of a map file, for ``KeyframeStore`` and the checks of ``verify``.

    The last column of every row is its checksum.  May be used from any thread; transactions of
    several threads take turns.  All errors are ``MapError`` or its kinds, one line that names the file.
    """

    def __init__(self, path: Path, readonly: bool, exclusive: bool = False):
        self.path = path
        self.readonly = readonly
        self.lock = threading.RLock()
        self._db: sqlite3.Connection | None = open_database(path, readonly, exclusive)
        self._file = _identity(path)
        self._columns: dict[str, tuple[str, ...]] = {}
        self._rollbacks = 0
        self.writing = False
        """Whether a transaction is under way; only its own thread can ever see it so."""

    def close(self) -> None:
        """Closes the file; a writer leaves one complete file behind.  Closing twice is allowed."""
        with self.lock:
            db, self._db = self._db, None
            if db is None:
                return
            with map_errors(self.path):
                db.close() if self.readonly else close_writer(db)

    @property
    def revision(self) -> tuple[int, int]:
        """Changes whenever this or another process changed the file."""
        with self.errors():
            return self._db.execute("PRAGMA data_version").fetchone()[0], self._db.total_changes + self._rollbacks

    @property
    def version(self) -> int:
        """The schema version of the file; another process may raise it while it is open for reading."""
        with self.errors():
            return schema_version(self._db)

    @contextmanager
    def errors(self):
        """Holds the lock, and turns SQLite's errors into ours."""
        with self.lock:
            if self._db is None:
                raise MapError(f"map {self.path} is closed")
            with map_errors(self.path):
                yield

    @contextmanager
    def decoding(self):
        """Turns what the decoders raise into an error that names the file."""
        try:
            yield
        except ValueError as error:
            raise MapFormatError(f"map {self.path} is damaged: {error}") from error

    @contextmanager
    def transaction(self):
        """All changes within it or none; within another transaction, a part of that one."""
        with self.errors():
            if self.readonly:
                raise MapError(f"map {self.path} is open for reading only")
            inner = self.writing
            if not inner:
                self.check_in_place()
            self._db.execute("SAVEPOINT part" if inner else "BEGIN IMMEDIATE")
            self.writing = True
            try:
                yield
                self._db.execute("RELEASE part" if inner else "COMMIT")
            except BaseException:
                self._rollbacks += 1
                if self._db is not None and self._db.in_transaction:  # a full disk may have ended it already
                    for statement in ("ROLLBACK TO part", "RELEASE part") if inner else ("ROLLBACK",):
                        self._db.execute(statement)
                raise
            finally:
                self.writing = inner

    @contextmanager
    def snapshot(self):
        """What is read within it is of one state of the map, whatever others write meanwhile."""
        with self.errors():
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def rows(self, query: str, parameters=()) -> list[tuple]:
        """All rows of a query, as they are."""
        with self.errors():
            return self._db.execute(query, parameters).fetchall()

    def readable_rows(self, query: str, parameters=()) -> list[tuple]:
        """The rows of a query up to the first that cannot be read, as they are."""
        found = []
        with suppress(MapError), self.errors():
            for row in self._db.execute(query, parameters):
                found.append(row)
        return found

    def row(self, table: str, key: str, value: int) -> tuple:
        """The one row of a table, checked, without its checksum; ``MapFormatError`` if there is none."""
        rows = self.rows(f"SELECT * FROM {table} WHERE {key} = ?", (value,))
        if not rows:
            raise MapFormatError(f"map {self.path} is damaged: {table} has no row {value}")
        return self.checked(rows[0], f"{table} {value}")

    def checked(self, row: tuple, what: str) -> tuple:
        """The row without its checksum; ``MapFormatError`` names ``what`` if the checksum is wrong."""
        *columns, checksum = row
        if row_checksum(*columns) != checksum:
            raise MapFormatError(f"map {self.path} is damaged: the checksum of {what} is wrong")
        return tuple(columns)

    def insert(self, table: str, *columns) -> None:
        """A new row, with its checksum.  Within a transaction."""
        marks = ", ".join("?" * (len(columns) + 1))
        with self.errors():
            self._db.execute(f"INSERT INTO {table} VALUES ({marks})", (*columns, row_checksum(*columns)))

    def update(self, table: str, *columns) -> None:
        """New values for the row whose first column is the first of these.  Within a transaction."""
        with self.errors():
            if table not in self._columns:
                described = self._db.execute(f"SELECT * FROM {table} LIMIT 0").description
                self._columns[table] = tuple(column[0] for column in described)
            names = self._columns[table]
            changes = ", ".join(f"{name} = ?" for name in names[1:])
            values = (*columns[1:], row_checksum(*columns), columns[0])
            self._db.execute(f"UPDATE {table} SET {changes} WHERE {names[0]} = ?", values)

    def delete(self, table: str, key: str, value) -> None:
        """Removes rows, and what refers to them.  Within a transaction."""
        with self.errors():
            self._db.execute(f"DELETE FROM {table} WHERE {key} = ?", (value,))

    def last_key(self, table: str) -> int:
        """The highest key that an AUTOINCREMENT table ever gave, also of rows that are gone; 0 of an empty table."""
        found = self.rows("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,))
        return found[0][0] if found else 0

    def vacuum(self) -> None:
        """Gives the pages of removed rows back to the file system."""
        with self.errors():
            self._db.execute("VACUUM")

    def check_in_place(self) -> None:
        """``MapError`` when the file has been removed or replaced.

        SQLite goes on writing into a file that has no name any more: all of it would be lost.
        """
        found = _identity(self.path)
        if found != self._file:
            what = "removed" if found is None else "replaced by another file"
            raise MapError(f"map {self.path} was {what} while it was open: nothing can be written to it")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
