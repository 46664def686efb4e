# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The charts of a report: errors over time, cumulative errors, durations and calibration.

Every function takes the runs (name to results) and returns an SVG element.
"""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np
from scipy.stats import chi2

from nre_ros.evaluation.metrics import QueryResults
from nre_ros.evaluation.metrics.accuracy import RECALL_PAIRS
from nre_ros.evaluation.metrics.calibration import confidence_calibration, squared_mahalanobis
from nre_ros.evaluation.metrics.timing import latency
from nre_ros.pictures.plotting import (
    COLOURS,
    GROUND_TRUTH,
    MAP,
    RASTERIZE_ABOVE,
    add_legend,
    label_log_axis,
    new_figure,
    svg_element,
)

_SAME_RECORDING_SECONDS = 3600.0
"""Runs whose first stamps differ by more are different recordings: their figures start together."""
_ERROR_KINDS = (
    ("position", "cm", 100.0, "position_errors"),
    ("rotation", "deg", 180 / np.pi, "rotation_errors"),
)
"""Name, unit, factor to the unit, and property of the results, for the two kinds of error."""
_LEAST_ERROR = 1e-3
"""Smaller errors, in cm and degrees, are drawn at this value of the logarithmic axes."""


def errors_over_time(runs: dict[str, QueryResults]) -> str:
    """Draws the errors of accepted poses over time, and the images without an accepted pose at the top.

    Args:
        runs: Run name to results.

    Returns:
        SVG element.
    """
    figure, axes = new_figure(2, 1, (9, 5.2), sharex=True)
    start = _common_start(runs)
    for ax, (kind, unit, factor, attribute) in zip(axes[:, 0], _ERROR_KINDS):
        for (name, run), colour in zip(runs.items(), cycle(COLOURS)):
            seconds, errors = run.seconds() + start[name], factor * getattr(run, attribute)
            good = run.evaluated & ~run.beyond_limits
            style: dict[str, Any] = {"color": colour, "rasterized": len(run) > RASTERIZE_ABOVE}
            ax.plot(seconds[good], errors[good].clip(_LEAST_ERROR), ".", markersize=4, label=name, **style)
            if run.wrong.any():
                ax.plot(
                    seconds[run.wrong],
                    errors[run.wrong].clip(_LEAST_ERROR),
                    "v",
                    color=colour,
                    markeredgecolor="black",
                    markersize=6,
                    label=f"{name}: wrong",
                )
        for place, ((name, run), colour) in enumerate(zip(runs.items(), cycle(COLOURS))):
            missed = ~run.accepted
            if missed.any():
                ax.plot(
                    run.seconds()[missed] + start[name],
                    np.full(missed.sum(), 0.97 - 0.05 * place),
                    "x",
                    color=colour,
                    markersize=5,
                    transform=ax.get_xaxis_transform(),
                    label=f"{name}: no accepted pose",
                    rasterized=len(run) > RASTERIZE_ABOVE,
                )
        ax.set_yscale("log")
        label_log_axis(ax.yaxis)
        ax.set_ylabel(f"{kind} error [{unit}]")
    first = next(iter(runs.values()))
    axes[1, 0].set_xlabel("time [s]" if (first.stamps > 0).all() else "image")
    add_legend(axes[0, 0], loc="lower right", ncols=2)
    return svg_element(figure, "errors over time")


def cumulative_errors(runs: dict[str, QueryResults]) -> str:
    """Draws the share of images with ground truth whose accepted pose has at most a given error.

    Args:
        runs: Run name to results.

    Returns:
        SVG element.
    """
    figure, axes = new_figure(1, 2, (9, 3.6), sharey=True)
    for index, (ax, (kind, unit, factor, attribute)) in enumerate(zip(axes[0], _ERROR_KINDS)):
        for (name, run), colour in zip(runs.items(), cycle(COLOURS)):
            errors = np.sort(factor * getattr(run, attribute)[run.evaluated]).clip(_LEAST_ERROR)
            if len(errors):
                share = np.arange(1, len(errors) + 1) / run.has_ground_truth.sum()
                ax.step(np.r_[errors, errors[-1] * 10], np.r_[share, share[-1]], where="post", color=colour, label=name)
        for value in sorted({pair[index] for pair in RECALL_PAIRS}):
            ax.axvline(100 * value if index == 0 else value, color="#e1b1b8", linewidth=0.8, linestyle=":")
        ax.set_xscale("log")
        label_log_axis(ax.xaxis)
        ax.set_ylim(0, 1.02)
        ax.set_xlabel(f"{kind} error [{unit}]")
    axes[0, 0].set_ylabel("share of images with ground truth")
    add_legend(axes[0, 0], loc="lower right")
    return svg_element(figure, "cumulative errors")


def stage_durations(runs: dict[str, QueryResults]) -> str:
    """Draws the median duration of each stage as a bar, and a line to the 99th percentile.

    Args:
        runs: Run name to results.

    Returns:
        SVG element.
    """
    found = [(name, latency(run), colour) for (name, run), colour in zip(runs.items(), cycle(COLOURS))]
    stages = list(dict.fromkeys(stage for _, values, _ in found for stage in values if stage != "total")) + ["total"]
    figure, axes = new_figure(1, 1, (8.2, 0.9 + len(stages) * (0.2 + 0.08 * len(found))))
    ax, height = axes[0, 0], 0.8 / len(found)
    for place, (name, values, colour) in enumerate(found):
        rows = [(k, values[stage]) for k, stage in enumerate(stages) if stage in values]
        if not rows:
            continue
        y = np.array([k for k, _ in rows]) + (place - (len(found) - 1) / 2) * height
        medians, high = (np.array([entry[key] for _, entry in rows]) for key in ("median", "p99"))
        ax.barh(y, medians, height, color=colour, label=name)
        ax.hlines(y, medians, high, color=GROUND_TRUTH, linewidth=1)
        for at, median, top in zip(y, medians, high):
            ax.text(top, at, f" {median:.0f}", va="center", fontsize=7)
    ax.set_yticks(range(len(stages)), stages)
    ax.invert_yaxis()
    ax.margins(x=0.08)
    ax.set_xlabel("ms (bar: median, line: up to the 99th percentile)")
    if len(found) > 1:
        ax.set_xscale("log")  # the methods differ by a factor of a hundred
        label_log_axis(ax.xaxis)
        add_legend(ax, loc="best")
    return svg_element(figure, "durations of the stages")


def calibration(runs: dict[str, QueryResults]) -> str:
    """Draws the reliability diagram of the confidence, and the share of errors inside the covariance ellipsoids.

    Args:
        runs: Run name to results.

    Returns:
        SVG element.
    """
    figure, axes = new_figure(1, 2, (9, 4.2))
    left, right = axes[0]
    for ax in (left, right):
        ax.plot([0, 1], [0, 1], color=MAP, linewidth=1, linestyle="--")
        ax.set_xlim(-0.02, 1.02)
        ax.set_ylim(-0.02, 1.02)
        ax.set_aspect("equal")
    for (name, run), colour in zip(runs.items(), cycle(COLOURS)):
        found = confidence_calibration(run)
        if found:
            columns = ("confidence", "right", "count")
            mean, share, count = (np.array([row[key] for row in found["bins"]]) for key in columns)
            left.plot(mean, share, "-", color=colour, linewidth=0.8)
            left.scatter(mean, share, s=12 + 160 * count / count.sum(), color=colour, alpha=0.75, label=name)
        for (kind, squares), style, freedom in zip(squared_mahalanobis(run).items(), ("--", "-"), (3, 6)):
            squares = np.sort(squares)
            if len(squares):
                share = np.arange(1, len(squares) + 1) / len(squares)
                right.step(
                    np.r_[0, chi2.cdf(squares, freedom), 1],
                    np.r_[0, share, share[-1]],
                    where="post",
                    color=colour,
                    linestyle=style,
                    linewidth=1.2,
                    label=f"{name}: {kind}",
                )
    left.set_xlabel("confidence (dot size: number of images)")
    left.set_ylabel("share of right poses")
    right.set_xlabel("probability of the covariance ellipsoid")
    right.set_ylabel("share of errors inside")
    for ax in (left, right):
        add_legend(ax, loc="best")
    return svg_element(figure, "calibration of confidence and covariance")


def _common_start(runs: dict[str, QueryResults]) -> dict[str, float]:
    """Seconds to add to the times of each run, so that images of the same time have the same abscissa."""
    starts = {name: int(run.stamps[0]) if run.has_stamps else 0 for name, run in runs.items()}
    first = min(starts.values())
    shifts = {name: (start - first) / 1e9 for name, start in starts.items()}
    if max(shifts.values()) > _SAME_RECORDING_SECONDS:
        return dict.fromkeys(runs, 0.0)
    return shifts
