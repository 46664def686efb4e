# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How long the stages take, and how long a run was without a good pose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nre_ros.evaluation.metrics.accuracy import percentiles
from nre_ros.evaluation.metrics.query_results import QueryResults


@dataclass(frozen=True)
class Delays:
    """Delays until the next good pose. A good pose is accepted and not known to be wrong.

    Attributes:
        unit: ``s``, or ``images`` where the images have no stamps.
        start: Delay from the first image to the first good pose, None without a good pose.
        losses: Number of losses; a loss is a good pose followed by an image without one.
        after_loss: Delay from the first image of each loss to the next good pose, for losses that ended.
        unrecovered: 1 if the last loss did not end, otherwise 0.
    """

    unit: str
    start: float | None
    losses: int
    after_loss: tuple[float, ...]
    unrecovered: int


def relocalization_delays(results: QueryResults) -> Delays:
    """Measures the delays until the first good pose and until the good pose after each loss.

    Computing time is not part of the delays: they are differences of image stamps.

    Args:
        results: Results of a run.

    Returns:
        The delays.
    """
    unit = "s" if results.has_stamps else "images"
    time, good = results.seconds(), results.accepted & ~results.wrong
    hits = np.flatnonzero(good)
    if not len(hits):
        return Delays(unit, None, 0, (), 0)
    after: list[float] = []
    lost: int | None = None
    for k in range(hits[0], len(good)):
        if good[k] and lost is not None:
            after.append(float(time[k] - time[lost]))
            lost = None
        elif not good[k] and lost is None:
            lost = k
    unrecovered = int(lost is not None)
    return Delays(unit, float(time[hits[0]] - time[0]), len(after) + unrecovered, tuple(after), unrecovered)


def latency(results: QueryResults) -> dict[str, dict[str, float]]:
    """Computes the duration of each stage over the images that reached the stage.

    Args:
        results: Results of a run.

    Returns:
        Stage name to ``median``, ``p90``, ``p99`` and ``max`` in milliseconds; ``total`` is the sum of the stages.
    """
    stages = {**results.milliseconds, "total": results.total_milliseconds}
    found = {name: percentiles(values) for name, values in stages.items()}
    return {name: values for name, values in found.items() if values is not None}
