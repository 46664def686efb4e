# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Registration of depth images: depth of a separate depth camera in the pixels of the colour camera."""

from __future__ import annotations

from functools import lru_cache
from math import ceil

import numpy as np
import numpy.typing as npt
import torch

from nre_ros.geometry import MIN_DEPTH, Camera


def register_depth(
    depth: npt.NDArray[np.floating], depth_camera: Camera, camera: Camera, T_cam_depth: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """Transfers a depth image into the pixels of another camera.

    Each measurement goes to the nearest pixel, and the nearest surface wins. A pixel that stays empty takes the nearest
    surface among the measurements around it, as far as two neighbouring measurements may lie apart in the image.

    Args:
        depth: [h, w] metres along z, 0 where there is none.
        depth_camera: Camera of the depth image.
        camera: The colour camera.
        T_cam_depth: [4, 4] from the depth camera's frame to the colour camera's.

    Returns:
        [H, W] metres along the colour camera's z, 0 where there is none.
    """
    rays = _rays(depth_camera)
    known = np.isfinite(depth) & (depth > 0)
    points = rays[known] * depth[known][:, None].astype(np.float64)
    points = points @ T_cam_depth[:3, :3].T + T_cam_depth[:3, 3]
    projected, in_front, _ = camera.project(torch.as_tensor(points))
    keep = in_front.numpy() & (points[:, 2] > MIN_DEPTH)
    pixels, z = projected.numpy()[keep], points[keep, 2].astype(np.float32)
    image = _nearest(np.rint(pixels), z, camera)
    pitch = max(camera.fx / depth_camera.fx, camera.fy / depth_camera.fy)
    for ring in range(ceil(pitch)):  # neighbours are hardly ever farther apart than on a wall seen from the front
        corner = np.floor(pixels) - ring
        side = 2 * ring + 2
        around = np.concatenate([corner + (i, j) for i in range(side) for j in range(side)])
        filled = _nearest(around, np.tile(z, side * side), camera)
        image = np.where(image > 0, image, filled)
    return image


def _nearest(pixels: npt.NDArray[np.float64], z: npt.NDArray[np.float32], camera: Camera) -> npt.NDArray[np.float32]:
    """Image [H, W] of the smallest depth z [N] at integer pixels [N, 2]; 0 where there is none."""
    inside = ((pixels >= 0) & (pixels < (camera.width, camera.height))).all(axis=1)
    x, y = pixels[inside].astype(np.int64).T
    image = np.full(camera.width * camera.height, np.inf, dtype=np.float32)
    np.minimum.at(image, y * camera.width + x, z[inside])
    return np.where(np.isfinite(image), image, 0.0).reshape(camera.height, camera.width).astype(np.float32)


@lru_cache(maxsize=4)
def _rays(camera: Camera) -> npt.NDArray[np.float64]:
    """Viewing directions [h, w, 3] of all pixels, with z = 1."""
    grid = np.stack(np.meshgrid(np.arange(camera.width), np.arange(camera.height)), axis=-1).astype(np.float64)
    rays = camera.rays(torch.as_tensor(grid.reshape(-1, 2))).numpy()
    directions: npt.NDArray[np.float64] = (rays / rays[:, 2:]).reshape(camera.height, camera.width, 3)
    return directions
