# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The figures of a report, each a matplotlib figure as SVG text that goes into the page.

All take ``runs``: name -> outcomes; the first is the one that the report is about.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from scipy.stats import chi2

from nre_ros.evaluation.metrics.basic import RECALL_PAIRS, latency
from nre_ros.evaluation.metrics.calibration import confidence_calibration, squared_distances
from nre_ros.evaluation.metrics.outcomes import Outcomes

COLOURS = ("#c8384d", "#2f6fde", "#2a9d6f", "#b7791f", "#7a4fc4", "#4b5563")
TRUTH, MAP, REJECTED = "#1f2937", "#9aa5b1", "#6b7280"
_MANY = 3000
"""Points in a figure from which on it holds them as pixels: browsers are slow with so many shapes."""
_APART = 3600.0
"""Seconds between the starts of two runs beyond which they are other recordings, which begin together in a figure."""
_KINDS = ("cm", "deg"), (100.0, 180 / np.pi), ("position_errors", "rotation_errors")
"""Units, factors to them and the outcomes' property, of the two kinds of error."""
_LEAST = 1e-3
"""Of logarithmic axes, in cm and degrees: better is drawn there."""


@dataclass(frozen=True)
class Backdrop:
    """The map from above: keyframes' places and views [K, 2], points [P, 2], in the plane [2, 3] seen from above."""

    places: np.ndarray
    views: np.ndarray
    points: np.ndarray
    plane: np.ndarray


def from_above(runs: dict[str, Outcomes], backdrop: Backdrop | None) -> str:
    """True and estimated positions; those of a single run coloured by their error."""
    figure, axes = _figure(1, 1, (8.2, 6.4))
    ax = axes[0, 0]
    plane = np.eye(3)[:2] if backdrop is None else backdrop.plane
    if backdrop is not None:
        ax.scatter(*backdrop.points.T, s=2, color="#cbd3dc", linewidths=0, rasterized=True, zorder=0)
        ax.quiver(*backdrop.places.T, *backdrop.views.T, color=MAP, width=0.0025, scale=28, zorder=1)
        ax.plot(*backdrop.places.T, ".", color=MAP, markersize=3, label=f"{len(backdrop.places)} keyframes", zorder=1)
    first = next(iter(runs.values()))
    if first.known.any():
        _draw_truth(ax, first, plane)
    for (name, run), colour in zip(runs.items(), cycle(COLOURS)):
        _draw_estimates(figure, ax, name, run, colour, plane, coloured=len(runs) == 1)
    ax.set_aspect("equal")
    _limit(ax, first, plane, backdrop)
    ax.set_xlabel("m, in the map seen from above")
    _legend(ax, loc="best")
    return _svg(figure, "the way from above, true and estimated")


def _draw_truth(ax, run: Outcomes, plane) -> None:
    places, seconds = run.truth[run.known, :3, 3] @ plane.T, run.seconds()[run.known]
    gaps = np.flatnonzero(np.diff(seconds) > 5 * max(np.median(np.diff(seconds)), 1e-9)) + 1 if len(seconds) > 1 else []
    broken = np.insert(places, gaps, np.nan, axis=0)
    ax.plot(*broken.T, color=TRUTH, linewidth=1.1, label="truth", zorder=2)
    missed = run.known & ~run.accepted
    if missed.any():
        at = run.truth[missed, :3, 3] @ plane.T
        ax.plot(*at.T, "x", color=REJECTED, markersize=6, label="no accepted pose", zorder=3)


def _draw_estimates(figure, ax, name, run: Outcomes, colour, plane, coloured: bool) -> None:
    places, judged = run.poses[:, :3, 3] @ plane.T, run.accepted & run.known
    style = {"rasterized": len(run) > _MANY}
    if not coloured or not judged.any():
        ax.plot(*places[run.accepted].T, ".", color=colour, markersize=5, alpha=0.8, label=name, zorder=4, **style)
        return
    from matplotlib.colors import LogNorm

    rest, errors = run.accepted & ~run.known, 100 * run.position_errors[judged]
    if rest.any():
        ax.plot(*places[rest].T, ".", color="#b9c2cc", markersize=4, label="pose without truth", zorder=3, **style)
    low, high = max(np.percentile(errors, 2), 1e-2), max(np.percentile(errors, 99), 2e-2)
    drawn = ax.scatter(
        *places[judged].T,
        c=errors.clip(low, None),
        s=16,
        cmap="turbo",
        norm=LogNorm(low, max(high, 1.01 * low)),
        label="pose",
        zorder=4,
        **style,
    )
    figure.colorbar(drawn, ax=ax, label="position error [cm]", shrink=0.75, format=_plain)


