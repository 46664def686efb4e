# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Colour images with depth and poses, wherever they come from: what RGB-D folders and bags share."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from functools import cached_property, partial
from threading import Lock

import numpy as np

from nre_ros.errors import ImageError, ImportSourceError, NreError, PoseError
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.building.depth_support import DepthView, depth_support
from nre_ros.keyframes.building.multiview.refinement import NEIGHBOURS, Refined, refine_depth
from nre_ros.keyframes.building.multiview.view_cache import ViewCache
from nre_ros.keyframes.importers.frames import Frames
from nre_ros.keyframes.types import Keyframe

_CACHE_BYTES = 64 * 2**20
"""Of depth images that neighbouring frames are compared with."""
_REACH = 60
"""Frames before and after one among which its witnesses are sought."""
_WITNESS_MOTION = (0.1, 0.25)
"""How far the first and the second witness on either side have moved at least: metres / depth + radians."""
_MAX_MOTION = 0.8


class DepthFrames(Frames):
    """Posed images with depth; subclasses say where that is, too.

    A frame's points are preferred where the depth images of frames a little before and after it
    confirm them.  refine: whether depths are refined against the images of other frames.
    """

    refine = True

    def __init__(self):
        self._depths: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = Lock()

    @abstractmethod
    def depth(self, name: str) -> np.ndarray:
        """[H, W] float32 metres along z, registered to the colour image, 0: none.  Raises ``ImageError``."""

    def keyframe(self, name: str, builder: KeyframeBuilder) -> Keyframe:
        stamp, T_map_cam = self.pose(name)
        camera, depth = self.camera(name), self._depth(name)
        if depth.shape != (camera.height, camera.width):
            size = f"{depth.shape[1]}x{depth.shape[0]}"
            raise ImageError(f"depth of {size} pixels, its camera has {camera.width}x{camera.height}")
        image = self.image(name)
        keyframe = builder.build_rgbd(
            name,
            stamp,
            image,
            depth,
            camera,
            T_map_cam,
            lambda points: depth_support(points, self._witnesses(name, T_map_cam, depth)),
            partial(self.refined, name, image) if self.refine else None,
        )
        if not len(keyframe.points):
            raise ImportSourceError("no point with smooth depth in this image")
        return keyframe

    def refined(
        self, name: str, image: np.ndarray, pixels: np.ndarray, smooth: np.ndarray, points: np.ndarray
    ) -> Refined:
        """Depths at pixels [N, 2] of a frame, refined against the images of other frames.

        smooth: [H, W] its depth as ``smooth_depth`` gives it; points: [M, 3] of the map that the frame sees.
        """
        others = list(self._views.neighbours(name, points, NEIGHBOURS).values())
        return refine_depth(self._views.view(name, image), smooth, pixels, others)

    @cached_property
    def _views(self) -> ViewCache:
        return ViewCache(self.names(), self.where, self.image)

    def _depth(self, name: str) -> np.ndarray:
        """``depth``, remembered for a while."""
        with self._lock:
            if name in self._depths:
                self._depths.move_to_end(name)
                return self._depths[name]
        depth = self.depth(name)
        with self._lock:
            self._depths[name] = depth
            while len(self._depths) > max(4, _CACHE_BYTES // max(depth.nbytes, 1)):
                self._depths.popitem(last=False)
        return depth

    @cached_property
    def _poses(self) -> tuple[dict[str, int], list[np.ndarray | None]]:
        """Name -> place in the sequence, and the poses in its order (None where there is none)."""
        names, poses = self.names(), []
        for name in names:
            try:
                poses.append(self.pose(name)[1])
            except NreError:
                poses.append(None)
        return {name: i for i, name in enumerate(names)}, poses

    def _witnesses(self, name: str, T_map_cam: np.ndarray, depth: np.ndarray) -> list[DepthView]:
        """Frames that see the same scene from elsewhere, up to two on either side."""
        places, poses = self._poses
        names = list(places)
        scene = float(np.median(depth[depth > 0])) if (depth > 0).any() else 1.0
        views = []
        for i in _moved(poses, places[name], T_map_cam, scene):
            try:
                camera, witness = self.camera(names[i]), self._depth(names[i])
            except NreError:
                continue  # is told when its own turn comes
            if witness.shape == (camera.height, camera.width):
                views.append(DepthView(poses[i], camera, witness))
        return views


def _moved(poses: list, place: int, T_map_cam: np.ndarray, scene: float):
    """Places of the nearest frames on both sides that have moved as ``_WITNESS_MOTION`` says."""
    for side in (-1, 1):
        wanted = list(_WITNESS_MOTION)
        for i in range(place + side, place + side * (_REACH + 1), side):
            if not (0 <= i < len(poses) and wanted):
                break
            if poses[i] is None:
                continue
            turn = np.arccos(np.clip((np.trace(poses[i][:3, :3].T @ T_map_cam[:3, :3]) - 1) / 2, -1, 1))
            motion = np.linalg.norm(poses[i][:3, 3] - T_map_cam[:3, 3]) / scene + turn
            if motion > _MAX_MOTION:
                break
            if motion >= wanted[0]:
                wanted.pop(0)
                yield i


def checked_motion(matrix: np.ndarray, what: str) -> np.ndarray:
    """The [4, 4] matrix with its rotation made orthonormal; ``PoseError`` if it is no rigid motion."""
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.shape != (4, 4):
        raise PoseError(f"{what} has shape {matrix.shape}, expected 4 x 4")
    if not np.isfinite(matrix).all():
        raise PoseError(f"{what} is not finite")
    U, scales, Vt = np.linalg.svd(matrix[:3, :3])
    if np.abs(scales - 1).max() > 0.01 or np.linalg.det(U @ Vt) < 0:
        raise PoseError(f"{what} is not a rigid motion: its rotation has singular values {scales.round(3).tolist()}")
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = U @ Vt, matrix[:3, 3]
    return T
