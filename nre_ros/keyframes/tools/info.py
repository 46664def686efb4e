# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Description of a map in figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nre_ros.geometry import Camera
from nre_ros.keyframes.storage.map_file import sidecars
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.storage.validation import DIMENSIONS

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
"""Table -> SQL expression of the bytes of a row, and the first schema version with this table."""


@dataclass(frozen=True)
class MapInfo:
    """What ``nre_ros map info`` shows.

    Attributes:
        path: The map file.
        frame_id: Name of the map's frame.
        backbone: Name of the features.
        weights_hash: SHA-256 of the network's weights.
        retrieval: Name of the global descriptor.
        created: Time of creation, ISO 8601.
        source: What the importer wrote about the origin of the map, usually JSON.
        schema_version: Version of the file format.
        keyframes: Number of keyframes.
        points: Number of points.
        file_bytes: Size of the file and its log.
        table_bytes: Size of the values of each table, without SQLite's own structures.
        dimensions: The lengths of ``storage.validation.DIMENSIONS``.
        cameras: The cameras of the keyframes.
        origin: [3] about which poses and points are stored, in the map's frame; zero unless the map is far from it.
        positions: [2, 3] lowest and highest coordinates of the camera centres, None for an empty map.
        warning: Why the importer doubts the poses; empty if it does not.
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
    origin: npt.NDArray[np.float64]
    positions: npt.NDArray[np.float64] | None
    warning: str = ""

    @property
    def thumbnail_bytes(self) -> int:
        """Size of all thumbnails."""
        return self.table_bytes["thumbnails"]

    @property
    def bytes_per_keyframe(self) -> int:
        """Size of the file by keyframe, without thumbnails and the retrieval index; 0 for an empty map."""
        rest = self.file_bytes - self.thumbnail_bytes - self.table_bytes.get("retrieval_index", 0)
        return rest // self.keyframes if self.keyframes else 0


def describe_map(store: KeyframeStore) -> MapInfo:
    """Describes a map; reads every row of the table ``keyframes`` and the lengths of the other rows.

    Args:
        store: The map.

    Returns:
        The description.

    Raises:
        MapFormatError: The metadata, a keyframe or a camera is damaged.
    """
    database = store.database
    with store.snapshot():
        metadata, version, origin = store.metadata(), database.version, store.origin
        keyframes = points = 0
        bounds = []
        for scan in store.scan():
            keyframes += len(scan.ids)
            points += int(scan.point_counts.sum())
            bounds += [scan.poses[:, :3, 3].min(0), scan.poses[:, :3, 3].max(0)]
        cameras = store.cameras()
        table_bytes = {
            table: database.rows(f"SELECT COALESCE(SUM({size}), 0) FROM {table}")[0][0]
            for table, (size, since) in _TABLES.items()
            if version >= since
        }
    return MapInfo(
        path=store.path,
        frame_id=metadata["frame_id"],
        backbone=metadata["backbone"],
        weights_hash=metadata["weights_hash"],
        retrieval=metadata.get("retrieval", ""),
        warning=metadata.get("warning", ""),
        created=metadata["created"],
        source=metadata.get("source", ""),
        schema_version=version,
        keyframes=keyframes,
        points=points,
        file_bytes=sum(file.stat().st_size for file in (store.path, sidecars(store.path)[0]) if file.exists()),
        table_bytes=table_bytes,
        dimensions={key: int(value) for key, value in metadata.items() if key in DIMENSIONS},
        cameras=cameras,
        origin=origin,
        positions=np.stack([np.min(bounds, 0), np.max(bounds, 0)]) if bounds else None,
    )
