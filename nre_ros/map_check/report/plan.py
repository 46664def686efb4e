# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The plan of a checked map: its keyframes seen from above, coloured by expected accuracy and by recall."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nre_ros.map_check.check import CheckResult
from nre_ros.map_check.report.areas import AreaGrid
from nre_ros.map_check.report.outcomes import Outcome, View, expected_errors
from nre_ros.map_check.report.weak_spots import WeakSpot
from nre_ros.pictures.plotting import (
    MAP,
    RASTERIZE_ABOVE,
    add_legend,
    new_figure,
    plain_number,
    svg_element,
)
from nre_ros.pictures.top_view import MapTopView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RIGHT, _FAILED, _SUSPICIOUS, _ALIKE = "#2a9d6f", "#c8384d", "#7a4fc4", "#b7791f"
_POINTS, _GRID = "#c2cbd5", "#c9d1da"
_WIDTH = 8.6
_HEIGHTS = (3.0, 7.6)
"""Width, and smallest and largest height, of a plan in inches."""
_SMALLEST_RANGE = 4.0
"""The colours span at least this ratio of errors: smaller differences are not worth a colour."""
_MOST_MARKED = 20
"""Suspicious keyframes and weak spots with a number on the plan; the page has the numbers, too."""


def draw_accuracy(result: CheckResult, views: Sequence[View], map_view: MapTopView, grid: AreaGrid) -> str:
    """Draws the keyframes coloured by the error of the position that images near them can expect.

    Args:
        result: The check.
        views: Its ``keyframe_views``.
        map_view: The map from above.
        grid: The areas.

    Returns:
        SVG element.
    """
    from matplotlib.colors import LogNorm

    figure, ax = _new_plan(result, map_view, grid)
    positions, forwards = _flat(_stacked(result.poses.values()), grid.plane)
    errors = expected_errors(result, views)
    known = np.isfinite(errors)
    if not known.all():
        _draw_keyframes(ax, positions[~known], forwards[~known], MAP, "unknown")
    if known.any():
        metres = bool(np.median(errors[known]) >= 1)
        values = (1.0 if metres else 100.0) * errors[known]
        low, high = (max(float(np.percentile(values, share)), 1e-3) for share in (2, 98))
        widen = max(1.0, _SMALLEST_RANGE / (high / low)) ** 0.5
        low, high = low / widen, high * widen
        many = int(known.sum()) > RASTERIZE_ABOVE
        colours: dict[str, Any] = {"cmap": "turbo", "norm": LogNorm(low, high), "rasterized": many}
        shown = values.clip(low, high)
        x, y = positions[known].T
        ax.quiver(x, y, *forwards[known].T, shown, width=0.0028, scale=26, zorder=3, **colours)
        drawn = ax.scatter(x, y, c=shown, s=20, linewidths=0, zorder=4, label="keyframe", **colours)
        label = f"expected error of the position [{'m' if metres else 'cm'}]"
        bar = figure.colorbar(drawn, ax=ax, label=label, shrink=0.8, format=plain_number)
        bar.ax.yaxis.set_minor_formatter(lambda value, _: plain_number(value) if f"{value:e}"[0] in "25" else "")
        bar.ax.tick_params(which="both", labelsize=8)
    _mark_suspicious(ax, result, grid)
    return _finished(figure, ax, "plan coloured by expected accuracy")


def draw_recall(
    result: CheckResult, views: Sequence[View], spots: Sequence[WeakSpot], map_view: MapTopView, grid: AreaGrid
) -> str:
    """Draws the localized keyframes coloured by what became of them; those without a right pose are red.

    Args:
        result: The check.
        views: Its ``keyframe_views``.
        spots: Its weak spots, which are numbered.
        map_view: The map from above.
        grid: The areas.

    Returns:
        SVG element.
    """
    figure, ax = _new_plan(result, map_view, grid)
    localized = {view.result.view.keyframe for view in views} | {each.keyframe for each in result.suspicious}
    rest = _stacked(T for keyframe, T in result.poses.items() if keyframe not in localized)
    _draw_keyframes(ax, *_flat(rest, grid.plane), MAP, "not localized")
    for outcome, colour, marker in (
        (Outcome.RIGHT, _RIGHT, "o"),
        (Outcome.NOT_FOUND, _FAILED, "X"),
        (Outcome.WRONG, _FAILED, "v"),
    ):
        found = _stacked(view.result.view.T_map_cam for view in views if view.outcome is outcome)
        label = f"{outcome.value} ({len(found)})"
        _draw_keyframes(ax, *_flat(found, grid.plane), colour, label, marker, failed=outcome is not Outcome.RIGHT)
    for number, spot in enumerate(spots[:_MOST_MARKED], start=1):
        _annotate(ax, spot.views[0].result.view.T_map_cam, grid.plane, str(number), _FAILED)
    _draw_alike(ax, result, grid)
    _mark_suspicious(ax, result, grid, directions=True)
    return _finished(figure, ax, "plan coloured by recall")


