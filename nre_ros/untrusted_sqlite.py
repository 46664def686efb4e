# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How SQLite files of unknown origin are opened: maps, and bags in the storage format sqlite3."""

from __future__ import annotations

import re
from collections.abc import Iterable

UNTRUSTED_FILE_PRAGMAS = ("PRAGMA trusted_schema = OFF", "PRAGMA cell_size_check = ON", "PRAGMA mmap_size = 0")
"""What SQLite recommends for a file of unknown origin (https://www.sqlite.org/security.html): the file's schema calls no
function with side effects, every page is checked when it is read, and a file that shrinks meanwhile does no harm."""
SCHEMA_QUERY = "SELECT type, name, CAST(sql AS BLOB) FROM sqlite_master"
"""Query whose rows ``active_schema_entry`` takes; the text of a damaged file may not be UTF-8."""


def active_schema_entry(entries: Iterable[tuple[str, str, bytes | None]]) -> str:
    """Finds what makes SQLite run code of the file: a trigger, a view or a virtual table.

    Args:
        entries: The rows of ``SCHEMA_QUERY``.

    Returns:
        For example ``the view 'points'``; empty if there are only tables and indices.
    """
    for kind, name, statement in entries:
        if re.match(rb"\s*CREATE\s+VIRTUAL", statement or b"", re.IGNORECASE):
            return f"the virtual table {name!r}"
        if kind not in ("table", "index"):
            return f"the {kind} {name!r}"
    return ""
