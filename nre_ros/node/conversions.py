# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Motions and stamps to ROS messages and back (pixels and cameras: ``nre_ros.messages``)."""

from __future__ import annotations

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose, TransformStamped

from nre_ros.geometry import pose_matrix, position_quaternion
from nre_ros.messages.stamps import stamp_nanoseconds as stamp_nanoseconds  # all conversions are found here


def stamp_message(nanoseconds: int) -> Time:
    """builtin_interfaces/Time of nanoseconds since the epoch."""
    return Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def pose_message(T: np.ndarray) -> Pose:
    """geometry_msgs/Pose of a 4x4 motion."""
    position, quaternion = position_quaternion(T)
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = position.tolist()
    q = pose.orientation
    q.x, q.y, q.z, q.w = quaternion.tolist()
    return pose


def matrix_of_pose(pose: Pose) -> np.ndarray:
    """4x4 motion of a geometry_msgs/Pose; raises ``PoseError``."""
    p, q = pose.position, pose.orientation
    return pose_matrix([p.x, p.y, p.z], [q.x, q.y, q.z, q.w])


def transform_message(T: np.ndarray, parent: str, child: str, stamp: int) -> TransformStamped:
    """geometry_msgs/TransformStamped of ``T_parent_child`` at ``stamp`` nanoseconds."""
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp = stamp_message(stamp)
    position, quaternion = position_quaternion(T)
    t, q = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = position.tolist()
    q.x, q.y, q.z, q.w = quaternion.tolist()
    return message
