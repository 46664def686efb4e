# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which views a map already has: a keyframe that shows nothing new costs place and hides others in retrieval.

How far a view has moved is told by its scene: the median angle by which the points of the
earlier keyframe have moved in the camera's own frame.  That weighs a translation by the depth of
the scene, needs no metric scale, and counts rotation (about the optical axis too) alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from nre_ros.geometry import Camera

_POINTS = 96
"""Points of a keyframe that are remembered."""
_CANDIDATES = 8
"""Keyframes, the nearest by pose, that a view is compared with."""


@dataclass(frozen=True)
class ThinningRule:
    """A view is a duplicate of an earlier keyframe when it moved less than ``motion`` and shares ``overlap``.

    motion: radians, median over the keyframe's points of the angle between their directions in the
    two cameras; 0 keeps every view.  overlap: share of the keyframe's points that lie in the image.
    """

    motion: float = 0.004
    overlap: float = 0.95

    def repeats(self, T_map_old: np.ndarray, points: np.ndarray, T_map_new: np.ndarray, camera: Camera) -> bool:
        """Whether a new view of ``camera`` repeats an older one, which sees points [N, 3] of the map."""
        if view_motion(T_map_old, points, T_map_new) > self.motion:
            return False
        return view_overlap(points, T_map_new, camera) >= self.overlap


STILL = ThinningRule()
"""Of images that somebody has chosen: only what a standing camera sees again (2 pixels of 640)."""
VIDEO = ThinningRule(0.05, 0.8)
"""Of recordings with every frame of a moving camera (25 pixels of 640)."""


class Thinning:
    """Remembers the keyframes of a map that grows, and finds the one that a new view repeats."""

    def __init__(self, rule: ThinningRule = STILL):
        self.rule = rule
        self._names: list[str] = []
        self._points: list[np.ndarray] = []
        self._poses = np.zeros((16, 4, 4))

    def __len__(self) -> int:
        return len(self._names)

    def twin(self, T_map_cam: np.ndarray, camera: Camera, since: int = 0) -> str | None:
        """Name of the keyframe that a view [4, 4] repeats; None: it shows something new.

        since: only among the keyframes after the first so many.
        """
        if len(self) <= since or self.rule.motion <= 0:
            return None
        for i in self._nearest(T_map_cam, since):
            if self.rule.repeats(self._poses[i], self._points[i], T_map_cam, camera):
                return self._names[i]
        return None

    def may_repeat(self, T_map_cam: np.ndarray, camera: Camera, poses: list[np.ndarray]) -> bool:
        """Whether a view may repeat one of others [4, 4] whose points are not known yet.

        The points of the nearest keyframe stand for theirs, with twice the motion and half the overlap.
        """
        if not poses or self.rule.motion <= 0:
            return False
        if not len(self):
            return True
        points = self._points[self._nearest(T_map_cam)[0]]
        rule = ThinningRule(2 * self.rule.motion, self.rule.overlap / 2)
        return any(rule.repeats(pose, points, T_map_cam, camera) for pose in poses)

    def keep(self, name: str, T_map_cam: np.ndarray, points: np.ndarray) -> None:
        """A keyframe with points [N, 3] of the map has been added."""
        count = len(self._names)
        if self.rule.motion <= 0 or not len(points):
            return
        if count == len(self._poses):
            self._poses = np.concatenate([self._poses, np.zeros_like(self._poses)])
        self._poses[count] = T_map_cam
        self._names.append(name)
        self._points.append(np.asarray(points, dtype=np.float32)[:: max(1, len(points) // _POINTS)])

    def _nearest(self, T_map_cam: np.ndarray, since: int = 0) -> np.ndarray:
        """Indices of the keyframes that are nearest in position (of the scene's depth) and direction."""
        poses = self._poses[since : len(self)]
        distance = np.linalg.norm(poses[:, :3, 3] - T_map_cam[:3, 3], axis=1)
        angle = np.arccos(np.clip(poses[:, :3, 2] @ T_map_cam[:3, 2], -1.0, 1.0))
        # without the depths, which differ little among the keyframes of one place, the order is the same
        nearest = self._points[since + int(distance.argmin())]
        scale = np.median(np.linalg.norm(nearest - T_map_cam[:3, 3], axis=1))
        return since + np.argsort(distance / max(scale, 1e-9) + angle, kind="stable")[:_CANDIDATES]


def view_motion(T_map_old: np.ndarray, points: np.ndarray, T_map_new: np.ndarray) -> float:
    """Median angle (radians) between the directions of points [N, 3] of the map in two cameras' own frames."""
    directions = []
    for T_map_cam in (T_map_old, T_map_new):
        local = (points - T_map_cam[:3, 3]) @ T_map_cam[:3, :3]
        directions.append(local / np.maximum(np.linalg.norm(local, axis=1, keepdims=True), 1e-12))
    # of small angles the chord is precise and the cosine is not
    chord = np.linalg.norm(directions[0] - directions[1], axis=1)
    return float(2.0 * np.arcsin(np.clip(np.median(chord) / 2.0, 0.0, 1.0)))


def view_overlap(points: np.ndarray, T_map_cam: np.ndarray, camera: Camera) -> float:
    """Share of the points [N, 3] of the map that lie in a view's image."""
    local = (points - T_map_cam[:3, 3]) @ T_map_cam[:3, :3]
    pixels, front, _ = camera.project(torch.as_tensor(local, dtype=torch.float64))
    pixels = pixels.numpy()
    inside = front.numpy() & ((pixels >= -0.5) & (pixels < (camera.width - 0.5, camera.height - 0.5))).all(axis=1)
    return float(inside.mean())
