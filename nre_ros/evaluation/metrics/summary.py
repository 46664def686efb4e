# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""All figures of one run, computed in one place: the content of ``summary.json``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from nre_ros.evaluation.metrics.accuracy import (
    RECALL_PAIRS,
    count_images,
    failure_reasons,
    median_errors_of_all,
    percentiles,
    recall,
)
from nre_ros.evaluation.metrics.calibration import confidence_calibration, covariance_calibration
from nre_ros.evaluation.metrics.query_results import QueryResults
from nre_ros.evaluation.metrics.systematic import findings, mean_offset, time_delay
from nre_ros.evaluation.metrics.timing import latency, relocalization_delays
from nre_ros.evaluation.metrics.trajectory import evo_errors, trajectory_errors


def recall_key(metres: float, degrees: float) -> str:
    """Returns the key of a recall threshold in the summary, for example ``0.05 m, 5 deg``.

    Args:
        metres: Largest position error.
        degrees: Largest rotation error.

    Returns:
        The key.
    """
    return f"{metres:g} m, {degrees:g} deg"


def summarize(results: QueryResults) -> dict[str, Any]:
    """Computes all figures of a run. Position and rotation errors are those of the accepted poses.

    Args:
        results: Results of a run.

    Returns:
        Plain JSON values, None where there is nothing to measure. ``docs/evaluation.md`` defines every figure.
    """
    accepted, evaluated = results.accepted, results.evaluated
    estimated, true = results.poses[evaluated], results.ground_truth[evaluated]
    return {
        "shares": asdict(count_images(results)),
        "wrong_beyond": {"metres": results.wrong_beyond[0], "degrees": results.wrong_beyond[1]},
        "position_error_m": percentiles(results.position_errors[accepted]),
        "rotation_error_deg": percentiles(np.degrees(results.rotation_errors[accepted])),
        "median_of_all": median_errors_of_all(results),
        "recall": {recall_key(*pair): recall(results, *pair) for pair in RECALL_PAIRS},
        "delays": asdict(relocalization_delays(results)),
        "latency_ms": latency(results),
        "reasons": failure_reasons(results),
        "trajectory": {
            **trajectory_errors(estimated, true),
            "evo": evo_errors(results.seconds()[evaluated], estimated, true),
        },
        "confidence": confidence_calibration(results),
        "covariance": covariance_calibration(results),
        "offset": mean_offset(results),
        "delay": time_delay(results),
        "findings": findings(results),
    }
