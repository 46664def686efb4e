"""The keyframe database: what is written when and how it is read back.

One row a keyframe in ``keyframes`` (what retrieval scans), one in ``points`` (what the
estimator loads for the few keyframes retrieved), one in ``thumbnails``.  Every row carries a
checksum over all its columns: a damaged row is refused, never silently used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from nre_ros.errors import FeatureMismatchError, MapError, MapFormatError
from nre_ros.features.base import FeatureBackbone
from nre_ros.geometry import Camera
from nre_ros.keyframes.blobs import decode_array, dequantise, row_checksum
from nre_ros.keyframes.cache import KeyframeCache
from nre_ros.keyframes.database import create_database, sidecars
from nre_ros.keyframes.info import MapInfo, describe
from nre_ros.keyframes.parts import delete_parts, read_parts, write_parts
from nre_ros.keyframes.records import (
    DIMENSIONS, KeyframeScan, camera_columns, camera_of, check_keyframe, keyframe_columns, keyframe_of, moved_columns,
    point_columns, scan_of,
)
from nre_ros.keyframes.descriptor import GLOBAL_DESCRIPTOR
from nre_ros.keyframes.tables import MapTables
from nre_ros.keyframes.types import Keyframe

CACHE_BYTES = 128 << 20
"""Of keyframes in memory; one of 500 points takes 0.35 MB."""
_BATCH = 1024
_EVERY_ID = (1 << 63) - 1


@dataclass(frozen=True)
class MapChanges:
    """What became of a map since an earlier ``position``: ids of keyframes added, changed, removed.

    A keyframe that came and went in between may be among the removed; one that was added and
    changed is among the added alone.
    """

    position: tuple[int, int]
    added: tuple[int, ...]
    changed: tuple[int, ...]
    removed: tuple[int, ...]


class KeyframeStore:
    """A map file.  Make one with ``create``, read it with ``open``; a context manager closes it.

    May be used from any thread; calls of several threads take turns.  All errors are
    ``MapError`` or its kinds, one line that names the file.
    """

    def __init__(self, tables: MapTables, cache_bytes: int):
        self.tables = tables
        self.path = tables.path
        self.readonly = tables.readonly
        self._cache = KeyframeCache(cache_bytes)
        self._seen = None
        self._position = (0, _EVERY_ID)
        self._cameras: dict[int, Camera] = {}

    @classmethod
    def create(
        cls, path, backbone_name: str, weights_hash: str, frame_id: str = "map", overwrite: bool = False,
        retrieval: str = GLOBAL_DESCRIPTOR, source: str = "", exclusive: bool = False,
    ) -> "KeyframeStore":
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
            "frame_id": frame_id, "backbone": backbone_name, "weights_hash": weights_hash,
            "retrieval": retrieval, "created": created, "source": source,
        }
        create_database(path, [(*item, row_checksum(*item)) for item in metadata.items()])
        return cls.open(path, readonly=False, cache_bytes=0, exclusive=exclusive)

    @classmethod
    def open(
        cls, path, readonly: bool = True, cache_bytes: int = CACHE_BYTES, exclusive: bool = False
    ) -> "KeyframeStore":
        """An existing map.  ``cache_bytes``: of the keyframes kept in memory."""
        store = cls(MapTables(Path(path), readonly, exclusive), cache_bytes)
        try:
            store.metadata()
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Closes the file; a writer leaves one complete file behind.  Closing twice is allowed."""
        self.tables.close()

    def __enter__(self) -> "KeyframeStore":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __len__(self) -> int:
        count = self.metadata().get("keyframes")  # maps of version 1 do not keep it
        return self.tables.rows("SELECT COUNT(*) FROM keyframes")[0][0] if count is None else int(count)

    @property
    def revision(self) -> tuple[int, int]:
        """Changes whenever this or another process changed the map."""
        return self.tables.revision

    def metadata(self) -> dict[str, str]:
        """frame_id, backbone, weights_hash, retrieval, created, source, keyframes; dimensions once one is in."""
        found = {}
        for row in self.tables.rows("SELECT key, value, checksum FROM metadata"):
            key, value = self.tables.checked(row, f"metadata {row[0]!r}")
            found[key] = value
        missing = {"frame_id", "backbone", "weights_hash", "created"} - found.keys()
        if missing:
            raise MapFormatError(f"map {self.path} is damaged: its metadata lacks {sorted(missing)}")
        return found

    def names(self) -> dict[str, int]:
        """Keyframe name -> id, in the order of the ids."""
        return {name: keyframe_id for scan in self.scan() for name, keyframe_id in zip(scan.names, scan.ids.tolist())}

    def find(self, name: str) -> int | None:
        """Id of the keyframe of that name, None if there is none."""
        found = self.tables.rows("SELECT id FROM keyframes WHERE name = ?", (name,))
        return found[0][0] if found else None

    def check_features(self, backbone: FeatureBackbone) -> None:
        """Raises ``FeatureMismatchError`` unless the map was made with this backbone and weights."""
        metadata = self.metadata()
        made_with = (metadata["backbone"], metadata["weights_hash"])
        if made_with != (backbone.name, backbone.weights_hash):
            raise FeatureMismatchError(
                f"map {self.path} was made with {made_with[0]} (weights {made_with[1][:12]}), not with "
                f"{backbone.name} (weights {backbone.weights_hash[:12]}): build it again with these features"
            )

    # reading

    def get(self, keyframe_id: int) -> Keyframe:
        """The keyframe of that id with its thumbnail; ``MapError`` if there is none."""
        with self.tables.snapshot():
            keyframe = self.load([keyframe_id])[0]
            return replace(keyframe, thumbnail=self.thumbnail(keyframe_id))

    def thumbnail(self, keyframe_id: int) -> bytes:
        """The keyframe's small picture as JPEG, empty if it has none."""
        keyframe_id = int(keyframe_id)  # SQLite takes a numpy integer for a blob
        if not self.tables.rows("SELECT 1 FROM thumbnails WHERE keyframe_id = ?", (keyframe_id,)):
            return b""
        return self.tables.row("thumbnails", "keyframe_id", keyframe_id)[1]

    def load(self, keyframe_ids: Iterable[int]) -> list[Keyframe]:
        """Keyframes in the order of the ids given, without thumbnails; from the cache where they are in it."""
        with self.tables.snapshot():
            if self.tables.writing:  # may be taken back: nothing of it is kept
                return [self._read(int(keyframe_id)) for keyframe_id in keyframe_ids]
            self._forget_changed()
            return [self._load(int(keyframe_id)) for keyframe_id in keyframe_ids]

    def coarse_descriptors(self, keyframe_id: int, count: int) -> np.ndarray:
        """Of the keyframe's first points, [<= count, C] float32; nothing else of it is decoded."""
        row = self.tables.row("points", "keyframe_id", keyframe_id)
        with self.tables.decoding():
            return dequantise(decode_array(row[3])[:count], decode_array(row[4])[:count])

    def scan(self, after: int = 0, batch: int = _BATCH) -> Iterator[KeyframeScan]:
        """All keyframes with ids above ``after`` in the order of their ids, ``batch`` at a time, without points."""
        query = "SELECT * FROM keyframes WHERE id > ? ORDER BY id LIMIT ?"
        while rows := self.tables.rows(query, (after, batch)):
            yield self._scanned(rows)
            after = rows[-1][0]

    def scan_ids(self, keyframe_ids: Iterable[int]) -> Iterator[KeyframeScan]:
        """The same of chosen keyframes, in the order of their ids; those that the map lacks are left out."""
        ids = sorted({int(keyframe_id) for keyframe_id in keyframe_ids})
        for start in range(0, len(ids), _BATCH // 2):
            part = ids[start : start + _BATCH // 2]
            marks = ", ".join("?" * len(part))
            rows = self.tables.rows(f"SELECT * FROM keyframes WHERE id IN ({marks}) ORDER BY id", part)
            if rows:
                yield self._scanned(rows)

    def global_descriptors(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All keyframes: ids [M] int64, T_map_cam [M, 4, 4] float64, global descriptors [M, D] float32."""
        with self.tables.snapshot():
            scans = list(self.scan())
            lost = len(self) - sum(len(scan.ids) for scan in scans)
        if lost:
            what = "few" if lost > 0 else "many"
            raise MapFormatError(f"map {self.path} is damaged: {abs(lost)} keyframes too {what}")
        if not scans:
            return np.zeros(0, np.int64), np.zeros((0, 4, 4)), np.zeros((0, 0), np.float32)
        with self.tables.decoding():
            descriptors = np.concatenate([dequantise(scan.descriptors, scan.scales) for scan in scans])
        return np.concatenate([s.ids for s in scans]), np.concatenate([s.poses for s in scans]), descriptors

    def changes(self, since: tuple[int, int] = (0, 0)) -> MapChanges:
        """What this and other processes did to the map since the ``position`` of earlier changes.

        Without ``since``: every keyframe counts as added.
        """
        revision, last = since
        tables = self.tables
        with tables.snapshot():
            added = [row[0] for row in tables.rows("SELECT id FROM keyframes WHERE id > ? ORDER BY id", (last,))]
            position = (revision, max(last, tables.last_key("keyframes")))
            if tables.version < 2:
                return MapChanges(position, tuple(added), (), ())
            rows = tables.rows("SELECT * FROM changes WHERE revision > ? ORDER BY revision", (revision,))
            touched = [tables.checked(row, f"changes {row[0]}")[1] for row in rows]
            there = {i for i in touched if tables.rows("SELECT 1 FROM keyframes WHERE id = ?", (i,))}
            position = (max(revision, tables.last_key("changes")), position[1])
        changed = sorted(i for i in there if i <= last)
        return MapChanges(position, tuple(added), tuple(changed), tuple(sorted(set(touched) - there)))

    def info(self) -> MapInfo:
        """The map's description, see ``MapInfo``."""
        return describe(self)

    def read_index(self) -> bytes | None:
        """What ``write_index`` wrote last, None if there is nothing; ``MapFormatError`` when it is damaged."""
        return read_parts(self.tables)

    # writing

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

    def copy_from(self, other: "KeyframeStore", keyframe_id: int, name: str = "", thumbnail: bool = True) -> int:
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

    def _scanned(self, rows: list[tuple]) -> KeyframeScan:
        checked = [self.tables.checked(row, f"keyframe {row[0]}") for row in rows]
        with self.tables.decoding():
            return scan_of(checked)

    def _forget_changed(self) -> None:
        """Takes out of the cache what has changed since it was read."""
        revision = self.revision
        if revision == self._seen:
            return
        try:
            changes = self.changes(self._position)
            self._cache.drop((*changes.changed, *changes.removed))
            self._position = changes.position
        except MapFormatError:  # the list of changes is damaged: the keyframes need not be
            self._cache.clear()
        self._seen = revision

    def _load(self, keyframe_id: int) -> Keyframe:
        keyframe = self._cache.get(keyframe_id)
        if keyframe is None:
            keyframe = self._read(keyframe_id)
            self._cache.put(keyframe)
        return keyframe

    def _read(self, keyframe_id: int) -> Keyframe:
        columns = self._columns(keyframe_id)[1:]
        points = self.tables.row("points", "keyframe_id", keyframe_id)[1:]
        camera = self.camera(columns[2])
        with self.tables.decoding():
            return keyframe_of(keyframe_id, columns, points, camera)

    def _columns(self, keyframe_id: int) -> tuple:
        """The checked row of a keyframe; ``MapError`` if there is none."""
        keyframe_id = int(keyframe_id)
        if not self.tables.rows("SELECT 1 FROM keyframes WHERE id = ?", (keyframe_id,)):
            raise MapError(f"map {self.path} has no keyframe {keyframe_id}")
        return self.tables.row("keyframes", "id", keyframe_id)

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

    def camera(self, camera_id: int) -> Camera:
        """The camera of a row of ``scan``."""
        if camera_id not in self._cameras:
            columns = self.tables.row("cameras", "id", camera_id)[1:]
            with self.tables.decoding():
                self._cameras[camera_id] = camera_of(columns)
        return self._cameras[camera_id]