def _limit(ax, run: Outcomes, plane, backdrop) -> None:
    """The frame holds map, truth and nearly all poses; one wild pose must not shrink the rest to a dot."""
    places = [run.truth[run.known, :3, 3] @ plane.T, run.poses[run.accepted, :3, 3] @ plane.T]
    if len(places[1]) > 20:
        low, high = np.percentile(places[1], (1, 99), axis=0)
        places[1] = np.stack([low, high])
    if backdrop is not None:
        scene = np.percentile(backdrop.points, (3, 97), axis=0) if len(backdrop.points) else np.zeros((0, 2))
        places += [backdrop.places, scene]
    places = np.concatenate(places)
    if len(places):
        low, high = places.min(0), places.max(0)
        margin = 0.08 * max(float((high - low).max()), 0.1)
        ax.set_xlim(low[0] - margin, high[0] + margin)
        ax.set_ylim(low[1] - margin, high[1] + margin)


def over_time(runs: dict[str, Outcomes]) -> str:
    """Errors of accepted poses over time, and at the top the images without one."""
    figure, axes = _figure(2, 1, (9, 5.2), sharex=True)
    zero = _common_start(runs)
    for ax, unit, factor, kind in zip(axes[:, 0], *_KINDS):
        for (name, run), colour in zip(runs.items(), cycle(COLOURS)):
            seconds, errors = run.seconds() + zero[name], factor * getattr(run, kind)
            good, style = run.accepted & run.known & ~run.off, {"color": colour, "rasterized": len(run) > _MANY}
            ax.plot(seconds[good], errors[good].clip(_LEAST), ".", markersize=4, label=name, **style)
            if run.wrong.any():
                ax.plot(
                    seconds[run.wrong],
                    errors[run.wrong].clip(_LEAST),
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
                    run.seconds()[missed] + zero[name],
                    np.full(missed.sum(), 0.97 - 0.05 * place),
                    "x",
                    color=colour,
                    markersize=5,
                    transform=ax.get_xaxis_transform(),
                    label=f"{name}: no accepted pose",
                    rasterized=len(run) > _MANY,
                )
        ax.set_yscale("log")
        _plain_logarithm(ax.yaxis)
        ax.set_ylabel(f"{kind.split('_')[0]} error [{unit}]")
    first = next(iter(runs.values()))
    axes[1, 0].set_xlabel("time [s]" if (first.stamps > 0).all() else "image")
    _legend(axes[0, 0], loc="lower right", ncols=2)
    return _svg(figure, "errors over time")


def cumulative(runs: dict[str, Outcomes]) -> str:
    """Share of the images with truth whose accepted pose is off by no more than so much."""
    figure, axes = _figure(1, 2, (9, 3.6), sharey=True)
    for pair, (ax, unit, factor, kind) in enumerate(zip(axes[0], *_KINDS)):
        for (name, run), colour in zip(runs.items(), cycle(COLOURS)):
            judged = run.accepted & run.known
            errors = np.sort(factor * getattr(run, kind)[judged]).clip(_LEAST)
            if len(errors):
                share = np.arange(1, len(errors) + 1) / run.known.sum()
                ax.step(np.r_[errors, errors[-1] * 10], np.r_[share, share[-1]], where="post", color=colour, label=name)
        for value in sorted({entry[pair] for entry in RECALL_PAIRS}):
            ax.axvline(100 * value if pair == 0 else value, color="#e1b1b8", linewidth=0.8, linestyle=":")
        ax.set_xscale("log")
        _plain_logarithm(ax.xaxis)
        ax.set_ylim(0, 1.02)
        ax.set_xlabel(f"{kind.split('_')[0]} error [{unit}]")
    axes[0, 0].set_ylabel("share of images with truth")
    _legend(axes[0, 0], loc="lower right")
    return _svg(figure, "cumulative errors")


