"""The keyframe database: what is written when and how it is read back.

One row a keyframe in ``keyframes`` (what retrieval scans), one in ``points`` (what the
estimator loads for the few keyframes retrieved), one in ``thumbnails``.  Every row carries a
checksum over all its columns: a damaged row is refused, never silently used.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from nre_ros.errors import FeatureMismatchError, MapError, MapFormatError
from nre_ros.features.base import FeatureBackbone
from nre_ros.geometry import Camera
from nre_ros.keyframes.blobs import decode_stack, dequantise, row_checksum
from nre_ros.keyframes.database import (
    SCHEMA_VERSION, close_writer, create_database, map_errors, open_database, sidecars,
)
from nre_ros.keyframes.records import (
    DIMENSIONS, camera_columns, camera_of, check_keyframe, keyframe_columns, keyframe_of, point_columns,
)
from nre_ros.keyframes.retrieval import GLOBAL_DESCRIPTOR
from nre_ros.keyframes.types import Keyframe


@dataclass(frozen=True)
class MapInfo:
    """What ``nre_ros map info`` shows.  ``positions`` are the camera centres' bounds [2, 3] (None: empty map)."""

    path: Path
    frame_id: str
    backbone: str
    weights_hash: str
    retrieval: str
    created: str
    schema_version: int
    keyframes: int
    points: int
    file_bytes: int
    thumbnail_bytes: int
    dimensions: dict[str, int]
    cameras: tuple[Camera, ...]
    positions: np.ndarray | None


