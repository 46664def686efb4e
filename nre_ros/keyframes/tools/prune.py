# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Selection and removal of keyframes that a map does not need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree
from tqdm import tqdm

from nre_ros.errors import MapError
from nre_ros.keyframes.building.culling import view_overlap
from nre_ros.keyframes.retrieval.descriptor_index import update_index
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.tools.derived_map import KeyframeCopy, copy_keyframes, derived_map, provenance
from nre_ros.keyframes.types import Keyframe

_MAX_DUPLICATE_ANGLE = np.radians(15.0)
"""Views of a surface from directions that differ more than this are no near-duplicates."""
_ROTATION_UNIT = np.radians(30.0)
"""A rotation by this angle counts as much as a translation by a typical depth of the scene."""
_DEPTH_SAMPLE = 50
"""Number of keyframes from which the typical depth of the scene is computed."""


def overview(store: KeyframeStore) -> tuple[npt.NDArray[np.int64], tuple[str, ...], npt.NDArray[np.float64]]:
    """Reads ids, names and poses of all keyframes.

    Args:
        store: The map.

    Returns:
        Ids [M], M names and poses ``T_map_cam`` [M, 4, 4].
    """
    scans = list(store.scan())
    if not scans:
        return np.zeros(0, np.int64), (), np.zeros((0, 4, 4))
    names = tuple(name for scan in scans for name in scan.names)
    return np.concatenate([scan.ids for scan in scans]), names, np.concatenate([scan.poses for scan in scans])


def select_named(store: KeyframeStore, names: Iterable[str]) -> list[int]:
    """Selects keyframes by their names.

    Args:
        store: The map.
        names: The names.

    Returns:
        Ids of the keyframes, ascending.

    Raises:
        MapError: The map lacks a name.
    """
    known = store.names()
    names = list(names)
    missing = [name for name in names if name not in known]
    if missing:
        raise MapError(
            f"map {store.path} has no keyframe {missing[0]!r} ({len(missing)} of {len(names)} names are unknown)"
        )
    return sorted({known[name] for name in names})


def select_in_box(store: KeyframeStore, corners: npt.ArrayLike, outside: bool = False) -> list[int]:
    """Selects keyframes by the position of the camera.

    Args:
        store: The map.
        corners: [2, 3] lowest and highest coordinates of a box in the map frame.
        outside: Whether to select the keyframes outside of the box.

    Returns:
        Ids of the keyframes.

    Raises:
        MapError: The box is empty.
    """
    box = np.asarray(corners, dtype=np.float64).reshape(2, 3)
    if not np.isfinite(box).all() or (box[0] > box[1]).any():
        raise MapError(f"box from {box[0].tolist()} to {box[1].tolist()} is empty")
    ids, _, poses = overview(store)
    inside = ((poses[:, :3, 3] >= box[0]) & (poses[:, :3, 3] <= box[1])).all(axis=1)
    return [int(i) for i in ids[inside != outside]]


def select_near_duplicates(store: KeyframeStore, overlap: float = 0.9, progress: bool = True) -> list[int]:
    """Selects keyframes that show what an earlier keyframe shows, which is not selected itself.

    Two views are near-duplicates if at least the share ``overlap`` of the points of each projects into the image of the
    other, and their viewing directions differ by less than 15 degrees (median). No metric scale is needed. Occlusion is
    not known, so only nearby views are compared.

    Args:
        store: The map.
        overlap: Share of points, above 0 and up to 1.
        progress: Whether to show a progress bar.

    Returns:
        Ids of the keyframes.

    Raises:
        MapError: ``overlap`` is out of range.
    """
    if not 0 < overlap <= 1:
        raise MapError(f"overlap {overlap} is not a share between 0 and 1")
    ids, _, poses = overview(store)
    centres = poses[:, :3, 3]
    if not len(ids):
        return []
    tree = cKDTree(centres)
    kept: set[int] = set()
    removed: list[int] = []
    for k in tqdm(range(len(ids)), unit="keyframe", desc="compare", disable=not progress):
        view = store.load([ids[k]])[0]
        reach = np.tan(_MAX_DUPLICATE_ANGLE) * _depth(view)
        near = (int(ids[n]) for n in sorted(tree.query_ball_point(centres[k], reach)) if int(ids[n]) in kept)
        if any(_near_duplicate(view, other, overlap) for other in _load_one_by_one(store, near)):
            removed.append(int(ids[k]))
        else:
            kept.add(int(ids[k]))
    return removed


