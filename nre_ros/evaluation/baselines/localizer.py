# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Localizes an image with a baseline: matches with the retrieved keyframes, and PoseLib's absolute pose."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from nre_ros.evaluation.baselines.base import Baseline, BaselineUnavailable, Keypoints
from nre_ros.geometry import EQUIDISTANT, Camera, distant_origin, invert, move_origin

MAX_REPROJECTION_ERROR = 8.0
"""PoseLib's inlier threshold in pixels, a compromise measured on the kitchen.

At 12 pixels the baselines' shares within 5 cm rise by up to 6 points, and their medians by up to a fifth. At 5 pixels
LighterGlue's median falls by 6 %, and SIFT's rises by 7 %.
"""
MIN_INLIERS = 12
"""A pose with fewer inliers is not accepted. Users of hloc commonly choose this limit."""
_CACHED_KEYPOINT_SETS = 256
_POSELIB_MODELS = {0: "PINHOLE", 4: "OPENCV", 8: "FULL_OPENCV"}
"""PoseLib's camera model for each number of distortion coefficients."""

LiftKeypoints = Callable[[str, Keypoints], tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]]
"""Function (keyframe name, keypoints) -> (points ``[N, 3]`` in the map, whether each point is known ``[N]``)."""


@dataclass(frozen=True)
class BaselinePose:
    """Result of a baseline for one image.

    Attributes:
        T_map_cam: ``[4, 4]`` pose, camera to map, None without a pose.
        matches: Number of matches with known points.
        inliers: Number of inliers.
        milliseconds: Stage name to duration.
    """

    T_map_cam: npt.NDArray[np.float64] | None
    matches: int
    inliers: int
    milliseconds: dict[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Duration of all stages in seconds."""
        return sum(self.milliseconds.values()) / 1e3


class BaselineLocalizer:
    """A baseline that localizes images in the map.

    The features of a keyframe are computed when the keyframe is first retrieved, and are not part of the durations.

    Attributes:
        baseline: The baseline.
    """

    def __init__(
        self,
        baseline: Baseline,
        read_image: Callable[[str], npt.NDArray[np.uint8]],
        lift: LiftKeypoints,
        seed: int,
    ) -> None:
        """Prepares the localizer.

        Args:
            baseline: The baseline.
            read_image: Function keyframe name -> image, uint8 BGR ``[H, W, 3]``.
            lift: Function that finds the points of a keyframe's keypoints.
            seed: Seed of PoseLib's random draws.

        Raises:
            BaselineUnavailable: PoseLib is not installed.
        """
        try:
            import poselib
        except ImportError as error:
            raise BaselineUnavailable(f"needs the Python package poselib ({error})") from error
        self.baseline = baseline
        self._poselib, self._read_image, self._lift, self._seed = poselib, read_image, lift, seed
        self._keyframes: OrderedDict[str, tuple[Keypoints, npt.NDArray[np.float64], npt.NDArray[np.bool_]]]
        self._keyframes = OrderedDict()

    def localize(self, image: npt.NDArray[np.uint8], camera: Camera, names: Sequence[str]) -> BaselinePose:
        """Localizes an image by its matches with some keyframes.

        Args:
            image: uint8 BGR ``[H, W, 3]`` or grey ``[H, W]``.
            camera: Camera of the image.
            names: Names of the keyframes.

        Returns:
            The result.
        """
        if image.ndim == 2:
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), dtype=np.uint8)
        keyframes = [self._keyframe(name) for name in names]
        started = perf_counter()
        keypoints = self.baseline.describe(image)
        described = perf_counter()
        matched_pixels, matched_points = [np.zeros((0, 2))], [np.zeros((0, 3))]
        for keyframe_keypoints, keyframe_points, known in keyframes:
            a, b = self.baseline.match(keypoints, keyframe_keypoints).T
            matched_pixels.append(keypoints.pixels[a[known[b]]])
            matched_points.append(keyframe_points[b[known[b]]])
        pixels, points = np.concatenate(matched_pixels), np.concatenate(matched_points)
        matched = perf_counter()
        T_map_cam, inliers = self._estimate_pose(pixels, points, camera)
        ended = perf_counter()
        milliseconds = {
            "features": 1e3 * (described - started),
            "matching": 1e3 * (matched - described),
            "pose": 1e3 * (ended - matched),
        }
        return BaselinePose(T_map_cam, len(pixels), inliers, milliseconds)

    def _keyframe(self, name: str) -> tuple[Keypoints, npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Keypoints of a keyframe, their points in the map, and which of these are known."""
        if name not in self._keyframes:
            keypoints = self.baseline.describe(self._read_image(name))
            self._keyframes[name] = (keypoints, *self._lift(name, keypoints))
            while len(self._keyframes) > _CACHED_KEYPOINT_SETS:
                self._keyframes.popitem(last=False)
        self._keyframes.move_to_end(name)
        return self._keyframes[name]

    def _estimate_pose(
        self, pixels: npt.NDArray[np.float64], points: npt.NDArray[np.float64], camera: Camera
    ) -> tuple[npt.NDArray[np.float64] | None, int]:
        if len(pixels) < 4:
            return None, 0
        options = {"max_reproj_error": MAX_REPROJECTION_ERROR, "seed": self._seed}
        # PoseLib's refinement, too, does not converge far from the origin
        origin = distant_origin(np.median(points, axis=0))
        near = points if origin is None else points - origin
        pose, info = self._poselib.estimate_absolute_pose(pixels, near, poselib_camera(camera), options, {})
        T_cam_map, inliers = np.vstack([pose.Rt, [0, 0, 0, 1]]), int(info["num_inliers"])
        if not np.isfinite(T_cam_map).all():
            return None, inliers
        return (invert(T_cam_map) if origin is None else move_origin(invert(T_cam_map), -origin)), inliers


def poselib_camera(camera: Camera) -> dict[str, Any]:
    """Converts a camera to PoseLib's description. The pixel convention is the same.

    Args:
        camera: The camera.

    Returns:
        PoseLib's camera dictionary.
    """
    parameters = [camera.fx, camera.fy, camera.cx, camera.cy, *camera.distortion]
    count = len(camera.distortion)
    if camera.model == EQUIDISTANT:
        model = "OPENCV_FISHEYE"
    else:
        model = _POSELIB_MODELS[8 if count == 5 else count]
        parameters += [0.0] * (12 - len(parameters) if model == "FULL_OPENCV" else 0)
    return {"model": model, "width": camera.width, "height": camera.height, "params": parameters}
