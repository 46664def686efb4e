# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Views of a textured, slanted plane with exact depth: rays by OpenCV's undistortPoints, colours by remap."""

import cv2
import numpy as np
from keyframe_samples import CAMERA
from scipy.spatial.transform import Rotation

NORMAL, DISTANCE = np.array([0.25, -0.15, -1.0]), -2.0
"""The plane NORMAL . x = DISTANCE of the map; cameras near the origin look along z."""
_PIXELS_A_METRE = 320.0


def texture(seed=0, side=2000, blots=(2, 5, 12)):
    """Blots of several sizes (pixels, standard deviations), [side, side] uint8."""
    rng = np.random.default_rng(seed)
    layers = [cv2.GaussianBlur(rng.normal(size=(side, side)).astype(np.float32), (0, 0), sigma) for sigma in blots]
    image = sum(layer / layer.std() for layer in layers)
    return np.clip(128 + 35 * image, 0, 255).astype(np.uint8)


def pose(x=0.0, y=0.0, z=0.0, yaw=0.0, pitch=0.0):
    """T_map_cam of a camera at x y z (metres), turned by yaw and pitch (degrees)."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("yx", [yaw, pitch], degrees=True).as_matrix()
    T[:3, 3] = x, y, z
    return T


def render(surface, T_map_cam, camera=CAMERA):
    """Grey image [H, W] uint8 and depth [H, W] float64 (metres along z) of the plane with this texture."""
    grid = np.stack(np.meshgrid(np.arange(float(camera.width)), np.arange(float(camera.height))), -1).reshape(-1, 1, 2)
    xy = cv2.undistortPoints(grid, camera.K, np.array(camera.distortion))[:, 0]
    rays = np.column_stack([xy, np.ones(len(xy))]) @ T_map_cam[:3, :3].T
    depth = (DISTANCE - NORMAL @ T_map_cam[:3, 3]) / (rays @ NORMAL)
    points = T_map_cam[:3, 3] + depth[:, None] * rays
    where = (points[:, :2] * _PIXELS_A_METRE + len(surface) / 2).astype(np.float32)
    where = where.reshape(camera.height, camera.width, 2)
    grey = cv2.remap(surface, where[..., 0], where[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return grey, depth.reshape(camera.height, camera.width)
