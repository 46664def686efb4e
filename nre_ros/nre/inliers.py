# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which points support a pose, and how many of them would support any pose.

All losses here are relative: a point's loss at its projection as a fraction of ln|Omega|, so that 0 is a perfect match
and 1 is what a point pays outside the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nre_ros.nre.maps import NREMaps

INLIER_LOSS = 0.5
"""A point is an inlier of a pose when its relative loss there is below this value."""
OUTLIER_LOSS = 1.0
"""Relative loss of a point that lies outside the image, behind the camera, or at a cell without any match."""

_RATE_STRIDE = 3
"""A false-match rate is counted on every third row and column of a map."""


def false_match_rates(maps: NREMaps) -> torch.Tensor:
    """Computes the probability that a point is an inlier of a random pose.

    Args:
        maps: Coarse NRE maps of N points.

    Returns:
        ``[N]``: the share of each map's cells whose relative loss is below ``INLIER_LOSS``.
    """
    sampled = maps.loss[:, ::_RATE_STRIDE, ::_RATE_STRIDE]
    return (sampled < INLIER_LOSS * maps.outlier_loss).float().mean((1, 2))


def keyframe_scores(losses: torch.Tensor, false_match_rate: torch.Tensor, counts: Sequence[int]) -> list[float]:
    """Counts the inliers of a pose beyond the expected false matches, in each keyframe.

    Args:
        losses: ``[N]`` relative losses at the pose.
        false_match_rate: ``[N]`` from ``false_match_rates``.
        counts: Number of points of each keyframe, N in all.

    Returns:
        The score of each keyframe; negative where there are fewer inliers than false matches are expected.
    """
    beyond = (losses < INLIER_LOSS).double() - false_match_rate * (losses < OUTLIER_LOSS)
    return [float(part.sum()) for part in beyond.split(list(counts))]


def inlier_score(losses: torch.Tensor, false_match_rate: torch.Tensor, counts: Sequence[int]) -> float:
    """Returns the highest of a pose's ``keyframe_scores``, at least 0.

    The best keyframe counts alone because the map may show a place in one keyframe only.

    Args:
        losses: ``[N]`` relative losses at the pose.
        false_match_rate: ``[N]`` from ``false_match_rates``.
        counts: Number of points of each keyframe, N in all.
    """
    return max(0.0, *keyframe_scores(losses, false_match_rate, counts))
