# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Shares, errors, recall, delays and times of a run.  Definitions in words: docs/evaluation.md."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from nre_ros.evaluation.metrics.outcomes import Outcomes

RECALL_PAIRS = ((0.05, 5.0), (0.25, 2.0), (0.5, 5.0), (5.0, 10.0))
"""Metres and degrees.  5 cm 5 deg is the 7-Scenes criterion (Shotton et al., CVPR 2013); the others are those of
the long-term visual localization benchmark (Sattler et al., CVPR 2018)."""
PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Shares:
    """images: all; posed, accepted: of these.  with_truth: images whose true pose is known; wrong: accepted
    poses among them that are off; judged: accepted poses among them."""

    images: int
    posed: int
    accepted: int
    with_truth: int
    judged: int
    wrong: int


def shares(outcomes: Outcomes) -> Shares:
    """Counts of images; see ``Shares``."""
    return Shares(
        len(outcomes),
        int(outcomes.posed.sum()),
        int(outcomes.accepted.sum()),
        int(outcomes.known.sum()),
        int((outcomes.accepted & outcomes.known).sum()),
        int(outcomes.wrong.sum()),
    )


def spread(values: np.ndarray) -> dict[str, float] | None:
    """Percentiles 50, 90, 99 (linear between order statistics) and the largest; None of no values."""
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    found = {f"p{p}": float(np.percentile(values, p)) for p in PERCENTILES}
    return {"median": found.pop("p50"), **found, "max": float(values.max())}


def recall(outcomes: Outcomes, metres: float, degrees: float) -> float | None:
    """Share of the images with truth whose accepted pose is within both; an image without a pose is a miss."""
    if not outcomes.known.any():
        return None
    with np.errstate(invalid="ignore"):
        within = (outcomes.position_errors <= metres) & (np.degrees(outcomes.rotation_errors) <= degrees)
    return float((within & outcomes.accepted)[outcomes.known].mean())


def median_of_all(outcomes: Outcomes) -> dict[str, float | None]:
    """Median errors over all images with truth, where those without an accepted pose count as infinitely far off.

    What papers report; None where half of the images or more have no pose, or no image has truth.
    """
    known = outcomes.known
    if not known.any():
        return {"position_m": None, "rotation_deg": None}
    medians = {}
    for name, errors in (
        ("position_m", outcomes.position_errors),
        ("rotation_deg", np.degrees(outcomes.rotation_errors)),
    ):
        value = float(np.median(np.where(outcomes.accepted, errors, np.inf)[known]))
        medians[name] = value if np.isfinite(value) else None
    return medians


@dataclass(frozen=True)
class Delays:
    """unit: ``s``, or ``images`` where there are no times.

    start: from the first image to the first good pose, None if there is none.  losses: how often a good pose
    was followed by an image without one; after_loss: from the first such image to the next good pose, of
    those that ended, in their order; unrecovered: 1 if the last loss did not end.
    """

    unit: str
    start: float | None
    losses: int
    after_loss: tuple[float, ...]
    unrecovered: int


def delays(outcomes: Outcomes) -> Delays:
    """How long it took until there was a good pose (accepted and, as far as is known, not wrong)."""
    unit = "s" if len(outcomes) and (outcomes.stamps > 0).all() else "images"
    time, good = outcomes.seconds(), outcomes.accepted & ~outcomes.wrong
    hits = np.flatnonzero(good)
    if not len(hits):
        return Delays(unit, None, 0, (), 0)
    after, lost = [], None
    for k in range(hits[0], len(good)):
        if good[k] and lost is not None:
            after.append(float(time[k] - time[lost]))
            lost = None
        elif not good[k] and lost is None:
            lost = k
    unrecovered = int(lost is not None)
    return Delays(unit, float(time[hits[0]] - time[0]), len(after) + unrecovered, tuple(after), unrecovered)


def latency(outcomes: Outcomes) -> dict[str, dict[str, float]]:
    """Stage -> median, p99 and max in milliseconds, over the images that got there; ``total`` is their sum."""
    stages = {**outcomes.milliseconds, "total": outcomes.total_milliseconds}
    found = {name: spread(values) for name, values in stages.items()}
    return {name: values for name, values in found.items() if values is not None}


def reasons(outcomes: Outcomes, most: int = 8) -> dict[str, int]:
    """Why images have no accepted pose -> how often; reasons that differ in numbers alone count together."""
    import re

    groups: dict[str, list[str]] = {}
    for reason in (reason for reason, good in zip(outcomes.reasons, outcomes.accepted) if not good):
        groups.setdefault(re.sub(r"\d[\d.]*", "#", reason), []).append(reason)
    ranked = sorted(groups.values(), key=len, reverse=True)[:most]
    return {group[0]: len(group) for group in ranked}


def basic(outcomes: Outcomes) -> dict:
    """All of this module, as plain JSON values; errors are those of the accepted poses."""
    accepted = outcomes.accepted
    return {
        "shares": asdict(shares(outcomes)),
        "wrong_beyond": {"metres": outcomes.wrong_beyond[0], "degrees": outcomes.wrong_beyond[1]},
        "position_error_m": spread(outcomes.position_errors[accepted]),
        "rotation_error_deg": spread(np.degrees(outcomes.rotation_errors[accepted])),
        "median_of_all": median_of_all(outcomes),
        "recall": {
            f"{metres:g} m, {degrees:g} deg": recall(outcomes, metres, degrees) for metres, degrees in RECALL_PAIRS
        },
        "delays": asdict(delays(outcomes)),
        "latency_ms": latency(outcomes),
        "reasons": reasons(outcomes),
    }
