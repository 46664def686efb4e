# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether an estimate is believed: probably right, and with a covariance that says something."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nre_ros.geometry import Camera, invert
from nre_ros.keyframes.types import KeyframeStack
from nre_ros.localization.confidence import load_model
from nre_ros.localization.evidence import Evidence, gather
from nre_ros.localization.result import Alternative
from nre_ros.nre.estimator import Estimate
from nre_ros.nre.rivals import ALIKE


@dataclass(frozen=True)
class Verdict:
    """confidence: the probability that the pose is right; reason: why there is no pose (empty when there is one).

    covariance: [6, 6] of a pose that is believed.  alternatives: other poses that explain the image nearly as well;
    where it is they alone that make the pose doubtful, this one comes first among them.
    evidence: None where the estimate has no pose or no covariance.
    """

    confidence: float
    reason: str
    covariance: np.ndarray | None = None
    alternatives: tuple[Alternative, ...] = ()
    evidence: Evidence | None = None


def judge(estimate: Estimate, keyframes: KeyframeStack, camera: Camera, min_confidence: float) -> Verdict:
    """The verdict on an estimate from ``keyframes`` for an image of ``camera``."""
    if estimate.T_cam_map is None:
        return Verdict(0.0, estimate.reason)
    if estimate.covariance is None:
        return Verdict(0.0, "the loss has no clear minimum at the pose, its covariance is unbounded")
    model, evidence = load_model(), gather(estimate, keyframes, camera)
    numbers = evidence.numbers()
    confidence, share = float(model.probability(numbers)), float(model.share(evidence.rival))
    covariance = model.covariance(estimate.covariance.cpu().numpy(), numbers)
    other = ()
    if evidence.rival >= ALIKE:
        T, second = invert(estimate.rival.T_cam_map).cpu().numpy(), estimate.rival.covariance
        second = None if second is None else model.covariance(second.cpu().numpy(), numbers)
        other = (Alternative(T, 1 - share, second),)
    if confidence >= min_confidence:
        return Verdict(confidence, "", covariance, other, evidence)
    if other and confidence / share >= min_confidence:  # without the other pose it would be believed
        other = (Alternative(invert(estimate.T_cam_map).cpu().numpy(), share, covariance), *other)
    return Verdict(confidence, _doubt(confidence, min_confidence, evidence), None, other, evidence)


def _doubt(confidence: float, wanted: float, evidence: Evidence) -> str:
    reason = (
        f"confidence {confidence:.2f} is below {wanted:.2f}: {evidence.support} points at {evidence.places_count} "
        f"places of the image support the pose, {100 * evidence.share:.0f}% of those in view"
    )
    if evidence.rival >= ALIKE:
        reason += f"; {100 * evidence.rival:.0f}% as many support one elsewhere"
    return reason