def times(runs: dict[str, Outcomes]) -> str:
    """Median of each stage as a bar, to the 99th percentile as a line."""
    found = [(name, latency(run), colour) for (name, run), colour in zip(runs.items(), cycle(COLOURS))]
    stages = list(dict.fromkeys(stage for _, values, _ in found for stage in values if stage != "total")) + ["total"]
    figure, axes = _figure(1, 1, (8.2, 0.9 + len(stages) * (0.2 + 0.08 * len(found))))
    ax, height = axes[0, 0], 0.8 / len(found)
    for place, (name, values, colour) in enumerate(found):
        rows = [(k, values[stage]) for k, stage in enumerate(stages) if stage in values]
        if not rows:
            continue
        y = np.array([k for k, _ in rows]) + (place - (len(found) - 1) / 2) * height
        medians, high = (np.array([entry[key] for _, entry in rows]) for key in ("median", "p99"))
        ax.barh(y, medians, height, color=colour, label=name)
        ax.hlines(y, medians, high, color=TRUTH, linewidth=1)
        for at, median, top in zip(y, medians, high):
            ax.text(top, at, f" {median:.0f}", va="center", fontsize=7)
    ax.set_yticks(range(len(stages)), stages)
    ax.invert_yaxis()
    ax.margins(x=0.08)
    ax.set_xlabel("ms (bar: median, line: to the 99th percentile)")
    if len(found) > 1:
        ax.set_xscale("log")  # methods differ a hundredfold
        _plain_logarithm(ax.xaxis)
        _legend(ax, loc="best")
    return _svg(figure, "time of the stages")


def calibration(runs: dict[str, Outcomes]) -> str:
    """Reliability of the confidence, and how many errors the ellipsoids of the covariance hold."""
    figure, axes = _figure(1, 2, (9, 4.2))
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
        for (kind, squares), style, freedom in zip(squared_distances(run).items(), ("--", "-"), (3, 6)):
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
    left.set_xlabel("confidence (dots: images in the bin)")
    left.set_ylabel("share of right poses")
    right.set_xlabel("share that the ellipsoid should hold")
    right.set_ylabel("share that it holds")
    for ax in (left, right):
        _legend(ax, loc="best")
    return _svg(figure, "calibration of confidence and covariance")


def _legend(ax, **options) -> None:
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8, framealpha=0.9, **options)


def _common_start(runs: dict[str, Outcomes]) -> dict[str, float]:
    """What to add to the seconds of each run so that images of the same time lie above each other."""
    starts = {name: int(run.stamps[0]) if len(run) and (run.stamps > 0).all() else 0 for name, run in runs.items()}
    first = min(starts.values())
    shifts = {name: (start - first) / 1e9 for name, start in starts.items()}
    if max(shifts.values()) > _APART:
        return dict.fromkeys(runs, 0.0)
    return shifts


def _plain(value: float, _=None) -> str:
    """0.01 rather than a power of ten."""
    return f"{value:g}"


def _plain_logarithm(axis) -> None:
    """Plain numbers; between the powers of ten as many as there is room for."""
    from matplotlib.ticker import LogFormatter

    class Minor(LogFormatter):
        def __call__(self, value, place=None):
            return _plain(value) if super().__call__(value, place) else ""

    axis.set_major_formatter(_plain)
    axis.set_minor_formatter(Minor(labelOnlyBase=False, minor_thresholds=(1, 0.4)))


def _figure(rows: int, columns: int, size, **options):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)
    for ax in axes.flat:
        ax.grid(alpha=0.25)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure, title: str) -> str:
    """The figure as an SVG element without the XML head, the same for the same data."""
    import matplotlib
    from matplotlib import pyplot as plt

    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": title}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Title": title}, dpi=150)
    plt.close(figure)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    # names inside are made unique to the figure: several of them share one page
    prefix = re.sub(r"\W+", "-", title)
    svg = re.sub(r'id="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\1{prefix}-", svg)
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', f'role="img" aria-label="{title}"', svg, count=1)
