# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How many images have a pose, how accurate the poses are, and why the other images have none."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nre_ros.evaluation.metrics.query_results import QueryResults

RECALL_PAIRS = ((0.05, 5.0), (0.25, 2.0), (0.5, 5.0), (5.0, 10.0))
"""Recall thresholds in metres and degrees.

5 cm and 5 degrees is the criterion of 7-Scenes (Shotton et al., CVPR 2013). The other pairs are those of the long-term
visual localization benchmark (Sattler et al., CVPR 2018).
"""
_PERCENTILES = (50, 90, 99)
_MAX_REASONS = 8


@dataclass(frozen=True)
class ImageCounts:
    """Numbers of images of a run.

    Attributes:
        images: All images.
        posed: Images for which the estimator found a pose.
        accepted: Images whose pose was accepted.
        with_truth: Images with a ground-truth pose.
        judged: Images with an accepted pose and a ground-truth pose.
        wrong: Images whose accepted pose has an error beyond the limits.
    """

    images: int
    posed: int
    accepted: int
    with_truth: int
    judged: int
    wrong: int


def count_images(results: QueryResults) -> ImageCounts:
    """Counts the images with a pose, with an accepted pose and with a wrong pose.

    Args:
        results: Results of a run.

    Returns:
        The counts.
    """
    return ImageCounts(
        images=len(results),
        posed=int(results.posed.sum()),
        accepted=int(results.accepted.sum()),
        with_truth=int(results.has_ground_truth.sum()),
        judged=int(results.evaluated.sum()),
        wrong=int(results.wrong.sum()),
    )


def percentiles(values: npt.NDArray[np.float64]) -> dict[str, float] | None:
    """Computes the median, the 90th and 99th percentile, and the maximum of the finite values.

    Percentiles are interpolated linearly between order statistics.

    Args:
        values: ``[N]`` values; values that are not finite are ignored.

    Returns:
        ``median``, ``p90``, ``p99`` and ``max``, or None without a finite value.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    found = {f"p{p}": float(np.percentile(values, p)) for p in _PERCENTILES}
    return {"median": found.pop("p50"), **found, "max": float(values.max())}


def recall(results: QueryResults, metres: float, degrees: float) -> float | None:
    """Computes the share of images that were localized within both error thresholds.

    An image without an accepted pose counts as a miss.

    Args:
        results: Results of a run.
        metres: Largest position error.
        degrees: Largest rotation error.

    Returns:
        Share of the images with ground truth, or None without ground truth.
    """
    known = results.has_ground_truth
    if not known.any():
        return None
    with np.errstate(invalid="ignore"):
        within = (results.position_errors <= metres) & (np.degrees(results.rotation_errors) <= degrees)
    return float((within & results.accepted)[known].mean())


def median_errors_of_all(results: QueryResults) -> dict[str, float | None]:
    """Computes the median errors over all images with ground truth, as papers report them.

    The error of an image without an accepted pose is infinite.

    Args:
        results: Results of a run.

    Returns:
        ``position_m`` and ``rotation_deg``; None where the median is infinite or no image has ground truth.
    """
    known = results.has_ground_truth
    medians: dict[str, float | None] = {"position_m": None, "rotation_deg": None}
    if not known.any():
        return medians
    for name, errors in (
        ("position_m", results.position_errors),
        ("rotation_deg", np.degrees(results.rotation_errors)),
    ):
        value = float(np.median(np.where(results.accepted, errors, np.inf)[known]))
        medians[name] = value if np.isfinite(value) else None
    return medians


def failure_reasons(results: QueryResults) -> dict[str, int]:
    """Counts the reasons why images have no accepted pose.

    Reasons that differ only in their numbers are counted together.

    Args:
        results: Results of a run.

    Returns:
        The most frequent reasons and their counts, most frequent first.
    """
    groups: dict[str, list[str]] = {}
    for reason in (reason for reason, accepted in zip(results.reasons, results.accepted) if not accepted):
        groups.setdefault(re.sub(r"\d[\d.]*", "#", reason), []).append(reason)
    ranked = sorted(groups.values(), key=len, reverse=True)[:_MAX_REASONS]
    return {group[0]: len(group) for group in ranked}
