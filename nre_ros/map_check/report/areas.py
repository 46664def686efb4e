# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Recall and accuracy of a map by area and by viewing direction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nre_ros.map_check.report.outcomes import Outcome, View

DIRECTIONS = (
    "→ right",
    "↗ up right",
    "↑ up",
    "↖ up left",
    "← left",
    "↙ down left",
    "↓ down",
    "↘ down right",
)
"""Eight viewing directions in the plan, counter-clockwise."""
STEEP = "steeply up or down"
"""Views whose direction has no meaning in the plan."""
_STEEP = 0.4
"""Length of the horizontal part of such a viewing direction."""
_MOST_CELLS = 12
"""Largest number of areas along one side of the plan."""
_NICE = (1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True)
class AreaGrid:
    """Square areas of the plan with names like those of a chess board: A1 is at the bottom left.

    Attributes:
        corner: [2] bottom left corner of area A1, metres in the plan.
        side: Length of a side, metres.
        columns: Number of columns (letters).
        rows: Number of rows (numbers).
        plane: [2, 3] axes of the plan in the map.
    """

    corner: npt.NDArray[np.float64]
    side: float
    columns: int
    rows: int
    plane: npt.NDArray[np.float64]

    def name(self, position: npt.NDArray[np.float64]) -> str:
        """Returns the name of the area of a position.

        Args:
            position: [3] in the map.
        """
        place = (self.plane @ position - self.corner) / self.side
        column, row = np.floor(place).astype(int).clip(0, [self.columns - 1, self.rows - 1]).tolist()
        return f"{chr(ord('A') + column)}{row + 1}"


def area_grid(positions: npt.NDArray[np.float64], plane: npt.NDArray[np.float64], viewing_distance: float) -> AreaGrid:
    """Chooses areas with sides of a quarter to half of the viewing distance, larger in a map with too many of them.

    Args:
        positions: [M, 3] of the keyframes in the map.
        plane: [2, 3] axes of the plan in the map.
        viewing_distance: Distance of the scene in metres.
    """
    flat = positions @ plane.T if len(positions) else np.zeros((1, 2))
    low, high = flat.min(axis=0), flat.max(axis=0)
    side = _nice(max(0.25 * viewing_distance, float((high - low).max()) / (_MOST_CELLS - 1)))
    corner = np.floor(low / side) * side
    columns, rows = (np.floor((high - corner) / side).astype(int) + 1).tolist()
    return AreaGrid(corner, side, columns, rows, plane)


def direction_name(forward: npt.NDArray[np.float64], plane: npt.NDArray[np.float64]) -> str:
    """Names a viewing direction: one of ``DIRECTIONS``, or ``STEEP``.

    Args:
        forward: [3] unit vector in the map.
        plane: [2, 3] axes of the plan in the map.
    """
    x, y = (plane @ forward).tolist()
    if np.hypot(x, y) < _STEEP:
        return STEEP
    return DIRECTIONS[round(np.arctan2(y, x) / (np.pi / 4)) % len(DIRECTIONS)]


def area_rows(views: Sequence[View], grid: AreaGrid) -> list[list[str]]:
    """Returns the table of the areas with views, those with the lowest recall first.

    Args:
        views: The views.
        grid: The areas.

    Returns:
        Rows for ``HEAD``.
    """
    groups = _grouped((grid.name(view.position), view) for view in views)
    return [_row(name, groups[name]) for name in sorted(groups, key=lambda name: _badness(name, groups[name]))]


def direction_rows(views: Sequence[View], plane: npt.NDArray[np.float64]) -> list[list[str]]:
    """Returns the table of the viewing directions with views.

    Args:
        views: The views.
        plane: [2, 3] axes of the plan in the map.

    Returns:
        Rows for ``HEAD``.
    """
    groups = _grouped((direction_name(view.forward, plane), view) for view in views)
    return [_row(name, groups[name]) for name in (*DIRECTIONS, STEEP) if name in groups]


HEAD = ["views", "recall", "wrong poses", "median error"]
"""Column heads of both tables, after that of the first column."""


def length_text(metres: float) -> str:
    """Writes a length in cm or m with two significant digits.

    Args:
        metres: The length.
    """
    if metres < 1:
        return f"{100 * metres:.2g} cm"
    return f"{metres:.2f} m" if metres < 10 else f"{metres:.0f} m"


def angle_text(radians: float) -> str:
    """Writes an angle in degrees with two significant digits.

    Args:
        radians: The angle.
    """
    degrees = float(np.degrees(radians))
    return f"{degrees:.2g}°" if degrees < 10 else f"{degrees:.0f}°"


def _nice(value: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not smaller than a value."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(power * next(factor for factor in _NICE if factor * power >= value * (1 - 1e-9)))


def _grouped(pairs: Iterable[tuple[str, View]]) -> dict[str, list[View]]:
    groups: dict[str, list[View]] = defaultdict(list)
    for name, view in pairs:
        groups[name].append(view)
    return groups


def _badness(name: str, views: Sequence[View]) -> tuple[float, float, str]:
    right = [view.result.view.position_error for view in views if view.outcome is Outcome.RIGHT]
    return len(right) / len(views), -float(np.median(right)) if right else 0.0, name


def _row(name: str, views: Sequence[View]) -> list[str]:
    right = [view.result.view for view in views if view.outcome is Outcome.RIGHT]
    wrong = sum(view.outcome is Outcome.WRONG for view in views)
    error = "-"
    if right:
        position, rotation = (
            np.median([getattr(view, kind) for view in right]) for kind in ("position_error", "rotation_error")
        )
        error = f"{length_text(float(position))}, {angle_text(float(rotation))}"
    return [name, str(len(views)), f"{len(right) / len(views):.0%}", str(wrong), error]
