"""Whether an estimate is believed: support beyond chance, and a covariance that says something.

Any search over poses finds some points that agree by accident: of an image of another place
altogether a tenth to a fifth of the points in view does, at few places (an edge of the one image
laid over an edge of the other holds many points).  So two things count together:

* at how many places of the image points agree.  Several keyframes bring the same spot of the
  scene, and those points are one witness (as in ``nre.uncertainty``);
* which share of the points in view agrees, beyond those that would at any pose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from nre_ros.geometry import Camera
from nre_ros.nre.estimator import SUPPORT, Estimate

_PLACES_ACROSS = 20
"""Image blocks along its longer side within which points count as one place."""
_HALF_EVIDENCE = 7.0
_SHARPNESS = 3.0
"""Places times share at which confidence is 1/2 (7 places without a point that disagrees, or 21
where a third agrees), and how steeply it rises: 0.96 at three times as much.  The best of 24 images
of other places reached 4.5 in a map of a kitchen, the worst of its own 11 (docs/estimator.md)."""


@dataclass(frozen=True)
class Verdict:
    """confidence in [0, 1], and why there is no pose (empty when there is one)."""

    confidence: float
    reason: str


def judge(estimate: Estimate, camera: Camera, min_confidence: float) -> Verdict:
    """The verdict on an estimate for an image of ``camera``; see the module for what it weighs."""
    if estimate.T_cam_map is None:
        return Verdict(0.0, estimate.reason)
    if estimate.covariance is None:
        return Verdict(0.0, "the loss has no clear minimum at the pose, its covariance is unbounded")
    places, share = evidence(estimate, camera)
    confidence = confidence_of(places, share)
    if confidence < min_confidence:
        return Verdict(
            confidence,
            f"confidence {confidence:.2f} is below {min_confidence:.2f}: {estimate.support} points at {places} places "
            f"of the image support the pose, {100 * share:.0f}% of those in view",
        )
    return Verdict(confidence, "")


def evidence(estimate: Estimate, camera: Camera) -> tuple[int, float]:
    """Places of the image at which points support the pose, and the share of points in view that do.

    The share is counted beyond the points that would by chance, and is at least 0.
    """
    in_view = int((estimate.losses < 1).sum())
    if not in_view:
        return 0, 0.0
    side = max(camera.width, camera.height) / _PLACES_ACROSS
    blocks = (estimate.pixels[estimate.losses < SUPPORT] / side).floor().long()
    places = len(torch.unique(blocks, dim=0))
    return places, max(estimate.support - estimate.chance_support, 0.0) / in_view


def confidence_of(places: int, share: float) -> float:
    """Confidence in a pose that points support at so many places, a ``share`` in [0, 1] of those in view."""
    evidence = places * share
    if evidence <= 0:
        return 0.0
    return 1 / (1 + math.exp(-_SHARPNESS * math.log(evidence / _HALF_EVIDENCE)))
