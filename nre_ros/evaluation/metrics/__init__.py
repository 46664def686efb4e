# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The figures of one run.

``collect_results`` joins the records of a run with the ground truth into one ``QueryResults``. Every measure is a
function of these results, and ``summarize`` calls all of them in this order:

1. ``accuracy``: counts, error percentiles, recall, reasons without a pose.
2. ``timing``: delays until the next good pose, latency of the stages.
3. ``trajectory``: absolute and relative pose error, also by the library evo.
4. ``calibration``: whether confidence and covariance match the errors.
5. ``systematic``: errors that all poses share, and what they point to.
"""

from nre_ros.evaluation.metrics.query_results import GroundTruthLookup, QueryResults, collect_results
from nre_ros.evaluation.metrics.summary import summarize

__all__ = ["GroundTruthLookup", "QueryResults", "collect_results", "summarize"]
