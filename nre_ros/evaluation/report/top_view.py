# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The top view of a report: the map, the ground-truth trajectory and the estimated positions, seen from above."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nre_ros.evaluation.metrics import QueryResults
from nre_ros.pictures.plotting import (
    COLOURS,
    GROUND_TRUTH,
    MAP,
    RASTERIZE_ABOVE,
    REJECTED,
    add_legend,
    new_figure,
    plain_number,
    svg_element,
)
from nre_ros.pictures.top_view import MapTopView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_top_view(runs: dict[str, QueryResults], view: MapTopView | None) -> str:
    """Draws the true and the estimated positions. The positions of a single run are coloured by their error.

    Args:
        runs: Run name to results; the ground truth is that of the first run.
        view: Projected map, None if the map is not available.

    Returns:
        SVG element.
    """
    figure, axes = new_figure(1, 1, (8.2, 6.4))
    ax = axes[0, 0]
    plane = np.eye(3)[:2] if view is None else view.plane
    if view is not None:
        ax.scatter(*view.points.T, s=2, color="#cbd3dc", linewidths=0, rasterized=True, zorder=0)
        ax.quiver(*view.positions.T, *view.directions.T, color=MAP, width=0.0025, scale=28, zorder=1)
        ax.plot(*view.positions.T, ".", color=MAP, markersize=3, label=f"{len(view.positions)} keyframes", zorder=1)
    first = next(iter(runs.values()))
    if first.has_ground_truth.any():
        _draw_ground_truth(ax, first, plane)
    for (name, run), colour in zip(runs.items(), cycle(COLOURS)):
        _draw_estimates(figure, ax, name, run, colour, plane, by_error=len(runs) == 1)
    ax.set_aspect("equal")
    _set_limits(ax, first, plane, view)
    ax.set_xlabel("metres in the map, seen from above")
    add_legend(ax, loc="best")
    return svg_element(figure, "top view of the true and estimated positions")


def _draw_ground_truth(ax: Axes, run: QueryResults, plane: npt.NDArray[np.float64]) -> None:
    known = run.has_ground_truth
    positions, seconds = run.ground_truth[known, :3, 3] @ plane.T, run.seconds()[known]
    steps = np.diff(seconds)
    if len(steps):  # the line is interrupted where images are missing
        gaps = np.flatnonzero(steps > 5 * max(float(np.median(steps)), 1e-9)) + 1
        line = np.insert(positions, gaps, np.nan, axis=0)
    else:
        line = positions
    ax.plot(*line.T, color=GROUND_TRUTH, linewidth=1.1, label="ground truth", zorder=2)
    missed = known & ~run.accepted
    if missed.any():
        at = run.ground_truth[missed, :3, 3] @ plane.T
        ax.plot(*at.T, "x", color=REJECTED, markersize=6, label="no accepted pose", zorder=3)


def _draw_estimates(
    figure: Figure,
    ax: Axes,
    name: str,
    run: QueryResults,
    colour: str,
    plane: npt.NDArray[np.float64],
    by_error: bool,
) -> None:
    positions, evaluated = run.poses[:, :3, 3] @ plane.T, run.evaluated
    style: dict[str, Any] = {"rasterized": len(run) > RASTERIZE_ABOVE}
    if not by_error or not evaluated.any():
        ax.plot(*positions[run.accepted].T, ".", color=colour, markersize=5, alpha=0.8, label=name, zorder=4, **style)
        return
    from matplotlib.colors import LogNorm

    rest, errors = run.accepted & ~run.has_ground_truth, 100 * run.position_errors[evaluated]
    if rest.any():
        label = "pose without ground truth"
        ax.plot(*positions[rest].T, ".", color="#b9c2cc", markersize=4, label=label, zorder=3, **style)
    low, high = max(np.percentile(errors, 2), 1e-2), max(np.percentile(errors, 99), 2e-2)
    x, y = positions[evaluated].T
    drawn = ax.scatter(
        x,
        y,
        c=errors.clip(low, None),
        s=16,
        cmap="turbo",
        norm=LogNorm(low, max(high, 1.01 * low)),
        label="pose",
        zorder=4,
        **style,
    )
    figure.colorbar(drawn, ax=ax, label="position error [cm]", shrink=0.75, format=plain_number)


def _set_limits(ax: Axes, run: QueryResults, plane: npt.NDArray[np.float64], view: MapTopView | None) -> None:
    """Limits that contain the map, the ground truth and nearly all poses; single outliers may lie outside."""
    estimated = run.poses[run.accepted, :3, 3] @ plane.T
    if len(estimated) > 20:
        estimated = np.percentile(estimated, (1, 99), axis=0)
    shown = [run.ground_truth[run.has_ground_truth, :3, 3] @ plane.T, estimated]
    if view is not None:
        scene = np.percentile(view.points, (3, 97), axis=0) if len(view.points) else np.zeros((0, 2))
        shown += [view.positions, scene]
    positions = np.concatenate(shown)
    if len(positions):
        low, high = positions.min(0), positions.max(0)
        margin = 0.08 * max(float((high - low).max()), 0.1)
        ax.set_xlim(low[0] - margin, high[0] + margin)
        ax.set_ylim(low[1] - margin, high[1] + margin)
