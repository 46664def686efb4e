# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which points support a pose, and how many of them would support any pose.

All losses here are relative: a point's loss at its projection as a fraction of ln|Omega|, so that 0 is a perfect match
and 1 is what a point pays outside the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nre_ros.nre.maps import INLIER_LOSS as INLIER_LOSS

OUTLIER_LOSS = 1.0
"""Relative loss of a point that lies outside the image, behind the camera, or at a cell without any match."""


def keyframe_scores(losses: torch.Tensor, false_match_rate: torch.Tensor, counts: Sequence[int]) -> list[float]:
    """Counts the inliers of a pose beyond the expected false matches, in each keyframe.

    Args:
        losses: ``[N]`` relative losses at the pose.
        false_match_rate: ``[N]`` from ``NREMaps.false_match_rate``.
        counts: Number of points of each keyframe, N in all.

    Returns:
        The score of each keyframe; negative where there are fewer inliers than false matches are expected.
    """
    beyond = (losses < INLIER_LOSS).double() - false_match_rate * (losses < OUTLIER_LOSS)
    scores: list[float] = torch.stack([part.sum() for part in beyond.split(list(counts))]).tolist()
    return scores


def inlier_score(losses: torch.Tensor, false_match_rate: torch.Tensor, counts: Sequence[int]) -> float:
    """Returns the highest of a pose's ``keyframe_scores``, at least 0.

    The best keyframe counts alone because the map may show a place in one keyframe only.

    Args:
        losses: ``[N]`` relative losses at the pose.
        false_match_rate: ``[N]`` from ``NREMaps.false_match_rate``.
        counts: Number of points of each keyframe, N in all.
    """
    return max(0.0, *keyframe_scores(losses, false_match_rate, counts))
