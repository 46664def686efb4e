# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a Keyframe message holds, of rclpy or from a bag; no ROS in here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nre_ros.errors import ImageError
from nre_ros.geometry import Camera
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.building.point_selection import spread
from nre_ros.keyframes.types import Keyframe
from nre_ros.messages.camera_info import camera_from_info
from nre_ros.messages.depth_images import depth_array
from nre_ros.messages.images import image_array


@dataclass(frozen=True, eq=False)
class Points:
    """Points [N, 3] in the message's frame, their pixels [N, 2], and ids [N] or None."""

    points: np.ndarray
    pixels: np.ndarray
    ids: np.ndarray | None

    def inside(self, camera: Camera) -> np.ndarray:
        """Indices of those whose pixels lie in the image."""
        size = np.array([camera.width, camera.height])
        return np.flatnonzero(((self.pixels >= -0.5) & (self.pixels < size - 0.5)).all(axis=1))


def has_image(message) -> bool:
    """Whether there is an image; without one the message tells a pose alone."""
    return bool(message.image.data) or bool(message.compressed_image.data)


def keyframe_of(
    message, stamp: int, T_map_frame: np.ndarray, T_frame_cam: np.ndarray, builder: KeyframeBuilder, rectified: bool
) -> Keyframe:
    """The keyframe of a message with an image.

    stamp: its own, nanoseconds.  T_map_frame: of the frame that its pose ``T_frame_cam`` and its points are in.
    rectified: as for ``camera_from_info``.  Raises ``ImageError`` or ``CameraError`` for what cannot be a keyframe.
    """
    image = image_array(message.image if message.image.data else message.compressed_image)
    camera = camera_from_info(message.camera_info, rectified)
    T_map_cam = T_map_frame @ T_frame_cam
    if len(message.points):
        given = points_of(message)
        chosen = given.inside(camera)
        if not len(chosen):
            raise ImageError(f"none of the {len(given.points)} points' pixels lies in the image")
        if len(chosen) > builder.points_per_keyframe:
            pixels, alike = given.pixels[chosen], np.ones(len(chosen))
            chosen = chosen[spread(pixels, alike, builder.points_per_keyframe, camera.width, camera.height)]
        points = given.points[chosen] @ T_map_frame[:3, :3].T + T_map_frame[:3, 3]
        ids = None if given.ids is None else given.ids[chosen]
        return builder.build(message.name, stamp, image, camera, T_map_cam, given.pixels[chosen], points, ids)
    if not message.depth.data:
        raise ImageError("there are neither points nor depth with the image")
    keyframe = builder.build_rgbd(message.name, stamp, image, depth_array(message.depth), camera, T_map_cam)
    if not len(keyframe.points):
        raise ImageError("no pixel worth keeping has depth")
    return keyframe


def points_of(message) -> Points:
    """The points of a message; raises ``ImageError`` where numbers are missing."""
    points, pixels, ids = (np.asarray(values) for values in (message.points, message.pixels, message.point_ids))
    count = len(points) // 3
    if len(points) != 3 * count or len(pixels) != 2 * count or len(ids) not in (0, count):
        raise ImageError(
            f"{len(points)} numbers of points, {len(pixels)} of pixels and {len(ids)} ids do not fit together: "
            "three, two and one a point are expected"
        )
    points, pixels = points.reshape(-1, 3).astype(np.float64), pixels.reshape(-1, 2).astype(np.float64)
    if not (np.isfinite(points).all() and np.isfinite(pixels).all()):
        raise ImageError("a point or its pixel is not finite")
    return Points(points, pixels, ids.astype(np.int64) if len(ids) else None)
