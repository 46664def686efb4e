# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What an estimate knows about whether it is right, as a few numbers without units.

Any search over poses finds some points that agree by accident: of an image of another place altogether a tenth to a
fifth of the points in view does, at few places of the image (an edge of the one laid over an edge of the other holds
many points).  What tells such poses from right ones is counted here; ``confidence`` weighs it.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, fields

import numpy as np
import torch

from nre_ros.geometry import Camera, invert
from nre_ros.keyframes.types import KeyframeStack
from nre_ros.nre.estimator import Estimate
from nre_ros.nre.fine import like_views
from nre_ros.nre.rivals import SUPPORT

_PLACES_ACROSS = 20
"""Image blocks along its longer side within which points count as one place, as several keyframes bring the same spot."""
_REGIONS_ACROSS = 5
"""Image regions along its longer side, each of which either shows what the map says or does not."""
_REGION_POINTS = 4
_LIKE_SIZE, _LIKE_COSINE = 2.0, math.cos(math.radians(45.0))
"""A point should be visible in a view that sees it within this ratio of sizes and this angle of the keyframe's."""


@dataclass(frozen=True)
class Evidence:
    """One estimate's.  The words are those of reasons, the numbers what ``confidence`` weighs.

    support, places_count: points that support the pose, and at how many places of the image.
    distance: median distance of the points from the camera.

    share: of the points in view, those that support the pose, beyond those that would at any.
    places: logarithm of the number of places.
    expected: the share among points that should be visible, for their keyframe saw them from about there.
    regions: share of the image's regions (those with such points) that show what the map says.
    fine: median of what the fine losses leave of ln|Omega|.
    loss: mean loss of the supporting points, as a fraction of ln|Omega|.
    keyframes: number of keyframes that agree with one another (the inverse participation of their shares).
    deviation: logarithm of the position's standard deviation over the scene's distance.
    turn: logarithm of the rotation's standard deviation (radians).
    moved: logarithm of how far the fine stage moved the points, in pixels of 640 across.
    rival: evidence for the best pose elsewhere, as a share of that for this one; each in the keyframe that agrees most.
    """

    support: int
    places_count: int
    distance: float
    share: float
    places: float
    expected: float
    regions: float
    fine: float
    loss: float
    keyframes: float
    deviation: float
    turn: float
    moved: float
    rival: float

    def numbers(self) -> np.ndarray:
        """[F] float64, in the order of ``NUMBERS``."""
        return np.array(astuple(self)[3:], dtype=np.float64)


NUMBERS = tuple(field.name for field in fields(Evidence))[3:]
"""Names of what is weighed."""


def gather(estimate: Estimate) -> Evidence:
    """The evidence of an estimate that has a pose and a covariance."""
    keyframes, camera = estimate.keyframes, estimate.camera
    losses, by_chance = estimate.losses, estimate.by_chance
    supporting, in_view = losses < SUPPORT, losses < 1.0
    support, count = int(supporting.sum()), int(in_view.sum())
    excess = _excess(supporting, by_chance, in_view)
    should = in_view & like_views(
        estimate.T_cam_map, keyframes.points, keyframes.directions, camera, _LIKE_SIZE, _LIKE_COSINE
    )
    distance = _distance(estimate.T_cam_map, keyframes.points[supporting if support else in_view])
    deviations = estimate.covariance.diagonal().clamp_min(0).sqrt()
    position, turn = float(deviations[:3].norm()), float(deviations[3:].norm())
    places = len(torch.unique((estimate.pixels[supporting] * (_PLACES_ACROSS / _side(camera))).floor(), dim=0))
    return Evidence(
        support=support,
        places_count=places,
        distance=distance,
        share=excess / max(count, 1),
        places=math.log1p(places),
        expected=_excess(supporting, by_chance, should) / max(int(should.sum()), 1),
        regions=_regions(estimate.pixels, supporting, by_chance, should, camera),
        fine=float(estimate.fine_values.median()) if len(estimate.fine_values) else 0.0,
        loss=float(losses[supporting].mean()) if support else 1.0,
        keyframes=_agreeing_keyframes(supporting, in_view, keyframes.counts),
        deviation=math.log(max(position / distance, 1e-6)),
        turn=math.log(max(turn, 1e-6)),
        moved=math.log1p(_moved(estimate, keyframes, camera, supporting)),
        rival=0.0 if estimate.rival is None else min(estimate.rival.agreement, 2.0),
    )


def _side(camera: Camera) -> int:
    return max(camera.width, camera.height)


def _excess(supporting, by_chance, among) -> float:
    """Points among some that support the pose, beyond those that would by chance."""
    return max(float(supporting[among].sum() - by_chance[among].sum()), 0.0)


def _distance(T, points) -> float:
    """Median distance of points from the camera."""
    return max(float((points - invert(T)[:3, 3]).norm(dim=1).median()), 1e-9) if len(points) else 1.0


def _regions(pixels, supporting, by_chance, should, camera: Camera) -> float:
    region = (pixels[should] * (_REGIONS_ACROSS / _side(camera))).floor().long().clamp(0, _REGIONS_ACROSS - 1)
    index = region[:, 1] * _REGIONS_ACROSS + region[:, 0]
    count = torch.bincount(index, minlength=_REGIONS_ACROSS**2)
    excess = torch.bincount(
        index, weights=(supporting[should].double() - by_chance[should].double()), minlength=_REGIONS_ACROSS**2
    )
    told = count >= _REGION_POINTS
    return float((excess[told] / count[told] > 0.25).double().mean()) if bool(told.any()) else 0.0


def _agreeing_keyframes(supporting, in_view, counts) -> float:
    """(sum s)^2 / sum s^2 of the shares s that support the pose in each keyframe: K if all agree alike, 1 if one does."""
    shares = torch.stack(
        [
            part.double().sum() / max(float(seen.sum()), 1.0)
            for part, seen in zip(supporting.split(counts), in_view.split(counts))
        ]
    )
    return float(shares.sum().square() / shares.square().sum().clamp_min(1e-12))


def _moved(estimate: Estimate, keyframes: KeyframeStack, camera: Camera, supporting) -> float:
    before = estimate.stages.get("coarse_irls") or estimate.stages["P3P"]
    if not bool(supporting.any()):
        return 0.0
    points = keyframes.points[supporting]
    pixels, valid, _ = camera.project(points @ before[0][:3, :3].T + before[0][:3, 3])
    moved = (pixels - estimate.pixels[supporting]).norm(dim=1)[valid]
    return float(moved.median()) * 640 / _side(camera) if len(moved) else 0.0
