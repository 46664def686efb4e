# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Is a map intact?  What is damaged, by name, and a new map of all that is not."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from nre_ros.errors import MapError, MapFormatError
from nre_ros.keyframes.storage.records import DIMENSIONS, check_keyframe
from nre_ros.keyframes.storage.rewriting import new_map
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.storage.tables import MapTables

_NEEDED = ("frame_id", "backbone", "weights_hash", "retrieval")
"""Metadata without which keyframes are of no use."""
_COMMIT = 64


@dataclass
class MapCheck:
    """What ``verify_map`` found.

    problems: one line each; intact: ids of the keyframes that are good, without_thumbnail those of
    them whose small picture is not; keyframes: how many there are in all.
    """

    path: Path
    keyframes: int = 0
    intact: list[int] = field(default_factory=list)
    without_thumbnail: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.problems

    @contextmanager
    def noting(self, what: str):
        """Turns an error into a problem of the list."""
        try:
            yield
        except MapError as error:
            text = str(error).removeprefix(f"map {self.path} is damaged: ").removeprefix(f"map {self.path}: ")
            self.problems.append(f"{what}: {text}")


def verify_map(path, progress: bool = True) -> MapCheck:
    """Checks everything in a map: SQLite's own structure, references, every row's checksum, shapes, values.

    Raises ``MapError`` for a file that cannot be opened as a map at all.
    """
    tables = MapTables(Path(path), readonly=True)
    store = KeyframeStore(tables, cache_bytes=0)
    check = MapCheck(tables.path)
    try:
        _check_structure(tables, check)
        with check.noting("metadata"):
            store.metadata()
        _check_rows(tables, check)
        ids = _keyframe_ids(tables, check)
        check.keyframes = len(ids)
        known = _metadata(tables)
        for keyframe_id in tqdm(ids, unit="keyframe", desc="verify", disable=not progress):
            _check_keyframe(store, keyframe_id, known, check)
        if "keyframes" in known and known["keyframes"] != str(len(ids)):
            check.problems.append(f"{len(ids)} keyframes are there, {known['keyframes']} were written")
    finally:
        store.close()
    return check


def repair_map(check: MapCheck, output, force: bool = False, progress: bool = True) -> int:
    """Writes all intact keyframes into a new map and returns how many; the damaged map stays as it is.

    Raises ``MapError`` when none is left, or when what says which features they are of is damaged.
    """
    if not check.intact:
        raise MapError(f"map {check.path}: no keyframe is left to be saved")
    store = KeyframeStore(MapTables(check.path, readonly=True), cache_bytes=0)
    try:
        metadata = _metadata(store.tables)
        missing = [key for key in _NEEDED if key not in metadata]
        if missing:
            raise MapError(f"map {check.path} cannot be saved: its metadata {missing} are damaged")
        made_of = {
            "importer": "map verify --repair-to",
            "map": str(check.path.resolve()),
            "source": metadata.get("source", ""),
        }
        bare = set(check.without_thumbnail)
        with new_map(output, metadata, made_of, force) as new:
            bar = tqdm(check.intact, unit="keyframe", desc="repair", disable=not progress)
            for start in range(0, len(check.intact), _COMMIT):
                with new.batch():
                    for keyframe_id in check.intact[start : start + _COMMIT]:
                        new.copy_from(store, keyframe_id, thumbnail=keyframe_id not in bare)
                        bar.update()
            bar.close()
    finally:
        store.close()
    return len(check.intact)


def _check_structure(tables: MapTables, check: MapCheck) -> None:
    for pragma in ("integrity_check", "foreign_key_check"):
        with check.noting(pragma):
            for row in tables.rows(f"PRAGMA {pragma}"):
                if row != ("ok",):
                    lines = str(row[0]).splitlines() if pragma == "integrity_check" else [_reference(row)]
                    check.problems += [f"SQLite: {line}" for line in lines if not line.startswith("***")]


def _reference(row: tuple) -> str:
    table, rowid, parent, _ = row
    return f"{table} {rowid} has no row in {parent}"


def _check_rows(tables: MapTables, check: MapCheck) -> None:
    """The tables that are not about one keyframe."""
    for key in _list(tables, "SELECT key FROM metadata", check):
        with check.noting(f"metadata {key!r}"):
            tables.row("metadata", "key", key)
    store = KeyframeStore(tables, cache_bytes=0)
    for camera_id in _list(tables, "SELECT id FROM cameras", check):
        with check.noting(f"camera {camera_id}"):
            store.camera(camera_id)
    with check.noting("retrieval index"):
        store.read_index()
    with check.noting("changes"):
        store.changes((0, 0))


def _list(tables: MapTables, query: str, check: MapCheck) -> list:
    found = []
    with check.noting(query.split()[-1]):
        found = [row[0] for row in tables.rows(query)]
    return found


def _metadata(tables: MapTables) -> dict[str, str]:
    """What is good of the metadata."""
    found = {}
    for row in tables.readable_rows("SELECT key, value, checksum FROM metadata"):
        try:
            key, value = tables.checked(row, "metadata")
            found[key] = value
        except MapFormatError:
            pass
    return found


def _keyframe_ids(tables: MapTables, check: MapCheck) -> list[int]:
    """All ids that there are; around a damaged page of the table, those that can still be looked up."""
    forward = [row[0] for row in tables.readable_rows("SELECT id FROM keyframes NOT INDEXED ORDER BY id")]
    with check.noting("keyframes"):
        tables.rows("SELECT id FROM keyframes NOT INDEXED ORDER BY id")
        return forward
    backward = [row[0] for row in tables.readable_rows("SELECT id FROM keyframes NOT INDEXED ORDER BY id DESC")]
    gap = range(max(forward, default=0) + 1, min(backward, default=0))
    between = [i for i in gap if tables.readable_rows("SELECT id FROM keyframes WHERE id = ?", (i,))]
    return sorted({*forward, *between, *backward})


def _check_keyframe(store: KeyframeStore, keyframe_id: int, known: dict[str, str], check: MapCheck) -> None:
    what, before = f"keyframe {keyframe_id}", len(check.problems)
    with check.noting(what):
        scans = list(store.scan_ids([keyframe_id]))
        if not scans:
            raise MapError("it is listed, but its row cannot be found")
        (scan,) = scans
        what = f"keyframe {keyframe_id} ({scan.names[0]!r})"
    if len(check.problems) > before:
        return
    with check.noting(what):
        dimensions = check_keyframe(store.load([keyframe_id])[0])
        expected = {key: int(known[key]) for key in DIMENSIONS if key in known}
        if {key: dimensions[key] for key in expected} != expected:
            raise MapError(f"it has {dimensions}, its map {expected}")
    if len(check.problems) > before:
        return
    check.intact.append(keyframe_id)
    with check.noting(f"thumbnail of {what}"):
        store.thumbnail(keyframe_id)
    if len(check.problems) > before:
        check.without_thumbnail.append(keyframe_id)
