# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Keyframes from nre_ros/Keyframe messages, of rclpy or read from a bag; needs no ROS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImageError
from nre_ros.geometry import Camera
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.building.point_selection import select_distributed
from nre_ros.keyframes.types import Keyframe
from nre_ros.messages.camera_info import camera_from_info
from nre_ros.messages.depth_images import depth_array
from nre_ros.messages.images import image_array
from nre_ros.messages.protocols import CameraInfoMessage, CompressedImageMessage, Header, ImageMessage

_MAX_ROUNDING = 0.005
"""Points that are rounded to coarser steps than this (metres) are refused: the map would be coarse without a word."""


class KeyframeMessage(Protocol):
    """nre_ros/Keyframe, of rclpy or from a bag; the message's definition explains the fields."""

    header: Header
    name: str
    image: ImageMessage
    compressed_image: CompressedImageMessage
    camera_info: CameraInfoMessage
    depth: ImageMessage
    points: Sequence[float]
    pixels: Sequence[float]
    point_ids: Sequence[int]


@dataclass(frozen=True, eq=False)
class MessagePoints:
    """The points of a message.

    Attributes:
        points: [N, 3] in the message's frame.
        pixels: [N, 2] where the image shows them.
        ids: [N] ids of the sender; None if it gives none.
    """

    points: npt.NDArray[np.float64]
    pixels: npt.NDArray[np.float64]
    ids: npt.NDArray[np.int64] | None

    @classmethod
    def from_message(cls, message: KeyframeMessage) -> MessagePoints:
        """Reads the points of a Keyframe message.

        Args:
            message: The message.

        Returns:
            The points, none for a message without points.

        Raises:
            ImageError: The arrays' lengths do not fit together, or a number is not finite.
        """
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
        farthest = np.abs(points).max(initial=0.0)
        rounding = float(np.spacing(np.float32(farthest)))
        if rounding > _MAX_ROUNDING:
            raise ImageError(
                f"a point lies {farthest / 1e3:.0f} km from the origin of the message's frame, where single precision "
                f"rounds to {rounding:.2g} m: send depth, or points in a frame near the camera"
            )
        return cls(points, pixels, ids.astype(np.int64) if len(ids) else None)

    def inside(self, camera: Camera) -> npt.NDArray[np.intp]:
        """Returns the indices of the points whose pixels lie in the image.

        Args:
            camera: Camera of the image.
        """
        size = np.array([camera.width, camera.height])
        return np.flatnonzero(((self.pixels >= -0.5) & (self.pixels < size - 0.5)).all(axis=1))


def has_image(message: KeyframeMessage) -> bool:
    """Returns whether a Keyframe message contains an image; a message without an image moves a keyframe.

    Args:
        message: The message.
    """
    return bool(message.image.data) or bool(message.compressed_image.data)


def keyframe_from_message(
    message: KeyframeMessage,
    stamp: int,
    T_map_frame: npt.NDArray[np.float64],
    T_frame_cam: npt.NDArray[np.float64],
    builder: KeyframeBuilder,
    rectified: bool,
) -> Keyframe:
    """Makes the keyframe of a Keyframe message that contains an image.

    Args:
        message: The Keyframe message; its points are used, or lifted from its depth image if it has no points.
        stamp: Its stamp in nanoseconds.
        T_map_frame: [4, 4] from the message's frame, in which its points are, to the map.
        T_frame_cam: [4, 4] pose of the camera in the message's frame.
        builder: Makes the keyframe.
        rectified: Whether the image is rectified, see ``messages.camera_info``.

    Returns:
        The keyframe.

    Raises:
        ImageError: The image, the depth or the points cannot be used.
        CameraError: The message's CameraInfo is no camera.
    """
    image = image_array(message.image if message.image.data else message.compressed_image)
    camera = camera_from_info(message.camera_info, rectified)
    T_map_cam = T_map_frame @ T_frame_cam
    if len(message.points):
        given = MessagePoints.from_message(message)
        chosen = given.inside(camera)
        if not len(chosen):
            raise ImageError(f"none of the {len(given.points)} points' pixels lies in the image")
        if len(chosen) > builder.points_per_keyframe:
            pixels, equal = given.pixels[chosen], np.ones(len(chosen))
            chosen = chosen[select_distributed(pixels, equal, builder.points_per_keyframe, camera.width, camera.height)]
        points = given.points[chosen] @ T_map_frame[:3, :3].T + T_map_frame[:3, 3]
        ids = None if given.ids is None else given.ids[chosen]
        return builder.build(message.name, stamp, image, camera, T_map_cam, given.pixels[chosen], points, ids)
    if not message.depth.data:
        raise ImageError("there are neither points nor depth with the image")
    keyframe = builder.build_rgbd(message.name, stamp, image, depth_array(message.depth), camera, T_map_cam)
    if not len(keyframe.points):
        raise ImageError("no pixel worth keeping has depth")
    return keyframe
