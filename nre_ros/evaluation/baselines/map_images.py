# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The map's images for baselines, and the points in the map of a baseline's keypoints in these images.

A map file contains neither its images nor the points of other keypoints. With depth images the points are computed as
the importer computes them: the depth is smoothed and refined against other images of the map. Without depth images the
points are triangulated from the baseline's own matches between the map's images, whose poses are known.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from nre_ros.errors import EvaluationError
from nre_ros.evaluation.baselines.base import Baseline, Keypoints
from nre_ros.evaluation.baselines.localizer import LiftKeypoints
from nre_ros.geometry import Camera
from nre_ros.keyframes.building.builder import lift_pixels
from nre_ros.keyframes.building.multiview.depth_refinement import NEIGHBOURS, refine_depth
from nre_ros.keyframes.building.multiview.triangulation import triangulate
from nre_ros.keyframes.building.multiview.view_cache import ViewCache
from nre_ros.keyframes.building.multiview.views import View
from nre_ros.keyframes.building.point_selection import smooth_depth
from nre_ros.keyframes.importers.image_files import read_depth, read_image
from nre_ros.keyframes.importers.text_files import check_folder
from nre_ros.keyframes.storage.store import KeyframeStore

_TRIANGULATION_NEIGHBOURS = 8
"""Other images of the map that a keyframe is matched with to triangulate its keypoints."""
_DEPTH_SCALE = 1000.0
"""Depth units per metre."""


class MapImages:
    """The images of the map's keyframes.

    Attributes:
        folder: Folder of the images; the path of an image in it is the keyframe's name.
        names: Keyframe identifier to keyframe name.
    """

    def __init__(self, store: KeyframeStore, images: Path, depth: Path | None = None) -> None:
        """Finds the images of all keyframes.

        Args:
            store: Map. It is not used after the constructor.
            images: Folder of the images.
            depth: Folder of the depth images (16-bit PNG, millimetres), None without depth.

        Raises:
            EvaluationError: A keyframe has no image in the folder.
        """
        self.folder = check_folder(images)
        self._depth = None if depth is None else check_folder(depth)
        self._poses: dict[str, tuple[npt.NDArray[np.float64], Camera]] = {}
        self.names: dict[int, str] = {}
        for scan in store.scan():
            for keyframe_id, name, camera_id, pose in zip(scan.ids.tolist(), scan.names, scan.camera_ids, scan.poses):
                self.names[keyframe_id] = name
                self._poses[name] = pose, store.camera(int(camera_id))
        missing = next((name for name in self._poses if not (self.folder / name).is_file()), None)
        if missing is not None:
            raise EvaluationError(f"{self.folder} contains no image {missing}, a keyframe of map {store.path}")

    def image(self, name: str) -> npt.NDArray[np.uint8]:
        """Reads the image of a keyframe.

        Args:
            name: Name of the keyframe.

        Returns:
            uint8 BGR ``[H, W, 3]``.
        """
        return read_image(self.folder / name)

    def pose_and_camera(self, name: str) -> tuple[npt.NDArray[np.float64], Camera]:
        """Returns pose and camera of a keyframe.

        Args:
            name: Name of the keyframe.

        Returns:
            T_map_cam ``[4, 4]`` and the camera.
        """
        return self._poses[name]

    def lifter(self, baseline: Baseline) -> LiftKeypoints:
        """Returns the function that finds the points of a baseline's keypoints in the map.

        Args:
            baseline: The baseline.

        Returns:
            The function for ``BaselineLocalizer``.
        """
        if self._depth is None:
            return _Triangulation(self, baseline).lift
        return self._lift_by_refined_depth

    def _lift_by_refined_depth(
        self, name: str, keypoints: Keypoints
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        assert self._depth is not None
        T_map_cam, camera = self._poses[name]
        smooth = smooth_depth(read_depth(self._depth / f"{os.path.splitext(name)[0]}.png", _DEPTH_SCALE))
        points, known = lift_by_depth(smooth, keypoints.pixels, camera, T_map_cam)
        others = list(self._views.neighbours(name, points[known], NEIGHBOURS).values())
        refined = refine_depth(self._views.view(name), smooth, keypoints.pixels[known], others)
        points[known] = lift_pixels(keypoints.pixels[known], refined.depth, camera, T_map_cam)
        return points, known

    @cached_property
    def _views(self) -> ViewCache[View]:
        return ViewCache(list(self._poses), self.pose_and_camera, self.image, View.from_image)


def lift_by_depth(
    depth: npt.NDArray[np.float32],
    pixels: npt.NDArray[np.float64],
    camera: Camera,
    T_map_cam: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Computes the points of pixels from a depth image, with the depth of the nearest pixel.

    Args:
        depth: ``[H, W]`` metres along the optical axis, 0 where the depth is not known.
        pixels: ``[N, 2]`` pixels.
        camera: Camera of the depth image.
        T_map_cam: ``[4, 4]`` pose, camera to map.

    Returns:
        Points ``[N, 3]`` in the map, and whether the depth of each point is known ``[N]``.
    """
    x, y = np.rint(pixels).astype(int).T
    z = depth[y.clip(0, depth.shape[0] - 1), x.clip(0, depth.shape[1] - 1)].astype(np.float64)
    return lift_pixels(pixels, z, camera, T_map_cam), z > 0


@dataclass(frozen=True)
class _KeypointView:
    """A map image with a baseline's keypoints, in the form that ``triangulate`` and ``ViewCache`` need."""

    keypoints: Keypoints
    pixels: npt.NDArray[np.float64]
    rays: npt.NDArray[np.float64]
    camera: Camera
    T_map_cam: npt.NDArray[np.float64]

    @property
    def nbytes(self) -> int:
        """Approximate size in memory, with 512 bytes per descriptor."""
        return self.pixels.nbytes + self.rays.nbytes + self.pixels.shape[0] * 512


class _Triangulation:
    """Triangulates a baseline's keypoints from its own matches between the map's images."""

    def __init__(self, images: MapImages, baseline: Baseline) -> None:
        self._baseline = baseline
        self._views = ViewCache(list(images.names.values()), images.pose_and_camera, images.image, self._view)

    def lift(self, name: str, keypoints: Keypoints) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        # the keypoints of the view are the same: a baseline is deterministic
        view = self._views.view(name)
        others = list(self._views.likely_neighbours(name, _TRIANGULATION_NEIGHBOURS).values())
        matches = [self._baseline.match(view.keypoints, other.keypoints) for other in others]
        found = triangulate(view, others, matches)
        points, known = np.full((len(view.pixels), 3), np.nan), np.zeros(len(view.pixels), dtype=bool)
        points[found.index], known[found.index] = found.points, True
        return points, known

    def _view(self, image: npt.NDArray[np.uint8], camera: Camera, T_map_cam: npt.NDArray[np.float64]) -> _KeypointView:
        keypoints = self._baseline.describe(image)
        rays = camera.rays(torch.from_numpy(keypoints.pixels)).numpy()
        T_map_cam = np.asarray(T_map_cam, dtype=np.float64)
        return _KeypointView(keypoints, keypoints.pixels, rays / rays[:, 2:], camera, T_map_cam)
