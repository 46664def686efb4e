# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One long value, the retrieval index, in rows of some megabytes: each with its checksum, written as one."""

from __future__ import annotations

from nre_ros.errors import MapFormatError
from nre_ros.keyframes.storage.tables import MapTables

PART_BYTES = 4 << 20
"""SQLite refuses a blob of 1 GB, and a row is read as a whole."""


def write_parts(tables: MapTables, data: bytes) -> None:
    """Puts ``data`` in the place of what there was, in one transaction.

    Every part but the last is full and the last is not, so that one that is missing is noticed.
    """
    view = memoryview(data).cast("B")
    with tables.transaction():
        delete_parts(tables)
        for part in range(len(view) // PART_BYTES + 1):
            tables.insert("retrieval_index", part, bytes(view[part * PART_BYTES : (part + 1) * PART_BYTES]))


def delete_parts(tables: MapTables) -> None:
    """Removes the value.  Within a transaction."""
    tables.rows("DELETE FROM retrieval_index")


def read_parts(tables: MapTables) -> bytes | None:
    """The value as it was written, None if there is none; ``MapFormatError`` when it is damaged."""
    if tables.version < 2:
        return None
    rows = tables.rows("SELECT * FROM retrieval_index ORDER BY part")
    if not rows:
        return None
    parts = [tables.checked(row, f"retrieval_index {row[0]}") for row in rows]
    full = [len(data) == PART_BYTES for _, data in parts]
    if [part for part, _ in parts] != list(range(len(parts))) or full != [True] * (len(parts) - 1) + [False]:
        raise MapFormatError(f"map {tables.path} is damaged: a part of its retrieval index is missing")
    return b"".join(data for _, data in parts)
