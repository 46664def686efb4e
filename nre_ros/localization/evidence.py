# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What an estimate shows about its own correctness, as a few numbers without units.

Any search over poses finds some inliers by accident. In an image of another place altogether these are a tenth to a
fifth of the points in view, at few places of the image (an edge laid over another edge holds many points). The numbers
here distinguish such poses from right ones; ``confidence`` weighs them.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, fields

import numpy as np
import numpy.typing as npt
import torch

from nre_ros.geometry import Camera, invert
from nre_ros.nre.estimate import Estimate
from nre_ros.nre.gnc import project_points
from nre_ros.nre.inliers import INLIER_LOSS, OUTLIER_LOSS, keyframe_scores
from nre_ros.nre.viewpoints import compatible_views

FITTED_RETRIEVED = 5
"""The confidence was fitted to the evidence of so many retrieved keyframes."""
_INLIER_BLOCKS_ACROSS = 20
"""Image blocks along the longer side. Inliers in one block count once, for several keyframes bring the same spot."""
_REGIONS_ACROSS = 5
"""Image regions along the longer side, each of which either confirms the pose or does not."""
_REGION_POINTS = 4
"""A region with fewer points of compatible views does not count."""
_REGION_INLIER_RATIO = 0.25
"""A region confirms the pose from this ratio on."""
_MAX_SCALE_RATIO, _MIN_COSINE = 2.0, math.cos(math.radians(45.0))
"""A point should be found again within this ratio of scales and this angle of the keyframe's view."""
_REFERENCE_WIDTH = 640
"""The refinement shift is measured in pixels of an image of this size."""
_MAX_ALTERNATIVE_SCORE = 2.0
_MANY_LOG_BLOCKS, _MANY_KEYFRAMES = 3.5, math.e
"""From here on more blocks (33), and more keyframes that agree, are no further evidence of their own."""


@dataclass(frozen=True)
class Evidence:
    """The evidence of one estimate.

    An inlier ratio counts the inliers beyond the expected false matches. The first three numbers are for messages; the
    others, in this order, are what ``confidence`` weighs.

    Attributes:
        inliers: Number of inliers.
        inlier_blocks: Number of image blocks that hold inliers.
        distance: Median distance of the inliers from the camera, metres.
        inlier_ratio: Of the points in view.
        log_inlier_blocks: log(1 + ``inlier_blocks``).
        compatible_inlier_ratio: Of the points in view whose keyframe had a compatible viewpoint and scale.
        confirmed_regions: Share of the image's regions, of those with such points, that have a high inlier ratio.
        fine_margin: Median of the fine stage's margins (``Estimate.fine_margins``).
        inlier_loss: Mean relative loss of the inliers.
        effective_keyframes: Number of keyframes that agree (inverse participation ratio of their inlier ratios).
        log_position_deviation: Logarithm of the position's reported standard deviation over ``distance``.
        log_rotation_deviation: Logarithm of the rotation's reported standard deviation, radians.
        log_refinement_shift: log(1 + the median shift of the inliers by the fine stage, pixels of 640 across).
        few_inlier_blocks: How far ``log_inlier_blocks`` is below 3.5 (33 blocks), 0 with more: a handful of inliers is worth
            little even where all regions that count confirm the pose.
        few_keyframes: How far the logarithm of ``effective_keyframes`` is below 1: that a second keyframe agrees counts more
            than that a sixth one does.
        alternative_score: Inlier score of the alternative pose as a fraction of this pose's, at most 2.
    """

    inliers: int
    inlier_blocks: int
    distance: float
    inlier_ratio: float
    log_inlier_blocks: float
    compatible_inlier_ratio: float
    confirmed_regions: float
    fine_margin: float
    inlier_loss: float
    effective_keyframes: float
    log_position_deviation: float
    log_rotation_deviation: float
    log_refinement_shift: float
    few_inlier_blocks: float
    few_keyframes: float
    alternative_score: float

    def numbers(self) -> npt.NDArray[np.float64]:
        """Returns the weighed numbers ``[F]`` float64, in the order of ``NUMBERS``."""
        return np.array(astuple(self)[3:], dtype=np.float64)


