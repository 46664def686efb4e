# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Keyframes that do not fit the rest of the map, and the likely cause.

A keyframe is suspicious when its image is localized with confidence at another pose than the map has for it. Where the
keyframe that it was localized with is at fault instead, the views around that keyframe agree with each other and not with
it: the keyframes are judged one after the other, the worst first, and the views that depend on a suspicious keyframe no
longer accuse others. A keyframe is suspicious as well when its own image fits but its points are of no use to the images
that show them: their depth or their camera is wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nre_ros.geometry import pose_error
from nre_ros.localization.confidence import ConfidenceModel
from nre_ros.localization.evidence import NUMBERS
from nre_ros.localization.map_noise import MapNoise
from nre_ros.map_check.leave_one_out import ELSEWHERE, LeftOutResult
from nre_ros.map_check.view_result import ViewResult
from nre_ros.nre.alternatives import REPORTED_FROM

MIN_POSITION, MIN_ROTATION = 0.07, np.radians(2.0)
"""Smaller errors are those of a good map (metres, radians): no keyframe is named for them."""
_TIMES_NOISE = 4.0
"""An error must be so many times larger than the fitted errors of the map."""
_MIN_SQUARED = 60.0
"""Its squared Mahalanobis distance must be so large: of a view with few inliers a large error says little."""
_MIN_CONFIDENCE = 0.5
_ALTERNATIVE = NUMBERS.index("alternative_score")
_MAIN_SHARE = 0.5
"""A view depends on the keyframes that have this share of its pose together, the largest first."""
_SAME_POSE = 0.3
"""A pose is another keyframe's if it is nearer to it than this share of its distance from its own."""
_USELESS_RATIO, _USUAL_RATIO = 0.03, 0.2
"""Inlier ratio of a keyframe whose points are of no use, where the best keyframe of the view has the second."""
_FEWEST_USES = 3


@dataclass(frozen=True)
class SuspiciousKeyframe:
    """A keyframe that does not fit the rest of the map.

    Attributes:
        name: Its name.
        keyframe: Its id.
        cause: What is probably wrong, one phrase.
        position: Metres between the pose that its image shows and its pose in the map; nan if its points are at fault.
        rotation: Radians between them; nan if its points are at fault.
        confidence: Of the pose that its image shows.
        found: [4, 4] that pose (``T_map_cam``); None if its points are at fault.
    """

    name: str
    keyframe: int
    cause: str
    position: float = float("nan")
    rotation: float = float("nan")
    confidence: float = 0.0
    found: npt.NDArray[np.float64] | None = None


def find_suspicious(
    results: Sequence[LeftOutResult],
    noise: MapNoise,
    model: ConfidenceModel,
    names: dict[int, str],
    poses: dict[int, npt.NDArray[np.float64]],
) -> list[SuspiciousKeyframe]:
    """Finds keyframes that do not fit the rest of the map.

    Args:
        results: Left-out views.
        noise: The errors of the map.
        model: Gives the covariance that the image explains.
        names: Id -> name of all keyframes.
        poses: Id -> ``T_map_cam`` [4, 4] of all keyframes.

    Returns:
        The keyframes, the largest error first.
    """
    views = [result.view for result in results if _accuses(result)]
    position = max(MIN_POSITION, _TIMES_NOISE * np.sqrt(3) * noise.position)
    rotation = max(MIN_ROTATION, _TIMES_NOISE * np.sqrt(3) * noise.rotation)
    sizes = {
        id(view): max(view.position_error / position, view.rotation_error / rotation)
        if _squared_mahalanobis(view, noise, model) > _MIN_SQUARED
        else 0.0
        for view in views
    }
    main = {id(view): _main_keyframes(view, poses) for view in views}
    accused: dict[int, ViewResult] = {}
    while True:
        # a view counts as long as it does not depend on a keyframe that is suspicious already
        counted = [view for view in views if not main[id(view)] & accused.keys() and view.keyframe not in accused]
        off = [view for view in counted if sizes[id(view)] > 1]
        if not off:
            break
        agreeing = {view.keyframe for view in counted if sizes[id(view)] <= 1}
        votes = {keyframe: 0.0 for view in off for keyframe in (view.keyframe, *main[id(view)])}
        for view in off:
            # its own keyframe or one of those it depends on: those that agree elsewhere are less likely
            for keyframe in (view.keyframe, *main[id(view)]):
                votes[keyframe] += 0.25 if keyframe in agreeing else 1.0
        for view in counted:
            if sizes[id(view)] <= 1:
                for keyframe in main[id(view)]:
                    if keyframe in votes:
                        votes[keyframe] -= 1.0
        worst = max(off, key=lambda view: (votes[view.keyframe], sizes[id(view)]))
        others = [keyframe for keyframe in main[id(worst)] if votes[keyframe] > votes[worst.keyframe]]
        own = {view.keyframe: view for view in off}
        culprit = max(
            (keyframe for keyframe in others if keyframe in own), key=votes.__getitem__, default=worst.keyframe
        )
        accused[culprit] = own.get(culprit, worst)
    found = [
        SuspiciousKeyframe(
            names.get(keyframe, view.name),
            keyframe,
            _cause(view, poses, names),
            view.position_error,
            view.rotation_error,
            view.confidence,
            view.estimated,
        )
        for keyframe, view in accused.items()
    ]
    found.sort(key=lambda each: -max(each.position / position, each.rotation / rotation))
    return found + _useless_points(views, accused.keys(), names)


