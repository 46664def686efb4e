# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Keyframe culling: a view that shows nothing new costs memory and hides other keyframes in retrieval.

The scene decides how far a view has moved: the motion is the median angle by which the points of the earlier keyframe
have moved in the camera's own frame. This weighs a translation by the depth of the scene, needs no metric scale, and
counts rotation (about the optical axis too) alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from nre_ros.geometry import Camera
from nre_ros.keyframes.types import compact_points

_COMPARED_POINTS = 96
"""Points of a keyframe that are kept for comparisons."""
_CANDIDATES = 8
"""Keyframes, the nearest by pose, that a view is compared with."""


@dataclass(frozen=True)
class CullingRule:
    """When a view is a near-duplicate of an earlier keyframe: it moved little, and sees most of the same points.

    Attributes:
        motion: Largest motion in radians, the median over the keyframe's points of the angle between their directions
            in the two cameras; 0 keeps every view.
        overlap: Least share of the keyframe's points that lie in the view's image.
    """

    motion: float = 0.004
    overlap: float = 0.95

    def is_duplicate(
        self,
        T_map_old: npt.NDArray[np.float64],
        points: npt.NDArray[np.floating],
        T_map_new: npt.NDArray[np.float64],
        camera: Camera,
    ) -> bool:
        """Returns whether a view repeats an earlier one.

        Args:
            T_map_old: [4, 4] pose of the earlier view.
            points: [N, 3] points of the map that the earlier view sees.
            T_map_new: [4, 4] pose of the view.
            camera: Camera of the view.
        """
        if view_motion(T_map_old, points, T_map_new) > self.motion:
            return False
        return view_overlap(points, T_map_new, camera) >= self.overlap


STILL_IMAGES = CullingRule()
"""For images that somebody has chosen: drops only what a standing camera sees again (2 pixels of 640)."""
VIDEO = CullingRule(0.05, 0.8)
"""For recordings that contain every image of a moving camera (25 pixels of 640)."""


class KeyframeCuller:
    """Knows the keyframes of a growing map, and finds the keyframe that a new view repeats.

    Attributes:
        rule: When a view is a near-duplicate.
    """

    def __init__(self, rule: CullingRule = STILL_IMAGES) -> None:
        self.rule = rule
        self._names: list[str] = []
        self._points: list[npt.NDArray[np.floating]] = []
        self._poses = np.zeros((16, 4, 4))

    def __len__(self) -> int:
        return len(self._names)

    def find_duplicate(self, T_map_cam: npt.NDArray[np.float64], camera: Camera, since: int = 0) -> str | None:
        """Finds the keyframe that a view repeats.

        Args:
            T_map_cam: [4, 4] pose of the view.
            camera: Camera of the view.
            since: Number of keyframes, the first ones added, that are not compared.

        Returns:
            Name of the keyframe; None if the view shows something new.
        """
        if len(self) <= since or self.rule.motion <= 0:
            return None
        for i in self._nearest(T_map_cam, since):
            if self.rule.is_duplicate(self._poses[i], self._points[i], T_map_cam, camera):
                return self._names[i]
        return None

    def may_duplicate(
        self, T_map_cam: npt.NDArray[np.float64], camera: Camera, poses: Sequence[npt.NDArray[np.float64]]
    ) -> bool:
        """Returns whether a view may repeat one of several views whose points are not known yet.

        The points of the nearest keyframe stand for theirs, with twice the motion and half the overlap.

        Args:
            T_map_cam: [4, 4] pose of the view.
            camera: Camera of the view.
            poses: [4, 4] each, of the other views.
        """
        if not poses or self.rule.motion <= 0:
            return False
        if not len(self):
            return True
        points = self._points[self._nearest(T_map_cam)[0]]
        rule = CullingRule(2 * self.rule.motion, self.rule.overlap / 2)
        return any(rule.is_duplicate(pose, points, T_map_cam, camera) for pose in poses)

    def add(self, name: str, T_map_cam: npt.NDArray[np.float64], points: npt.NDArray[np.floating]) -> None:
        """Adds a keyframe that is part of the map now.

        Args:
            name: Name of the keyframe.
            T_map_cam: [4, 4] its pose.
            points: [N, 3] its points in the map.
        """
        count = len(self._names)
        if self.rule.motion <= 0 or not len(points):
            return
        if count == len(self._poses):
            self._poses = np.concatenate([self._poses, np.zeros_like(self._poses)])
        self._poses[count] = T_map_cam
        self._names.append(name)
        self._points.append(compact_points(points)[:: max(1, len(points) // _COMPARED_POINTS)])

    def _nearest(self, T_map_cam: npt.NDArray[np.float64], since: int = 0) -> npt.NDArray[np.intp]:
        """Indices of the keyframes that are nearest in position (relative to the scene's depth) and direction."""
        poses = self._poses[since : len(self)]
        distance = np.linalg.norm(poses[:, :3, 3] - T_map_cam[:3, 3], axis=1)
        angle = np.arccos(np.clip(poses[:, :3, 2] @ T_map_cam[:3, 2], -1.0, 1.0))
        # without the depths, which differ little among the keyframes of one place, the order is the same
        nearest = self._points[since + int(distance.argmin())]
        scale = np.median(np.linalg.norm(nearest - T_map_cam[:3, 3], axis=1))
        order: npt.NDArray[np.intp] = np.argsort(distance / max(scale, 1e-9) + angle, kind="stable")
        return since + order[:_CANDIDATES]


def view_motion(
    T_map_old: npt.NDArray[np.float64], points: npt.NDArray[np.floating], T_map_new: npt.NDArray[np.float64]
) -> float:
    """Measures how far a scene moves in the image between two views.

    Args:
        T_map_old: [4, 4] pose of one view.
        points: [N, 3] points of the map.
        T_map_new: [4, 4] pose of the other view.

    Returns:
        Median angle in radians between the directions of the points in the two cameras' own frames.
    """
    directions = []
    for T_map_cam in (T_map_old, T_map_new):
        local = (points - T_map_cam[:3, 3]) @ T_map_cam[:3, :3]
        directions.append(local / np.maximum(np.linalg.norm(local, axis=1, keepdims=True), 1e-12))
    # of small angles the chord is precise and the cosine is not
    chord = np.linalg.norm(directions[0] - directions[1], axis=1)
    return float(2.0 * np.arcsin(np.clip(np.median(chord) / 2.0, 0.0, 1.0)))


def view_overlap(points: npt.NDArray[np.floating], T_map_cam: npt.NDArray[np.float64], camera: Camera) -> float:
    """Returns the share of points that lie in the image of a view.

    Args:
        points: [N, 3] points of the map.
        T_map_cam: [4, 4] pose of the view.
        camera: Camera of the view.
    """
    local = (points - T_map_cam[:3, 3]) @ T_map_cam[:3, :3]
    projected, in_front, _ = camera.project(torch.as_tensor(local, dtype=torch.float64))
    pixels = projected.numpy()
    inside = in_front.numpy() & ((pixels >= -0.5) & (pixels < (camera.width - 0.5, camera.height - 0.5))).all(axis=1)
    return float(inside.mean())
