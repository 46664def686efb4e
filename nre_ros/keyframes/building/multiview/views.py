# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Posed grey images, and the choice of views that see the same surfaces from other places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from nre_ros.geometry import Camera

MAX_VIEW_SIDE = 960
"""Longer side (pixels) to which larger views are reduced; bounds time and memory."""

BEST_ANGLE = np.radians(10.0)
"""Angle between the rays to a point: a smaller one makes its depth less certain, a larger one its look different."""
_FADING = np.radians(10.0)
"""Angle beyond ``BEST_ANGLE`` over which a view's score falls to 1/e."""
_NEAREST = 40
"""Views, the likeliest by their poses, whose overlap is computed."""
_MIN_DISTANCE = 0.02
"""Least distance of two neighbours' centres, as a fraction of the scene's depth: closer views add nothing."""
_MIN_OVERLAP = 0.15
"""Least share of the points in the other view's image."""
_SAME_DIRECTION = np.cos(np.radians(60.0))
"""Cosine of the largest angle between two optical axes, when nothing else is known."""
_PROJECTED_POINTS = 60
"""Points of a view that are projected into others."""


@dataclass(frozen=True)
class View:
    """A posed grey image.

    Attributes:
        grey: [H, W] pixels.
        camera: Camera of this size.
        T_map_cam: [4, 4] its pose.
    """

    grey: npt.NDArray[np.uint8]
    camera: Camera
    T_map_cam: npt.NDArray[np.float64]

    @classmethod
    def from_image(cls, image: npt.NDArray[np.uint8], camera: Camera, T_map_cam: npt.NDArray[np.float64]) -> View:
        """Makes the view of an image; large images are reduced to ``MAX_VIEW_SIDE``.

        Args:
            image: BGR [H, W, 3] or grey [H, W], uint8, of the camera's size.
            camera: Its camera.
            T_map_cam: [4, 4] its pose.
        """
        grey = grey_image(image)
        scale = MAX_VIEW_SIDE / max(grey.shape)
        if scale < 1:
            size = [max(1, round(side * scale)) for side in grey.shape[::-1]]
            grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
            camera = camera.resized(*size)
        return cls(grey, camera, np.asarray(T_map_cam, dtype=np.float64))

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return self.grey.nbytes


