# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Reading a map file: metadata, keyframes by id or one after the other, and what changed since.

Every row carries a checksum over all its columns: a damaged row is refused, never silently used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from nre_ros.errors import FeatureMismatchError, MapError, MapFormatError
from nre_ros.features.base import FeatureBackbone
from nre_ros.geometry import Camera
from nre_ros.keyframes.storage.blobs import decode_array, dequantise
from nre_ros.keyframes.storage.cache import KeyframeCache
from nre_ros.keyframes.storage.chunks import read_parts
from nre_ros.keyframes.storage.records import KeyframeScan, camera_of, keyframe_of, scan_of
from nre_ros.keyframes.storage.tables import MapTables
from nre_ros.keyframes.tools.info import MapInfo, describe
from nre_ros.keyframes.types import Keyframe

_LOG = logging.getLogger(__name__)
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


class MapReader:
    """The reading half of ``KeyframeStore``, which says what holds for both."""

    def __init__(self, tables: MapTables, cache_bytes: int):
        self.tables = tables
        self.path = tables.path
        self.readonly = tables.readonly
        self._cache = KeyframeCache(cache_bytes)
        self._seen = None
        self._position = (0, _EVERY_ID)
        self._cameras: dict[int, Camera] = {}

    def close(self) -> None:
        """Closes the file; a writer leaves one complete file behind.  Closing twice is allowed."""
        self.tables.close()

    def __enter__(self):
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
            one = self._reader()
            return [one(int(keyframe_id)) for keyframe_id in keyframe_ids]

    def load_readable(self, keyframe_ids: Iterable[int]) -> list[Keyframe]:
        """The same without those that are damaged, which are logged: the others are as good as before."""
        with self.tables.snapshot():
            one, keyframes = self._reader(), []
            for keyframe_id in keyframe_ids:
                try:
                    keyframes.append(one(int(keyframe_id)))
                except MapFormatError as error:
                    _LOG.warning("left out: %s", error)
            return keyframes

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

    # helpers

    def camera(self, camera_id: int) -> Camera:
        """The camera of a row of ``scan``."""
        camera = self._cameras.get(camera_id)
        if camera is None:
            columns = self.tables.row("cameras", "id", camera_id)[1:]
            with self.tables.decoding():
                camera = camera_of(columns)
            if not self.tables.writing:  # else it may be taken back, and its id given again
                self._cameras[camera_id] = camera
        return camera

    def _scanned(self, rows: list[tuple]) -> KeyframeScan:
        checked = [self.tables.checked(row, f"keyframe {row[0]}") for row in rows]
        with self.tables.decoding():
            return scan_of(checked)

    def _reader(self) -> Callable[[int], Keyframe]:
        """What reads one keyframe within this snapshot."""
        if self.tables.writing:  # may be taken back: nothing of it is kept
            return self._read
        self._forget_changed()
        return self._load

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
