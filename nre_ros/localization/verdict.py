# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The verdict on one estimate: the estimate is accepted as a pose, or refused with a reason."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from nre_ros.geometry import invert
from nre_ros.localization.confidence import ConfidenceModel
from nre_ros.localization.covariance import PoseEvidence, combined_covariance
from nre_ros.localization.depth import DepthAgreement, QueryDepth
from nre_ros.localization.evidence import FITTED_RETRIEVED, Evidence, gather
from nre_ros.localization.map_noise import MapNoise
from nre_ros.localization.result import Alternative, LocalizationResult
from nre_ros.nre.alternatives import REPORTED_FROM
from nre_ros.nre.estimate import Estimate
from nre_ros.nre.inliers import INLIER_LOSS
from nre_ros.nre.uncertainty import PoseUncertainty


def reach_verdict(
    estimate: Estimate,
    model: ConfidenceModel,
    min_confidence: float,
    noise: MapNoise = MapNoise(),
    retrieved: int = FITTED_RETRIEVED,
    depth: QueryDepth | None = None,
) -> LocalizationResult:
    """Accepts an estimate that is probably right and whose covariance is bounded, and refuses any other.

    Args:
        estimate: What the estimator found.
        model: Gives the confidence and the inflation of the covariance.
        min_confidence: An estimate with a lower confidence is refused, in [0, 1].
        noise: Errors of the map's keyframes, as far as they are known.
        retrieved: Number of keyframes that were to be retrieved for the image (see ``gather``).
        depth: The image's depth, which can refuse a pose, or an alternative of it.

    Returns:
        The result. Where an alternative pose is the only reason for a refusal, ``alternatives`` holds both poses, the
        estimate's first.
    """
    keyframes = estimate.keyframes
    if keyframes is None:
        return LocalizationResult(reason=estimate.reason)
    result = LocalizationResult(
        points_considered=len(keyframes),
        keyframes=keyframes.ids,
        search_cut=estimate.search_cut,
        cost=estimate.cost,
    )
    if estimate.T_cam_map is None:
        return replace(result, reason=estimate.reason)
    if estimate.uncertainty is None:
        return replace(result, reason="the loss has no clear minimum at the pose, its covariance is unbounded")
    evidence = gather(estimate, retrieved)
    other, agreement = estimate.alternative, None if depth is None else _agreement(depth, estimate)
    if depth is not None and agreement is not None and agreement.confirms and _contradicts(depth, estimate):
        evidence, other = replace(evidence, alternative_score=0.0), None
    numbers = evidence.numbers()
    confidence, share = float(model.probability(numbers)), float(model.share(evidence.alternative_score))
    result = replace(result, confidence=confidence, evidence=evidence, depth=agreement)
    covariances = _Covariances(model, noise, evidence, keyframes.ids)
    covariance, map_share = covariances.of(estimate.uncertainty)
    if agreement is not None and agreement.contradicts:
        return replace(result, confidence=0.0, reason=f"the depth image contradicts the pose: {agreement}")
    pose = Alternative(invert(estimate.T_cam_map).cpu().numpy(), share, covariance)
    alternatives: tuple[Alternative, ...] = ()
    if other is not None and evidence.alternative_score >= REPORTED_FROM:
        others = None if other.uncertainty is None else covariances.of(other.uncertainty)[0]
        alternatives = (Alternative(invert(other.T_cam_map).cpu().numpy(), 1 - share, others),)
    if not confidence >= min_confidence:
        if alternatives and confidence / share >= min_confidence:
            alternatives = (pose, *alternatives)
        return replace(result, reason=_refusal(result, min_confidence, evidence), alternatives=alternatives)
    return replace(
        _with_points(result, estimate),
        T_map_cam=pose.T_map_cam,
        covariance=pose.covariance,
        map_share=map_share,
        alternatives=alternatives,
    )


def _inliers(estimate: Estimate) -> npt.NDArray[np.float64]:
    """The inliers [N, 3] of an estimate."""
    assert estimate.keyframes is not None and estimate.losses is not None
    return estimate.keyframes.points[estimate.losses < INLIER_LOSS].double().cpu().numpy()


def _agreement(depth: QueryDepth, estimate: Estimate) -> DepthAgreement:
    assert estimate.T_cam_map is not None
    return depth.compare(invert(estimate.T_cam_map).cpu().numpy(), _inliers(estimate))


def _contradicts(depth: QueryDepth, estimate: Estimate) -> bool:
    """Whether the depth contradicts the alternative pose."""
    other, keyframes = estimate.alternative, estimate.keyframes
    if other is None or other.inliers is None or keyframes is None:
        return False
    points = keyframes.points[other.inliers].double().cpu().numpy()
    return depth.compare(invert(other.T_cam_map).cpu().numpy(), points).contradicts


class _Covariances:
    """The covariances of the poses of one image: the part that the image explains, and the part of the map's errors."""

    def __init__(self, model: ConfidenceModel, noise: MapNoise, evidence: Evidence, keyframes: tuple[int, ...]):
        self._model, self._noise, self._keyframes = model, noise, keyframes
        self._numbers, self._distance = evidence.numbers(), evidence.distance

    def of(self, uncertainty: PoseUncertainty) -> tuple[npt.NDArray[np.float64], float]:
        """The covariance [6, 6] of a pose, and the share of its position's variance that the image does not explain."""
        reported, influence, disagreement = (
            tensor.cpu().numpy() for tensor in (uncertainty.covariance, uncertainty.influence, uncertainty.disagreement)
        )
        evidence = PoseEvidence(reported, influence, disagreement, self._keyframes, self._numbers, self._distance)
        return combined_covariance(evidence, self._model, self._noise)


def _with_points(result: LocalizationResult, estimate: Estimate) -> LocalizationResult:
    """The result with the points that the estimate's pose puts in front of the camera."""
    keyframes, in_front, samples = estimate.keyframes, estimate.valid, estimate.sample_points
    assert keyframes is not None and in_front is not None and samples is not None
    assert estimate.pixels is not None and estimate.losses is not None and estimate.sample_maps is not None
    return replace(
        result,
        points_used=estimate.inlier_count,
        points=keyframes.points[in_front].cpu().numpy(),
        pixels=estimate.pixels[in_front].cpu().numpy(),
        losses=estimate.losses[in_front].cpu().numpy(),
        sample_maps=estimate.sample_maps.cpu().numpy(),
        sample_pixels=estimate.pixels[samples].cpu().numpy(),
        sample_grid=estimate.grid,
    )


def _refusal(result: LocalizationResult, wanted: float, evidence: Evidence) -> str:
    reason = (
        f"confidence {result.confidence:.2f} is below {wanted:.2f}: {evidence.inliers} inliers at {evidence.inlier_blocks} "
        f"places of the image, {100 * evidence.inlier_ratio:.0f}% of the points in view"
    )
    if evidence.alternative_score >= REPORTED_FROM:
        reason += f"; an alternative pose has {100 * evidence.alternative_score:.0f}% as many"
    if result.search_cut:
        reason += "; the search was cut, a better pose may exist"
    return reason
