# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Depth support: whether other depth images confirm a point.

A point that several views confirm is likely to be visible again, and is no measurement error of one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from nre_ros.geometry import Camera, invert

_TOLERANCE = 0.04
"""Largest difference of two depths of one point, as a fraction of the depth; covers sensor noise and pose error."""

UNSEEN_WEIGHT, CONTRADICTED_WEIGHT = 0.5, 0.1
"""Factors on the score of a point that no other view confirms, and of one that other views see through."""


@dataclass(frozen=True)
class DepthView:
    """A posed depth image.

    Attributes:
        T_map_cam: [4, 4] its pose.
        camera: Its camera.
        depth: [H, W] metres along z, 0 where there is none.
    """

    T_map_cam: npt.NDArray[np.float64]
    camera: Camera
    depth: npt.NDArray[np.float32]


def depth_support(
    points: npt.NDArray[np.float64], views: Sequence[DepthView]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Counts the views that confirm points and the views that contradict them.

    A view whose surface is nearer than the point does not count: the point is hidden there.

    Args:
        points: [N, 3] points of the map.
        views: Depth images from other places.

    Returns:
        Number [N] of views with a surface at the point, and number [N] of views that see through the point.
    """
    confirmed, contradicted = np.zeros(len(points), dtype=int), np.zeros(len(points), dtype=int)
    for view in views:
        T = invert(view.T_map_cam)
        local = points @ T[:3, :3].T + T[:3, 3]
        pixels, in_front, _ = view.camera.project(torch.as_tensor(local, dtype=torch.float64))
        height, width = view.depth.shape
        x, y = np.rint(pixels.numpy()).astype(np.int64).T
        inside = in_front.numpy() & (x >= 0) & (y >= 0) & (x < width) & (y < height)
        measured = np.zeros(len(points), dtype=np.float32)
        measured[inside] = view.depth[y[inside], x[inside]]
        difference = measured / np.maximum(local[:, 2], 1e-9) - 1.0
        confirmed += (measured > 0) & (np.abs(difference) <= _TOLERANCE)
        contradicted += (measured > 0) & (difference > _TOLERANCE)
    return confirmed, contradicted


def support_weights(confirmed: npt.NDArray[np.int64], contradicted: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Computes factors on the scores of points: confirmed points first, contradicted points last.

    Args:
        confirmed: [N] number of views that confirm a point.
        contradicted: [N] number of views that see through a point.

    Returns:
        [N] factors in (0, 1].
    """
    doubtful = np.where(contradicted > confirmed, CONTRADICTED_WEIGHT, UNSEEN_WEIGHT)
    return np.where((confirmed > 0) & (confirmed >= contradicted), 1.0, doubtful)
