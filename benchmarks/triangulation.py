"""Map points of posed images without depth: SIFT matches between the images, triangulated from the known poses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from nre_ros.geometry import Camera, invert

_MAX_ERROR = 1.5
"""Pixels: the largest reprojection error in any view."""
_MIN_ANGLE = np.radians(2.0)
"""Smallest largest angle between the rays of a point."""


@dataclass(frozen=True)
class View:
    """Keypoints of a posed image; camera without distortion."""

    keypoints: object
    camera: Camera
    T_map_cam: np.ndarray


def triangulate(views: dict[str, View], matcher) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For every view the pixels [N, 2] of its triangulated keypoints, and their points [N, 3] in the map.

    matcher: (keypoints, keypoints) -> indices [M, 2].  A keypoint is triangulated from all views
    that it matches mutually, by the linear method with the rows weighted by the inverse depths
    (Hartley and Zisserman, section 12.2), and kept where all these views agree.
    """
    matches = _mutual_matches(views, matcher)
    return {name: _triangulate_view(name, views, matches) for name in views}


def _mutual_matches(views, matcher):
    """(a, b) -> indices [M, 2] that both directions agree on."""
    one_way = {
        (a, b): set(map(tuple, matcher(views[a].keypoints, views[b].keypoints))) for a in views for b in views if a != b
    }
    mutual = {}
    for (a, b), pairs in one_way.items():
        both = sorted(pair for pair in pairs if pair[::-1] in one_way[b, a])
        mutual[a, b] = np.array(both, dtype=int).reshape(-1, 2)
    return mutual


def _triangulate_view(name, views, matches):
    pixels = views[name].keypoints.pixels
    observations = [(views[name], np.arange(len(pixels)), pixels)]
    for other in views:
        if other != name and len(matches[name, other]):
            mine, theirs = matches[name, other].T
            observations.append((views[other], mine, views[other].keypoints.pixels[theirs]))
    points = np.zeros((len(pixels), 3))
    for first in (True, False):
        points = _solve(observations, points, first)
    kept = _agreed(observations, points)
    return pixels[kept], points[kept]


def _solve(observations, points, first: bool) -> np.ndarray:
    """Linear triangulation of all points at once; in the first round all rows weigh the same."""
    normal = np.zeros((len(points), 4, 4))
    for view, index, pixels in observations:
        P = invert(view.T_map_cam)[:3]
        rays = _rays(view, pixels)
        depth = np.ones(len(index)) if first else points[index] @ P[2, :3] + P[2, 3]
        weight = 1 / np.maximum(np.abs(depth), 1e-6)
        for axis in (0, 1):
            rows = ((rays[:, axis] / rays[:, 2])[:, None] * P[2] - P[axis]) * weight[:, None]
            np.add.at(normal, index, rows[:, :, None] * rows[:, None, :])
    _, vectors = np.linalg.eigh(normal)
    solution = vectors[:, :, 0]
    scale = solution[:, 3:]
    return solution[:, :3] / np.where(np.abs(scale) < 1e-9, 1e-9, scale)


def _agreed(observations, points) -> np.ndarray:
    """Points seen in two views at least, at a fair angle, in front of and with small errors in all of them."""
    good = np.ones(len(points), bool)
    count = np.zeros(len(points), int)
    angle = np.zeros(len(points))
    own = points - observations[0][0].T_map_cam[:3, 3]
    for view, index, pixels in observations:
        T = invert(view.T_map_cam)
        seen = torch.from_numpy(points[index] @ T[:3, :3].T + T[:3, 3])
        projected, valid, _ = view.camera.project(seen)
        error = np.linalg.norm(projected.numpy() - pixels, axis=1)
        good[index] &= valid.numpy() & (error < _MAX_ERROR)
        count[index] += 1
        ray = points[index] - view.T_map_cam[:3, 3]
        cosine = (ray * own[index]).sum(1) / (np.linalg.norm(ray, axis=1) * np.linalg.norm(own[index], axis=1) + 1e-12)
        angle[index] = np.maximum(angle[index], np.arccos(cosine.clip(-1, 1)))
    return good & (count >= 2) & (angle > _MIN_ANGLE)


def _rays(view: View, pixels: np.ndarray) -> np.ndarray:
    return view.camera.rays(torch.from_numpy(np.asarray(pixels, dtype=np.float64))).numpy()
