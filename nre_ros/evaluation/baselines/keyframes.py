# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Where a peer's keypoints of the map's images lie in space: a map holds neither the images nor these points.

With depth images as the importer does it (smoothed, refined against other images of the map), else
triangulated from the peer's own matches between the map's images, whose poses are known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from nre_ros.errors import EvaluationError
from nre_ros.evaluation.baselines.keypoints import Keypoints, Peer
from nre_ros.geometry import Camera
from nre_ros.keyframes.building.builder import lift_pixels
from nre_ros.keyframes.building.multiview.depth_refinement import NEIGHBOURS, refine_depth
from nre_ros.keyframes.building.multiview.triangulation import triangulate
from nre_ros.keyframes.building.multiview.view_cache import ViewCache
from nre_ros.keyframes.building.point_selection import smooth_depth
from nre_ros.keyframes.importers.image_files import read_depth, read_image
from nre_ros.keyframes.importers.text_files import check_folder
from nre_ros.keyframes.storage.store import KeyframeStore

_NEIGHBOURS = 8
"""Other images of the map that a keyframe is matched with to triangulate its keypoints."""
_DEPTH_SCALE = 1000.0


class MapImages:
    """The images of the map's keyframes, below ``images`` by the keyframes' names.

    Raises ``EvaluationError`` when a keyframe's image is not there.
    """

    def __init__(self, store: KeyframeStore, images: Path, depth: Path | None = None):
        self.folder = check_folder(images)
        self._depth = None if depth is None else check_folder(depth)
        self._where: dict[str, tuple[np.ndarray, Camera]] = {}
        self.names: dict[int, str] = {}
        for scan in store.scan():
            for keyframe_id, name, camera_id, pose in zip(scan.ids.tolist(), scan.names, scan.camera_ids, scan.poses):
                self.names[keyframe_id] = name
                self._where[name] = pose, store.camera(int(camera_id))
        missing = next((name for name in self._where if not (self.folder / name).is_file()), None)
        if missing is not None:
            raise EvaluationError(f"{self.folder} has no image {missing}, a keyframe of map {store.path}")

    def image(self, name: str) -> np.ndarray:
        """uint8 BGR [H, W, 3]."""
        return read_image(self.folder / name)

    def lifter(self, peer: Peer) -> Callable[[str, Keypoints], tuple[np.ndarray, np.ndarray]]:
        """(name, keypoints) -> points [N, 3] in the map and which are known [N], for ``PeerLocalizer``."""
        return self._lift_by_depth if self._depth is not None else _Triangulation(self, peer).lift

    def _lift_by_depth(self, name: str, keypoints: Keypoints) -> tuple[np.ndarray, np.ndarray]:
        T_map_cam, camera = self._where[name]
        smooth = smooth_depth(read_depth((self._depth / name).with_suffix(".png"), _DEPTH_SCALE))
        points, known = lift_by_depth(smooth, keypoints.pixels, camera, T_map_cam)
        others = list(self._views.neighbours(name, points[known], NEIGHBOURS).values())
        refined = refine_depth(self._views.view(name), smooth, keypoints.pixels[known], others)
        points[known] = lift_pixels(keypoints.pixels[known], refined.depth, camera, T_map_cam)
        return points, known

    @cached_property
    def _views(self) -> ViewCache:
        return ViewCache(list(self._where), self.where, self.image)

    def where(self, name: str) -> tuple[np.ndarray, Camera]:
        """T_map_cam [4, 4] and camera of a keyframe."""
        return self._where[name]


def lift_by_depth(depth: np.ndarray, pixels: np.ndarray, camera: Camera, T_map_cam: np.ndarray):
    """Points [N, 3] in the map of pixels [N, 2], by the depth (metres along z) of the nearest pixel, 0: unknown."""
    x, y = np.rint(pixels).astype(int).T
    z = depth[y.clip(0, depth.shape[0] - 1), x.clip(0, depth.shape[1] - 1)].astype(np.float64)
    return lift_pixels(pixels, z, camera, T_map_cam), z > 0


@dataclass(frozen=True)
class _PosedKeypoints:
    """As ``triangulate`` wants a view; keypoints: what the peer found."""

    keypoints: Keypoints
    pixels: np.ndarray
    rays: np.ndarray
    camera: Camera
    T_map_cam: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes + self.rays.nbytes + self.pixels.shape[0] * 512


class _Triangulation:
    """The points of a peer's keypoints by its own matches between the map's images."""

    def __init__(self, images: MapImages, peer: Peer):
        self._peer = peer
        self._views = ViewCache(list(images.names.values()), images.where, images.image, self._view)

    def lift(self, name: str, keypoints: Keypoints) -> tuple[np.ndarray, np.ndarray]:
        view = self._views.view(name)  # the peer finds the same keypoints again: it draws no random numbers
        others = list(self._views.likely_neighbours(name, _NEIGHBOURS).values())
        matches = [self._peer.match(view.keypoints, other.keypoints) for other in others]
        found = triangulate(view, others, matches)
        points, known = np.full((len(view.pixels), 3), np.nan), np.zeros(len(view.pixels), dtype=bool)
        points[found.index], known[found.index] = found.points, True
        return points, known

    def _view(self, image: np.ndarray, camera: Camera, T_map_cam: np.ndarray) -> _PosedKeypoints:
        keypoints = self._peer.describe(image)
        rays = camera.rays(torch.from_numpy(keypoints.pixels)).numpy()
        T_map_cam = np.asarray(T_map_cam, dtype=np.float64)
        return _PosedKeypoints(keypoints, keypoints.pixels, rays / rays[:, 2:], camera, T_map_cam)
