# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Posed images with depth, of RGB-D folders and bags: points are lifted from the depth and checked in other views."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from threading import Lock

import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImportSourceError, NreError
from nre_ros.geometry import rotation_angle
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.building.depth_support import DepthView, depth_support
from nre_ros.keyframes.building.multiview.depth_refinement import NEIGHBOURS, RefinedDepth, refine_depth
from nre_ros.keyframes.building.multiview.view_cache import ViewCache
from nre_ros.keyframes.building.multiview.views import View
from nre_ros.keyframes.importers.image_files import check_depth_size
from nre_ros.keyframes.importers.map_source import PosedImageSource
from nre_ros.keyframes.types import Keyframe

_CACHE_BYTES = 64 * 2**20
"""Memory for depth images that neighbouring images are compared with."""
_REACH = 60
"""Images before and after an image among which its neighbours are sought."""
_NEIGHBOUR_MOTION = (0.1, 0.25)
"""Least motion of the first and of the second neighbour on either side: metres / depth + radians."""
_MAX_MOTION = 0.8
"""Motion (in the same unit) beyond which no further neighbour is sought on a side."""


class DepthSource(PosedImageSource):
    """Posed images with depth.

    Points are preferred that depth images shortly before and after confirm.

    Attributes:
        refine: Whether depths are refined against the colour images of other views.
    """

    refine = True

    def __init__(self) -> None:
        self._depths: OrderedDict[str, npt.NDArray[np.float32]] = OrderedDict()
        self._lock = Lock()

    @abstractmethod
    def depth(self, name: str) -> npt.NDArray[np.float32]:
        """Returns the depth of an image, registered to the colour image.

        Args:
            name: Name of the image.

        Returns:
            [H, W] metres along z; 0 where there is none.

        Raises:
            ImageError: The image has no usable depth.
        """

    def depth_to_check(self, name: str) -> npt.NDArray[np.float32] | None:
        """Returns the depth of an image; see ``MapSource``."""
        return self._cached_depth(name)

    def keyframe(self, name: str, builder: KeyframeBuilder) -> Keyframe:
        """Makes the keyframe of an image; see ``MapSource``."""
        stamp, T_map_cam = self.camera_pose(name)
        camera, depth = self.camera(name), self._cached_depth(name)
        check_depth_size(depth, camera.width, camera.height, "its camera has")
        image = self.image(name)
        keyframe = builder.build_rgbd(
            name,
            stamp,
            image,
            depth,
            camera,
            T_map_cam,
            lambda points: depth_support(points, self._neighbouring_depths(name, T_map_cam, depth)),
            partial(self.refine_depths, name, image) if self.refine else None,
        )
        if not len(keyframe.points):
            raise ImportSourceError("no point with smooth depth in this image")
        return keyframe

    def refine_depths(
        self,
        name: str,
        image: npt.NDArray[np.uint8],
        pixels: npt.NDArray[np.float64],
        smoothed: npt.NDArray[np.float32],
        points: npt.NDArray[np.float64],
    ) -> RefinedDepth:
        """Refines depths of an image against other images.

        Args:
            name: Name of the image.
            image: Its pixels.
            pixels: [N, 2] where depths are refined.
            smoothed: [H, W] depth of the image in metres, from ``smooth_depth``.
            points: [M, 3] points of the map that the image sees; they decide which views are compared.

        Returns:
            The depths at the pixels and their precision.
        """
        others = list(self._views.neighbours(name, points, NEIGHBOURS).values())
        return refine_depth(self._views.view(name, image), smoothed, pixels, others)

    @cached_property
    def _views(self) -> ViewCache[View]:
        return ViewCache(self.names(), self.pose_and_camera, self.image, View.from_image)

    def _cached_depth(self, name: str) -> npt.NDArray[np.float32]:
        """Returns ``depth``, which stays in memory for a while."""
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
    def _sequence(self) -> tuple[dict[str, int], list[npt.NDArray[np.float64] | None]]:
        """Name -> place in the sequence, and the poses in this order (None for an image without a pose)."""
        names = self.names()
        poses: list[npt.NDArray[np.float64] | None] = []
        for name in names:
            try:
                poses.append(self.camera_pose(name)[1])
            except NreError:
                poses.append(None)
        return {name: i for i, name in enumerate(names)}, poses

    def _neighbouring_depths(
        self, name: str, T_map_cam: npt.NDArray[np.float64], depth: npt.NDArray[np.float32]
    ) -> list[DepthView]:
        """Depth images that see the same scene from other places, up to two on either side in the sequence."""
        places, poses = self._sequence
        names = list(places)
        scene_depth = float(np.median(depth[depth > 0])) if (depth > 0).any() else 1.0
        views = []
        for i, T_map_other in _moved_images(poses, places[name], T_map_cam, scene_depth):
            try:
                camera, other = self.camera(names[i]), self._cached_depth(names[i])
            except NreError:
                continue  # reported when the image itself is imported
            if other.shape == (camera.height, camera.width):
                views.append(DepthView(T_map_other, camera, other))
        return views


def _moved_images(
    poses: Sequence[npt.NDArray[np.float64] | None],
    place: int,
    T_map_cam: npt.NDArray[np.float64],
    scene_depth: float,
) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
    """Yields place and pose of the nearest images on both sides that have moved by ``_NEIGHBOUR_MOTION``."""
    for side in (-1, 1):
        wanted = list(_NEIGHBOUR_MOTION)
        for i in range(place + side, place + side * (_REACH + 1), side):
            if not (0 <= i < len(poses) and wanted):
                break
            pose = poses[i]
            if pose is None:
                continue
            rotation = rotation_angle(pose[:3, :3].T @ T_map_cam[:3, :3])
            motion = np.linalg.norm(pose[:3, 3] - T_map_cam[:3, 3]) / scene_depth + rotation
            if motion > _MAX_MOTION:
                break
            if motion >= wanted[0]:
                wanted.pop(0)
                yield i, pose
