# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The keyframe store: a map file from which keyframes are read and to which they are written."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nre_ros.errors import FeatureMismatchError, MapError, MapFormatError
from nre_ros.features.base import FeatureBackbone
from nre_ros.geometry import Camera
from nre_ros.keyframes.global_descriptor import GLOBAL_DESCRIPTOR
from nre_ros.keyframes.storage.blobs import decode_array, dequantise, is_packed, row_checksum
from nre_ros.keyframes.storage.cameras import CameraTable
from nre_ros.keyframes.storage.change_log import START, MapChanges, Position, read_changes, record_change
from nre_ros.keyframes.storage.database import MapDatabase, Row
from nre_ros.keyframes.storage.index_chunks import delete_index_chunks, read_index_chunks, write_index_chunks
from nre_ros.keyframes.storage.keyframe_cache import KeyframeCache
from nre_ros.keyframes.storage.map_file import check_replaceable, create_map_file, sidecars, write_then_rename
from nre_ros.keyframes.storage.map_origin import (
    NO_ORIGIN,
    ORIGIN_KEY,
    choose_origin,
    encode_points,
    encode_pose,
    origin_text,
    parse_origin,
)
from nre_ros.keyframes.storage.rows import (
    KeyframeScan,
    decode_keyframe,
    decode_scan,
    keyframe_columns,
    moved_columns,
    point_columns,
)
from nre_ros.keyframes.storage.schema import ORIGIN_VERSION, PACKED_VERSION, raise_version
from nre_ros.keyframes.storage.validation import DIMENSIONS, check_keyframe, check_name, is_metadata
from nre_ros.keyframes.types import Keyframe

_LOG = logging.getLogger(__name__)

CACHE_BYTES = 128 << 20
"""Memory for keyframes; a keyframe of 500 points takes 0.24 MB."""
_SCAN_ROWS = 1024
_NO_CHANGE_YET: Position = (0, (1 << 63) - 1)
"""Position from which the cache, empty as it is, need not know which keyframes were added."""
_REQUIRED_METADATA = {"frame_id", "backbone", "weights_hash", "created"}


