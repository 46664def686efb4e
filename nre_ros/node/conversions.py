# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Conversions between poses, transforms, stamps, images and ROS messages (cameras and depth: ``nre_ros.messages``)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose, Transform, TransformStamped
from sensor_msgs.msg import CompressedImage, Image

from nre_ros.errors import UnknownEncodingError
from nre_ros.messages.images import image_array
from nre_ros.messages.stamps import stamp_nanoseconds as stamp_nanoseconds  # all conversions are found here
from nre_ros.node.ros_libraries import LIBRARIES


def stamp_message(nanoseconds: int) -> Time:
    """Converts nanoseconds to a builtin_interfaces/Time.

    Args:
        nanoseconds: Time since the epoch.
    """
    return Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def pose_message(T: npt.NDArray[np.float64]) -> Pose:
    """Converts a rigid motion to a geometry_msgs/Pose.

    Args:
        T: Rigid motion [4, 4], metres.
    """
    position, quaternion = LIBRARIES.position_quaternion(T)
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = position
    q = pose.orientation
    q.x, q.y, q.z, q.w = quaternion
    return pose


def matrix_of_pose(pose: Pose) -> npt.NDArray[np.float64]:
    """Converts a geometry_msgs/Pose to a rigid motion.

    Args:
        pose: The message.

    Returns:
        The rigid motion [4, 4], metres.

    Raises:
        PoseError: The pose is not finite or its quaternion is not a rotation.
    """
    p, q = pose.position, pose.orientation
    return LIBRARIES.pose_matrix([p.x, p.y, p.z], [q.x, q.y, q.z, q.w])


def transform_message(T: npt.NDArray[np.float64], parent: str, child: str, stamp: int) -> TransformStamped:
    """Converts a rigid motion to a geometry_msgs/TransformStamped.

    Args:
        T: ``T_parent_child`` [4, 4], metres.
        parent: Name of the parent frame.
        child: Name of the child frame.
        stamp: Nanoseconds.
    """
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp = stamp_message(stamp)
    position, quaternion = LIBRARIES.position_quaternion(T)
    t, q = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = position
    q.x, q.y, q.z, q.w = quaternion
    return message


def translation_rotation(transform: Transform) -> tuple[list[float], list[float]]:
    """Splits a geometry_msgs/Transform into its numbers, unchecked.

    Args:
        transform: The message.

    Returns:
        Translation (x, y, z) in metres and quaternion (x, y, z, w).
    """
    t, q = transform.translation, transform.rotation
    return [t.x, t.y, t.z], [q.x, q.y, q.z, q.w]


def matrix_of_transform(transform: Transform) -> npt.NDArray[np.float64]:
    """Converts a geometry_msgs/Transform to a rigid motion.

    Args:
        transform: The message.

    Returns:
        The rigid motion [4, 4], metres.

    Raises:
        PoseError: The transform is not finite or its quaternion is not a rotation.
    """
    return LIBRARIES.pose_matrix(*translation_rotation(transform))


def image_pixels(message: Image | CompressedImage) -> npt.NDArray[np.uint8]:
    """Decodes the pixels of an image; cv_bridge decodes encodings that the package does not know.

    Args:
        message: The image.

    Returns:
        uint8 BGR [H, W, 3] or grey [H, W].

    Raises:
        ImageError: The message holds no image, or its encoding is unknown to all decoders here.
    """
    try:
        return image_array(message)
    except UnknownEncodingError:
        if not LIBRARIES.decodes:
            raise
    return LIBRARIES.decode(message)