def _accuses(result: LeftOutResult) -> bool:
    """Whether a view is localized surely enough to accuse a keyframe, and not at a place that only looks alike."""
    view = result.view
    if not view.posed or view.evidence is None or view.confidence < _MIN_CONFIDENCE:
        return False
    if view.position_error <= ELSEWHERE * view.distance:
        return True
    looks_alike = result.again is not None and result.again.right
    return not looks_alike and float(view.evidence[_ALTERNATIVE]) < REPORTED_FROM


def _squared_mahalanobis(view: ViewResult, noise: MapNoise, model: ConfidenceModel) -> float:
    assert view.covariance is not None and view.evidence is not None and view.influence is not None
    error = view.error()
    explained = noise.scale**2 * model.covariance(view.covariance, view.evidence, view.distance)
    # its own keyframe errs as the others do
    own = np.concatenate([view.influence, -np.eye(6)[None]])
    total = explained + noise.covariance(own, (*view.keyframes, view.keyframe))
    return float(error @ np.linalg.solve(total, error))


def _main_keyframes(view: ViewResult, poses: dict[int, npt.NDArray[np.float64]]) -> frozenset[int]:
    """The keyframes that have most of the information on a view's pose."""
    assert view.influence is not None and view.estimated is not None
    shares = np.zeros(len(view.keyframes))
    for k, (keyframe, influence) in enumerate(zip(view.keyframes, view.influence)):
        if keyframe in poses:
            # without the lever from the keyframe to the view, the influences are shares that sum to the identity
            lever = np.eye(6)
            lever[:3, 3:] = np.cross(np.eye(3), view.estimated[:3, 3] - poses[keyframe][:3, 3]).T
            shares[k] = np.trace(np.linalg.solve(lever.T, influence.T)) / 6
    order = np.argsort(-shares, kind="stable")
    enough = int(np.searchsorted(np.cumsum(shares[order]), _MAIN_SHARE)) + 1
    return frozenset(int(view.keyframes[k]) for k in order[:enough])


def _cause(view: ViewResult, poses: dict[int, npt.NDArray[np.float64]], names: dict[int, str]) -> str:
    """What is probably wrong with a keyframe whose image shows another pose."""
    assert view.estimated is not None
    metres, degrees = view.position_error, np.degrees(view.rotation_error)
    off = f"{metres:.2f} m and {degrees:.1f} degrees"
    others = [(*pose_error(view.estimated, T), keyframe) for keyframe, T in poses.items() if keyframe != view.keyframe]
    if others and metres > MIN_POSITION:
        distance, angle, keyframe = min(others)
        if distance < _SAME_POSE * metres and angle < max(_SAME_POSE * view.rotation_error, MIN_ROTATION):
            return (
                f"its image shows the pose of {names.get(keyframe, keyframe)}, {off} away: images or poses are "
                "swapped, or their times are shifted"
            )
    if degrees > 60 and metres < view.distance:
        return f"its pose is turned by {degrees:.0f} degrees: another convention of the camera's axes"
    return f"its pose is off by {off}"


def _useless_points(
    views: Sequence[ViewResult], accused: Collection[int], names: dict[int, str]
) -> list[SuspiciousKeyframe]:
    """Keyframes whose points fit no view, although other keyframes of these views do."""
    ratios: dict[int, list[float]] = {}
    for view in views:
        assert view.inlier_ratios is not None
        if view.right and len(view.inlier_ratios) and view.inlier_ratios.max() >= _USUAL_RATIO:
            for keyframe, ratio in zip(view.keyframes, view.inlier_ratios.tolist()):
                if ratio < 0:
                    continue
                ratios.setdefault(keyframe, []).append(ratio)
    return [
        SuspiciousKeyframe(
            names.get(keyframe, str(keyframe)),
            keyframe,
            f"its points fit none of the {len(found)} views that should show them: wrong depth, or wrong intrinsics",
        )
        for keyframe, found in ratios.items()
        if len(found) >= _FEWEST_USES and max(found) <= _USELESS_RATIO and keyframe not in accused
    ]
