# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which keyframes a map can do without: views that show the same, those of a list or region, or all but so many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from scipy.spatial import cKDTree
from tqdm import tqdm

from nre_ros.errors import MapError
from nre_ros.keyframes.building.culling import view_overlap
from nre_ros.keyframes.retrieval.descriptor_index import update_index
from nre_ros.keyframes.storage.rewriting import new_map, origin
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.types import Keyframe

_MAX_ANGLE = np.radians(15.0)
"""Views of one surface from directions further apart than this are no duplicates."""
_COMMIT = 64
_SAME_DIRECTION = np.radians(30.0)
"""Turning by this counts as much as moving by a typical depth of the scene."""


def overview(store: KeyframeStore) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """ids [M], names and T_map_cam [M, 4, 4] of all keyframes."""
    scans = list(store.scan())
    if not scans:
        return np.zeros(0, np.int64), (), np.zeros((0, 4, 4))
    names = tuple(name for scan in scans for name in scan.names)
    return np.concatenate([scan.ids for scan in scans]), names, np.concatenate([scan.poses for scan in scans])


def listed(store: KeyframeStore, names: Iterable[str]) -> list[int]:
    """Ids of the keyframes of these names; ``MapError`` names those that the map lacks."""
    known = store.names()
    missing = [name for name in names if name not in known]
    if missing:
        raise MapError(f"map {store.path} has no keyframe {missing[0]!r}, nor {len(missing) - 1} others of the list")
    return sorted({known[name] for name in names})


def in_box(store: KeyframeStore, corners: np.ndarray, outside: bool = False) -> list[int]:
    """Ids of the keyframes whose camera stands in a box of the map, corners [2, 3], or outside of it."""
    corners = np.asarray(corners, dtype=np.float64).reshape(2, 3)
    if not np.isfinite(corners).all() or (corners[0] > corners[1]).any():
        raise MapError(f"box from {corners[0].tolist()} to {corners[1].tolist()} is empty")
    ids, _, poses = overview(store)
    inside = ((poses[:, :3, 3] >= corners[0]) & (poses[:, :3, 3] <= corners[1])).all(axis=1)
    return ids[inside != outside].tolist()


def near_duplicates(store: KeyframeStore, overlap: float = 0.9, progress: bool = True) -> list[int]:
    """Ids of keyframes that show what an earlier, kept one shows.

    Two views are duplicates when at least the share ``overlap`` of each one's points projects into
    the other's image and is looked at from directions less than 15 degrees apart (medians).  It
    needs no metric scale.  What hides a point is not known: nearby views only are compared.
    """
    if not 0 < overlap <= 1:
        raise MapError(f"overlap {overlap} is not a share between 0 and 1")
    ids, _, poses = overview(store)
    centres = poses[:, :3, 3]
    tree = cKDTree(centres) if len(ids) else None
    kept, removed = set(), []
    for k in tqdm(range(len(ids)), unit="keyframe", desc="compare", disable=not progress):
        view = store.load([ids[k]])[0]
        reach = np.tan(_MAX_ANGLE) * _depth(view)
        near = (int(ids[n]) for n in sorted(tree.query_ball_point(centres[k], reach)) if int(ids[n]) in kept)
        if any(_same_view(view, other, overlap) for other in _loaded(store, near)):
            removed.append(int(ids[k]))
        else:
            kept.add(int(ids[k]))
    return removed


def all_but(store: KeyframeStore, count: int) -> list[int]:
    """Ids to remove so that ``count`` keyframes are left, spread over places and directions.

    Farthest-point sampling (Gonzalez, "Clustering to minimize the maximum intercluster distance",
    1985) from the first keyframe on: the next one kept is always the most unlike those kept already,
    30 degrees of turning counting as much as a median depth of the scene.
    """
    if count < 1:
        raise MapError(f"{count} keyframes cannot be kept, at least 1")
    ids, _, poses = overview(store)
    if len(ids) <= count:
        return []
    sample = ids[np.linspace(0, len(ids) - 1, min(len(ids), 50)).astype(int)]
    scale = float(np.median([_depth(view) for view in _loaded(store, sample.tolist())])) or 1.0
    kept, distance = [0], _unlikeness(poses, poses[0], scale)
    while len(kept) < count:
        kept.append(int(distance.argmax()))
        distance = np.minimum(distance, _unlikeness(poses, poses[kept[-1]], scale))
        distance[kept] = -1.0
    return np.delete(ids, kept).tolist()


def remove_all(store: KeyframeStore, keyframe_ids: list[int]) -> None:
    """Removes keyframes in one transaction, and gives their room back."""
    with store.batch():
        for keyframe_id in keyframe_ids:
            store.remove(keyframe_id)
        store.write_index(None)  # it knows keyframes that are gone
    store.compact()
    update_index(store)


def write_without(store: KeyframeStore, keyframe_ids: list[int], output, force: bool = False) -> None:
    """Writes a map of all other keyframes, as they are stored; this one stays as it is."""
    left_out = set(keyframe_ids)
    kept = [int(i) for i in overview(store)[0] if int(i) not in left_out]
    made_of = {"importer": "map prune", **origin(store)}
    with new_map(output, store.metadata(), made_of, force) as new:
        for start in range(0, len(kept), _COMMIT):
            with new.batch():
                for keyframe_id in kept[start : start + _COMMIT]:
                    new.copy_from(store, keyframe_id)


def _loaded(store: KeyframeStore, ids: Iterable[int]) -> Iterator[Keyframe]:
    for keyframe_id in ids:
        yield store.load([keyframe_id])[0]


def _unlikeness(poses: np.ndarray, pose: np.ndarray, scale: float) -> np.ndarray:
    moved = np.linalg.norm(poses[:, :3, 3] - pose[:3, 3], axis=1) / scale
    cosine = (np.einsum("nij,ij->n", poses[:, :3, :3], pose[:3, :3]) - 1) / 2
    return np.hypot(moved, np.arccos(cosine.clip(-1, 1)) / _SAME_DIRECTION)


def _depth(view: Keyframe) -> float:
    """Median distance of a view's points; 0 if it has none."""
    if not len(view.points):
        return 0.0
    return float(np.median(np.linalg.norm(view.points - view.T_map_cam[:3, 3], axis=1)))


def _same_view(a: Keyframe, b: Keyframe, overlap: float) -> bool:
    if not len(a.points) or not len(b.points):
        return False
    shares = (view_overlap(a.points, b.T_map_cam, b.camera), view_overlap(b.points, a.T_map_cam, a.camera))
    return min(shares) >= overlap and _angle(a, b) <= _MAX_ANGLE


def _angle(a: Keyframe, b: Keyframe) -> float:
    """Median angle between the directions in which two views see the first one's points."""
    towards = [a.points - view.T_map_cam[:3, 3] for view in (a, b)]
    length = np.prod([np.linalg.norm(direction, axis=1) for direction in towards], axis=0)
    cosine = (towards[0] * towards[1]).sum(axis=1) / np.maximum(length, 1e-12)
    return float(np.median(np.arccos(cosine.clip(-1, 1))))
