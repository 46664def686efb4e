"""Whether an estimate is believed: support beyond chance, and a covariance that says something.

Any search over poses finds some points that agree by accident.  What counts is how many agree
beyond that: with n supporting points where chance would give c, both against the number that
a random pose can be fitted to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nre_ros.nre.estimator import Estimate

_HALF_SUPPORT = 30.0
_SHARPNESS = 3.0
"""Confidence is 1/2 at 30 supporting points beyond chance, and 0.95 at about 80."""


@dataclass(frozen=True)
class Verdict:
    """confidence in [0, 1], and why there is no pose (empty when there is one)."""

    confidence: float
    reason: str


def judge(estimate: Estimate, min_confidence: float) -> Verdict:
    """The verdict on an estimate; see the module for what it weighs."""
    if estimate.T_cam_map is None:
        return Verdict(0.0, estimate.reason)
    confidence = support_confidence(estimate.support, estimate.chance_support)
    if estimate.covariance is None:
        return Verdict(0.0, "the loss has no clear minimum at the pose, its covariance is unbounded")
    if confidence < min_confidence:
        return Verdict(
            confidence,
            f"confidence {confidence:.2f} is below {min_confidence:.2f}: {estimate.support} points support the "
            f"pose, {estimate.chance_support:.0f} would by chance",
        )
    return Verdict(confidence, "")


def support_confidence(support: int, chance: float) -> float:
    """Confidence of ``support`` agreeing points where ``chance`` would agree at a random pose."""
    excess = max(support - chance, 0.0)
    if excess == 0:
        return 0.0
    return 1 / (1 + math.exp(-_SHARPNESS * math.log(excess / _HALF_SUPPORT)))
