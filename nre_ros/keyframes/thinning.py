"""Which views a map already has: a keyframe that shows nothing new costs place and hides others in retrieval.

How far a view has moved is told by its scene: the median angle by which the points of the
earlier keyframe have moved in the camera's own frame.  That weighs a translation by the depth of
the scene, needs no metric scale, and counts rotation (about the optical axis too) alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from nre_ros.geometry import Camera, invert

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

    def twin(self, T_map_cam: np.ndarray, camera: Camera) -> str | None:
        """Name of the keyframe that a view [4, 4] repeats; None: it shows something new."""
        count = len(self._names)
        if not count or self.rule.motion <= 0:
            return None
        for i in self._nearest(T_map_cam, count):
            motion, overlap = view_change(self._poses[i], self._points[i], T_map_cam, camera)
            if motion <= self.rule.motion and overlap >= self.rule.overlap:
                return self._names[i]
        return None

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

    def _nearest(self, T_map_cam: np.ndarray, count: int) -> np.ndarray:
        """Indices of the keyframes that are nearest in position (of the scene's depth) and direction."""
        poses = self._poses[:count]
        distance = np.linalg.norm(poses[:, :3, 3] - T_map_cam[:3, 3], axis=1)
        angle = np.arccos(np.clip(poses[:, :3, 2] @ T_map_cam[:3, 2], -1.0, 1.0))
        # without the depths, which differ little among the keyframes of one place, the order is the same
        scale = np.median(np.linalg.norm(self._points[int(distance.argmin())] - T_map_cam[:3, 3], axis=1))
        return np.argsort(distance / max(scale, 1e-9) + angle, kind="stable")[:_CANDIDATES]


def view_change(
    T_map_old: np.ndarray, points: np.ndarray, T_map_new: np.ndarray, camera: Camera
) -> tuple[float, float]:
    """Median motion (radians) of points [N, 3] of the map from one view to another, and the share in the new image.

    camera: of the new view.  Motion is the angle between a point's directions in the two cameras' own frames.
    """
    directions = []
    for T_map_cam in (T_map_old, T_map_new):
        T_cam_map = invert(T_map_cam)
        local = points @ T_cam_map[:3, :3].T + T_cam_map[:3, 3]
        directions.append(local / np.maximum(np.linalg.norm(local, axis=1, keepdims=True), 1e-12))
    # of small angles the chord is precise and the cosine is not
    chord = np.linalg.norm(directions[0] - directions[1], axis=1)
    pixels, front, _ = camera.project(torch.as_tensor(local, dtype=torch.float64))
    pixels = pixels.numpy()
    inside = front.numpy() & ((pixels >= -0.5) & (pixels < (camera.width - 0.5, camera.height - 0.5))).all(axis=1)
    return float(2.0 * np.arcsin(np.clip(np.median(chord) / 2.0, 0.0, 1.0))), float(inside.mean())
