# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Places of a map that look alike (perceptual aliasing), from views that two poses explain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nre_ros.localization.evidence import NUMBERS
from nre_ros.map_check.leave_one_out import ELSEWHERE, LeftOutResult
from nre_ros.map_check.view_result import ViewResult

_MIN_SCORE = 0.6
"""Inlier score, relative to the better pose's, from which another pose explains the image nearly as well."""
_ALTERNATIVE = NUMBERS.index("alternative_score")


@dataclass(frozen=True)
class AliasedView:
    """A view that is explained by a pose at another place.

    Attributes:
        name: Name of its keyframe.
        keyframe: Id of its keyframe.
        elsewhere: [4, 4] the other pose (``T_map_cam``).
        twin: Name of the keyframe nearest to the other pose.
        distance: Metres from the view to the other pose.
        score: Inlier score of the other pose relative to that of the view's own; above 1 if it explains the image better.
    """

    name: str
    keyframe: int
    elsewhere: npt.NDArray[np.float64]
    twin: str
    distance: float
    score: float


def find_aliased(
    results: Sequence[LeftOutResult],
    names: dict[int, str],
    poses: dict[int, npt.NDArray[np.float64]],
    alike: Sequence[ViewResult] = (),
) -> list[AliasedView]:
    """Finds views that another place explains nearly as well as their own.

    Args:
        results: Left-out views.
        names: Id -> name of all keyframes.
        poses: Id -> ``T_map_cam`` [4, 4] of all keyframes.
        alike: Views that were localized at a place that looks like their own, where their own was left out.

    Returns:
        The views, the most similar places first.
    """
    ids = list(poses)
    centres = np.array([poses[keyframe][:3, 3] for keyframe in ids])

    def seen_at(view: ViewResult, elsewhere: npt.NDArray[np.float64], score: float) -> AliasedView:
        twin = ids[int(np.linalg.norm(centres - elsewhere[:3, 3], axis=1).argmin())]
        distance = float(np.linalg.norm(elsewhere[:3, 3] - view.T_map_cam[:3, 3]))
        return AliasedView(view.name, view.keyframe, elsewhere, names[twin], distance, score)

    found: list[AliasedView] = []
    for result in results:
        view = result.view
        if not view.posed or view.evidence is None or view.estimated is None:
            continue
        score = float(view.evidence[_ALTERNATIVE])
        away = view.position_error > ELSEWHERE * view.distance
        # the image is found at another place, and at its own where that place is left out, or beside it
        if away and (score >= _MIN_SCORE or (result.again is not None and result.again.right)):
            elsewhere, relative = view.estimated, 1.0 / max(score, 0.5)
        elif not away and view.alternative is not None and score >= _MIN_SCORE:
            elsewhere, relative = view.alternative, score
        else:
            continue
        found.append(seen_at(view, elsewhere, relative))
    inliers = {result.view.keyframe: result.view.inliers for result in results if not result.span}
    known = {each.keyframe for each in found}
    for view in alike:
        if view.estimated is not None and view.keyframe not in known:
            found.append(seen_at(view, view.estimated, view.inliers / max(inliers.get(view.keyframe, 0), 1)))
    return sorted(found, key=lambda each: -each.score)
