# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether a query sees a map point from a similar direction and at a similar scale as the point's keyframe."""

from __future__ import annotations

import torch

from nre_ros.features.base import network_focal_length
from nre_ros.geometry import Camera, invert


def compatible_views(
    T: torch.Tensor,
    points: torch.Tensor,
    directions: torch.Tensor,
    camera: Camera,
    max_scale_ratio: float,
    min_cosine: float,
) -> torch.Tensor:
    """Finds the points whose view in the query is compatible with that in their keyframe.

    Args:
        T: ``[4, 4]`` pose of the query, ``T_cam_map``.
        points: ``[N, 3]`` in the map.
        directions: ``[N, 3]`` from the keyframe to the point over the focal length (see ``KeyframeStack``).
        camera: Intrinsics of the query.
        max_scale_ratio: Largest ratio of the point's sizes in the two images, in either direction.
        min_cosine: Lowest cosine of the angle between the two rays to the point.

    Returns:
        ``[N]`` bool.
    """
    ours = (points - invert(T)[:3, 3]).to(directions) / network_focal_length(camera)
    here, there = ours.norm(dim=1).clamp_min(1e-12), directions.norm(dim=1).clamp_min(1e-12)
    cosine = (ours * directions).sum(1) / (here * there)
    return (cosine > min_cosine) & (here < max_scale_ratio * there) & (there < max_scale_ratio * here)
