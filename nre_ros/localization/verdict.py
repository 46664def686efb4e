# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The verdict on one estimate: it becomes a pose, or the reason why there is none."""

from __future__ import annotations

from nre_ros.geometry import invert
from nre_ros.localization.confidence import load_model
from nre_ros.localization.evidence import Evidence, gather
from nre_ros.localization.result import Alternative, LocalizationResult
from nre_ros.nre.estimator import Estimate
from nre_ros.nre.rivals import ALIKE


def reach_verdict(estimate: Estimate, min_confidence: float) -> LocalizationResult:
    """Accepts an estimate that is probably right and whose covariance is bounded, and refuses others.

    Args:
        estimate: What the estimator found.
        min_confidence: An estimate with a lower probability of being right is refused, in [0, 1].

    Returns:
        The result. Where an alternative pose is the only reason for a refusal, ``alternatives`` holds both poses, the
        estimate's first.
    """
    keyframes = estimate.keyframes
    if keyframes is None:
        return LocalizationResult(reason=estimate.reason)
    common = dict(points_considered=len(keyframes), keyframes=keyframes.ids, cost=estimate.cost)
    if estimate.T_cam_map is None:
        return LocalizationResult(reason=estimate.reason, **common)
    if estimate.covariance is None:
        reason = "the loss has no clear minimum at the pose, its covariance is unbounded"
        return LocalizationResult(reason=reason, **common)
    model, evidence = load_model(), gather(estimate)
    numbers = evidence.numbers()
    confidence, share = float(model.probability(numbers)), float(model.share(evidence.rival))
    covariance = model.covariance(estimate.covariance.cpu().numpy(), numbers)
    T_map_cam = invert(estimate.T_cam_map).cpu().numpy()
    alternatives: tuple[Alternative, ...] = ()
    if estimate.rival is not None and evidence.rival >= ALIKE:
        T, second = invert(estimate.rival.T_cam_map).cpu().numpy(), estimate.rival.covariance
        second = None if second is None else model.covariance(second.cpu().numpy(), numbers)
        alternatives = (Alternative(T, 1 - share, second),)
    common.update(confidence=confidence, evidence=evidence)
    if confidence < min_confidence:
        if alternatives and confidence / share >= min_confidence:  # accepted, but for the alternative
            alternatives = (Alternative(T_map_cam, share, covariance), *alternatives)
        reason = _refusal(confidence, min_confidence, evidence)
        return LocalizationResult(reason=reason, alternatives=alternatives, **common)
    in_front = estimate.valid
    return LocalizationResult(
        T_map_cam=T_map_cam,
        covariance=covariance,
        alternatives=alternatives,
        points_used=estimate.support,
        points=keyframes.points[in_front].cpu().numpy(),
        pixels=estimate.pixels[in_front].cpu().numpy(),
        losses=estimate.losses[in_front].cpu().numpy(),
        sample_maps=estimate.sample_maps.cpu().numpy(),
        sample_pixels=estimate.pixels[estimate.sample_points].cpu().numpy(),
        sample_grid=estimate.grid,
        **common,
    )


def _refusal(confidence: float, wanted: float, evidence: Evidence) -> str:
    reason = (
        f"confidence {confidence:.2f} is below {wanted:.2f}: {evidence.support} points at {evidence.places_count} "
        f"places of the image support the pose, {100 * evidence.share:.0f}% of those in view"
    )
    if evidence.rival >= ALIKE:
        reason += f"; {100 * evidence.rival:.0f}% as many support one elsewhere"
    return reason
