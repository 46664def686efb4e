# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Loss maps and views with exact truth for the tests of the estimator."""

import functools
import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from nre_ros.features import FeatureBackbone, FeatureGrid, load_backbone
from nre_ros.gallery import Gallery, build_room, camera_pose
from nre_ros.geometry import RADIAL_TANGENTIAL, Camera
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.types import Keyframe
from nre_ros.nre.maps import NREMaps

CAMERA = Camera(320, 240, 260.0, 258.0, 161.0, 118.0, RADIAL_TANGENTIAL, (-0.12, 0.03, 1e-3, -5e-4))
GRID = FeatureGrid(8.0, 3.5)
HEIGHT, WIDTH = 30, 40
CHANCE = math.log(HEIGHT * WIDTH + 1)


def true_pose(seed: int = 0) -> np.ndarray:
    """T_cam_map [4, 4] of an arbitrary camera."""
    rng = np.random.default_rng(seed)
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(rng.normal(size=3)).as_matrix()
    T[:3, 3] = rng.normal(size=3)
    return T


def points_in_view(count: int, T: np.ndarray, seed: int = 0, margin: float = 24.0, camera: Camera = CAMERA):
    """Points [N, 3] of the map 1.5 to 4 m before the camera, and their pixels [N, 2], by OpenCV."""
    rng = np.random.default_rng(seed)
    size = np.array([camera.width, camera.height])
    pixels = margin + rng.uniform(size=(count, 2)) * (size - 2 * margin)
    rays = cv2.undistortPoints(pixels[:, None], camera.K, np.array(camera.distortion or [0.0] * 4))[:, 0]
    seen = np.c_[rays, np.ones(count)] * rng.uniform(1.5, 4.0, size=(count, 1))
    points = (seen - T[:3, 3]) @ T[:3, :3]
    return points, opencv_pixels(points, T, camera)


def opencv_pixels(points: np.ndarray, T: np.ndarray, camera: Camera = CAMERA) -> np.ndarray:
    rotation = cv2.Rodrigues(T[:3, :3])[0]
    distortion = np.array(camera.distortion or [0.0] * 4)
    return cv2.projectPoints(points, rotation, T[:3, 3].copy(), camera.K, distortion)[0][:, 0]


def dips(cells: np.ndarray, depth: float = 5.0, width: float = 1.2) -> np.ndarray:
    """Loss maps [N, H, W], at chance but for a Gaussian dip around each cell (x, y) [N, 2]."""
    x, y = np.arange(WIDTH), np.arange(HEIGHT)
    gx = np.exp(-((x - cells[:, :1]) ** 2) / (2 * width**2))
    gy = np.exp(-((y - cells[:, 1:]) ** 2) / (2 * width**2))
    return CHANCE - depth * gy[:, :, None] * gx[:, None, :]


def as_maps(loss: np.ndarray, entropy: np.ndarray | None = None) -> NREMaps:
    entropy = np.zeros(len(loss)) if entropy is None else entropy
    return NREMaps.of(torch.tensor(loss, dtype=torch.float32), torch.tensor(entropy, dtype=torch.float32), GRID)


@dataclass(frozen=True)
class SmallRoom:
    """A rendered room, four keyframes of one of its ends and the network that made them."""

    gallery: Gallery
    backbone: FeatureBackbone
    keyframes: list[Keyframe]

    def view(self, x: float, y: float, z: float, yaw: float, pitch: float = 0.0, camera: Camera = CAMERA):
        """Image uint8 [H, W, 3] and its exact T_map_cam."""
        rendering = self.gallery.render(camera, camera_pose([x, y, z], yaw, pitch))
        return rendering.image, rendering.T_map_cam


@functools.cache
def small_room() -> SmallRoom:
    gallery = Gallery(build_room(seed=1, pixels_per_metre=150, furniture=False))
    backbone = load_backbone("xfeat")
    builder = KeyframeBuilder(backbone, 300)
    keyframes = []
    for i, (x, y, yaw) in enumerate(((-0.3, 0.2, 0.0), (0.0, -0.6, 0.25), (0.4, 0.6, -0.25), (0.0, 0.0, -0.5))):
        seen = gallery.render(CAMERA, camera_pose([x, y, 1.4], yaw))
        keyframes.append(builder.build_rgbd(f"view-{i}", i, seen.image, seen.depth, CAMERA, seen.T_map_cam))
    return SmallRoom(gallery, backbone, keyframes)


QUERIES = ((0.1, 0.1, 1.3, 0.1, 0.05), (0.3, -0.3, 1.5, -0.1, -0.05), (-0.5, -0.2, 1.45, 0.05, 0.0))
"""Places (x, y, z, yaw, pitch) from which the keyframes' part of the room is in view."""
