# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether confidence and covariance match the errors that were measured.

Confidence: reliability diagram and expected calibration error (Guo et al., "On Calibration of Modern Neural Networks",
ICML 2017, equations 2 and 3). Covariance: if the covariance is right, the squared Mahalanobis distance of the error
follows a chi-square distribution (normalized estimation error squared, NEES; Bar-Shalom et al., "Estimation with
Applications to Tracking and Navigation", 2001, section 5.4).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from nre_ros.evaluation.metrics.query_results import QueryResults

_LEVELS = (0.5, 0.9, 0.99)
"""Probabilities of the ellipsoids that are tested."""


def confidence_calibration(results: QueryResults, bins: int = 10) -> dict[str, Any] | None:
    """Compares the confidence with the share of right poses.

    All posed images with ground truth are used, accepted or not. A pose within ``wrong_beyond`` is right.

    Args:
        results: Results of a run.
        bins: Number of equally wide bins of confidence.

    Returns:
        ``bins`` that contain images (``low``, ``high``, ``count``, mean ``confidence``, share ``right``), ``ece`` (the
        expected calibration error) and ``images``. None without images.
    """
    used = results.posed & results.has_ground_truth & np.isfinite(results.confidence)
    if not used.any():
        return None
    confidence, right = results.confidence[used], ~results.beyond_limits[used]
    index = np.clip((confidence * bins).astype(int), 0, bins - 1)
    rows, error = [], 0.0
    for k in np.unique(index):
        inside = index == k
        mean, share = float(confidence[inside].mean()), float(right[inside].mean())
        rows.append(
            {"low": k / bins, "high": (k + 1) / bins, "count": int(inside.sum()), "confidence": mean, "right": share}
        )
        error += inside.sum() / len(confidence) * abs(mean - share)
    return {"bins": rows, "ece": float(error), "images": int(used.sum())}


def squared_mahalanobis(results: QueryResults) -> dict[str, npt.NDArray[np.float64]]:
    """Computes e' C^-1 e of the accepted poses that have ground truth and a covariance.

    The error e is the difference of the positions and the rotation vector from the true to the estimated orientation,
    both in the map's axes.

    Args:
        results: Results of a run.

    Returns:
        Squared distances ``[M]`` of ``position`` (3 degrees of freedom) and ``pose`` (6 degrees of freedom).
    """
    used = results.evaluated & np.isfinite(results.covariances).all((1, 2))
    offsets = results.poses[:, :3, 3] - results.ground_truth[:, :3, 3]
    errors = np.hstack([offsets, results.rotation_vectors])[used]
    covariances = results.covariances[used]
    return {
        "position": _squared_distances(errors[:, :3], covariances[:, :3, :3]),
        "pose": _squared_distances(errors, covariances),
    }


def covariance_calibration(results: QueryResults) -> dict[str, Any] | None:
    """Compares the covariance with the errors, for the position and for the whole pose.

    Args:
        results: Results of a run.

    Returns:
        For ``position`` and ``pose``: ``poses`` (their number), ``freedom`` (degrees of freedom), ``within`` (share of
        the errors inside the 50, 90 and 99 % ellipsoids), ``mean`` (mean of the squared distances over the degrees of
        freedom, 1 if the covariance is right) and ``scale`` (factor on the standard deviations after which half of
        the errors lie inside the 50 % ellipsoid). None where no accepted pose has ground truth and a covariance.
    """
    distances = squared_mahalanobis(results)
    if not len(distances["pose"]):
        return None
    result: dict[str, Any] = {}
    for name, freedom in (("position", 3), ("pose", 6)):
        squares = distances[name]
        result[name] = {
            "poses": len(squares),
            "freedom": freedom,
            "within": {f"{level:g}": float((squares <= chi2.ppf(level, freedom)).mean()) for level in _LEVELS},
            "mean": float(squares.mean() / freedom),
            "scale": float(np.sqrt(np.median(squares) / chi2.ppf(0.5, freedom))),
        }
    return result


def _squared_distances(
    errors: npt.NDArray[np.float64], covariances: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """e' C^-1 e, infinite for a matrix that is not positive definite."""
    squares = np.full(len(errors), np.inf)
    valid = np.linalg.eigvalsh(covariances)[:, 0] > 0 if len(errors) else np.zeros(0, dtype=bool)
    squares[valid] = (errors[valid] * np.linalg.solve(covariances[valid], errors[valid][..., None])[..., 0]).sum(1)
    return squares
