# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the node says on its topics: the pose and the status."""

from __future__ import annotations

import math

import numpy as np
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from std_msgs.msg import Header

from nre_ros.gate.gate import Decision
from nre_ros.localization.result import LocalizationResult
from nre_ros.msg import LocalizationStatus
from nre_ros.node.conversions import pose_message, stamp_message


class Publishers:
    """The topics ``pose``, ``pose_with_covariance`` and ``status``; usable from any thread.

    They are there while the node is configured, and silent unless it is active.
    """

    def __init__(self, node: LifecycleNode):
        self._node = node

        def publisher(message, topic):
            options = QoSOverridingOptions.with_default_policies()
            return node.create_lifecycle_publisher(message, topic, QoSProfile(depth=10), qos_overriding_options=options)

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

    def close(self):
        """Destroys the publishers."""
        for publisher in (self._pose, self._pose_with_covariance, self._status):
            self._node.destroy_lifecycle_publisher(publisher)


def status_message(result: LocalizationResult, state: int) -> LocalizationStatus:
    """What the image shows, without header and camera, and without any judgement."""
    status = LocalizationStatus(state=int(state), image_localized=result.success)
    status.confidence = float(result.confidence)
    status.points_used, status.points_considered = result.points_used, result.points_considered
    status.keyframes_used = list(result.keyframes)
    status.cost = float(result.cost) if math.isfinite(result.cost) else 0.0
    status.stages = list(result.milliseconds)
    status.stage_milliseconds = [float(value) for value in result.milliseconds.values()]
    status.reason = result.reason
    status.mahalanobis = status.metres = status.degrees = -1.0
    return status


def tell_pose(status: LocalizationStatus, T_map_cam: np.ndarray, covariance: np.ndarray) -> None:
    """Puts an accepted pose [4, 4] and its covariance [6, 6] into the status."""
    status.pose_valid = True
    status.pose.pose = pose_message(T_map_cam)
    status.pose.covariance = covariance.ravel().tolist()


def tell_decision(status: LocalizationStatus, decision: Decision, threshold: float) -> None:
    """Puts the gate's word into the status: the pose that it accepted, or why it did not, and its numbers."""
    status.state, status.jump, status.verdict = int(decision.state), decision.jump, decision.reason
    status.mahalanobis_limit = float(threshold)
    for name in ("mahalanobis", "metres", "degrees"):
        value = getattr(decision, name)
        setattr(status, name, float(value) if math.isfinite(value) else -1.0)
    if decision.accepted:
        status.confidence = float(decision.confidence)
        tell_pose(status, decision.T_map_cam, decision.covariance)
    else:
        status.reason = decision.reason
