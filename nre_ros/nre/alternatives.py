# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Alternative hypotheses: distinct poses that explain the same image (perceptual aliasing)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from nre_ros.nre.uncertainty import PoseUncertainty

REFINED_FROM = 0.25
"""An alternative with at least this relative score is refined in the coarse maps."""
REPORTED_FROM = 0.5
"""An alternative with at least this relative score passes the fine stage, too, and is reported with the result."""

_DISTINCT_DISTANCE = 1.0
"""Two poses are distinct when their centres are farther apart than this fraction of the scene's distance."""
_DISTINCT_COSINE = math.cos(math.radians(60.0))
"""Two poses are distinct when the cosine of the rotation between them is lower."""
_SCENE_QUANTILE = 0.2
"""The scene's distance is a low quantile: where the points show two rooms, those of the other room are far."""


@dataclass(frozen=True)
class AlternativePose:
    """The best pose that is distinct from the estimate.

    Attributes:
        T_cam_map: ``[4, 4]``.
        relative_score: Its inlier score in the coarse maps, after the coarse stage, as a fraction of the estimate's.
        uncertainty: As of the estimate; None unless the pose passed the fine stage.
        inliers: ``[N]`` bool, which points are its inliers.
    """

    T_cam_map: torch.Tensor
    relative_score: float
    uncertainty: PoseUncertainty | None = None
    inliers: torch.Tensor | None = None


def are_distinct_poses(T: torch.Tensor, reference: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Finds the poses that put the camera at another place, or turn it to another view.

    Args:
        T: ``[B, 4, 4]`` poses ``T_cam_map``.
        reference: ``[4, 4]`` pose that they are compared with.
        points: ``[N, 3]`` points in the map, which give the scene's distance.

    Returns:
        ``[B]`` bool.
    """
    centres, centre = (-(pose[..., :3, :3].mT @ pose[..., :3, 3:])[..., 0] for pose in (T, reference))
    scene = (points - centre).norm(dim=1).quantile(_SCENE_QUANTILE)
    cosine = ((reference[:3, :3] * T[:, :3, :3]).sum((1, 2)) - 1) / 2
    return ((centres - centre).norm(dim=1) > _DISTINCT_DISTANCE * scene) | (cosine < _DISTINCT_COSINE)