def _new_plan(result: CheckResult, map_view: MapTopView, grid: AreaGrid) -> tuple[Figure, Axes]:
    """A figure with the map's points and the areas."""
    positions = _stacked(result.poses.values())[:, :3, 3] @ grid.plane.T
    shown = [positions, grid.corner[None], grid.corner[None] + grid.side * np.array([[grid.columns, grid.rows]])]
    if len(map_view.points):
        shown.append(np.percentile(map_view.points, (3, 97), axis=0))
    corners = np.concatenate(shown)
    low, high = corners.min(axis=0), corners.max(axis=0)
    margin = 0.05 * max(float((high - low).max()), 0.1)
    low, high = low - margin, high + margin
    width, height = (high - low).tolist()
    figure, axes = new_figure(1, 1, (_WIDTH, float(np.clip(0.8 * _WIDTH * height / width + 1.3, *_HEIGHTS))))
    ax = axes[0, 0]
    ax.grid(False)
    ax.set_aspect("equal")
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(low[1], high[1])
    ax.scatter(*map_view.points.T, s=2, color=_POINTS, linewidths=0, rasterized=True, zorder=0)
    _draw_grid(ax, grid)
    ax.set_xlabel("metres in the map, seen from above")
    return figure, ax


def _draw_grid(ax: Axes, grid: AreaGrid) -> None:
    left, bottom = grid.corner.tolist()
    right, top = left + grid.side * grid.columns, bottom + grid.side * grid.rows
    style: dict[str, Any] = {"color": _GRID, "linewidth": 0.7, "zorder": 1}
    ax.vlines(left + grid.side * np.arange(grid.columns + 1), bottom, top, **style)
    ax.hlines(bottom + grid.side * np.arange(grid.rows + 1), left, right, **style)
    text: dict[str, Any] = {"fontsize": 8, "color": "#5b6673", "zorder": 2, "clip_on": False}
    for column in range(grid.columns):
        at = left + grid.side * (column + 0.5)
        ax.annotate(
            chr(ord("A") + column), (at, top), (0, 3), textcoords="offset points", ha="center", va="bottom", **text
        )
    for row in range(grid.rows):
        at = bottom + grid.side * (row + 0.5)
        ax.annotate(str(row + 1), (left, at), (-4, 0), textcoords="offset points", ha="right", va="center", **text)


def _stacked(poses: Iterable[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    return np.array(list(poses)).reshape(-1, 4, 4)


def _flat(
    poses: npt.NDArray[np.float64], plane: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Positions [N, 2] and viewing directions [N, 2] in the plan."""
    return poses[:, :3, 3] @ plane.T, poses[:, :3, 2] @ plane.T


def _draw_keyframes(
    ax: Axes,
    positions: npt.NDArray[np.float64],
    forwards: npt.NDArray[np.float64],
    colour: str,
    label: str,
    marker: str = "o",
    failed: bool = False,
) -> None:
    if not len(positions):
        return
    rasterized, above = len(positions) > RASTERIZE_ABOVE, 2 if failed else 0
    ax.quiver(*positions.T, *forwards.T, color=colour, width=0.0028, scale=26, zorder=3 + above, rasterized=rasterized)
    edge: dict[str, Any] = {"edgecolors": "white", "linewidths": 0.6} if failed else {"linewidths": 0}
    size = 62 if failed else 20
    style: dict[str, Any] = {
        "color": colour,
        "marker": marker,
        "s": size,
        "label": label,
        "rasterized": rasterized,
        **edge,
    }
    ax.scatter(*positions.T, zorder=4 + above, **style)


def _mark_suspicious(ax: Axes, result: CheckResult, grid: AreaGrid, directions: bool = False) -> None:
    poses = _stacked(result.poses[each.keyframe] for each in result.suspicious)
    if not len(poses):
        return
    positions, forwards = _flat(poses, grid.plane)
    if directions:
        _draw_keyframes(ax, positions, forwards, _SUSPICIOUS, "")
    x, y = positions.T
    ax.scatter(
        x,
        y,
        s=130,
        marker="D",
        facecolors="none",
        edgecolors=_SUSPICIOUS,
        linewidths=1.6,
        zorder=7,
        label=f"suspicious ({len(poses)})",
    )
    for number, T_map_cam in enumerate(poses[:_MOST_MARKED], start=1):
        _annotate(ax, T_map_cam, grid.plane, f"S{number}", _SUSPICIOUS)


def _draw_alike(ax: Axes, result: CheckResult, grid: AreaGrid) -> None:
    label = "look alike"
    ids = {name: keyframe for keyframe, name in result.names.items()}
    for each in result.aliased[:_MOST_MARKED]:
        twin = result.poses[ids[each.twin]] if each.twin in ids else each.elsewhere
        ends, _ = _flat(np.stack([result.poses[each.keyframe], twin]), grid.plane)
        ax.plot(*ends.T, "--", color=_ALIKE, linewidth=1.1, zorder=5, label=label)
        label = ""


def _annotate(
    ax: Axes, T_map_cam: npt.NDArray[np.float64], plane: npt.NDArray[np.float64], text: str, colour: str
) -> None:
    """Writes a number behind a camera, where its viewing direction does not cross it."""
    place, forward = plane @ T_map_cam[:3, 3], plane @ T_map_cam[:3, 2]
    length = float(np.linalg.norm(forward))
    behind = -forward / length if length > 1e-6 else np.array([0.7, 0.7])
    ax.annotate(
        text,
        (float(place[0]), float(place[1])),
        (13 * behind[0], 13 * behind[1]),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=8,
        fontweight="bold",
        color=colour,
        zorder=8,
        bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
    )


def _finished(figure: Figure, ax: Axes, title: str) -> str:
    add_legend(ax, loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=5, frameon=False)
    return svg_element(figure, title)
