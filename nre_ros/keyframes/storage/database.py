# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One open map file: its connection, its transactions, and rows whose checksums are verified before use."""

from __future__ import annotations

import os
import sqlite3
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nre_ros.errors import MapError, MapFormatError, one_line
from nre_ros.keyframes.storage.blobs import row_checksum
from nre_ros.keyframes.storage.map_file import close_writer, map_errors, open_map_file
from nre_ros.keyframes.storage.schema import schema_version

Row = tuple[Any, ...]
"""A row of SQLite: integers, floats, texts, blobs and None."""


class MapDatabase:
    """The tables of an open map file.

    Every method may be called from any thread; transactions of several threads take turns. All errors are ``MapError``
    or a subclass, and their message is one line that names the file.

    Attributes:
        path: The map file.
        readonly: Whether the file is open for reading only.
        writing: Whether a transaction is in progress; only the thread of the transaction can see True.
    """

    def __init__(self, path: Path, readonly: bool, exclusive: bool = False):
        """Opens an existing map; see ``open_map_file`` for the arguments and errors."""
        self.path = path
        self.readonly = readonly
        self.writing = False
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = open_map_file(path, readonly, exclusive)
        self._identity = _file_identity(path)
        self._column_names: dict[str, tuple[str, ...]] = {}
        self._rollbacks = 0

    def close(self) -> None:
        """Closes the file; a writer leaves one complete file. Closing twice is allowed."""
        with self._lock:
            db, self._db = self._db, None
            if db is None:
                return
            with map_errors(self.path):
                db.close() if self.readonly else close_writer(db)

    @property
    def revision(self) -> tuple[int, int]:
        """A value that changes whenever this or another process changed the file."""
        with self.connection() as db:
            return db.execute("PRAGMA data_version").fetchone()[0], db.total_changes + self._rollbacks

    @property
    def version(self) -> int:
        """The schema version of the file; another process may raise it while this one reads the file."""
        with self.connection() as db:
            return schema_version(db)

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Locks the connection for this thread, and turns SQLite's errors into ``MapError``."""
        with self._lock:
            if self._db is None:
                raise MapError(f"map {self.path} is closed")
            with map_errors(self.path):
                yield self._db

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Turns what a decoder raises for values of other types or sizes into a ``MapFormatError``."""
        try:
            yield
        except (ValueError, TypeError, OverflowError, struct.error) as error:
            raise MapFormatError(f"map {self.path} is damaged: {one_line(error)}") from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Makes all changes inside the context or none; inside another transaction it is a part of that one.

        Raises:
            MapError: The file is open for reading only, or was removed or replaced.
        """
        with self.connection() as db:
            if self.readonly:
                raise MapError(f"map {self.path} is open for reading only")
            nested = self.writing
            if not nested:
                self.check_in_place()
            db.execute("SAVEPOINT part" if nested else "BEGIN IMMEDIATE")
            self.writing = True
            try:
                yield
                db.execute("RELEASE part" if nested else "COMMIT")
            except BaseException:
                self._rollbacks += 1
                if self._db is not None and db.in_transaction:  # a full disk may have ended it already
                    for statement in ("ROLLBACK TO part", "RELEASE part") if nested else ("ROLLBACK",):
                        db.execute(statement)
                raise
            finally:
                self.writing = nested

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Reads one state of the map inside the context, whatever other processes write meanwhile."""
        with self.connection() as db:
            if db.in_transaction:
                yield
                return
            db.execute("BEGIN")
            try:
                yield
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Returns all rows of a query, with unverified checksums.

        Args:
            query: An SQL statement.
            parameters: Values for the question marks in the query.
        """
        with self.connection() as db:
            return db.execute(query, parameters).fetchall()

    def readable_rows(self, query: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Returns the rows of a query up to the first that cannot be read, with unverified checksums.

        Args:
            query: An SQL statement.
            parameters: Values for the question marks in the query.
        """
        found = []
        with suppress(MapError), self.connection() as db:
            for row in db.execute(query, parameters):
                found.append(row)
        return found

    def row(self, table: str, key: str, value: Any) -> Row:
        """Returns the only row of a table with a value, without its checksum.

        Args:
            table: Name of the table.
            key: Name of a column.
            value: The value in this column.

        Raises:
            MapFormatError: There is no such row, or its checksum is wrong.
        """
        rows = self.rows(f"SELECT * FROM {table} WHERE {key} = ?", (value,))
        if not rows:
            raise MapFormatError(f"map {self.path} is damaged: {table} has no row {value}")
        return self.verified(rows[0], f"{table} {value}")

    def verified(self, row: Row, what: str) -> Row:
        """Verifies the checksum of a row.

        Args:
            row: All columns of the row; the last is the checksum.
            what: What the row is, for the error message.

        Returns:
            The row without its checksum.

        Raises:
            MapFormatError: The checksum is wrong.
        """
        *columns, checksum = row
        if row_checksum(*columns) != checksum:
            raise MapFormatError(f"map {self.path} is damaged: the checksum of {what} is wrong")
        return tuple(columns)

    def insert(self, table: str, *columns: Any) -> None:
        """Adds a row with its checksum; only inside a transaction.

        Args:
            table: Name of the table.
            *columns: The values of the row, without the checksum.
        """
        marks = ", ".join("?" * (len(columns) + 1))
        with self.connection() as db:
            db.execute(f"INSERT INTO {table} VALUES ({marks})", (*columns, row_checksum(*columns)))

    def update(self, table: str, *columns: Any) -> None:
        """Gives new values to a row; only inside a transaction.

        Args:
            table: Name of the table.
            *columns: All values of the row, without the checksum. The first one is the key of the row.
        """
        with self.connection() as db:
            if table not in self._column_names:
                described = db.execute(f"SELECT * FROM {table} LIMIT 0").description
                self._column_names[table] = tuple(column[0] for column in described)
            names = self._column_names[table]
            changes = ", ".join(f"{name} = ?" for name in names[1:])
            values = (*columns[1:], row_checksum(*columns), columns[0])
            db.execute(f"UPDATE {table} SET {changes} WHERE {names[0]} = ?", values)

    def delete(self, table: str, key: str, value: Any) -> None:
        """Removes rows and the rows that refer to them; only inside a transaction.

        Args:
            table: Name of the table.
            key: Name of a column.
            value: The value in this column of the rows to remove.
        """
        with self.connection() as db:
            db.execute(f"DELETE FROM {table} WHERE {key} = ?", (value,))

    def last_key(self, table: str) -> int:
        """Returns the highest key that an AUTOINCREMENT table ever had, removed rows included; 0 for an empty table.

        Args:
            table: Name of the table.
        """
        found = self.rows("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,))
        return int(found[0][0]) if found else 0

    def vacuum(self) -> None:
        """Returns the pages of removed rows to the file system."""
        with self.connection() as db:
            db.execute("VACUUM")

    def check_in_place(self) -> None:
        """Raises ``MapError`` if the file was removed or replaced after it was opened.

        SQLite continues to write into a file that has no name any more, and all of it would be lost.
        """
        found = _file_identity(self.path)
        if found != self._identity:
            what = "removed" if found is None else "replaced by another file"
            raise MapError(f"map {self.path} was {what} while it was open: nothing can be written to it")


def _file_identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
