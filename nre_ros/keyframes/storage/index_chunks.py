# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The retrieval index in a map file: one long value in rows of some megabytes.

SQLite refuses a blob of 1 GB, and a row is read as a whole.
"""

from __future__ import annotations

from nre_ros.errors import MapFormatError
from nre_ros.keyframes.storage.database import MapDatabase

_CHUNK_BYTES = 4 << 20


def write_index_chunks(database: MapDatabase, data: bytes | bytearray | memoryview) -> None:
    """Replaces the stored index in one transaction.

    Every chunk but the last is full and the last is not, so that a missing chunk is noticed.

    Args:
        database: The map, open for writing.
        data: The new index.
    """
    view = memoryview(data).cast("B")
    with database.transaction():
        delete_index_chunks(database)
        for number in range(len(view) // _CHUNK_BYTES + 1):
            chunk = view[number * _CHUNK_BYTES : (number + 1) * _CHUNK_BYTES]
            database.insert("retrieval_index", number, bytes(chunk))


def delete_index_chunks(database: MapDatabase) -> None:
    """Removes the stored index; only inside a transaction.

    Args:
        database: The map, open for writing.
    """
    database.rows("DELETE FROM retrieval_index")


def read_index_chunks(database: MapDatabase) -> bytes | None:
    """Reads the stored index.

    Args:
        database: The map.

    Returns:
        The index; None if there is none.

    Raises:
        MapFormatError: A chunk is damaged or missing.
    """
    if database.version < 2:
        return None
    rows = database.rows("SELECT * FROM retrieval_index ORDER BY part")
    if not rows:
        return None
    chunks = [database.verified(row, f"retrieval_index {row[0]}") for row in rows]
    full = [len(data) == _CHUNK_BYTES for _, data in chunks]
    complete = full == [True] * (len(chunks) - 1) + [False]
    if [number for number, _ in chunks] != list(range(len(chunks))) or not complete:
        raise MapFormatError(f"map {database.path} is damaged: a part of its retrieval index is missing")
    return b"".join(data for _, data in chunks)
