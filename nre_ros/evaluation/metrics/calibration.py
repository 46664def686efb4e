# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether confidence and covariance mean what they say.

Confidence: reliability diagram and expected calibration error (Guo et al., "On Calibration of Modern Neural
Networks", ICML 2017, equations 2 and 3).  Covariance: the squared Mahalanobis distance of the error is
chi-square distributed with as many degrees of freedom if the covariance is right (NEES of Bar-Shalom et
al., "Estimation with Applications to Tracking and Navigation", 2001, section 5.4).
"""

from __future__ import annotations

import numpy as np
from scipy.stats import chi2

from nre_ros.evaluation.metrics.outcomes import Outcomes

BINS = 10
LEVELS = (0.5, 0.9, 0.99)


def confidence_calibration(outcomes: Outcomes, bins: int = BINS) -> dict | None:
    """Of all posed images with truth, accepted or not: is the share of right poses what the confidence says?

    Right: not beyond ``wrong_beyond``.  Returns the bins [low, high, count, mean confidence, share right], those
    that hold images, and ``ece``, their mean difference weighted by the counts; None of no images.
    """
    used = outcomes.posed & outcomes.known & np.isfinite(outcomes.confidence)
    if not used.any():
        return None
    confidence, right = outcomes.confidence[used], ~outcomes.off[used]
    place = np.clip((confidence * bins).astype(int), 0, bins - 1)
    rows, error = [], 0.0
    for k in np.unique(place):
        inside = place == k
        mean, share = float(confidence[inside].mean()), float(right[inside].mean())
        rows.append(
            {"low": k / bins, "high": (k + 1) / bins, "count": int(inside.sum()), "confidence": mean, "right": share}
        )
        error += inside.sum() / len(confidence) * abs(mean - share)
    return {"bins": rows, "ece": float(error), "images": int(used.sum())}


def squared_distances(outcomes: Outcomes) -> dict[str, np.ndarray]:
    """``position`` (3 degrees of freedom) and ``pose`` (6) -> squared Mahalanobis distances [M].

    Of the accepted poses with truth and a covariance: e' C^-1 e with e the difference of position and the
    rotation vector from the true to the estimated orientation, in the map's axes.
    """
    used = outcomes.accepted & outcomes.known & np.isfinite(outcomes.covariances).all((1, 2))
    errors = np.hstack([outcomes.poses[:, :3, 3] - outcomes.truth[:, :3, 3], outcomes.rotation_vectors])[used]
    covariances = outcomes.covariances[used]
    return {"position": _distances(errors[:, :3], covariances[:, :3, :3]), "pose": _distances(errors, covariances)}


def covariance_calibration(outcomes: Outcomes) -> dict | None:
    """For position and pose: the share of errors within the ellipsoids that should hold 50, 90 and 99% of them.

    ``mean``: of the squared distances over the degrees of freedom, 1 if the covariance is right;
    ``scale``: by which the standard deviations would have to grow for half of the errors to be within the 50%
    ellipsoid.  None where no accepted pose has truth and a covariance.
    """
    distances = squared_distances(outcomes)
    if not len(distances["pose"]):
        return None
    result = {}
    for name, freedom in (("position", 3), ("pose", 6)):
        squares = distances[name]
        result[name] = {
            "poses": len(squares),
            "freedom": freedom,
            "within": {f"{level:g}": float((squares <= chi2.ppf(level, freedom)).mean()) for level in LEVELS},
            "mean": float(squares.mean() / freedom),
            "scale": float(np.sqrt(np.median(squares) / chi2.ppf(0.5, freedom))),
        }
    return result


def _distances(errors: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """e' C^-1 e; inf for a covariance that is none (not positive definite)."""
    squares = np.full(len(errors), np.inf)
    good = np.linalg.eigvalsh(covariances)[:, 0] > 0 if len(errors) else np.zeros(0, dtype=bool)
    squares[good] = (errors[good] * np.linalg.solve(covariances[good], errors[good][..., None])[..., 0]).sum(1)
    return squares