class KeyframeStore:
    """A map file. ``create`` makes a map, ``open`` opens an existing one, and a context manager closes it.

    Every method may be called from any thread; calls of several threads take turns. A damaged row is refused with an
    error and never used. All errors are ``MapError`` or a subclass, and their message is one line that names the file.

    Attributes:
        path: The map file.
        readonly: Whether the map is open for reading only.
        database: The tables of the file, for the map tools and tests.
    """

    def __init__(self, database: MapDatabase, cache_bytes: int = CACHE_BYTES):
        """Wraps an open database, whose metadata are not checked; ``open`` is the usual way to get a store."""
        self.path = database.path
        self.readonly = database.readonly
        self.database = database
        self._cameras = CameraTable(database)
        self._cache = KeyframeCache(cache_bytes)
        self._cache_revision: tuple[int, int] | None = None
        self._cache_position = _NO_CHANGE_YET
        self._origin: npt.NDArray[np.float64] | None = None

    @classmethod
    def create(
        cls,
        path: Path | str,
        backbone_name: str,
        weights_hash: str,
        frame_id: str = "map",
        overwrite: bool = False,
        retrieval: str = GLOBAL_DESCRIPTOR,
        source: str = "",
        exclusive: bool = False,
    ) -> KeyframeStore:
        """Creates an empty map and opens it for writing.

        Args:
            path: The file to create.
            backbone_name: Name of the features.
            weights_hash: SHA-256 of the network's weights.
            frame_id: Name of the map's frame.
            overwrite: Whether to replace an existing map; a file of another kind is never replaced.
            retrieval: Name of the global descriptor.
            source: Where the map comes from, as free text or JSON.
            exclusive: Whether to keep other processes from opening the map meanwhile.

        Returns:
            The empty map; the caller closes the store.

        Raises:
            MapError: The file exists and ``overwrite`` is not set, is no map, or cannot be written.
        """
        path = Path(path)
        if path.exists() and not overwrite:
            raise MapError(f"map {path} exists already, it is not overwritten")
        check_replaceable(path)
        try:
            for old in (path, *sidecars(path)):
                old.unlink(missing_ok=True)
        except OSError as error:
            raise MapError(f"map {path} cannot be replaced: {error.strerror}") from error
        metadata = {
            "frame_id": frame_id,
            "backbone": backbone_name,
            "weights_hash": weights_hash,
            "retrieval": retrieval,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "source": source,
        }
        create_map_file(path, [(*item, row_checksum(*item)) for item in metadata.items()])
        return cls.open(path, readonly=False, cache_bytes=0, exclusive=exclusive)

    @classmethod
    def open(
        cls, path: Path | str, readonly: bool = True, cache_bytes: int = CACHE_BYTES, exclusive: bool = False
    ) -> KeyframeStore:
        """Opens an existing map.

        Args:
            path: The map file.
            readonly: Whether to open the map for reading only.
            cache_bytes: Memory for keyframes.
            exclusive: Whether a writer keeps other processes from opening the map.

        Returns:
            The map; the caller closes the store.

        Raises:
            MapError: The file is missing or cannot be read.
            MapFormatError: The file is no map, is damaged or is of a newer version.
        """
        store = cls(MapDatabase(Path(path), readonly, exclusive), cache_bytes)
        try:
            store.metadata()
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Closes the file; a writer leaves one complete file. Closing twice is allowed."""
        self.database.close()

    def __enter__(self) -> KeyframeStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # The map as a whole

    def __len__(self) -> int:
        count = self.metadata().get("keyframes")  # maps of version 1 lack it
        return int(self.database.rows("SELECT COUNT(*) FROM keyframes")[0][0] if count is None else count)

    @property
    def revision(self) -> tuple[int, int]:
        """A value that changes whenever this or another process changed the map."""
        return self.database.revision

    @property
    def writing(self) -> bool:
        """Whether this thread is inside ``batch``: what it reads may still be taken back."""
        return self.database.writing

    def metadata(self) -> dict[str, str]:
        """Returns frame_id, backbone, weights_hash, retrieval, created, source, keyframes and the ``DIMENSIONS``.

        An empty map has no dimensions and no ``origin``. Maps of version 2 have no ``origin``.
        """
        found = {}
        for row in self.database.rows("SELECT key, value, checksum FROM metadata"):
            key, value = self.database.verified(row, f"metadata {row[0]!r}")
            found[key] = value
        missing = _REQUIRED_METADATA - found.keys()
        if missing:
            raise MapFormatError(f"map {self.path} is damaged: its metadata lacks {sorted(missing)}")
        wrong = [key for key, value in found.items() if not is_metadata(key, value)]
        if wrong:
            raise MapFormatError(
                f"map {self.path} is damaged: its metadata {wrong[0]!r} is {str(found[wrong[0]])[:40]!r}"
            )
        return found

    def content_hash(self) -> str:
        """Returns a SHA-256 of cameras, keyframes and points, which changes with each of them.

        Only their checksums are read. The hash does not depend on metadata, thumbnails and the retrieval index.
        """
        tables = {"cameras": "id", "keyframes": "id", "points": "keyframe_id"}
        with self.snapshot():
            rows = [self.database.rows(f"SELECT checksum FROM {name} ORDER BY {key}") for name, key in tables.items()]
        return hashlib.sha256(repr(rows).encode()).hexdigest()

    def set_warning(self, text: str) -> None:
        """Records why the poses of the map are doubtful; ``metadata`` then has a ``warning``.

        Args:
            text: One line.
        """
        self._set_metadata("warning", text)

    def set_quality(self, text: str) -> None:
        """Stores the outcome of a check of the map (``localization/map_quality.py``), in place of an earlier one.

        Args:
            text: JSON.
        """
        self._set_metadata("quality", text)

    def _set_metadata(self, key: str, text: str) -> None:
        with self.batch():
            if key in self.metadata():
                self.database.update("metadata", key, text)
            else:
                self.database.insert("metadata", key, text)

    @property
    def origin(self) -> npt.NDArray[np.float64]:
        """Origin [3] about which poses and points are stored, in the map's frame; zero unless the map is far from it.

        The first keyframe decides. All that the store takes and returns is in the map's frame nevertheless.

        Raises:
            MapFormatError: The origin is damaged or missing.
        """
        if self._origin is not None:
            return self._origin
        database = self.database
        with self.snapshot():
            origin = NO_ORIGIN
            if database.version >= ORIGIN_VERSION:
                value = database.row("metadata", "key", ORIGIN_KEY)[1]
                with database.decoding():
                    origin = parse_origin(value)
            # the first keyframe decides, unless its transaction is rolled back
            if not self.writing and database.readable_rows("SELECT 1 FROM metadata WHERE key = ?", DIMENSIONS[:1]):
                self._origin = origin
        return origin

    def check_features(self, backbone: FeatureBackbone) -> None:
        """Checks that the map was made with a backbone and its weights.

        Args:
            backbone: The backbone.

        Raises:
            FeatureMismatchError: The map was made with other features.
        """
        metadata = self.metadata()
        name, weights_hash = metadata["backbone"], metadata["weights_hash"]
        if (name, weights_hash) == (backbone.name, backbone.weights_hash):
            return
        cure = f"rebuild it with `nre_ros map rebuild {self.path} --images IMAGES -o NEW.db`"
        if name == backbone.name and weights_hash in backbone.former_features:
            made_with = f"{backbone.former_features[weights_hash]}, which this version does not have"
        else:
            made_with = (
                f"{name} (weights {weights_hash[:12]}), not with {backbone.name} (weights {backbone.weights_hash[:12]})"
            )
            if name == backbone.name:
                cure = f"import the weights that made it (`nre_ros weights import FILE`), or {cure}"
        raise FeatureMismatchError(f"map {self.path} was made with {made_with}: {cure}")

    def changes(self, since: Position = START) -> MapChanges:
        """Returns what this and other processes changed.

        Args:
            since: The ``position`` of earlier changes; since ``START`` every keyframe counts as added.
        """
        return read_changes(self.database, since)

    def snapshot(self) -> AbstractContextManager[None]:
        """Returns a context in which all reading is of one state of the map, whatever other processes write."""
        return self.database.snapshot()

    def check_in_place(self) -> None:
        """Raises ``MapError`` if the file was removed or replaced after it was opened."""
        self.database.check_in_place()

    # Reading keyframes

    def names(self) -> dict[str, int]:
        """Returns keyframe name -> id, in the order of the ids."""
        return {name: keyframe_id for scan in self.scan() for name, keyframe_id in zip(scan.names, scan.ids.tolist())}

    def find(self, name: str) -> int | None:
        """Returns the id of a keyframe, None if there is none of this name.

        Args:
            name: Name of the keyframe.
        """
        found = self.database.rows("SELECT id FROM keyframes WHERE name = ?", (name,))
        return int(found[0][0]) if found else None

    def get(self, keyframe_id: int) -> Keyframe:
        """Returns a keyframe with its thumbnail.

        Args:
            keyframe_id: Id of the keyframe.

        Raises:
            MapError: There is no such keyframe.
            MapFormatError: The keyframe is damaged.
        """
        with self.snapshot():
            keyframe = self.load([keyframe_id])[0]
            return replace(keyframe, thumbnail=self.thumbnail(keyframe_id))

    def load(self, keyframe_ids: Iterable[int]) -> list[Keyframe]:
        """Returns keyframes without thumbnails, from the cache where possible.

        Args:
            keyframe_ids: Ids of the keyframes.

        Returns:
            The keyframes, in the order of the ids.

        Raises:
            MapError: A keyframe does not exist.
            MapFormatError: A keyframe is damaged.
        """
        with self.snapshot():
            self._update_cache()
            return [self._load(int(keyframe_id)) for keyframe_id in keyframe_ids]

    def load_readable(self, keyframe_ids: Iterable[int]) -> list[Keyframe]:
        """Does the same as ``load`` but leaves out damaged keyframes, which are logged.

        Args:
            keyframe_ids: Ids of the keyframes.

        Returns:
            The intact keyframes, in the order of the ids.

        Raises:
            MapError: A keyframe does not exist.
        """
        with self.snapshot():
            self._update_cache()
            keyframes = []
            for keyframe_id in keyframe_ids:
                try:
                    keyframes.append(self._load(int(keyframe_id)))
                except MapFormatError as error:
                    _LOG.warning("keyframe %d is left out: %s", keyframe_id, error)
            return keyframes

    def thumbnail(self, keyframe_id: int) -> bytes:
        """Returns a keyframe's thumbnail as JPEG, empty if there is none.

        Args:
            keyframe_id: Id of the keyframe.

        Raises:
            MapFormatError: The thumbnail is damaged.
        """
        keyframe_id = int(keyframe_id)  # SQLite takes a numpy integer for a blob
        if not self.database.rows("SELECT 1 FROM thumbnails WHERE keyframe_id = ?", (keyframe_id,)):
            return b""
        jpeg = self.database.row("thumbnails", "keyframe_id", keyframe_id)[1]
        if not isinstance(jpeg, bytes):
            raise MapFormatError(f"map {self.path} is damaged: the thumbnail of keyframe {keyframe_id} is no blob")
        return jpeg

    def coarse_descriptors(self, keyframe_id: int, count: int) -> npt.NDArray[np.float32]:
        """Returns the coarse descriptors of a keyframe's first points and decodes nothing else.

        Args:
            keyframe_id: Id of the keyframe.
            count: Largest number of points.

        Returns:
            [<= count, C] float32.

        Raises:
            MapFormatError: The keyframe is missing or damaged.
        """
        row = self.database.row("points", "keyframe_id", keyframe_id)
        with self.database.decoding():
            return dequantise(decode_array(row[3])[:count], decode_array(row[4])[:count])

    def scan(self, after: int = 0, batch: int = _SCAN_ROWS) -> Iterator[KeyframeScan]:
        """Reads all keyframes without their points.

        Args:
            after: Only keyframes with ids above this one are read.
            batch: Largest number of keyframes in a scan.

        Yields:
            Scans, in the order of the ids.

        Raises:
            MapFormatError: A keyframe is damaged.
        """
        query = "SELECT * FROM keyframes WHERE id > ? ORDER BY id LIMIT ?"
        while rows := self.database.rows(query, (after, batch)):
            yield self._decode_scan(rows)
            after = rows[-1][0]

    def scan_ids(self, keyframe_ids: Iterable[int]) -> Iterator[KeyframeScan]:
        """Reads some keyframes without their points.

        Args:
            keyframe_ids: Ids of the keyframes; ids that do not exist are left out.

        Yields:
            Scans, in the order of the ids.

        Raises:
            MapFormatError: A keyframe is damaged.
        """
        ids = sorted({int(keyframe_id) for keyframe_id in keyframe_ids})
        for start in range(0, len(ids), _SCAN_ROWS // 2):
            part = ids[start : start + _SCAN_ROWS // 2]
            marks = ", ".join("?" * len(part))
            rows = self.database.rows(f"SELECT * FROM keyframes WHERE id IN ({marks}) ORDER BY id", part)
            if rows:
                yield self._decode_scan(rows)

    def global_descriptors(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float32]]:
        """Returns ids [M], poses ``T_map_cam`` [M, 4, 4] and global descriptors [M, D] of all keyframes."""
        with self.snapshot():
            scans = list(self.scan())
            lost = len(self) - sum(len(scan.ids) for scan in scans)
        if lost:
            what = "few" if lost > 0 else "many"
            raise MapFormatError(f"map {self.path} is damaged: {abs(lost)} keyframes too {what}")
        if not scans:
            return np.zeros(0, np.int64), np.zeros((0, 4, 4)), np.zeros((0, 0), np.float32)
        with self.database.decoding():
            descriptors = np.concatenate([scan.global_descriptors() for scan in scans])
        return np.concatenate([s.ids for s in scans]), np.concatenate([s.poses for s in scans]), descriptors

    def camera(self, camera_id: int) -> Camera:
        """Returns the camera that a scan refers to.

        Args:
            camera_id: Id of the camera.

        Raises:
            MapFormatError: The camera is missing or damaged.
        """
        return self._cameras.get(camera_id)

    def cameras(self) -> tuple[Camera, ...]:
        """Returns all cameras of the map."""
        return self._cameras.all()

    # Writing keyframes

    @contextmanager
    def batch(self) -> Iterator[KeyframeStore]:
        """Makes all changes inside the context in one transaction, or none of them after an error."""
        with self.database.transaction():
            yield self

    def add(self, keyframe: Keyframe) -> int:
        """Adds a keyframe in one transaction; its descriptors are quantised to seven bits.

        Args:
            keyframe: The keyframe; its id is not used.

        Returns:
            The new keyframe's id.

        Raises:
            MapError: The name exists already, shapes do not fit together or differ from those of the map's other
                keyframes, or values are not finite.
        """
        dimensions = check_keyframe(keyframe)
        with self.batch():
            self._check_dimensions(keyframe.name, dimensions, choose_origin(keyframe.T_map_cam[:3, 3]))
            self._mark_packed()
            origin = self.origin
            columns = keyframe_columns(keyframe, self._cameras.id_of(keyframe.camera), origin)
            return self._insert(columns, point_columns(keyframe, origin), bytes(keyframe.thumbnail))

    def copy_from(self, other: KeyframeStore, keyframe_id: int, name: str = "", thumbnail: bool = True) -> int:
        """Adds a keyframe of another map; its descriptors stay as they are stored.

        The first keyframe of this map brings the other map's origin with it.

        Args:
            other: The other map.
            keyframe_id: The keyframe's id there.
            name: Its name in this map; empty for the same name.
            thumbnail: Whether to copy the thumbnail.

        Returns:
            The new keyframe's id.

        Raises:
            MapError: As for ``add``.
        """
        with other.snapshot():
            columns = other._row(keyframe_id)[1:]
            points = other.database.row("points", "keyframe_id", int(keyframe_id))[1:]
            camera = other.camera(columns[2])
            jpeg = other.thumbnail(keyframe_id) if thumbnail else b""
            origin = other.origin
        with other.database.decoding():
            keyframe = decode_keyframe(keyframe_id, columns, points, camera, origin)
        dimensions = check_keyframe(keyframe)
        name = name or columns[0]
        with self.batch():
            self._check_dimensions(name, dimensions, origin)
            if any(is_packed(column) for column in points):
                self._mark_packed()
            own_origin, pose = self.origin, columns[3]
            if not np.array_equal(own_origin, origin):
                pose = encode_pose(keyframe.T_map_cam, own_origin)
                points = (encode_points(keyframe.points, own_origin), *points[1:])
            columns = (name, columns[1], self._cameras.id_of(camera), pose, *columns[4:])
            return self._insert(columns, points, jpeg)

    def replace(self, keyframe_id: int, keyframe: Keyframe) -> None:
        """Replaces a keyframe by another, which gets the same id.

        Args:
            keyframe_id: Id of the keyframe to replace.
            keyframe: The new keyframe.

        Raises:
            MapError: There is no keyframe with this id, or as for ``add``.
        """
        dimensions = check_keyframe(keyframe)
        with self.batch():
            self._check_dimensions(keyframe.name, dimensions, NO_ORIGIN)
            keyframe_id, name = self._row(keyframe_id)[:2]
            if name != keyframe.name:
                self._check_name_free(keyframe.name)
            self._mark_packed()
            origin = self.origin
            columns = keyframe_columns(keyframe, self._cameras.id_of(keyframe.camera), origin)
            self.database.update("keyframes", keyframe_id, *columns)
            self.database.update("points", keyframe_id, *point_columns(keyframe, origin))
            self.database.delete("thumbnails", "keyframe_id", keyframe_id)
            if keyframe.thumbnail:
                self.database.insert("thumbnails", keyframe_id, bytes(keyframe.thumbnail))
            record_change(self.database, keyframe_id)

    def update_pose(self, keyframe_id: int, T_map_cam: npt.ArrayLike, points: npt.ArrayLike | None = None) -> None:
        """Gives a keyframe another pose, for example after a bundle adjustment.

        Args:
            keyframe_id: The keyframe's id.
            T_map_cam: The new pose [4, 4].
            points: [N, 3] that replace the keyframe's points one by one; without them the points move with the camera.

        Raises:
            MapError: There is no such keyframe, the pose is not rigid, or the points have another shape or are not
                finite.
        """
        with self.batch():
            columns = self._row(keyframe_id)
            keyframe_id = columns[0]
            old = self.database.row("points", "keyframe_id", keyframe_id)
            with self.database.decoding():
                pose, xyz = moved_columns(columns, old, T_map_cam, points, self.origin)
            self.database.update("keyframes", *columns[:4], pose, *columns[5:])
            self.database.update("points", keyframe_id, xyz, *old[2:])
            record_change(self.database, keyframe_id)

    def rename(self, keyframe_id: int, name: str) -> None:
        """Gives a keyframe another name.

        Args:
            keyframe_id: Id of the keyframe.
            name: The new name.

        Raises:
            MapError: There is no keyframe with this id, the name is empty, or another keyframe has the name.
        """
        check_name(name)
        with self.batch():
            columns = self._row(keyframe_id)
            if name != columns[1]:
                self._check_name_free(name)
                self.database.update("keyframes", columns[0], name, *columns[2:])
                record_change(self.database, columns[0])

    def remove(self, keyframe_id: int) -> None:
        """Removes a keyframe; its id is never given again.

        The file keeps its size, and the next keyframes use the space, until ``compact`` is called.

        Args:
            keyframe_id: Id of the keyframe.

        Raises:
            MapError: There is no keyframe with this id.
        """
        with self.batch():
            keyframe_id = self._row(keyframe_id)[0]
            self.database.delete("keyframes", "id", keyframe_id)  # and the rows that refer to it
            self._change_count(-1)
            record_change(self.database, keyframe_id)

    # The file and the retrieval index in it

    def compact(self) -> None:
        """Makes the file as small as its keyframes; this needs as much free disk space meanwhile."""
        self.database.vacuum()

    def save_copy(self, path: Path | str, overwrite: bool = False) -> None:
        """Writes the map, as it is now, into another file; after an error nothing is left of the copy.

        The copy is as small as its keyframes. It is complete, also while the map is being changed and after the map's
        own file was removed.

        Args:
            path: The file to write.
            overwrite: Whether to replace an existing map.

        Raises:
            MapError: The file exists and ``overwrite`` is not set, is no map, is this map itself or cannot be written.
        """
        path = Path(path)
        check_replaceable(path)
        if path.exists() and self.path.exists() and path.samefile(self.path):
            raise MapError(f"map {path} is the open map itself")
        if path.exists() and not overwrite:
            raise MapError(f"map {path} exists already")
        with write_then_rename(path) as unfinished:
            if not os.access(path.parent, os.W_OK):
                raise MapError(f"map {path} cannot be written: its folder is missing or read-only")
            self.database.rows("VACUUM INTO ?", (str(unfinished),))

    def write_index(self, data: bytes | bytearray | memoryview | None) -> None:
        """Stores the retrieval index in one transaction.

        Args:
            data: The index; None removes the stored one.
        """
        with self.batch():
            if data is None:
                delete_index_chunks(self.database)
            else:
                write_index_chunks(self.database, data)

    def read_index(self) -> bytes | None:
        """Returns the stored retrieval index, None if there is none; raises ``MapFormatError`` when it is damaged."""
        return read_index_chunks(self.database)

    # Helpers

    def _row(self, keyframe_id: int) -> Row:
        """Returns the verified row of a keyframe; raises ``MapError`` if there is none."""
        keyframe_id = int(keyframe_id)
        if not self.database.rows("SELECT 1 FROM keyframes WHERE id = ?", (keyframe_id,)):
            raise MapError(f"map {self.path} has no keyframe {keyframe_id}")
        return self.database.row("keyframes", "id", keyframe_id)

    def _decode_scan(self, rows: list[Row]) -> KeyframeScan:
        verified = [self.database.verified(row, f"keyframe {row[0]}") for row in rows]
        origin = self.origin
        with self.database.decoding():
            return decode_scan(verified, origin)

    def _update_cache(self) -> None:
        """Removes from the cache what has changed since it was read."""
        revision = self.revision
        if self.writing or revision == self._cache_revision:
            return
        try:
            changes = self.changes(self._cache_position)
            self._cache.drop((*changes.changed, *changes.removed))
            self._cache_position = changes.position
        except MapFormatError:  # the change log is damaged: the keyframes need not be
            self._cache.clear()
        self._cache_revision = revision

    def _load(self, keyframe_id: int) -> Keyframe:
        """Returns a keyframe from the cache or the file; a transaction, which may be rolled back, bypasses the cache."""
        keyframe = None if self.writing else self._cache.get(keyframe_id)
        if keyframe is None:
            columns = self._row(keyframe_id)[1:]
            points = self.database.row("points", "keyframe_id", keyframe_id)[1:]
            camera = self.camera(columns[2])
            origin = self.origin
            with self.database.decoding():
                keyframe = decode_keyframe(keyframe_id, columns, points, camera, origin)
            if not self.writing:
                self._cache.put(keyframe)
        return keyframe

    def _insert(self, columns: Row, points: Row, jpeg: bytes) -> int:
        self._check_name_free(columns[0])
        keyframe_id = self.database.last_key("keyframes") + 1  # never the id of a removed keyframe
        self.database.insert("keyframes", keyframe_id, *columns)
        self.database.insert("points", keyframe_id, *points)
        if jpeg:
            self.database.insert("thumbnails", keyframe_id, jpeg)
        self._change_count(+1)
        return keyframe_id

    def _check_dimensions(self, name: str, dimensions: dict[str, int], origin: npt.NDArray[np.float64]) -> None:
        """Raises ``MapError`` unless the map's keyframes have these dimensions.

        The first keyframe defines them and the map's origin.
        """
        known = {key: int(value) for key, value in self.metadata().items() if key in DIMENSIONS}
        if not known:
            for key, value in dimensions.items():
                self.database.insert("metadata", key, str(value))
            if origin.any():
                self.database.insert("metadata", ORIGIN_KEY, origin_text(origin))
                with self.database.connection() as db:
                    raise_version(db, ORIGIN_VERSION)
        elif known != dimensions:
            raise MapError(f"keyframe {name!r} has {dimensions}, those of map {self.path} have {known}")

    def _mark_packed(self) -> None:
        """Marks the map as one with packed descriptors, inside a transaction; such a map has an origin."""
        version = self.database.version
        if version < ORIGIN_VERSION:
            self.database.insert("metadata", ORIGIN_KEY, origin_text(NO_ORIGIN))
        if version < PACKED_VERSION:
            with self.database.connection() as db:
                raise_version(db, PACKED_VERSION)

    def _check_name_free(self, name: str) -> None:
        if self.database.rows("SELECT 1 FROM keyframes WHERE name = ?", (name,)):
            raise MapError(f"map {self.path} has a keyframe {name!r} already")

    def _change_count(self, step: int) -> None:
        self.database.update("metadata", "keyframes", str(len(self) + step))
