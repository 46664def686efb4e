# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which views of a map get a pose, and how exact poses are around each keyframe."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from nre_ros.map_check.check import CheckResult, accepted
from nre_ros.map_check.leave_one_out import LeftOutResult

_NEAREST_VIEWS = 5
_NEIGHBOURHOOD = 1.0
"""Views that tell the accuracy at a keyframe: so many at most, and no farther than this unless none is nearer."""


class Outcome(Enum):
    """What became of a left-out view; the values are the words of the report."""

    RIGHT = "right pose"
    NOT_FOUND = "no accepted pose"
    WRONG = "wrong pose"


@dataclass(frozen=True)
class View:
    """A left-out view with its outcome.

    Attributes:
        result: The view.
        outcome: Whether it got a pose, and whether the pose is right.
    """

    result: LeftOutResult
    outcome: Outcome

    @property
    def position(self) -> npt.NDArray[np.float64]:
        """Position [3] of its camera in the map."""
        return self.result.view.T_map_cam[:3, 3]

    @property
    def forward(self) -> npt.NDArray[np.float64]:
        """Its viewing direction [3] in the map."""
        return self.result.view.T_map_cam[:3, 2]


def keyframe_views(result: CheckResult) -> list[View]:
    """Returns one view of each keyframe that was localized, without the suspicious keyframes.

    A keyframe that was left out with its neighbours in time as well counts as its usual view. The stored pose of a
    suspicious keyframe says nothing about the localizer.

    Args:
        result: The check.
    """
    suspicious = {each.keyframe for each in result.suspicious}
    chosen: dict[int, LeftOutResult] = {}
    for each in result.views:
        known = chosen.get(each.view.keyframe)
        if each.view.keyframe not in suspicious and (known is None or each.span < known.span):
            chosen[each.view.keyframe] = each
    return [View(each, _outcome(each, result.min_confidence)) for each in chosen.values()]


def _outcome(result: LeftOutResult, min_confidence: float) -> Outcome:
    if not accepted(result, min_confidence):
        return Outcome.NOT_FOUND
    return Outcome.RIGHT if result.view.right else Outcome.WRONG


def viewing_distance(result: CheckResult) -> float:
    """Returns the median distance of the scene in metres; of a map without any pose a share of its extent.

    Args:
        result: The check.
    """
    distances = [each.view.distance for each in result.views if each.view.posed]
    if distances:
        return max(float(np.median(distances)), 1e-6)
    centres = np.array([T[:3, 3] for T in result.poses.values()]).reshape(-1, 3)
    extent = float(np.linalg.norm(np.ptp(centres, axis=0))) if len(centres) else 0.0
    return extent / 4 or 1.0


def view_separation(
    positions: npt.NDArray[np.float64],
    forwards: npt.NDArray[np.float64],
    T_map_cam: npt.NDArray[np.float64],
    distance: float,
) -> npt.NDArray[np.float64]:
    """Measures how different views are: translation relative to the viewing distance plus the angle between directions.

    Args:
        positions: [N, 3] of views.
        forwards: [N, 3] their viewing directions.
        T_map_cam: [4, 4] pose of another view.
        distance: Viewing distance in metres.

    Returns:
        [N], without unit.
    """
    angle = np.arccos(np.clip(forwards @ T_map_cam[:3, 2], -1.0, 1.0))
    separation: npt.NDArray[np.float64] = np.linalg.norm(positions - T_map_cam[:3, 3], axis=1) / distance + angle
    return separation


def nearest_keyframe(result: CheckResult, T_map_cam: npt.NDArray[np.float64], exclude: Collection[int]) -> int | None:
    """Finds the keyframe whose view is most like a pose.

    Args:
        result: The check.
        T_map_cam: [4, 4] the pose.
        exclude: Ids of keyframes that do not count.

    Returns:
        Id of the keyframe; None if no keyframe has a similar view.
    """
    ids = [keyframe for keyframe in result.poses if keyframe not in exclude]
    if not ids:
        return None
    poses = np.array([result.poses[keyframe] for keyframe in ids])
    separation = view_separation(poses[:, :3, 3], poses[:, :3, 2], T_map_cam, viewing_distance(result))
    best = int(separation.argmin())
    return ids[best] if separation[best] < _NEIGHBOURHOOD else None


def expected_errors(result: CheckResult, views: Sequence[View]) -> npt.NDArray[np.float64]:
    """Computes the error of the position to be expected at each keyframe: the median of the nearest right views.

    Args:
        result: The check.
        views: Its ``keyframe_views``.

    Returns:
        [M] metres, in the order of ``result.poses``; nan where no view has a right pose.
    """
    right = [view for view in views if view.outcome is Outcome.RIGHT]
    poses = np.array(list(result.poses.values())).reshape(-1, 4, 4)
    if not right:
        return np.full(len(poses), np.nan)
    positions, forwards = (np.array([getattr(view, name) for view in right]) for name in ("position", "forward"))
    errors = np.array([view.result.view.position_error for view in right])
    distance = viewing_distance(result)
    found = np.empty(len(poses))
    for i, T_map_cam in enumerate(poses):
        separation = view_separation(positions, forwards, T_map_cam, distance)
        nearest = np.argsort(separation, kind="stable")[:_NEAREST_VIEWS]
        near = nearest[separation[nearest] <= _NEIGHBOURHOOD]
        found[i] = np.median(errors[near if len(near) else nearest[:1]])
    return found
