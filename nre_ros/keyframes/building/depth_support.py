# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether other depth images confirm a point: what several views see is seen again, and is no error of one of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from nre_ros.geometry import Camera, invert

_TOLERANCE = 0.04
"""Largest difference of two depths of one point, as a fraction of the depth: sensor noise and pose error."""

UNSEEN_WEIGHT, CONTRADICTED_WEIGHT = 0.5, 0.1
"""Factors on the score of a point that no other view sees, and of one that other views see through."""


@dataclass(frozen=True)
class DepthView:
    """A depth image [H, W] in metres along z (0: none) with its camera and pose [4, 4]."""

    T_map_cam: np.ndarray
    camera: Camera
    depth: np.ndarray


def depth_support(points: np.ndarray, views: list[DepthView]) -> tuple[np.ndarray, np.ndarray]:
    """How many of the views confirm each of the points [N, 3] (map), and how many look through it [N], [N].

    A view whose surface is nearer than the point is no witness: the point is hidden there.
    """
    confirmed, contradicted = np.zeros(len(points), dtype=int), np.zeros(len(points), dtype=int)
    for view in views:
        T = invert(view.T_map_cam)
        local = points @ T[:3, :3].T + T[:3, 3]
        pixels, front, _ = view.camera.project(torch.as_tensor(local, dtype=torch.float64))
        height, width = view.depth.shape
        x, y = np.rint(pixels.numpy()).astype(np.int64).T
        inside = front.numpy() & (x >= 0) & (y >= 0) & (x < width) & (y < height)
        seen = np.zeros(len(points), dtype=np.float32)
        seen[inside] = view.depth[y[inside], x[inside]]
        difference = seen / np.maximum(local[:, 2], 1e-9) - 1.0
        confirmed += (seen > 0) & (np.abs(difference) <= _TOLERANCE)
        contradicted += (seen > 0) & (difference > _TOLERANCE)
    return confirmed, contradicted


def support_weights(confirmed: np.ndarray, contradicted: np.ndarray) -> np.ndarray:
    """Factors [N] on the points' scores: confirmed ones first, those that other views look through last."""
    doubtful = np.where(contradicted > confirmed, CONTRADICTED_WEIGHT, UNSEEN_WEIGHT)
    return np.where((confirmed > 0) & (confirmed >= contradicted), 1.0, doubtful)