def grey_image(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Returns the grey values of an image.

    Args:
        image: BGR [H, W, 3] or grey [H, W], uint8.

    Returns:
        [H, W] uint8; a grey image is returned as it is.
    """
    return image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), dtype=np.uint8)


def neighbours(
    points: npt.NDArray[np.floating],
    T_map_cam: npt.NDArray[np.float64],
    poses: npt.NDArray[np.float64],
    cameras: Sequence[Camera | None],
    count: int,
) -> list[int]:
    """Chooses views that see the points of a view well and from other places.

    The score of a view is the share of the points in its image, times a score of the angle between the rays. Of several
    views from one place only the best is taken. The choice needs no metric scale.

    Args:
        points: [N, 3] points of the map that the view sees.
        T_map_cam: [4, 4] pose of the view.
        poses: [V, 4, 4] poses of the others; nan for a view without a pose.
        cameras: [V] cameras of the others; None for a view without a pose.
        count: Largest number of views to choose.

    Returns:
        Indices of the chosen views, best first.
    """
    if not len(points) or not len(poses):
        return []
    points = points[:: max(1, len(points) // _PROJECTED_POINTS)]
    scene_depth = max(float(np.median(np.linalg.norm(points - T_map_cam[:3, 3], axis=1))), 1e-9)
    likeliest = _likeliest(T_map_cam, poses, scene_depth)
    scores = np.zeros(len(likeliest))
    likeliest_cameras = [cameras[i] for i in likeliest]
    for camera in dict.fromkeys(likeliest_cameras):  # all views of one camera at once: usually there is only one
        if camera is None:
            continue
        same = np.array([other == camera for other in likeliest_cameras])
        scores[same] = _scores(points, T_map_cam, poses[likeliest[same]], camera)
    chosen: list[int] = []
    for i in likeliest[np.argsort(-scores, kind="stable")][: int((scores > 0).sum())]:
        distances = [float(np.linalg.norm(poses[i][:3, 3] - poses[j][:3, 3])) for j in chosen]
        if min(distances, default=np.inf) >= _MIN_DISTANCE * scene_depth:
            chosen.append(int(i))
        if len(chosen) == count:
            break
    return chosen


def likely_neighbours(T_map_cam: npt.NDArray[np.float64], poses: npt.NDArray[np.float64], count: int) -> list[int]:
    """Chooses views that may see the same surfaces, when nothing is known of the scene.

    Of the views in a similar direction the nearest and the second nearest are taken, and then views at growing
    distances: one of them has the parallax that the scene needs.

    Args:
        T_map_cam: [4, 4] pose of the view.
        poses: [V, 4, 4] poses of the others; nan for a view without a pose.
        count: Largest number of views to choose.

    Returns:
        Indices of the chosen views, nearest first.
    """
    with np.errstate(invalid="ignore"):
        distance = np.linalg.norm(poses[:, :3, 3] - T_map_cam[:3, 3], axis=1)
        facing = poses[:, :3, 2] @ T_map_cam[:3, 2]
        fit = np.flatnonzero(np.isfinite(distance) & (distance > 0) & (facing > _SAME_DIRECTION))
    fit = fit[np.argsort(distance[fit], kind="stable")]
    if len(fit) > count:
        fit = fit[np.unique(np.geomspace(1, len(fit), count).round().astype(int)) - 1]
    return [int(i) for i in fit]


def _likeliest(
    T_map_cam: npt.NDArray[np.float64], poses: npt.NDArray[np.float64], scene_depth: float
) -> npt.NDArray[np.intp]:
    """Views ordered by the angle at the middle of the scene and by their direction, without projecting points."""
    with np.errstate(invalid="ignore"):
        distance = np.linalg.norm(poses[:, :3, 3] - T_map_cam[:3, 3], axis=1)
        facing = poses[:, :3, 2] @ T_map_cam[:3, 2]
        rough = _angle_scores(np.arctan(distance / scene_depth)) * facing
        fit = np.flatnonzero(np.isfinite(rough) & (facing > 0) & (distance >= _MIN_DISTANCE / 2 * scene_depth))
    order: npt.NDArray[np.intp] = fit[np.argsort(-rough[fit], kind="stable")][:_NEAREST]
    return order


def _scores(
    points: npt.NDArray[np.floating], T_map_cam: npt.NDArray[np.float64], poses: npt.NDArray[np.float64], camera: Camera
) -> npt.NDArray[np.float64]:
    """Scores [V] of the views of one camera at poses [V, 4, 4]."""
    local = (points - poses[:, None, :3, 3]) @ poses[:, :3, :3]
    projected, in_front, _ = camera.project(torch.from_numpy(local))
    pixels = projected.numpy()
    inside = in_front.numpy() & ((pixels >= 0) & (pixels <= (camera.width - 1, camera.height - 1))).all(-1)
    own_rays, other_rays = points - T_map_cam[:3, 3], points - poses[:, None, :3, 3]
    lengths = np.linalg.norm(own_rays, axis=-1) * np.linalg.norm(other_rays, axis=-1)
    angle = np.arccos(((own_rays * other_rays).sum(-1) / np.maximum(lengths, 1e-12)).clip(-1, 1))
    share = inside.mean(-1)
    scores = np.zeros(len(poses))
    for i in np.flatnonzero(share >= _MIN_OVERLAP):
        scores[i] = share[i] * _angle_scores(np.median(angle[i, inside[i]]))
    return scores


def _angle_scores(angle: npt.NDArray[np.float64] | np.floating) -> npt.NDArray[np.float64]:
    """Scores of angles between rays in radians: 1 at ``BEST_ANGLE``."""
    scores: npt.NDArray[np.float64] = np.minimum(angle / BEST_ANGLE, 1.0) * np.exp(
        -np.maximum(angle - BEST_ANGLE, 0.0) / _FADING
    )
    return scores
