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
    """builtin_interfaces/Time of nanoseconds since the epoch."""
    return Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def pose_message(T: npt.NDArray[np.float64]) -> Pose:
    """geometry_msgs/Pose of a rigid motion [4, 4]."""
    position, quaternion = LIBRARIES.position_quaternion(T)
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = position
    q = pose.orientation
    q.x, q.y, q.z, q.w = quaternion
    return pose


def matrix_of_pose(pose: Pose) -> npt.NDArray[np.float64]:
    """Rigid motion [4, 4] of a geometry_msgs/Pose.

    Raises:
        PoseError: The pose is not finite or its quaternion is not a rotation.
    """
    p, q = pose.position, pose.orientation
    return LIBRARIES.pose_matrix([p.x, p.y, p.z], [q.x, q.y, q.z, q.w])


def transform_message(T: npt.NDArray[np.float64], parent: str, child: str, stamp: int) -> TransformStamped:
    """geometry_msgs/TransformStamped of ``T_parent_child`` [4, 4] at ``stamp`` nanoseconds."""
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp = stamp_message(stamp)
    position, quaternion = LIBRARIES.position_quaternion(T)
    t, q = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = position
    q.x, q.y, q.z, q.w = quaternion
    return message


def translation_rotation(transform: Transform) -> tuple[list[float], list[float]]:
    """Translation (x, y, z) and quaternion (x, y, z, w) of a geometry_msgs/Transform, unchecked."""
    t, q = transform.translation, transform.rotation
    return [t.x, t.y, t.z], [q.x, q.y, q.z, q.w]


def matrix_of_transform(transform: Transform) -> npt.NDArray[np.float64]:
    """Rigid motion [4, 4] of a geometry_msgs/Transform.

    Raises:
        PoseError: The transform is not finite or its quaternion is not a rotation.
    """
    return LIBRARIES.pose_matrix(*translation_rotation(transform))


def image_pixels(message: Image | CompressedImage) -> npt.NDArray[np.uint8]:
    """Pixels of an image, uint8 BGR [H, W, 3] or grey [H, W]; cv_bridge decodes what the package does not know.

    Raises:
        ImageError: The message holds no image, or nobody here knows its encoding.
    """
    try:
        return image_array(message)
    except UnknownEncodingError:
        if not LIBRARIES.decodes:
            raise
    return LIBRARIES.decode(message)