class KeyframeStore:
    """A map file.  Make one with ``create``, read it with ``open``; a context manager closes it.

    May be used from any thread; calls of several threads take turns.  All errors are
    ``MapError`` or its kinds, one line that names the file.
    """

    def __init__(self, path: Path, db: sqlite3.Connection, readonly: bool, cache_size: int):
        self.path = path
        self.readonly = readonly
        self._db: sqlite3.Connection | None = db
        self._lock = threading.RLock()
        self._cache: OrderedDict[int, Keyframe] = OrderedDict()
        self._cache_size = cache_size
        self._cache_revision = None
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
        return cls.open(path, readonly=False, cache_size=0, exclusive=exclusive)

    @classmethod
    def open(cls, path, readonly: bool = True, cache_size: int = 256, exclusive: bool = False) -> "KeyframeStore":
        """An existing map.  ``cache_size``: keyframes kept in memory (about 0.35 MB each)."""
        path = Path(path)
        store = cls(path, open_database(path, readonly, exclusive), readonly, cache_size)
        try:
            store.metadata()
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Closes the file; a writer leaves one complete file behind.  Closing twice is allowed."""
        with self._lock:
            db, self._db = self._db, None
            if db is None:
                return
            with map_errors(self.path):
                db.close() if self.readonly else close_writer(db)

    def __enter__(self) -> "KeyframeStore":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __len__(self) -> int:
        return self._rows("SELECT COUNT(*) FROM keyframes")[0][0]

    @property
    def revision(self) -> tuple[int, int]:
        """Changes whenever this or another process changed the map."""
        with self._errors():
            return self._db.execute("PRAGMA data_version").fetchone()[0], self._db.total_changes

    def metadata(self) -> dict[str, str]:
        """frame_id, backbone, weights_hash, retrieval, created, source; dimensions once a keyframe is in."""
        found = {}
        for key, value, checksum in self._rows("SELECT key, value, checksum FROM metadata"):
            self._verify(checksum, (key, value), f"metadata {key!r}")
            found[key] = value
        missing = {"frame_id", "backbone", "weights_hash", "created"} - found.keys()
        if missing:
            raise MapFormatError(f"map {self.path} is damaged: its metadata lacks {sorted(missing)}")
        return found

    def names(self) -> dict[str, int]:
        """Keyframe name -> id, in the order of the ids."""
        return dict(self._rows("SELECT name, id FROM keyframes ORDER BY id"))

    def check_features(self, backbone: FeatureBackbone) -> None:
        """Raises ``FeatureMismatchError`` unless the map was made with this backbone and weights."""
        metadata = self.metadata()
        made_with = (metadata["backbone"], metadata["weights_hash"])
        if made_with != (backbone.name, backbone.weights_hash):
            raise FeatureMismatchError(
                f"map {self.path} was made with {made_with[0]} (weights {made_with[1][:12]}), not with "
                f"{backbone.name} (weights {backbone.weights_hash[:12]}): build it again with these features"
            )

    def add(self, keyframe: Keyframe) -> int:
        """Writes one keyframe in one transaction and returns its id.

        Descriptors are kept as int8 with a scale a row.
        Raises ``MapError`` for a name that the map has already, for shapes that do not fit
        together or differ from the map's other keyframes, and for values that are not finite.
        """
        if self.readonly:
            raise MapError(f"map {self.path} is open for reading only")
        dimensions = check_keyframe(keyframe)
        with self._transaction():
            known = {key: int(value) for key, value in self.metadata().items() if key in dimensions}
            if not known:
                for key, value in dimensions.items():
                    self._set_metadata(key, str(value))
            elif known != dimensions:
                raise MapError(f"keyframe {keyframe.name!r} has {dimensions}, those of map {self.path} have {known}")
            if self._db.execute("SELECT 1 FROM keyframes WHERE name = ?", (keyframe.name,)).fetchone():
                raise MapError(f"map {self.path} has a keyframe {keyframe.name!r} already")
            return self._insert(keyframe)

    def get(self, keyframe_id: int) -> Keyframe:
        """The keyframe of that id with its thumbnail; ``MapError`` if there is none."""
        keyframe = self.load([keyframe_id])[0]
        if not self._rows("SELECT 1 FROM thumbnails WHERE keyframe_id = ?", (keyframe.id,)):
            return keyframe
        return replace(keyframe, thumbnail=self._row("thumbnails", "keyframe_id", keyframe.id)[1])

    def load(self, keyframe_ids: Iterable[int]) -> list[Keyframe]:
        """Keyframes in the order of the ids given, without thumbnails; from the cache where they are in it."""
        with self._lock:
            revision = self.revision
            if revision != self._cache_revision:
                self._cache.clear()
                self._cache_revision = revision
            return [self._load(int(keyframe_id)) for keyframe_id in keyframe_ids]

    def global_descriptors(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All keyframes: ids [M] int64, T_map_cam [M, 4, 4] float64, global descriptors [M, D] float32."""
        rows = self._rows(
            "SELECT * FROM keyframes ORDER BY id"
        )
        if not rows:
            return np.zeros(0, np.int64), np.zeros((0, 4, 4)), np.zeros((0, 0), np.float32)
        for *columns, checksum in rows:
            self._verify(checksum, columns, f"keyframe {columns[0]}")
        with self._decoding():
            poses = decode_stack([row[4] for row in rows])
            scales = np.array([row[6] for row in rows], np.float32)
            descriptors = dequantise(decode_stack([row[5] for row in rows]), scales)
        return np.array([row[0] for row in rows], np.int64), poses, descriptors

    def info(self) -> MapInfo:
        """The map's description, see ``MapInfo``."""
        metadata = self.metadata()
        _, poses, _ = self.global_descriptors()
        bounds = np.stack([poses[:, :3, 3].min(0), poses[:, :3, 3].max(0)]) if len(poses) else None
        camera_ids = [row[0] for row in self._rows("SELECT id FROM cameras ORDER BY id")]
        return MapInfo(
            path=self.path, frame_id=metadata["frame_id"], backbone=metadata["backbone"],
            weights_hash=metadata["weights_hash"], retrieval=metadata.get("retrieval", ""),
            created=metadata["created"], schema_version=SCHEMA_VERSION, keyframes=len(poses),
            points=self._rows("SELECT COALESCE(SUM(point_count), 0) FROM keyframes")[0][0],
            file_bytes=sum(file.stat().st_size for file in (self.path, sidecars(self.path)[0]) if file.exists()),
            thumbnail_bytes=self._rows("SELECT COALESCE(SUM(LENGTH(jpeg)), 0) FROM thumbnails")[0][0],
            dimensions={key: int(value) for key, value in metadata.items() if key in DIMENSIONS},
            cameras=tuple(self._camera(camera_id) for camera_id in camera_ids), positions=bounds,
        )

    @contextmanager
    def _errors(self):
        with self._lock:
            if self._db is None:
                raise MapError(f"map {self.path} is closed")
            with map_errors(self.path):
                yield

    @contextmanager
    def _decoding(self):
        try:
            yield
        except ValueError as error:
            raise MapFormatError(f"map {self.path} is damaged: {error}") from error

    @contextmanager
    def _transaction(self):
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _rows(self, query: str, parameters=()) -> list[tuple]:
        with self._errors():
            return self._db.execute(query, parameters).fetchall()

    def _verify(self, checksum: int, columns, what: str) -> None:
        if row_checksum(*columns) != checksum:
            raise MapFormatError(f"map {self.path} is damaged: the checksum of {what} is wrong")

    def _set_metadata(self, key: str, value: str) -> None:
        self._insert_row("metadata", key, value)

    def _insert_row(self, table: str, *columns) -> None:
        marks = ", ".join("?" * (len(columns) + 1))
        self._db.execute(f"INSERT INTO {table} VALUES ({marks})", (*columns, row_checksum(*columns)))

    def _insert(self, keyframe: Keyframe) -> int:
        # AUTOINCREMENT's counter: the id of a keyframe that was removed is never given again
        counter = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'keyframes'").fetchone()
        keyframe_id = counter[0] + 1 if counter else 1
        columns = keyframe_columns(keyframe, self._camera_id(keyframe.camera))
        self._insert_row("keyframes", keyframe_id, *columns)
        self._insert_row("points", keyframe_id, *point_columns(keyframe))
        if keyframe.thumbnail:
            self._insert_row("thumbnails", keyframe_id, bytes(keyframe.thumbnail))
        return keyframe_id

    def _camera_id(self, camera: Camera) -> int:
        """The row of a camera, a new one if the map has none with the same values."""
        columns = camera_columns(camera)
        same = "SELECT id FROM cameras WHERE model = ? AND width = ? AND height = ? AND intrinsics = ?"
        found = self._db.execute(same, columns).fetchone()
        if found:
            return found[0]
        camera_id = self._db.execute("SELECT COALESCE(MAX(id), 0) + 1 FROM cameras").fetchone()[0]
        self._insert_row("cameras", camera_id, *columns)
        return camera_id

    def _row(self, table: str, key: str, value: int) -> tuple:
        """The one verified row, without its checksum."""
        rows = self._rows(f"SELECT * FROM {table} WHERE {key} = ?", (value,))
        if not rows:
            raise MapFormatError(f"map {self.path} is damaged: {table} has no row {value}")
        *columns, checksum = rows[0]
        self._verify(checksum, columns, f"{table} {value}")
        return tuple(columns)

    def _camera(self, camera_id: int) -> Camera:
        if camera_id not in self._cameras:
            columns = self._row("cameras", "id", camera_id)[1:]
            with self._decoding():
                self._cameras[camera_id] = camera_of(columns)
        return self._cameras[camera_id]

    def _load(self, keyframe_id: int) -> Keyframe:
        if keyframe_id in self._cache:
            self._cache.move_to_end(keyframe_id)
            return self._cache[keyframe_id]
        keyframe = self._read(keyframe_id)
        if self._cache_size > 0:
            self._cache[keyframe_id] = keyframe
            if len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        return keyframe

    def _read(self, keyframe_id: int) -> Keyframe:
        if not self._rows("SELECT 1 FROM keyframes WHERE id = ?", (keyframe_id,)):
            raise MapError(f"map {self.path} has no keyframe {keyframe_id}")
        columns = self._row("keyframes", "id", keyframe_id)[1:]
        points = self._row("points", "keyframe_id", keyframe_id)[1:]
        camera = self._camera(columns[2])
        with self._decoding():
            return keyframe_of(keyframe_id, columns, points, camera)
