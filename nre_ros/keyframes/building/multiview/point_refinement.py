# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Verification and refinement of triangulated points by the images themselves.

A keypoint that is matched in one other view alone may be matched with the wrong keypoint: every place on the epipolar
line gives a point. The patch around the keypoint is therefore compared with all views that should show the point,
also with those in which no keypoint was matched. Wrong points fit no view or few. The correlations over the plausible
range of the depth are the log-likelihood, the triangulated depth is the prior. The refined point lies on the ray of
its own pixel, where its descriptor is sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import cKDTree

from nre_ros.geometry import invert
from nre_ros.keyframes.building.multiview.plane_sweep import Patches, plane_sweep
from nre_ros.keyframes.building.multiview.posterior import posterior_peak
from nre_ros.keyframes.building.multiview.views import View

_RANGE = 3.0
"""Half of the searched range, in standard deviations of the triangulated depth."""
_DEPTH_HYPOTHESES = 13
"""Hypotheses in the range: half a standard deviation apart, which is a quarter of a pixel along the epipolar line."""
_SMALLEST, _LARGEST = 5e-4, 0.05
"""Bounds of the standard deviation that decides the range, as fractions of the depth."""
_SHARPNESS = 20.0
"""Log-likelihood of a full correlation with one view, as in ``depth_refinement``."""
_CHANCE_CORRELATION = 0.5
"""Correlations up to this value occur by chance and are ignored."""
_CONFIRMED = 0.7
"""Correlation from which a view confirms a point."""
_BORDER = 6.0
"""Points nearer to the border of a view (pixels) need not be visible there."""

_PLANE_NEIGHBOURS = 16
"""Points around a point that decide the plane of its patch."""
_PLANE_RADIUS = 1 / 34
"""Distance at which a neighbour's weight falls to exp(-1/2), as a fraction of the image's longer side."""
_PLANE_STEP = 0.01
"""Difference of depth at which a neighbour's weight falls to a half, as a fraction of the depth."""
_PLANE_FLATNESS = 200.0
"""Strength of the prior that draws slopes to zero, in square pixels of neighbours with full weight."""


@dataclass(frozen=True)
class RefinedPoints:
    """Points on the rays of their pixels.

    Attributes:
        points: [N, 3] in the map.
        deviation: [N] standard deviation of the depth, as a fraction of the depth.
        confirmed: [N] number of other views whose image fits.
        visible: [N] number of other views that should show the point.
    """

    points: npt.NDArray[np.float64]
    deviation: npt.NDArray[np.float64]
    confirmed: npt.NDArray[np.int64]
    visible: npt.NDArray[np.int64]


def refine_points(
    view: View,
    pixels: npt.NDArray[np.float64],
    points: npt.NDArray[np.float64],
    deviation: npt.NDArray[np.float64],
    others: Sequence[View],
) -> RefinedPoints:
    """Refines the depths of triangulated points and counts the views that confirm them.

    Args:
        view: The image; it may be smaller than the one in which pixels are measured (``View.from_image``).
        pixels: [N, 2] where the image shows the points, in pixels of ``view``.
        points: [N, 3] the points in the map.
        deviation: [N] standard deviation of their depths, as a fraction of the depth.
        others: The views to compare with.

    Returns:
        The refined points.
    """
    T = invert(view.T_map_cam)
    z = points @ T[2, :3] + T[2, 3]
    planes = _planes_through_neighbours(pixels, z, max(view.grey.shape))
    change, refined = np.zeros(len(z)), np.minimum(deviation, _LARGEST)
    confirmed = np.zeros(len(z), dtype=np.int64)
    deviation = deviation.clip(_SMALLEST, _LARGEST)
    # all patches of a sweep have the same hypotheses: points of similar precision are swept together
    octave = np.rint(np.log2(deviation / _SMALLEST)).astype(int)
    for level in np.unique(octave):
        rows = np.flatnonzero(octave == level)
        step = _SMALLEST * 2.0**level
        relative = torch.linspace(-_RANGE * step, _RANGE * step, _DEPTH_HYPOTHESES, dtype=torch.float64)
        patches = Patches.from_view(view, torch.from_numpy(pixels[rows]), torch.from_numpy(planes[rows]))
        correlations = [plane_sweep(patches, relative, other) for other in others]
        likelihood = torch.zeros(len(rows), _DEPTH_HYPOTHESES, dtype=torch.float64)
        for correlation in correlations:
            likelihood += _SHARPNESS * (correlation - _CHANCE_CORRELATION).clamp_min(0) / (1 - _CHANCE_CORRELATION)
        prior = -0.5 * (relative / torch.from_numpy(deviation[rows])[:, None]).square()
        peak, spread = posterior_peak(likelihood + prior, relative)
        best = (likelihood + prior).argmax(1, keepdim=True)
        for correlation in correlations:
            confirmed[rows] += (correlation.gather(1, best)[:, 0] >= _CONFIRMED).numpy()
        change[rows], refined[rows] = peak.numpy(), spread.numpy()
    rays = view.camera.rays(torch.from_numpy(pixels)).numpy()
    local = rays / rays[:, 2:] * (z / (1 + change))[:, None]
    on_rays = local @ view.T_map_cam[:3, :3].T + view.T_map_cam[:3, 3]
    return RefinedPoints(on_rays, refined, confirmed, _count_views(on_rays, others))


def _planes_through_neighbours(
    pixels: npt.NDArray[np.float64], z: npt.NDArray[np.float64], side: int
) -> npt.NDArray[np.float64]:
    """Inverse depths and their slopes along x and y [N, 3], fitted to the points around each point.

    In a plane's image the inverse depth is linear in the pixel. Each plane passes through its own point. Neighbours of
    another depth count little, because they lie on another surface or are wrong.
    """
    planes = np.zeros((len(z), 3))
    planes[:, 0] = 1 / z
    count = min(_PLANE_NEIGHBOURS, len(z))
    if count < 3:
        return planes
    distance, index = cKDTree(pixels).query(pixels, k=count)
    offset = pixels[index] - pixels[:, None]
    relative = z[:, None] / z[index] - 1
    weight = np.exp(-0.5 * (distance / (_PLANE_RADIUS * side)) ** 2) / (1 + (relative / _PLANE_STEP) ** 2)
    normal = np.einsum("nk,nki,nkj->nij", weight, offset, offset) + _PLANE_FLATNESS * np.eye(2)
    slope = np.linalg.solve(normal, np.einsum("nk,nki,nk->ni", weight, offset, relative)[..., None])
    planes[:, 1:] = slope[..., 0] / z[:, None]
    return planes


def _count_views(points: npt.NDArray[np.float64], others: Sequence[View]) -> npt.NDArray[np.int64]:
    """Number of views [N] in whose image a point projects."""
    count = np.zeros(len(points), dtype=np.int64)
    for other in others:
        T = invert(other.T_map_cam)
        pixels, in_front, _ = other.camera.project(torch.from_numpy(points @ T[:3, :3].T + T[:3, 3]))
        size = pixels.new_tensor([other.camera.width, other.camera.height])
        count += (in_front & ((pixels >= _BORDER) & (pixels <= size - 1 - _BORDER)).all(-1)).numpy()
    return count
