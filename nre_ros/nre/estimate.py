# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the estimator finds for one image, before anything decides whether the pose is right."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from nre_ros.features import FeatureGrid
from nre_ros.geometry import Camera
from nre_ros.keyframes.types import KeyframeStack
from nre_ros.nre.alternatives import AlternativePose
from nre_ros.nre.inliers import INLIER_LOSS, keyframe_scores
from nre_ros.nre.uncertainty import PoseUncertainty


@dataclass(frozen=True)
class Estimate:
    """The estimator's answer for one image; tensors lie on the estimator's device.

    A relative loss is a fraction of ln|Omega|: 0 is a perfect match, 1 is what a point pays outside the image.

    Attributes:
        T_cam_map: ``[4, 4]`` float64, map to camera; None where there is no pose.
        reason: Why there is no pose; empty with one.
        uncertainty: Covariance of the pose, and what keyframes it depends on; None where the loss has no clear minimum.
        cost: Smoothed loss per point of the last stage; NaN when no refinement took place.
        pixels: ``[N, 2]`` projections of all points of the keyframes.
        valid: ``[N]`` bool, whether the point lies in front of the camera.
        losses: ``[N]`` relative coarse losses at the projections.
        false_match_rate: ``[N]`` probability that the point is an inlier of a random pose.
        fine_margins: ``[M]`` how far the smoothed loss of each point of the fine stage lies below ln|Omega|, as a
            fraction of ln|Omega|.
        alternative: The best pose that is distinct from this one; None where there is none.
        stages: Stage -> (``T_cam_map`` ``[4, 4]``, cost) after the stage. The keys are the published names ``P3P``,
            ``coarse_irls`` and ``fine_irls``, although the refinement here takes Newton's steps. The cost of P3P is
            the mean loss of the points used for hypothesis generation, that of the others the smoothed loss.
        sample_maps: ``[S, H, W]`` relative loss maps of a few points, for pictures.
        sample_points: ``[S]`` indices of these points.
        grid: Where the cells of these maps lie in the query.
        milliseconds: Stage -> time.
        keyframes: The keyframes that it was computed from; None where none were found.
        camera: Intrinsics of the image.
        search_cut: Whether the consensus ended before its stopping rule was satisfied: a better pose may exist.
    """

    T_cam_map: torch.Tensor | None = None
    reason: str = ""
    uncertainty: PoseUncertainty | None = None
    cost: float = math.nan
    pixels: torch.Tensor | None = field(default=None, repr=False)
    valid: torch.Tensor | None = field(default=None, repr=False)
    losses: torch.Tensor | None = field(default=None, repr=False)
    false_match_rate: torch.Tensor | None = field(default=None, repr=False)
    fine_margins: torch.Tensor | None = field(default=None, repr=False)
    alternative: AlternativePose | None = None
    stages: dict[str, tuple[torch.Tensor, float]] = field(default_factory=dict, repr=False)
    sample_maps: torch.Tensor | None = field(default=None, repr=False)
    sample_points: torch.Tensor | None = field(default=None, repr=False)
    grid: FeatureGrid | None = None
    milliseconds: dict[str, float] = field(default_factory=dict)
    keyframes: KeyframeStack | None = field(default=None, repr=False)
    camera: Camera | None = None
    search_cut: bool = False

    @property
    def covariance(self) -> torch.Tensor | None:
        """``[6, 6]`` of the camera in the map, None where the loss has no clear minimum."""
        return None if self.uncertainty is None else self.uncertainty.covariance

    @property
    def inlier_count(self) -> int:
        """Number of points whose relative loss at the pose is below ``INLIER_LOSS``."""
        return 0 if self.losses is None else int((self.losses < INLIER_LOSS).sum())

    def keyframe_scores(self) -> list[float]:
        """Returns the inliers beyond the expected false matches in each keyframe, 0 where there are no losses."""
        if self.keyframes is None or self.losses is None or self.false_match_rate is None:
            return [0.0] * (0 if self.keyframes is None else len(self.keyframes.counts))
        return keyframe_scores(self.losses, self.false_match_rate, self.keyframes.counts)
