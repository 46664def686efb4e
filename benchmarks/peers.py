"""What people use today: keypoints matched to the retrieved keyframes, then PoseLib's absolute pose."""

from __future__ import annotations

from time import perf_counter

import numpy as np
from common import Skip
from scenes import Query, Scene

from nre_ros.geometry import EQUIDISTANT, Camera, invert

MAX_REPROJECTION_ERROR = 8.0
"""Pixels; a compromise measured on the kitchen.  At 12 the peers' shares within 5 cm rise by up to 6 points
and their medians by up to a fifth; at 5 LighterGlue's median falls by 6 %, SIFT's rises by 7 %."""
_MODELS = {0: "PINHOLE", 4: "OPENCV", 8: "FULL_OPENCV"}


class PeerLocalizer:
    """One peer on one scene; what it needs of a keyframe is made before the query and not timed."""

    def __init__(self, peer, scene: Scene, seed: int):
        try:
            import poselib
        except ImportError as error:
            raise Skip(f"needs the Python package poselib ({error})") from error
        self.poselib, self.peer, self.scene, self.seed = poselib, peer, scene, seed
        self.keyframes = {}

    def localize(self, query: Query, names: list[str]) -> tuple[np.ndarray | None, float]:
        """T_map_cam [4, 4] or None, and seconds (without those of the keyframes and of their retrieval)."""
        keyframes = [self._keyframe(name) for name in names]
        started = perf_counter()
        mine = self.peer.describe(query.image)
        pixels, points = [], []
        for theirs, lifted, known in keyframes:
            a, b = self.peer.match(mine, theirs).T
            pixels.append(mine.pixels[a[known[b]]])
            points.append(lifted[b[known[b]]])
        T = self._pose(np.concatenate(pixels), np.concatenate(points), query.camera)
        return T, perf_counter() - started

    def _keyframe(self, name: str):
        if name not in self.keyframes:
            keypoints = self.peer.describe(self.scene.image(name))
            self.keyframes[name] = (keypoints, *self.scene.lift(name, keypoints.pixels))
        return self.keyframes[name]

    def _pose(self, pixels, points, camera: Camera):
        if len(pixels) < 4:
            return None
        pose, _ = self.poselib.estimate_absolute_pose(
            pixels, points, poselib_camera(camera), {"max_reproj_error": MAX_REPROJECTION_ERROR, "seed": self.seed}, {}
        )
        T = np.vstack([pose.Rt, [0, 0, 0, 1]])
        return invert(T) if np.isfinite(T).all() else None


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
