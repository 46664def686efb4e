# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Poses of another place that explain the same image: when two are of different places, and how well one does."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

SUPPORT = 0.5
"""A point supports a pose when its loss there is below this fraction of ln|Omega|."""
PLAUSIBLE, ALIKE = 0.25, 0.5
"""Shares of what the pose's best keyframe agrees with: from the first on a rival is refined in the coarse maps, from the
second on in the fine ones, too, and told of."""
_ELSEWHERE, _TURNED = 1.0, math.cos(math.radians(60.0))
"""A pose is another place's from this distance on, a fraction of the scene's distance, or with this cosine of the
turn."""


@dataclass(frozen=True)
class Rival:
    """The best pose that puts the camera elsewhere, T_cam_map [4, 4].

    agreement: its ``best_agreement``, in the coarse maps and as the coarse stage left it, as a share of the first pose's.
    covariance: [6, 6] as of the first pose, where it agrees nearly as well and went through the fine stage.
    """

    T_cam_map: torch.Tensor
    agreement: float
    covariance: torch.Tensor | None = None


def apart(T: torch.Tensor, first: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Which of the poses [B, 4, 4] put the camera elsewhere than the first [4, 4]: by far, or turned by much."""
    centres, centre = (-(pose[..., :3, :3].mT @ pose[..., :3, 3:])[..., 0] for pose in (T, first))
    # a low quantile: of two rooms' points those of the other one are far
    scene = (points - centre).norm(dim=1).quantile(0.2)
    cosine = ((first[:3, :3] * T[:, :3, :3]).sum((1, 2)) - 1) / 2
    return ((centres - centre).norm(dim=1) > _ELSEWHERE * scene) | (cosine < _TURNED)


def best_agreement(losses: torch.Tensor, by_chance: torch.Tensor, counts: tuple[int, ...]) -> float:
    """Points beyond chance that support a pose, in the keyframe where most do, at least 0.

    losses, by_chance: [N] as ``Estimate`` has them; counts: points of each keyframe.  Of a place that looks alike there
    may be one keyframe only.
    """
    beyond = (losses < SUPPORT).double() - by_chance * (losses < 1.0)
    return max(0.0, *(float(part.sum()) for part in beyond.split(counts)))
