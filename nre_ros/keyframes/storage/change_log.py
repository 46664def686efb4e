# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which keyframes of a map were added, changed or removed since an earlier moment.

Caches and indexes use the log to follow a map that this or another process changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from nre_ros.keyframes.storage.database import MapDatabase

Position = tuple[int, int]
"""A moment in a map's history: the last revision of table ``changes`` and the highest keyframe id so far."""

START: Position = (0, 0)
"""The moment before the first keyframe."""


@dataclass(frozen=True)
class MapChanges:
    """What became of a map's keyframes since an earlier position.

    A keyframe that was added and removed in between may be among the removed. A keyframe that was added and changed is
    among the added only.

    Attributes:
        position: The present moment, for the next query.
        added: Ids of new keyframes, ascending.
        changed: Ids of keyframes with other values, ascending.
        removed: Ids of keyframes that no longer exist, ascending.
    """

    position: Position
    added: tuple[int, ...]
    changed: tuple[int, ...]
    removed: tuple[int, ...]


def read_changes(database: MapDatabase, since: Position) -> MapChanges:
    """Reads the changes since a position; since ``START`` every keyframe counts as added.

    Args:
        database: The map.
        since: The ``position`` of earlier changes.

    Returns:
        The changes.

    Raises:
        MapFormatError: A row is damaged.
    """
    revision, last = since
    with database.snapshot():
        added = [row[0] for row in database.rows("SELECT id FROM keyframes WHERE id > ? ORDER BY id", (last,))]
        last_id = max(last, database.last_key("keyframes"))
        if database.version < 2:
            return MapChanges((revision, last_id), tuple(added), (), ())
        rows = database.rows("SELECT * FROM changes WHERE revision > ? ORDER BY revision", (revision,))
        touched = [database.verified(row, f"changes {row[0]}")[1] for row in rows]
        existing = {i for i in touched if database.rows("SELECT 1 FROM keyframes WHERE id = ?", (i,))}
        position = (max(revision, database.last_key("changes")), last_id)
    changed = sorted(i for i in existing if i <= last)
    return MapChanges(position, tuple(added), tuple(changed), tuple(sorted(set(touched) - existing)))


def record_change(database: MapDatabase, keyframe_id: int) -> None:
    """Records that a keyframe was changed or removed; only inside a transaction.

    Args:
        database: The map.
        keyframe_id: Id of the keyframe.
    """
    database.delete("changes", "keyframe_id", keyframe_id)
    database.insert("changes", database.last_key("changes") + 1, keyframe_id)