NUMBERS = tuple(field.name for field in fields(Evidence))[3:]
"""Names of the numbers that are weighed."""


def gather(estimate: Estimate, retrieved: int = FITTED_RETRIEVED) -> Evidence:
    """Gathers the evidence of an estimate.

    The evidence must not depend on how many keyframes were retrieved: twenty that agree are no weaker evidence than five,
    and keyframes of other places, which more retrieved ones bring, are no evidence against a pose. As many keyframes as were
    retrieved beyond ``FITTED_RETRIEVED`` do not count, those with the lowest ``Estimate.keyframe_scores``. Keyframes that
    a search that was cut has added count in addition, as in the fit. Margins of the fine stage and deviations are always
    those of all points.

    Args:
        estimate: An estimate with a pose and a covariance.
        retrieved: Number of keyframes that were to be retrieved for the image.
    """
    pose = _Inliers(estimate, retrieved)
    distance, blocks, keyframes = pose.distance(), pose.blocks(), pose.effective_keyframes()
    assert estimate.covariance is not None and estimate.fine_margins is not None
    deviations = estimate.covariance.diagonal().clamp_min(0).sqrt()
    position, rotation = float(deviations[:3].norm()), float(deviations[3:].norm())
    alternative = estimate.alternative
    return Evidence(
        inliers=pose.count,
        inlier_blocks=blocks,
        distance=distance,
        inlier_ratio=pose.ratio(),
        log_inlier_blocks=math.log1p(blocks),
        compatible_inlier_ratio=pose.compatible_ratio(),
        confirmed_regions=pose.confirmed_regions(),
        fine_margin=float(estimate.fine_margins.median()) if len(estimate.fine_margins) else 0.0,
        inlier_loss=pose.mean_loss(),
        effective_keyframes=keyframes,
        log_position_deviation=math.log(max(position / distance, 1e-6)),
        log_rotation_deviation=math.log(max(rotation, 1e-6)),
        log_refinement_shift=math.log1p(pose.refinement_shift()),
        few_inlier_blocks=max(0.0, _MANY_LOG_BLOCKS - math.log1p(blocks)),
        few_keyframes=max(0.0, math.log(_MANY_KEYFRAMES / max(keyframes, 1.0))),
        alternative_score=0.0 if alternative is None else min(alternative.relative_score, _MAX_ALTERNATIVE_SCORE),
    )


def _counted(
    counts: tuple[int, ...], losses: torch.Tensor, false_match_rate: torch.Tensor, retrieved: int
) -> tuple[list[int], slice | torch.Tensor]:
    """The keyframes that count: the number of points of each, in the stack's order, and where in the stack these lie."""
    surplus = min(retrieved, len(counts)) - FITTED_RETRIEVED
    if surplus <= 0:
        return list(counts), slice(None)
    scores = keyframe_scores(losses, false_match_rate, counts)
    best = sorted(sorted(range(len(counts)), key=lambda k: scores[k])[surplus:])
    starts = np.cumsum([0, *counts])
    rows = np.concatenate([np.arange(starts[k], starts[k + 1]) for k in best])
    return [counts[k] for k in best], torch.as_tensor(rows, device=losses.device)


