# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Verification of map files: everything that is damaged, by name, and a new map of what is intact."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nre_ros.errors import MapError, MapFormatError
from nre_ros.keyframes.storage.change_log import START
from nre_ros.keyframes.storage.database import MapDatabase, Row
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.storage.validation import DIMENSIONS, check_keyframe, is_metadata
from nre_ros.keyframes.tools.derived_map import KeyframeCopy, copy_keyframes, derived_map
from nre_ros.keyframes.types import Keyframe

_NEEDED_METADATA = ("frame_id", "backbone", "weights_hash", "retrieval")
"""Metadata without which keyframes are of no use."""
_MAX_ROUNDING = 0.005
"""Points that are rounded to coarser steps than this (metres) cost accuracy."""


@dataclass
class MapCheck:
    """What ``verify_map`` found.

    Attributes:
        path: The map file.
        keyframes: Number of keyframes.
        intact: Ids of the intact keyframes.
        without_thumbnail: Ids of those intact keyframes whose thumbnail is damaged.
        problems: One line for each problem.
        rounding: Steps of more than ``_MAX_ROUNDING`` to which the points of keyframes are rounded, metres.
    """

    path: Path
    keyframes: int = 0
    intact: list[int] = field(default_factory=list)
    without_thumbnail: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    rounding: list[float] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether the map is intact."""
        return not self.problems

    @contextmanager
    def recording(self, what: str) -> Iterator[None]:
        """Adds a ``MapError`` inside the context to the problems.

        Args:
            what: What is being checked; the line of the problem begins with it.
        """
        try:
            yield
        except MapError as error:
            text = str(error).removeprefix(f"map {self.path} is damaged: ").removeprefix(f"map {self.path}: ")
            self.problems.append(f"{what}: {text}")


def verify_map(path: Path | str, progress: bool = True) -> MapCheck:
    """Checks SQLite's own structure, references, the checksum of every row, shapes and values.

    Args:
        path: The map file.
        progress: Whether to show a progress bar.

    Returns:
        The intact keyframes and the problems.

    Raises:
        MapError: The file cannot be opened as a map at all.
    """
    database = MapDatabase(Path(path), readonly=True)
    check = MapCheck(database.path)
    with closing(KeyframeStore(database, cache_bytes=0)) as store:
        _check_structure(database, check)
        with check.recording("metadata"):
            store.metadata()
        _check_other_tables(store, check)
        ids = _keyframe_ids(database, check)
        check.keyframes = len(ids)
        known = _intact_metadata(database)
        if not _origin_is_known(store, check):
            return check  # without it no pose and no point is known
        for keyframe_id in tqdm(ids, unit="keyframe", desc="verify", disable=not progress):
            _check_keyframe(store, keyframe_id, known, check)
        _report_coarse_points(check)
        if "keyframes" in known and known["keyframes"] != str(len(ids)):
            check.problems.append(f"the map has {len(ids)} keyframes, {known['keyframes']} were written")
    return check


def salvage_map(check: MapCheck, output: Path | str, force: bool = False, progress: bool = True) -> int:
    """Writes all intact keyframes into a new map; the damaged map stays unchanged.

    Args:
        check: What ``verify_map`` found.
        output: The map to write.
        force: Whether to replace an existing ``output``.
        progress: Whether to show a progress bar.

    Returns:
        The number of keyframes in the new map.

    Raises:
        MapError: No keyframe is intact, the metadata about the features are damaged, or ``output`` cannot be written.
    """
    if not check.intact:
        raise MapError(f"map {check.path}: no keyframe is left to be saved")
    with closing(KeyframeStore(MapDatabase(check.path, readonly=True), cache_bytes=0)) as store:
        metadata = _intact_metadata(store.database)
        missing = [key for key in _NEEDED_METADATA if key not in metadata]
        if missing:
            raise MapError(f"map {check.path} cannot be saved: its metadata {missing} are damaged")
        source = {
            "importer": "map verify --repair-to",
            "map": str(check.path.resolve()),
            "source": metadata.get("source", ""),
        }
        bare = set(check.without_thumbnail)
        copies = [KeyframeCopy(store, i, thumbnail=i not in bare) for i in check.intact]
        with derived_map(output, metadata, source, force) as repaired:
            copy_keyframes(repaired, tqdm(copies, unit="keyframe", desc="repair", disable=not progress))
    return len(check.intact)


def _check_structure(database: MapDatabase, check: MapCheck) -> None:
    for pragma in ("integrity_check", "foreign_key_check"):
        with check.recording(pragma):
            for row in database.rows(f"PRAGMA {pragma}"):
                if row != ("ok",):
                    lines = str(row[0]).splitlines() if pragma == "integrity_check" else [_dangling_reference(row)]
                    check.problems += [f"SQLite: {line}" for line in lines if not line.startswith("***")]


def _dangling_reference(row: Row) -> str:
    table, rowid, parent, _ = row
    return f"{table} {rowid} has no row in {parent}"


def _check_other_tables(store: KeyframeStore, check: MapCheck) -> None:
    """Checks metadata, cameras, retrieval index and change log."""
    database = store.database
    for key in _column(database, "SELECT key FROM metadata", check):
        with check.recording(f"metadata {key!r}"):
            database.row("metadata", "key", key)
    for camera_id in _column(database, "SELECT id FROM cameras", check):
        with check.recording(f"camera {camera_id}"):
            store.camera(camera_id)
    with check.recording("retrieval index"):
        store.read_index()
    with check.recording("changes"):
        store.changes(START)


def _column(database: MapDatabase, query: str, check: MapCheck) -> list[Any]:
    """Returns the values of a query for one column; a table that cannot be read is a problem and has none."""
    found = []
    with check.recording(query.split()[-1]):
        found = [row[0] for row in database.rows(query)]
    return found


def _intact_metadata(database: MapDatabase) -> dict[str, str]:
    found = {}
    for row in database.readable_rows("SELECT key, value, checksum FROM metadata"):
        try:
            key, value = database.verified(row, "metadata")
            if is_metadata(key, value):
                found[key] = value
        except MapFormatError:
            pass
    return found


def _origin_is_known(store: KeyframeStore, check: MapCheck) -> bool:
    with check.recording("origin"):
        return len(store.origin) == 3
    return False


def _rounding(keyframe: Keyframe) -> float:
    """Returns the step between neighbouring float32 coordinates at the farthest point, 0 for float64."""
    if keyframe.points.dtype != np.float32 or not len(keyframe.points):
        return 0.0
    return float(np.spacing(np.abs(keyframe.points).max()))


def _report_coarse_points(check: MapCheck) -> None:
    """Adds a problem where maps of older versions have stored points far from the origin in single precision."""
    if check.rounding:
        check.problems.append(
            f"points of {len(check.rounding)} keyframes are rounded to {max(check.rounding):.2g} m, since they lie far "
            "from the origin of the map's frame: build the map again"
        )


def _keyframe_ids(database: MapDatabase, check: MapCheck) -> list[int]:
    """Returns all ids; around a damaged page of the table, those that can still be looked up."""
    forward = [row[0] for row in database.readable_rows("SELECT id FROM keyframes NOT INDEXED ORDER BY id")]
    with check.recording("keyframes"):
        database.rows("SELECT id FROM keyframes NOT INDEXED ORDER BY id")
        return forward
    backward = [row[0] for row in database.readable_rows("SELECT id FROM keyframes NOT INDEXED ORDER BY id DESC")]
    gap = range(max(forward, default=0) + 1, min(backward, default=0))
    between = [i for i in gap if database.readable_rows("SELECT id FROM keyframes WHERE id = ?", (i,))]
    return sorted({*forward, *between, *backward})


def _check_keyframe(store: KeyframeStore, keyframe_id: int, known: dict[str, str], check: MapCheck) -> None:
    what, before = f"keyframe {keyframe_id}", len(check.problems)
    with check.recording(what):
        scans = list(store.scan_ids([keyframe_id]))
        if not scans:
            raise MapError("it is listed, but its row cannot be found")
        (scan,) = scans
        what = f"keyframe {keyframe_id} ({scan.names[0]!r})"
    if len(check.problems) > before:
        return
    with check.recording(what):
        keyframe = store.load([keyframe_id])[0]
        dimensions = check_keyframe(keyframe)
        rounding = _rounding(keyframe)
        if rounding > _MAX_ROUNDING:
            check.rounding.append(rounding)
        expected = {key: int(known[key]) for key in DIMENSIONS if key in known}
        if {key: dimensions[key] for key in expected} != expected:
            raise MapError(f"it has {dimensions}, its map {expected}")
    if len(check.problems) > before:
        return
    check.intact.append(keyframe_id)
    with check.recording(f"thumbnail of {what}"):
        store.thumbnail(keyframe_id)
    if len(check.problems) > before:
        check.without_thumbnail.append(keyframe_id)
