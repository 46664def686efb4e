# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The keyframe database: what is written when (``reading`` is how it is read back).

One row a keyframe in ``keyframes`` (what retrieval scans), one in ``points`` (what the
estimator loads for the few keyframes retrieved), one in ``thumbnails``.  Every row carries a
checksum over all its columns: a damaged row is refused, never silently used.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from nre_ros.errors import MapError
from nre_ros.geometry import Camera
from nre_ros.keyframes.retrieval.global_descriptor import GLOBAL_DESCRIPTOR
from nre_ros.keyframes.storage.blobs import row_checksum
from nre_ros.keyframes.storage.chunks import delete_parts, write_parts
from nre_ros.keyframes.storage.database import create_database, sidecars
from nre_ros.keyframes.storage.reader import MapReader
from nre_ros.keyframes.storage.records import (
    DIMENSIONS,
    camera_columns,
    check_keyframe,
    keyframe_columns,
    keyframe_of,
    moved_columns,
    point_columns,
)
from nre_ros.keyframes.storage.tables import MapTables
from nre_ros.keyframes.types import Keyframe

CACHE_BYTES = 128 << 20
"""Of keyframes in memory; one of 500 points takes 0.35 MB."""


class KeyframeStore(MapReader):
    """A map file.  Make one with ``create``, read it with ``open``; a context manager closes it.

    May be used from any thread; calls of several threads take turns.  All errors are
    ``MapError`` or its kinds, one line that names the file.
    """

    @classmethod
    def create(
        cls,
        path,
        backbone_name: str,
        weights_hash: str,
        frame_id: str = "map",
        overwrite: bool = False,
        retrieval: str = GLOBAL_DESCRIPTOR,
        source: str = "",
        exclusive: bool = False,
    ) -> KeyframeStore:
        """An empty map that keyframes can be added to.

        frame_id: name of the map's frame; retrieval: name of the global descriptor in use;
        source: free text about where the map comes from; exclusive: no one else may open it meanwhile.
        Raises ``MapError`` if the file exists and ``overwrite`` is not set.
        """
        path = Path(path)
        if path.exists() and not overwrite:
            raise MapError(f"map {path} exists already, it is not overwritten")
        try:
            for old in (path, *sidecars(path)):
                old.unlink(missing_ok=True)
        except OSError as error:
            raise MapError(f"map {path} cannot be replaced: {error.strerror}") from error
        created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        metadata = {
            "frame_id": frame_id,
            "backbone": backbone_name,
            "weights_hash": weights_hash,
            "retrieval": retrieval,
            "created": created,
            "source": source,
        }
        create_database(path, [(*item, row_checksum(*item)) for item in metadata.items()])
        return cls.open(path, readonly=False, cache_bytes=0, exclusive=exclusive)

    @classmethod
    def open(
        cls, path, readonly: bool = True, cache_bytes: int = CACHE_BYTES, exclusive: bool = False
    ) -> KeyframeStore:
        """An existing map.  ``cache_bytes``: of the keyframes kept in memory."""
        store = cls(MapTables(Path(path), readonly, exclusive), cache_bytes)
        try:
            store.metadata()
        except BaseException:
            store.close()
            raise
        return store

    @contextmanager
    def batch(self):
        """Changes within it are one transaction: all of them are made, or none if an error leaves it."""
        with self.tables.transaction():
            yield self

    def add(self, keyframe: Keyframe) -> int:
        """Writes one keyframe in one transaction and returns its id.

        Descriptors are kept as int8 with a scale a row.
        Raises ``MapError`` for a name that the map has already, for shapes that do not fit
        together or differ from the map's other keyframes, and for values that are not finite.
        """
        dimensions = check_keyframe(keyframe)
        with self.batch():
            columns = keyframe_columns(keyframe, self._camera_id(keyframe.camera))
            return self._insert(dimensions, columns, point_columns(keyframe), bytes(keyframe.thumbnail))

    def copy_from(self, other: KeyframeStore, keyframe_id: int, name: str = "", thumbnail: bool = True) -> int:
        """Adds a keyframe of another map as it is stored there, under another name if one is given.

        Raises as ``add`` does.
        """
        with other.tables.snapshot():
            columns = other._columns(keyframe_id)[1:]
            points = other.tables.row("points", "keyframe_id", int(keyframe_id))[1:]
            camera = other.camera(columns[2])
            jpeg = other.thumbnail(keyframe_id) if thumbnail else b""
        with other.tables.decoding():
            dimensions = check_keyframe(keyframe_of(keyframe_id, columns, points, camera))
        with self.batch():
            columns = (name or columns[0], columns[1], self._camera_id(camera), *columns[3:])
            return self._insert(dimensions, columns, points, jpeg)

    def replace(self, keyframe_id: int, keyframe: Keyframe) -> None:
        """Puts ``keyframe`` in the place of that one; the id stays.  Raises as ``add`` does."""
        dimensions = check_keyframe(keyframe)
        with self.batch():
            self._check_fits(keyframe.name, dimensions)
            keyframe_id, name = self._columns(keyframe_id)[:2]
            if name != keyframe.name:
                self._check_name_free(keyframe.name)
            self.tables.update("keyframes", keyframe_id, *keyframe_columns(keyframe, self._camera_id(keyframe.camera)))
            self.tables.update("points", keyframe_id, *point_columns(keyframe))
            self.tables.delete("thumbnails", "keyframe_id", keyframe_id)
            if keyframe.thumbnail:
                self.tables.insert("thumbnails", keyframe_id, bytes(keyframe.thumbnail))
            self._note_change(keyframe_id)

    def update_pose(self, keyframe_id: int, T_map_cam: np.ndarray, points: np.ndarray | None = None) -> None:
        """Gives a keyframe another pose [4, 4], as bundle adjustment does.

        points: [N, 3] that replace the keyframe's own one by one; without them, the points move
        along with the camera.  Raises ``MapError`` for what is not rigid, finite or of this shape.
        """
        with self.batch():
            columns = self._columns(keyframe_id)
            keyframe_id = columns[0]
            old = self.tables.row("points", "keyframe_id", keyframe_id)
            with self.tables.decoding():
                pose, xyz = moved_columns(columns, old, T_map_cam, points)
            self.tables.update("keyframes", *columns[:4], pose, *columns[5:])
            self.tables.update("points", keyframe_id, xyz, *old[2:])
            self._note_change(keyframe_id)

    def rename(self, keyframe_id: int, name: str) -> None:
        """Gives a keyframe another name; the id stays.  ``MapError`` for a name that the map has already."""
        if not name or not isinstance(name, str):
            raise MapError(f"a keyframe needs a name, got {name!r}")
        with self.batch():
            columns = self._columns(keyframe_id)
            if name != columns[1]:
                self._check_name_free(name)
                self.tables.update("keyframes", columns[0], name, *columns[2:])
                self._note_change(columns[0])

    def remove(self, keyframe_id: int) -> None:
        """Removes a keyframe; its id is never given again.  ``MapError`` if there is none of that id.

        The file keeps its size (the room is used by the next keyframes) until ``compact``.
        """
        with self.batch():
            keyframe_id = self._columns(keyframe_id)[0]
            self.tables.delete("keyframes", "id", keyframe_id)  # and what refers to it
            self._count(-1)
            self._note_change(keyframe_id)

    def compact(self) -> None:
        """Makes the file as small as its keyframes; needs as much free disk meanwhile."""
        self.tables.vacuum()

    def write_index(self, data: bytes | None) -> None:
        """Keeps the retrieval's index in the map, in one transaction; None removes it."""
        with self.batch():
            if data is None:
                delete_parts(self.tables)
            else:
                write_parts(self.tables, data)

    # helpers

    def _insert(self, dimensions: dict[str, int], columns: tuple, points: tuple, jpeg: bytes) -> int:
        name = columns[0]
        self._check_fits(name, dimensions)
        self._check_name_free(name)
        keyframe_id = self.tables.last_key("keyframes") + 1  # the id of one that was removed is not given again
        self.tables.insert("keyframes", keyframe_id, *columns)
        self.tables.insert("points", keyframe_id, *points)
        if jpeg:
            self.tables.insert("thumbnails", keyframe_id, jpeg)
        self._count(+1)
        return keyframe_id

    def _check_fits(self, name: str, dimensions: dict[str, int]) -> None:
        known = {key: int(value) for key, value in self.metadata().items() if key in DIMENSIONS}
        if not known:
            for key, value in dimensions.items():
                self.tables.insert("metadata", key, str(value))
        elif known != dimensions:
            raise MapError(f"keyframe {name!r} has {dimensions}, those of map {self.path} have {known}")

    def _check_name_free(self, name: str) -> None:
        if self.tables.rows("SELECT 1 FROM keyframes WHERE name = ?", (name,)):
            raise MapError(f"map {self.path} has a keyframe {name!r} already")

    def _count(self, step: int) -> None:
        self.tables.update("metadata", "keyframes", str(len(self) + step))

    def _note_change(self, keyframe_id: int) -> None:
        self.tables.delete("changes", "keyframe_id", keyframe_id)
        self.tables.insert("changes", self.tables.last_key("changes") + 1, keyframe_id)

    def _camera_id(self, camera: Camera) -> int:
        """The row of a camera, a new one if the map has none with the same values."""
        columns = camera_columns(camera)
        same = "SELECT id FROM cameras WHERE model = ? AND width = ? AND height = ? AND intrinsics = ?"
        found = self.tables.rows(same, columns)
        if found:
            return found[0][0]
        camera_id = self.tables.rows("SELECT COALESCE(MAX(id), 0) + 1 FROM cameras")[0][0]
        self.tables.insert("cameras", camera_id, *columns)
        return camera_id
