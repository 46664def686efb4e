"""What the node says on its topics: the pose and the status."""

from __future__ import annotations

import math

import numpy as np
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from std_msgs.msg import Header

from nre_ros.localization.result import LocalizationResult
from nre_ros.msg import LocalizationStatus
from nre_ros.node.conversions import pose_message, stamp_message


class Publishers:
    """The topics ``pose``, ``pose_with_covariance`` and ``status``; usable from any thread."""

    def __init__(self, node: Node):
        def publisher(message, topic):
            options = QoSOverridingOptions.with_default_policies()
            return node.create_publisher(message, topic, QoSProfile(depth=10), qos_overriding_options=options)

        self._pose = publisher(PoseStamped, "pose")
        self._pose_with_covariance = publisher(PoseWithCovarianceStamped, "pose_with_covariance")
        self._status = publisher(LocalizationStatus, "status")

    def pose(self, T: np.ndarray, covariance: np.ndarray, frame: str, stamp: int):
        """Publishes a pose [4, 4] in ``frame`` and its covariance [6, 6] on both pose topics."""
        header = Header(frame_id=frame, stamp=stamp_message(stamp))
        pose = pose_message(T)
        self._pose.publish(PoseStamped(header=header, pose=pose))
        message = PoseWithCovarianceStamped(header=header)
        message.pose.pose = pose
        message.pose.covariance = covariance.ravel().tolist()
        self._pose_with_covariance.publish(message)

    def status(self, message: LocalizationStatus):
        self._status.publish(message)


def status_message(result: LocalizationResult, camera_frame: str, state: int) -> LocalizationStatus:
    """The status of one image, without its header."""
    status = LocalizationStatus(state=state, camera_frame=camera_frame)
    status.pose_valid = result.success
    if result.success:
        status.pose.pose = pose_message(result.T_map_cam)
        status.pose.covariance = result.covariance.ravel().tolist()
    status.confidence = float(result.confidence)
    status.points_used, status.points_considered = result.points_used, result.points_considered
    status.keyframes_used = list(result.keyframes)
    status.cost = float(result.cost) if math.isfinite(result.cost) else 0.0
    status.stages = list(result.milliseconds)
    status.stage_milliseconds = [float(value) for value in result.milliseconds.values()]
    status.reason = result.reason
    return status
