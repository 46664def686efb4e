# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The overlap of views, computed from their true poses and depths."""

from __future__ import annotations

import numpy as np
import torch
from scenes import lift_by_depth

from nre_ros.geometry import Camera, invert, transform

ENOUGH = 0.3
"""A keyframe overlaps with a query that sees this share of its depth points."""
_STEP = 16


def overlaps(keyframes, queries, camera: Camera) -> np.ndarray:
    """Computes how much of each keyframe each query sees.

    A query sees a point if the point projects into its image and the depth there agrees within 5 % and 5 cm.

    Args:
        keyframes: T_map_cam [4, 4] and depth [H, W] of each, metres along z (0: none).
        queries: the same of the queries.
        camera: camera of all views.

    Returns:
        [Q, M] share of each keyframe's depth points that each query sees.
    """
    y, x = np.mgrid[_STEP // 2 : camera.height : _STEP, _STEP // 2 : camera.width : _STEP].reshape(2, -1)
    points = []
    for T, depth in keyframes:
        lifted, known = lift_by_depth(depth, np.stack([x, y], axis=1), camera, T)
        points.append(lifted[known])
    counts = np.array([len(part) for part in points])
    starts = np.cumsum(counts) - counts
    points = torch.from_numpy(np.concatenate(points))
    rows = []
    for T, depth in queries:
        local = transform(torch.from_numpy(invert(T)), points)
        pixels, front, _ = camera.project(local)
        pixels, z = pixels.round().long().numpy(), local[:, 2].numpy()
        inside = front.numpy() & (pixels >= 0).all(1) & (pixels < (camera.width, camera.height)).all(1)
        seen = np.zeros(len(z))
        seen[inside] = depth[pixels[inside, 1], pixels[inside, 0]]
        same = (seen > 0) & (np.abs(seen - z) < 0.05 * z + 0.05)
        rows.append(np.add.reduceat(same.astype(float), starts) / counts)
    return np.array(rows)
