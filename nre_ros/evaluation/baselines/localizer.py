# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A peer as a localizer: its matches with the retrieved keyframes, and PoseLib's absolute pose."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

import cv2
import numpy as np

from nre_ros.evaluation.baselines.keypoints import Keypoints, Peer, PeerMissing
from nre_ros.geometry import EQUIDISTANT, Camera, invert

MAX_REPROJECTION_ERROR = 8.0
"""Pixels; a compromise measured on the kitchen.  At 12 the peers' shares within 5 cm rise by up to 6 points
and their medians by up to a fifth; at 5 LighterGlue's median falls by 6 %, SIFT's rises by 7 %."""
FEWEST_INLIERS = 12
"""Below, a pose is not believed: what hloc's users commonly ask for."""
_CACHE = 256
"""Keyframes whose keypoints are kept."""
_MODELS = {0: "PINHOLE", 4: "OPENCV", 8: "FULL_OPENCV"}


@dataclass(frozen=True)
class PeerPose:
    """T_map_cam [4, 4] or None; matches and inliers; stage -> milliseconds."""

    T_map_cam: np.ndarray | None
    matches: int
    inliers: int
    milliseconds: dict[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return sum(self.milliseconds.values()) / 1e3


class PeerLocalizer:
    """What a peer needs of a keyframe is made when it is first retrieved, and not timed.

    image: name of a keyframe -> its image; lift: (name, keypoints) -> points [N, 3] in the map and
    which are known [N].  Raises ``PeerMissing`` without PoseLib.
    """

    def __init__(self, peer: Peer, image: Callable, lift: Callable[[str, Keypoints], tuple], seed: int):
        try:
            import poselib
        except ImportError as error:
            raise PeerMissing(f"needs the Python package poselib ({error})") from error
        self._poselib, self.peer, self._image, self._lift, self._seed = poselib, peer, image, lift, seed
        self._keyframes: OrderedDict[str, tuple] = OrderedDict()

    def localize(self, image: np.ndarray, camera: Camera, names: list[str]) -> PeerPose:
        """The pose of an image, BGR or grey, by its matches with the keyframes of these names."""
        if image.ndim == 2:
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        keyframes = [self._keyframe(name) for name in names]
        started = perf_counter()
        mine = self.peer.describe(image)
        described = perf_counter()
        pixels, points = [np.zeros((0, 2))], [np.zeros((0, 3))]
        for theirs, lifted, known in keyframes:
            a, b = self.peer.match(mine, theirs).T
            pixels.append(mine.pixels[a[known[b]]])
            points.append(lifted[b[known[b]]])
        pixels, points = np.concatenate(pixels), np.concatenate(points)
        matched = perf_counter()
        T, inliers = self._pose(pixels, points, camera)
        ended = perf_counter()
        return PeerPose(
            T,
            len(pixels),
            inliers,
            {
                "features": 1e3 * (described - started),
                "matching": 1e3 * (matched - described),
                "pose": 1e3 * (ended - matched),
            },
        )

    def _keyframe(self, name: str) -> tuple:
        if name not in self._keyframes:
            keypoints = self.peer.describe(self._image(name))
            self._keyframes[name] = (keypoints, *self._lift(name, keypoints))
            while len(self._keyframes) > _CACHE:
                self._keyframes.popitem(last=False)
        self._keyframes.move_to_end(name)
        return self._keyframes[name]

    def _pose(self, pixels, points, camera: Camera) -> tuple[np.ndarray | None, int]:
        if len(pixels) < 4:
            return None, 0
        pose, about = self._poselib.estimate_absolute_pose(
            pixels, points, poselib_camera(camera), {"max_reproj_error": MAX_REPROJECTION_ERROR, "seed": self._seed}, {}
        )
        T = np.vstack([pose.Rt, [0, 0, 0, 1]])
        return (invert(T) if np.isfinite(T).all() else None), int(about["num_inliers"])


def poselib_camera(camera: Camera) -> dict:
    """PoseLib's description of a camera; pixels keep our convention on both sides."""
    parameters = [camera.fx, camera.fy, camera.cx, camera.cy, *camera.distortion]
    count = len(camera.distortion)
    if camera.model == EQUIDISTANT:
        model = "OPENCV_FISHEYE"
    else:
        model = _MODELS[8 if count == 5 else count]
        parameters += [0.0] * (12 - len(parameters) if model == "FULL_OPENCV" else 0)
    return {"model": model, "width": camera.width, "height": camera.height, "params": parameters}
