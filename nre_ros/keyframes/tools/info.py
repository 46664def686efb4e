# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a map holds, in figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nre_ros.geometry import Camera
from nre_ros.keyframes.storage.database import sidecars
from nre_ros.keyframes.storage.records import DIMENSIONS

if TYPE_CHECKING:
    from nre_ros.keyframes.storage.store import KeyframeStore

_TABLES = {
    "keyframes": ("LENGTH(name) + LENGTH(pose) + LENGTH(global_descriptor)", 1),
    "points": (
        "LENGTH(xyz) + COALESCE(LENGTH(source_ids), 0) + LENGTH(coarse) + LENGTH(coarse_scale) + LENGTH(fine) "
        "+ LENGTH(fine_scale) + LENGTH(background) + LENGTH(background_scale)",
        1,
    ),
    "thumbnails": ("LENGTH(jpeg)", 1),
    "retrieval_index": ("LENGTH(data)", 2),
}
"""Table -> what counts as its bytes, and the schema version that has it."""


@dataclass(frozen=True)
class MapInfo:
    """What ``nre_ros map info`` shows.

    ``positions`` are the camera centres' bounds [2, 3] (None: empty map); ``table_bytes`` the
    values of each table, without what SQLite needs around them; ``source`` what the importer wrote.
    """

    path: Path
    frame_id: str
    backbone: str
    weights_hash: str
    retrieval: str
    created: str
    source: str
    schema_version: int
    keyframes: int
    points: int
    file_bytes: int
    table_bytes: dict[str, int]
    dimensions: dict[str, int]
    cameras: tuple[Camera, ...]
    positions: np.ndarray | None

    @property
    def thumbnail_bytes(self) -> int:
        return self.table_bytes["thumbnails"]

    @property
    def bytes_per_keyframe(self) -> int:
        """File over keyframes, without thumbnails and the retrieval index; 0 of an empty map."""
        rest = self.file_bytes - self.thumbnail_bytes - self.table_bytes.get("retrieval_index", 0)
        return rest // self.keyframes if self.keyframes else 0


def describe(store: KeyframeStore) -> MapInfo:
    """The map's description; reads every row of ``keyframes``, and of the others their lengths."""
    tables = store.tables
    with tables.snapshot():
        metadata, version = store.metadata(), tables.version
        keyframes = points = 0
        bounds = []
        for scan in store.scan():
            keyframes += len(scan.ids)
            points += int(scan.point_counts.sum())
            bounds += [scan.poses[:, :3, 3].min(0), scan.poses[:, :3, 3].max(0)]
        cameras = tuple(store.camera(row[0]) for row in tables.rows("SELECT id FROM cameras ORDER BY id"))
        table_bytes = {
            table: tables.rows(f"SELECT COALESCE(SUM({size}), 0) FROM {table}")[0][0]
            for table, (size, since) in _TABLES.items()
            if version >= since
        }
    return MapInfo(
        path=store.path,
        frame_id=metadata["frame_id"],
        backbone=metadata["backbone"],
        weights_hash=metadata["weights_hash"],
        retrieval=metadata.get("retrieval", ""),
        created=metadata["created"],
        source=metadata.get("source", ""),
        schema_version=version,
        keyframes=keyframes,
        points=points,
        file_bytes=sum(file.stat().st_size for file in (store.path, sidecars(store.path)[0]) if file.exists()),
        table_bytes=table_bytes,
        dimensions={key: int(value) for key, value in metadata.items() if key in DIMENSIONS},
        cameras=cameras,
        positions=np.stack([np.min(bounds, 0), np.max(bounds, 0)]) if bounds else None,
    )
