# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Where a map fails: views without a right pose, the likely reason, and what to record there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from nre_ros.localization.evidence import NUMBERS
from nre_ros.map_check.check import CheckResult
from nre_ros.map_check.report.areas import AreaGrid, angle_text, direction_name, length_text
from nre_ros.map_check.report.outcomes import Outcome, View, view_separation, viewing_distance

_FAR_VIEW = np.radians(20.0)
"""From this gap to the nearest other view on, the gap is the likely reason for a failure."""
_NO_VIEW = 3.0
"""A gap above says that no keyframe shows the same place (it is pi then)."""
_ALIKE = 0.6
"""From this score of another pose on, the image does not tell the two poses apart."""
_ALTERNATIVE = NUMBERS.index("alternative_score")
_SAME_SPOT = 1.0
"""Views with a smaller separation are one weak spot."""
_MOST_ADVICE = 8


class Weakness(Enum):
    """Why a view gets no right pose."""

    LOOKS_ALIKE = "another place looks alike"
    INEXACT = "the pose is not exact enough"
    NO_NEIGHBOUR = "no other keyframe"
    FAR_NEIGHBOUR = "other keyframes are far"
    FEW_INLIERS = "few inliers"


@dataclass(frozen=True)
class WeakSpot:
    """Views near each other that get no right pose for the same reason.

    Attributes:
        views: The views; the first stands for all.
        weakness: The reason.
        area: Name of the area of the first view.
        direction: Viewing direction of the first view in the plan.
    """

    views: tuple[View, ...]
    weakness: Weakness
    area: str
    direction: str


def find_weak_spots(result: CheckResult, views: Sequence[View], grid: AreaGrid) -> list[WeakSpot]:
    """Groups the views without a right pose.

    Args:
        result: The check.
        views: Its ``keyframe_views``.
        grid: The areas of the plan.

    Returns:
        The spots, those with the most views first.
    """
    distance = viewing_distance(result)
    weak = [view for view in views if view.outcome is not Outcome.RIGHT]
    weak.sort(key=lambda view: (view.outcome is not Outcome.WRONG, -view.result.view.gap))
    groups: list[list[View]] = []
    for view in weak:
        for group in groups:
            first = group[0]
            separation = view_separation(
                first.position[None], first.forward[None], view.result.view.T_map_cam, distance
            )
            if weakness_of(view) is weakness_of(first) and separation[0] < _SAME_SPOT:
                group.append(view)
                break
        else:
            groups.append([view])
    groups.sort(key=lambda group: -len(group))
    return [
        WeakSpot(
            tuple(group),
            weakness_of(group[0]),
            grid.name(group[0].position),
            direction_name(group[0].forward, grid.plane),
        )
        for group in groups
    ]


def weakness_of(view: View) -> Weakness:
    """Returns the likely reason why a view gets no right pose.

    Args:
        view: The view.
    """
    if view.outcome is Outcome.WRONG:
        elsewhere = view.result.view.position_error > view.result.view.distance
        return Weakness.LOOKS_ALIKE if elsewhere else Weakness.INEXACT
    if view.result.view.gap > _NO_VIEW:
        return Weakness.NO_NEIGHBOUR
    if view.result.view.gap > _FAR_VIEW:
        return Weakness.FAR_NEIGHBOUR
    return Weakness.LOOKS_ALIKE if _alternative_score(view) >= _ALIKE else Weakness.FEW_INLIERS


def _alternative_score(view: View) -> float:
    """Inlier score of the best distinct pose, relative to that of the found pose; 0 without a pose."""
    evidence = view.result.view.evidence
    return 0.0 if evidence is None else float(evidence[_ALTERNATIVE])


def explain(view: View, min_confidence: float) -> list[str]:
    """Describes a view without a right pose.

    Args:
        view: The view.
        min_confidence: The confidence from which a pose counts as accepted.

    Returns:
        Sentences.
    """
    found = view.result.view
    lines = []
    if found.gap > _NO_VIEW:
        lines.append("No other keyframe looks at this part of the scene.")
    elif found.gap > _FAR_VIEW:
        lines.append(f"The nearest other view is {angle_text(found.gap)} away.")
    elif weakness_of(view) is Weakness.FEW_INLIERS:
        lines.append(
            f"Another view is only {angle_text(found.gap)} away, but the image matches it weakly: the image has little "
            "texture, is blurred, or the scene has changed."
        )
    elif weakness_of(view) is Weakness.LOOKS_ALIKE and view.outcome is Outcome.NOT_FOUND:
        lines.append(
            f"Another pose explains the image {_alternative_score(view):.0%} as well as the pose that was found."
        )
    error = f"{length_text(found.position_error)} and {angle_text(found.rotation_error)}" if found.posed else ""
    if view.outcome is Outcome.WRONG:
        alike = weakness_of(view) is Weakness.LOOKS_ALIKE
        why = "another place looks alike" if alike else "few points decide it, or the map is distorted here"
        lines.append(f"The pose is wrong by {error}, with confidence {found.confidence:.2f}: {why}.")
    elif found.posed:
        lines.append(
            f"A pose was found with {found.inliers} inliers (off by {error}), but its confidence is {found.confidence:.2f} and "
            f"{min_confidence:g} is needed."
        )
    else:
        lines.append(f"The localizer found no pose: {found.reason or 'no reason is known'}.")
    return lines


def advice(result: CheckResult, spots: Sequence[WeakSpot], views: int) -> list[str]:
    """Lists what improves the map most: suspicious keyframes first, then the spots with the most weak views.

    Args:
        result: The check.
        spots: Its weak spots, those with the most views first.
        views: Number of localized keyframes.

    Returns:
        Sentences, the most important first.
    """
    lines = []
    if result.suspicious:
        count = len(result.suspicious)
        which = "the suspicious keyframe" if count == 1 else f"the {count} suspicious keyframes"
        lines.append(f"Remove or repair {which} (see above), then check the map again.")
    shown = spots[:_MOST_ADVICE]
    lines += [_advice(spot, views) for spot in shown]
    if len(spots) > len(shown):
        lines.append(f"After these, {len(spots) - len(shown)} more weak spots remain.")
    return lines


def _advice(spot: WeakSpot, total: int) -> str:
    first, count = spot.views[0].result.view, len(spot.views)
    where = f"near {first.name} (area {spot.area})"
    # the arrow's name is a direction of the page with the plan on it
    looking = f"looking {spot.direction}"
    views, have = ("1 view", "has") if count == 1 else (f"{count} views", "have")
    gain = f"Up to {count / total:.1%} of the views would gain."
    if spot.weakness is Weakness.NO_NEIGHBOUR:
        return f"Record images {where}, {looking}: {views} there {have} no neighbour. {gain}"
    if spot.weakness is Weakness.FAR_NEIGHBOUR:
        nearest = min(view.result.view.gap for view in spot.views)
        return (
            f"Record images {where}, {looking}: {views} there {have} no other view within {angle_text(nearest)}. {gain}"
        )
    if spot.weakness is Weakness.LOOKS_ALIKE:
        return (
            f"Record images {where} that show more of the surroundings, {looking}: {views} there {have} two possible "
            f"poses. {gain}"
        )
    if spot.weakness is Weakness.INEXACT:
        return (
            f"Record images {where}, {looking}, closer to what they show: {views} there {have} an inexact pose. {gain}"
        )
    return (
        f"Record images {where} again, {looking}, sharp and in the usual light: {views} there match their "
        f"neighbours weakly. {gain}"
    )