def select_surplus(store: KeyframeStore, count: int) -> list[int]:
    """Selects all but ``count`` keyframes, so that those that stay are spread over places and viewing directions.

    Farthest-point sampling (Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985) from the first
    keyframe on: the next keyframe to stay is always the one that differs most from those that stay. A rotation by 30
    degrees counts as much as a translation by the median depth of the scene.

    Args:
        store: The map.
        count: Number of keyframes that stay, at least 1.

    Returns:
        Ids of the keyframes to remove.

    Raises:
        MapError: ``count`` is below 1.
    """
    if count < 1:
        raise MapError(f"{count} keyframes cannot be kept, at least 1")
    ids, _, poses = overview(store)
    if len(ids) <= count:
        return []
    sample = ids[np.linspace(0, len(ids) - 1, min(len(ids), _DEPTH_SAMPLE)).astype(int)]
    scale = float(np.median([_depth(view) for view in _load_one_by_one(store, sample.tolist())])) or 1.0
    kept, distance = [0], _pose_distances(poses, poses[0], scale)
    while len(kept) < count:
        kept.append(int(distance.argmax()))
        distance = np.minimum(distance, _pose_distances(poses, poses[kept[-1]], scale))
        distance[kept] = -1.0
    return [int(i) for i in np.delete(ids, kept)]


def remove_keyframes(store: KeyframeStore, keyframe_ids: Iterable[int]) -> None:
    """Removes keyframes from a map in one transaction, then makes the file smaller and its retrieval index anew.

    Args:
        store: The map, open for writing.
        keyframe_ids: Ids of the keyframes to remove.

    Raises:
        MapError: A keyframe does not exist, or the map cannot be written.
    """
    with store.batch():
        for keyframe_id in keyframe_ids:
            store.remove(keyframe_id)
        store.write_index(None)  # it contains removed keyframes
    store.compact()
    update_index(store)


def write_pruned_map(
    store: KeyframeStore, keyframe_ids: Iterable[int], output: Path | str, force: bool = False
) -> None:
    """Writes a map without these keyframes and leaves the map itself unchanged.

    Args:
        store: The map.
        keyframe_ids: Ids of the keyframes to leave out.
        output: The map to write.
        force: Whether to replace an existing ``output``.

    Raises:
        MapError: ``output`` exists and ``force`` is not set, or it cannot be written.
    """
    left_out = set(keyframe_ids)
    kept = [int(i) for i in overview(store)[0] if int(i) not in left_out]
    source = {"importer": "map prune", **provenance(store)}
    with derived_map(output, store.metadata(), source, force) as pruned:
        copy_keyframes(pruned, (KeyframeCopy(store, keyframe_id) for keyframe_id in kept))


def _load_one_by_one(store: KeyframeStore, ids: Iterable[int]) -> Iterator[Keyframe]:
    for keyframe_id in ids:
        yield store.load([keyframe_id])[0]


def _pose_distances(
    poses: npt.NDArray[np.float64], pose: npt.NDArray[np.float64], scale: float
) -> npt.NDArray[np.float64]:
    """Returns how much each pose [M, 4, 4] differs from a pose, in units of ``scale`` and ``_ROTATION_UNIT``."""
    moved = np.linalg.norm(poses[:, :3, 3] - pose[:3, 3], axis=1) / scale
    cosine = (np.einsum("nij,ij->n", poses[:, :3, :3], pose[:3, :3]) - 1) / 2
    distances: npt.NDArray[np.float64] = np.hypot(moved, np.arccos(cosine.clip(-1, 1)) / _ROTATION_UNIT)
    return distances


def _depth(view: Keyframe) -> float:
    """Returns the median distance of a view's points, 0 if it has none."""
    if not len(view.points):
        return 0.0
    return float(np.median(np.linalg.norm(view.points - view.T_map_cam[:3, 3], axis=1)))


def _near_duplicate(a: Keyframe, b: Keyframe, overlap: float) -> bool:
    if not len(a.points) or not len(b.points):
        return False
    shares = (view_overlap(a.points, b.T_map_cam, b.camera), view_overlap(b.points, a.T_map_cam, a.camera))
    return min(shares) >= overlap and _angle(a, b) <= _MAX_DUPLICATE_ANGLE


def _angle(a: Keyframe, b: Keyframe) -> float:
    """Returns the median angle between the directions from which two views see the points of the first."""
    towards = [a.points - view.T_map_cam[:3, 3] for view in (a, b)]
    length = np.prod([np.linalg.norm(direction, axis=1) for direction in towards], axis=0)
    cosine = (towards[0] * towards[1]).sum(axis=1) / np.maximum(length, 1e-12)
    return float(np.median(np.arccos(cosine.clip(-1, 1))))
