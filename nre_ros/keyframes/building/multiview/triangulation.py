# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Triangulation of one view's keypoints from their matches in other posed views.

Every match gives a hypothesis: the midpoint of the two rays. The hypothesis that most views agree with is refined over
these views by Gauss-Newton on the reprojection errors (Hartley and Zisserman, chapter 12).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from nre_ros.geometry import Camera, invert

_MAX_ERROR = 0.003
"""Largest reprojection error, as a fraction of the focal length (2 pixels of 640)."""
_MIN_ANGLE = np.radians(1.5)
"""Largest angle between the own ray and another must exceed this."""
_GAUSS_NEWTON_STEPS = 4
"""Gauss-Newton steps of one refinement."""


class PosedKeypoints(Protocol):
    """The keypoints of a posed image, of any detector.

    Attributes:
        pixels: [N, 2].
        rays: [N, 3] viewing directions in the camera's frame, with z = 1.
        camera: Camera of the image.
        T_map_cam: [4, 4] pose of the image.
    """

    @property
    def pixels(self) -> npt.NDArray[np.float64]: ...

    @property
    def rays(self) -> npt.NDArray[np.float64]: ...

    @property
    def camera(self) -> Camera: ...

    @property
    def T_map_cam(self) -> npt.NDArray[np.float64]: ...


@dataclass(frozen=True)
class TriangulatedPoints:
    """The keypoints that could be triangulated.

    Attributes:
        index: [N] their indices in the view.
        points: [N, 3] in the map.
        views: [N] number of views that agree, the own view included.
    """

    index: npt.NDArray[np.intp]
    points: npt.NDArray[np.float64]
    views: npt.NDArray[np.int64]


def triangulate(
    view: PosedKeypoints, others: Sequence[PosedKeypoints], matches: Sequence[npt.NDArray[np.int64]]
) -> TriangulatedPoints:
    """Triangulates the keypoints of a view.

    Args:
        view: The view.
        others: Other views.
        matches: Indices [M, 2] of matching keypoints for every other view: in the view, in the other view.

    Returns:
        The keypoints that at least one other view confirms, and their points.
    """
    count = len(view.pixels)
    observed = np.full((len(others) + 1, count, 2), np.nan)
    observed[0] = view.pixels
    for k, (other, pairs) in enumerate(zip(others, matches), start=1):
        observed[k, pairs[:, 0]] = other.pixels[pairs[:, 1]]
    views = [view, *others]
    points, agree = np.full((count, 3), np.nan), np.zeros((len(views), count), dtype=bool)
    for other, pairs in zip(others, matches):
        index = pairs[:, 0]
        guess = _midpoints(view, other, pairs)
        fits = _reprojection_errors(views, guess, observed[:, index]) < _MAX_ERROR
        better = fits.sum(0) > agree[:, index].sum(0)
        points[index[better]], agree[:, index[better]] = guess[better], fits[:, better]
    for _ in range(2):  # a view that just missed may agree with the refined point
        seen = np.flatnonzero(agree.sum(0) >= 2)
        points[seen] = _refine(views, points[seen], observed[:, seen], agree[:, seen])
        agree = _reprojection_errors(views, points, observed) < _MAX_ERROR
    good = agree[0] & (agree.sum(0) >= 2) & (_largest_angle(views, points, agree) > _MIN_ANGLE)
    index = np.flatnonzero(good)
    return TriangulatedPoints(index, points[index], agree.sum(0)[index])


def _midpoints(a: PosedKeypoints, b: PosedKeypoints, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Points [M, 3] halfway between the rays where these are closest; nan where that is behind a camera."""
    u = a.rays[pairs[:, 0]] @ a.T_map_cam[:3, :3].T
    v = b.rays[pairs[:, 1]] @ b.T_map_cam[:3, :3].T
    start = b.T_map_cam[:3, 3] - a.T_map_cam[:3, 3]
    uu, vv, uv = (u * u).sum(1), (v * v).sum(1), (u * v).sum(1)
    determinant = np.maximum(uu * vv - uv * uv, 1e-12)
    along_a = (vv * (u @ start) - uv * (v @ start)) / determinant
    along_b = (uv * (u @ start) - uu * (v @ start)) / determinant
    points = 0.5 * (a.T_map_cam[:3, 3] + along_a[:, None] * u + b.T_map_cam[:3, 3] + along_b[:, None] * v)
    points[(along_a <= 0) | (along_b <= 0)] = np.nan
    midpoints: npt.NDArray[np.float64] = points
    return midpoints


def _reprojection_errors(
    views: Sequence[PosedKeypoints], points: npt.NDArray[np.float64], observed: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Errors [V, N] as fractions of the focal length; inf without an observation (nan in [V, N, 2]) or a point [N, 3]."""
    errors = np.full(observed.shape[:2], np.inf)
    guessed = np.isfinite(points.sum(1))  # numpy's all() over three numbers takes far longer
    for k, view in enumerate(views):
        known = np.flatnonzero(guessed & np.isfinite(observed[k, :, 0]))
        T = invert(view.T_map_cam)
        local = points[known] @ T[:3, :3].T + T[:3, 3]
        pixels, front, _ = view.camera.project(torch.from_numpy(local))
        x, y = ((pixels.numpy() - observed[k, known]) / (view.camera.fx, view.camera.fy)).T
        errors[k, known] = np.where(front.numpy(), np.hypot(x, y), np.inf)
    return errors


def _refine(
    views: Sequence[PosedKeypoints],
    points: npt.NDArray[np.float64],
    observed: npt.NDArray[np.float64],
    agree: npt.NDArray[np.bool_],
) -> npt.NDArray[np.float64]:
    """Gauss-Newton steps [N, 3] on the errors in the views that agree [V, N]."""
    points = points.copy()
    for _ in range(_GAUSS_NEWTON_STEPS):
        normal = np.tile(1e-12 * np.eye(3), (len(points), 1, 1))
        gradient = np.zeros_like(points)
        for k, view in enumerate(views):
            index = np.flatnonzero(agree[k])
            T = invert(view.T_map_cam)
            local = torch.from_numpy(points[index] @ T[:3, :3].T + T[:3, 3])
            pixels, _, jacobian = view.camera.project(local, jacobian=True)
            assert jacobian is not None
            focal = np.array([view.camera.fx, view.camera.fy])
            residual = (pixels.numpy() - observed[k, index]) / focal
            J = jacobian.numpy() @ T[:3, :3] / focal[:, None]
            # numpy multiplies many small matrices one by one
            x, y = J[:, 0], J[:, 1]
            normal[index] += x[:, :, None] * x[:, None, :] + y[:, :, None] * y[:, None, :]
            gradient[index] += x * residual[:, :1] + y * residual[:, 1:]
        points -= np.linalg.solve(normal, gradient[..., None])[..., 0]
    return points


def _largest_angle(
    views: Sequence[PosedKeypoints], points: npt.NDArray[np.float64], agree: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Largest angle [N] in radians between the ray of the first view and that of another view that agrees."""
    own = points - views[0].T_map_cam[:3, 3]
    angle = np.zeros(len(points))
    for k, view in enumerate(views[1:], start=1):
        ray = points - view.T_map_cam[:3, 3]
        cosine = (ray * own).sum(1) / np.maximum(np.linalg.norm(ray, axis=1) * np.linalg.norm(own, axis=1), 1e-12)
        angle = np.where(agree[k], np.maximum(angle, np.arccos(cosine.clip(-1, 1))), angle)
    return angle