class _Inliers:
    """Counts over the inliers of an estimate that has a pose, in the keyframes that count.

    Attributes:
        count: Number of inliers.
    """

    def __init__(self, estimate: Estimate, retrieved: int):
        assert estimate.T_cam_map is not None and estimate.keyframes is not None and estimate.camera is not None
        assert estimate.losses is not None and estimate.pixels is not None and estimate.false_match_rate is not None
        self._T: torch.Tensor = estimate.T_cam_map
        self._camera: Camera = estimate.camera
        keyframes, losses, rate = estimate.keyframes, estimate.losses, estimate.false_match_rate
        self._counts, rows = _counted(keyframes.counts, losses, rate, retrieved)
        self._points, self._directions = keyframes.points[rows], keyframes.directions[rows]
        self._pixels: torch.Tensor = estimate.pixels[rows]
        self._losses: torch.Tensor = losses[rows]
        self._rate: torch.Tensor = rate[rows]
        self._before, _ = estimate.stages.get("coarse_irls") or estimate.stages["P3P"]
        self._inlier, self._in_view = self._losses < INLIER_LOSS, self._losses < OUTLIER_LOSS
        self._compatible = self._in_view & compatible_views(
            self._T, self._points, self._directions, self._camera, _MAX_SCALE_RATIO, _MIN_COSINE
        )
        self._side = max(self._camera.width, self._camera.height)
        self.count = int(self._inlier.sum())

    def ratio(self) -> float:
        """Inlier ratio of the points in view."""
        return self._beyond_false_matches(self._in_view) / max(int(self._in_view.sum()), 1)

    def compatible_ratio(self) -> float:
        """Inlier ratio of the points with compatible views."""
        return self._beyond_false_matches(self._compatible) / max(int(self._compatible.sum()), 1)

    def _beyond_false_matches(self, among: torch.Tensor) -> float:
        return max(float(self._inlier[among].sum() - self._rate[among].sum()), 0.0)

    def blocks(self) -> int:
        """Number of image blocks that hold inliers."""
        blocks = (self._pixels[self._inlier] * (_INLIER_BLOCKS_ACROSS / self._side)).floor().long()
        return len(torch.unique(blocks[:, 0] * (2 * _INLIER_BLOCKS_ACROSS) + blocks[:, 1]))

    def distance(self) -> float:
        """Median distance of the inliers from the camera, of all points in view where there is no inlier."""
        points = self._points[self._inlier if self.count else self._in_view]
        return max(float((points - invert(self._T)[:3, 3]).norm(dim=1).median()), 1e-9) if len(points) else 1.0

    def mean_loss(self) -> float:
        """Mean relative loss of the inliers."""
        return float(self._losses[self._inlier].mean()) if self.count else 1.0

    def confirmed_regions(self) -> float:
        """Share of the regions with enough points of compatible views that have a high inlier ratio."""
        among = self._compatible
        region = (self._pixels[among] * (_REGIONS_ACROSS / self._side)).floor().long().clamp(0, _REGIONS_ACROSS - 1)
        index = region[:, 1] * _REGIONS_ACROSS + region[:, 0]
        count = torch.bincount(index, minlength=_REGIONS_ACROSS**2)
        beyond = self._inlier[among].double() - self._rate[among].double()
        excess = torch.bincount(index, weights=beyond, minlength=_REGIONS_ACROSS**2)
        counted = count >= _REGION_POINTS
        if not bool(counted.any()):
            return 0.0
        return float((excess[counted] / count[counted] > _REGION_INLIER_RATIO).double().mean())

    def effective_keyframes(self) -> float:
        """(sum s)^2 / sum s^2 of the keyframes' inlier ratios s: K if all agree equally, 1 if one does."""
        ratios = torch.stack(
            [
                inlier.double().sum() / max(float(in_view.sum()), 1.0)
                for inlier, in_view in zip(self._inlier.split(self._counts), self._in_view.split(self._counts))
            ]
        )
        return float(ratios.sum().square() / ratios.square().sum().clamp_min(1e-12))

    def refinement_shift(self) -> float:
        """Median shift of the inliers' projections by the fine stage, in pixels of an image 640 pixels across."""
        if not self.count:
            return 0.0
        pixels, valid = project_points(self._before, self._points[self._inlier], self._camera)
        shift = (pixels - self._pixels[self._inlier]).norm(dim=1)[valid]
        return float(shift.median()) * _REFERENCE_WIDTH / self._side if len(shift) else 0.0
