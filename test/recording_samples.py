# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A small rendered scene as a recording: an RGB-D folder, and the same images as a COLMAP model without points."""

import math

import cv2
import numpy as np
from skimage import data

from nre_ros.gallery import Gallery, Quad, Texture, rgbd
from nre_ros.geometry import Camera, invert, position_quaternion
from nre_ros.keyframes.importers.colmap.cameras import write_cameras_txt

CAMERA = Camera(240, 180, 200.0, 198.0, 120.3, 88.5)


def texture(name: str) -> Texture:
    image = getattr(data, name)()
    image = image[:, :, ::-1] if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
    return Texture(cv2.resize(np.ascontiguousarray(image), (800, 600), interpolation=cv2.INTER_AREA))


def scene() -> Gallery:
    """A far wall, a nearer wall before its right part, and a floor; seen from the origin along z, y is down."""
    far = Quad(np.array([-3.0, -2.2, 4.0]), np.array([6.0, 0, 0]), np.array([0, 4.4, 0]), texture("coffee"))
    near = Quad(np.array([0.4, -1.2, 2.5]), np.array([1.6, 0, 0]), np.array([0, 1.2, 0]), texture("astronaut"))
    floor = Quad(np.array([-3.0, 1.0, 4.0]), np.array([6.0, 0, 0]), np.array([0, 0, -4.0]), texture("brick"))
    return Gallery([far, near, floor])


def pose(x: float = 0.0, z: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = [[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]]
    T[:3, 3] = x, 0, z
    return T


POSES = [pose(x, z, yaw) for x, z, yaw in zip(
    (-0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6, 0.0), (0.0, 0.3, 0.6, 0.0, 0.5, 0.2, 0.0, 0.9), (0.15, 0.1, 0, 0, 0, -0.1, -0.2, 0)
)]  # fmt: skip


def rgbd_folder(folder, poses=POSES, camera=CAMERA):
    """Writes the scene as seen from poses."""
    rgbd.write_rgbd(folder, scene(), camera, np.array(poses), image_format="png")
    return folder


def model_folder(folder, poses=POSES, camera=CAMERA):
    """Writes sparse/ of a COLMAP model without points for the images of ``rgbd_folder``."""
    (folder / "sparse").mkdir(parents=True)
    write_cameras_txt(folder / "sparse/cameras.txt", {1: camera})
    lines = []
    for i, T in enumerate(poses):
        t, (x, y, z, w) = position_quaternion(invert(T))
        numbers = " ".join(repr(float(value)) for value in (w, x, y, z, *t))
        lines.append(f"{i + 1} {numbers} 1 frame-{i:06d}.png\n\n")
    (folder / "sparse/images.txt").write_text("".join(lines))
    return folder


def true_places(pixels, depth, T_a, T_b, camera=CAMERA, with_depth=False):
    """Pinhole geometry by hand: places [N, 2] in b of pixels [N, 2] of a with depths [N], and their depths in b."""
    K = camera.K
    rays = np.c_[pixels, np.ones(len(pixels))] @ np.linalg.inv(K).T
    points = (rays * depth[:, None]) @ T_a[:3, :3].T + T_a[:3, 3]
    local = (points - T_b[:3, 3]) @ T_b[:3, :3]
    places = local[:, :2] / local[:, 2:] * [K[0, 0], K[1, 1]] + K[:2, 2]
    return (places, local[:, 2]) if with_depth else places
