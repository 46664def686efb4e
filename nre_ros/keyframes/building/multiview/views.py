# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Posed grey images, and which of them see the same surfaces as another from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from nre_ros.geometry import Camera

MAX_SIDE = 960
"""Longer side (pixels) to which views are reduced: bounds the time and the memory."""

BEST_ANGLE = np.radians(10.0)
"""Between the rays to a point: less tells its depth worse, more makes it look different."""
_FADING = np.radians(10.0)
"""Beyond the best angle a view's worth falls to 1/e in as much."""
_NEAREST = 40
"""Views, the likeliest by their poses, whose overlap is computed."""
_APART = 0.02
"""Least distance of two neighbours' centres, as a fraction of the scene's depth: closer ones tell the same."""
_MIN_SHARE = 0.15
_SAME_WAY = np.cos(np.radians(60.0))
"""Cosine of the largest angle between two optical axes, when nothing else is known."""
_POINTS = 60


@dataclass(frozen=True)
class View:
    """grey: [H, W] uint8; camera: of that size; T_map_cam: [4, 4]."""

    grey: np.ndarray
    camera: Camera
    T_map_cam: np.ndarray

    @classmethod
    def of(cls, image: np.ndarray, camera: Camera, T_map_cam: np.ndarray) -> View:
        """The view of an image, uint8 BGR or grey of the camera's size, reduced if it is large."""
        grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        scale = MAX_SIDE / max(grey.shape)
        if scale < 1:
            size = [max(1, round(side * scale)) for side in grey.shape[::-1]]
            grey, camera = cv2.resize(grey, size, interpolation=cv2.INTER_AREA), camera.resized(*size)
        return cls(grey, camera, np.asarray(T_map_cam, dtype=np.float64))

    @property
    def nbytes(self) -> int:
        return self.grey.nbytes


def neighbours(points: np.ndarray, T_map_cam: np.ndarray, poses: np.ndarray, cameras: Sequence[Camera], count: int):
    """Indices of at most ``count`` views that see the points of a view well and from elsewhere, best first.

    points: [N, 3] in the map, seen from T_map_cam [4, 4]; poses: [V, 4, 4] of the others, nan
    for one that is none.  A view is worth the share of the points in its image times what the angle
    between the rays is worth; views from one place count once.  Needs no metric scale.
    """
    if not len(points) or not len(poses):
        return []
    points = points[:: max(1, len(points) // _POINTS)]
    scene = max(float(np.median(np.linalg.norm(points - T_map_cam[:3, 3], axis=1))), 1e-9)
    likeliest = _likeliest(T_map_cam, poses, scene)
    worth = np.zeros(len(likeliest))
    of = [cameras[i] for i in likeliest]
    for camera in dict.fromkeys(of):  # those of one camera at once: usually there is only one
        its = np.array([other == camera for other in of])
        worth[its] = _worth(points, T_map_cam, poses[likeliest[its]], camera)
    chosen: list[int] = []
    for i in likeliest[np.argsort(-worth, kind="stable")][: int((worth > 0).sum())]:
        apart = [np.linalg.norm(poses[i][:3, 3] - poses[j][:3, 3]) for j in chosen]
        if min(apart, default=np.inf) >= _APART * scene:
            chosen.append(int(i))
        if len(chosen) == count:
            break
    return chosen


def likely_neighbours(T_map_cam: np.ndarray, poses: np.ndarray, count: int) -> list[int]:
    """Indices of at most ``count`` views that may see the same, when nothing is known of the scene.

    poses: [V, 4, 4], nan for one that is none.  Of those that look the same way the nearest, the
    second nearest, and then at growing distances: one of them has the parallax that the scene takes.
    """
    with np.errstate(invalid="ignore"):
        distance = np.linalg.norm(poses[:, :3, 3] - T_map_cam[:3, 3], axis=1)
        facing = poses[:, :3, 2] @ T_map_cam[:3, 2]
        fit = np.flatnonzero(np.isfinite(distance) & (distance > 0) & (facing > _SAME_WAY))
    fit = fit[np.argsort(distance[fit], kind="stable")]
    ranks = np.unique(np.geomspace(1, len(fit), count).round().astype(int)) - 1 if len(fit) > count else slice(None)
    return fit[ranks].tolist()


def _likeliest(T_map_cam, poses, scene: float) -> np.ndarray:
    """Views by the angle at the middle of the scene and their direction, without looking at points."""
    with np.errstate(invalid="ignore"):
        distance = np.linalg.norm(poses[:, :3, 3] - T_map_cam[:3, 3], axis=1)
        facing = poses[:, :3, 2] @ T_map_cam[:3, 2]
        rough = _angle_worth(np.arctan(distance / scene)) * facing
        fit = np.flatnonzero(np.isfinite(rough) & (facing > 0) & (distance >= _APART / 2 * scene))
    return fit[np.argsort(-rough[fit], kind="stable")][:_NEAREST]


def _worth(points: np.ndarray, T_map_cam: np.ndarray, poses: np.ndarray, camera: Camera) -> np.ndarray:
    """[V] for the poses [V, 4, 4] of one camera."""
    local = (points - poses[:, None, :3, 3]) @ poses[:, :3, :3]
    pixels, front, _ = camera.project(torch.from_numpy(local))
    pixels = pixels.numpy()
    inside = front.numpy() & ((pixels >= 0) & (pixels <= (camera.width - 1, camera.height - 1))).all(-1)
    ours, theirs = points - T_map_cam[:3, 3], points - poses[:, None, :3, 3]
    lengths = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
    angle = np.arccos(((ours * theirs).sum(-1) / np.maximum(lengths, 1e-12)).clip(-1, 1))
    share = inside.mean(-1)
    worth = np.zeros(len(poses))
    for i in np.flatnonzero(share >= _MIN_SHARE):
        worth[i] = share[i] * _angle_worth(np.median(angle[i, inside[i]]))
    return worth


def _angle_worth(angle):
    return np.minimum(angle / BEST_ANGLE, 1.0) * np.exp(-np.maximum(angle - BEST_ANGLE, 0.0) / _FADING)
