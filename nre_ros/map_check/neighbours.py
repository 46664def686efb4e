# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which keyframes show what a view shows: near-duplicates, which are left out with it, and the nearest of the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nre_ros.errors import MapError
from nre_ros.keyframes.building.culling import VIDEO, view_motion, view_overlap
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.types import Keyframe

_COMPARED_POINTS = 64
"""Points of a keyframe that views are compared by."""
_CANDIDATES = 24
"""Keyframes, the nearest by pose, that a view is compared with."""
_SAME_PLACE = 0.3
"""A keyframe shows the same place as a view that sees this share of its points."""
_PROJECTED_POINTS, _FAR_OVERLAP = 256, 0.02
"""Of so many points of a view, a keyframe that shows no more than this share in its image shows another place."""
_NO_NEIGHBOUR = np.pi


@dataclass(frozen=True)
class Neighbours:
    """The keyframes around one keyframe.

    Attributes:
        near_duplicates: Ids of keyframes with nearly the same view, and of those of the same time (the other cameras of a
            rig): no real query would have them.
        gap: Median angle in radians by which the scene moves in the image between the view and the nearest keyframe that
            is no near-duplicate; pi if none shows the same place.
    """

    near_duplicates: tuple[int, ...]
    gap: float


class ViewNeighbours:
    """Finds the neighbours of a map's keyframes.

    Args:
        store: The map.
        ids: Ids of all keyframes, in any order.
    """

    def __init__(self, store: KeyframeStore, ids: npt.NDArray[np.int64]) -> None:
        self._store = store
        scans = list(store.scan_ids(ids.tolist()))  # in the order of the ids, whatever the order asked for
        self._ids = np.concatenate([scan.ids for scan in scans]) if scans else np.zeros(0, np.int64)
        self._poses = np.concatenate([scan.poses for scan in scans]) if scans else np.zeros((0, 4, 4))
        self._camera_ids = np.concatenate([scan.camera_ids for scan in scans]) if scans else np.zeros(0, np.int64)
        self._stamps = np.concatenate([scan.stamps for scan in scans]) if scans else np.zeros(0, np.int64)

    @property
    def count(self) -> int:
        """Number of keyframes."""
        return len(self._ids)

    def of(self, keyframe: Keyframe) -> Neighbours:
        """Returns the neighbours of a keyframe.

        Args:
            keyframe: One of the map's keyframes.
        """
        duplicates, gap = [], _NO_NEIGHBOUR
        points = _sample(keyframe)
        for other in self._loaded(self._candidates(keyframe)):
            if other.id == keyframe.id:
                continue
            motion = view_motion(other.T_map_cam, points, keyframe.T_map_cam)
            overlap = view_overlap(points, other.T_map_cam, other.camera)
            if motion <= VIDEO.motion and overlap >= VIDEO.overlap:
                duplicates.append(other.id)
            elif overlap >= _SAME_PLACE:
                gap = min(gap, motion)
        # the other cameras of a rig at the same time: no later image has them
        if keyframe.stamp:
            same_time = self._ids[self._stamps == keyframe.stamp].tolist()
            duplicates += [other for other in same_time if other != keyframe.id and other not in duplicates]
        return Neighbours(tuple(duplicates), float(gap))

    def within(self, position: npt.NDArray[np.float64], radius: float) -> list[int]:
        """Returns the ids of the keyframes within a distance of a position.

        Args:
            position: [3] in the map.
            radius: Metres.
        """
        near = np.linalg.norm(self._poses[:, :3, 3] - position, axis=1) <= radius
        found: list[int] = self._ids[near].tolist()
        return found

    def overlapping(self, keyframe: Keyframe) -> list[int]:
        """Returns the ids of the keyframes whose image shows some of a keyframe's points, its own included.

        What stands in between is not known: a keyframe that looks at the points through a wall counts as well.

        Args:
            keyframe: One of the map's keyframes.
        """
        if not len(keyframe.points):
            everything: list[int] = self._ids.tolist()
            return everything
        points = keyframe.points[:: max(1, len(keyframe.points) // _PROJECTED_POINTS)]
        cameras = {camera_id: self._store.camera(camera_id) for camera_id in set(self._camera_ids.tolist())}
        shares = np.array(
            [
                view_overlap(points, T, cameras[camera_id])
                for T, camera_id in zip(self._poses, self._camera_ids.tolist())
            ]
        )
        found: list[int] = self._ids[(shares > _FAR_OVERLAP) | (self._ids == keyframe.id)].tolist()
        return found

    def _loaded(self, ids: list[int]) -> list[Keyframe]:
        """Loads keyframes, without those that are damaged or that another process has removed."""
        found = []
        for keyframe_id in ids:
            try:
                found += self._store.load_readable([keyframe_id])
            except MapError:
                continue
        return found

    def _candidates(self, keyframe: Keyframe) -> list[int]:
        """Ids of the nearest keyframes, by position relative to the scene's distance and by direction."""
        position, forward = keyframe.T_map_cam[:3, 3], keyframe.T_map_cam[:3, 2]
        distance = np.linalg.norm(self._poses[:, :3, 3] - position, axis=1)
        angle = np.arccos(np.clip(self._poses[:, :3, 2] @ forward, -1.0, 1.0))
        scale = np.median(np.linalg.norm(keyframe.points - position, axis=1)) if len(keyframe.points) else 1.0
        nearest = np.argsort(distance / max(scale, 1e-9) + angle, kind="stable")[: _CANDIDATES + 1]
        found: list[int] = self._ids[nearest].tolist()
        return found


def _sample(keyframe: Keyframe) -> npt.NDArray[np.floating]:
    return keyframe.points[:: max(1, len(keyframe.points) // _COMPARED_POINTS)]
