# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Publishers of the node: pose, status and path, and the displays (diagnostics, debug image, markers, point clouds) as one."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from nav_msgs.msg import Path
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from std_msgs.msg import Header

from nre_ros.errors import MapError
from nre_ros.gate.decision import Decision
from nre_ros.gate.observation import Observation
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.localization.result import LocalizationResult
from nre_ros.msg import LocalizationStatus
from nre_ros.node.conversions import pose_message, stamp_message
from nre_ros.node.debug_image import DebugImage
from nre_ros.node.diagnostics import Diagnostics
from nre_ros.node.display_frame import DisplayFrame
from nre_ros.node.interfaces import DisplayTopic, RosInterfaces
from nre_ros.node.logs import ThrottledLogger
from nre_ros.node.markers import Markers
from nre_ros.node.parameters import value_of
from nre_ros.node.point_clouds import PointClouds

_PATH_SECONDS = 0.5
"""Between two messages on ``path``."""


# --- pose and status ------------------------------------------------------------------------------------


class PosePublishers:
    """The topics ``pose``, ``pose_with_covariance`` and ``status``; may be used by several threads.

    They exist while the node is configured, and are silent unless it is active.
    """

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node

        def publisher(message_type: type, topic: str):  # type: ignore[no-untyped-def]  # of rclpy
            options = QoSOverridingOptions.with_default_policies()
            return node.create_lifecycle_publisher(
                message_type, topic, QoSProfile(depth=10), qos_overriding_options=options
            )

        self._pose = publisher(PoseStamped, "pose")
        self._pose_with_covariance = publisher(PoseWithCovarianceStamped, "pose_with_covariance")
        self._status = publisher(LocalizationStatus, "status")

    def publish_pose(
        self, T: npt.NDArray[np.float64], covariance: npt.NDArray[np.float64], frame: str, stamp: int
    ) -> None:
        """Publishes a pose on both pose topics.

        Args:
            T: Pose [4, 4] in ``frame``.
            covariance: [6, 6] of (x, y, z, rotation about x, y, z) in the axes of ``frame``.
            frame: Name of the frame.
            stamp: Nanoseconds.
        """
        header = Header(frame_id=frame, stamp=stamp_message(stamp))
        pose = pose_message(T)
        self._pose.publish(PoseStamped(header=header, pose=pose))
        message = PoseWithCovarianceStamped(header=header)
        message.pose.pose = pose
        message.pose.covariance = covariance.ravel().tolist()
        self._pose_with_covariance.publish(message)

    def publish_status(self, message: LocalizationStatus) -> None:
        """Publishes the status of an image.

        Args:
            message: The status.
        """
        self._status.publish(message)

    def close(self) -> None:
        """Destroys the publishers."""
        for publisher in (self._pose, self._pose_with_covariance, self._status):
            self._node.destroy_lifecycle_publisher(publisher)


def status_of_result(result: LocalizationResult, state: int) -> LocalizationStatus:
    """Creates a status with what the localizer found in an image, without header, camera and decision.

    Args:
        result: What the localizer found.
        state: State of the gate, as ``nre_ros.gate.decision.State``.
    """
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


def set_pose(
    status: LocalizationStatus, T_map_cam: npt.NDArray[np.float64], covariance: npt.NDArray[np.float64]
) -> None:
    """Puts an accepted pose into a status.

    Args:
        status: The status, which is changed.
        T_map_cam: Pose [4, 4] of the camera in the map.
        covariance: [6, 6] of (x, y, z, rotation about x, y, z) in the map's axes.
    """
    status.pose_valid = status.image_localized = True
    status.pose.pose = pose_message(T_map_cam)
    status.pose.covariance = covariance.ravel().tolist()


def set_decision(status: LocalizationStatus, decision: Decision, threshold: float) -> None:
    """Puts the gate's decision into a status: the accepted pose, or why there is none, with the numbers.

    Args:
        status: Status of the image's localization result.
        decision: The gate's decision about it.
        threshold: Mahalanobis distance up to which the gate takes poses to agree.
    """
    status.state = int(decision.state)
    if not decision.judged:
        return
    status.jump = decision.jump
    status.gate_reason = status.verdict = decision.reason
    status.mahalanobis_limit = float(threshold)
    for name in ("mahalanobis", "metres", "degrees"):
        value = getattr(decision, name)
        setattr(status, name, float(value) if math.isfinite(value) else -1.0)
    if decision.T_map_cam is not None and decision.covariance is not None:
        status.confidence = float(decision.confidence)
        set_pose(status, decision.T_map_cam, decision.covariance)
    else:
        status.reason = decision.reason


# --- path -----------------------------------------------------------------------------------------------


class PathPublisher:
    """The topic ``path``: the accepted poses of the robot; may be used by several threads.

    Published by a timer, not with each pose: sending a long path takes long.
    """

    def __init__(self, node: Node, frame: str) -> None:
        """Creates the topic; ``frame`` is the map's."""
        self._node, self._frame = node, frame
        self._topic = DisplayTopic(node, Path, "path", latched=True)
        self._lock = threading.Lock()
        self._poses: deque[PoseStamped] = deque()
        self._last_position: npt.NDArray[np.float64] | None = None
        self._changed = False

    def clear(self) -> None:
        """Begins anew: time went back, or another map was loaded."""
        with self._lock:
            self._changed = bool(self._poses)
            self._poses.clear()
            self._last_position = None

    def update(self, T_map: npt.NDArray[np.float64], stamp: int) -> None:
        """Adds an accepted pose, unless it is close to the last one.

        Args:
            T_map: Pose [4, 4] in the map.
            stamp: Nanoseconds.
        """
        spacing, length = value_of(self._node, "path_spacing"), value_of(self._node, "path_length")
        with self._lock:
            if self._last_position is not None and np.linalg.norm(T_map[:3, 3] - self._last_position) < spacing:
                return
            self._last_position, self._changed = T_map[:3, 3].copy(), True
            header = Header(frame_id=self._frame, stamp=stamp_message(stamp))
            self._poses.append(PoseStamped(header=header, pose=pose_message(T_map)))
            while len(self._poses) > length:
                self._poses.popleft()

    def publish(self) -> None:
        """Publishes the path if it has changed and somebody subscribes."""
        if not self._topic.has_subscribers:
            return
        with self._lock:
            if not self._changed:
                return
            self._changed = False
            path = Path(poses=list(self._poses))
        path.header.frame_id = self._frame
        if path.poses:
            path.header.stamp = path.poses[-1].header.stamp
        self._topic.publish(path)

    def close(self) -> None:
        """Destroys the topic."""
        self._topic.close()


# --- displays -------------------------------------------------------------------------------------------


class Displays:
    """What people look at: diagnostics, path, debug image, markers and point clouds, updated once for each image."""

    def __init__(self, node: Node, map_frame: str, facts: Callable[[], dict[str, str]] = dict) -> None:
        """Creates the topics and their timers.

        Args:
            node: The node.
            map_frame: Frame of the path; markers and point clouds are in that of ``DisplayFrame``.
            facts: Called once a period for more values of the diagnostics, name -> value.
        """
        self.diagnostics = Diagnostics(node, facts)
        self.path = PathPublisher(node, map_frame)
        self.debug_image = DebugImage(node)
        self._frame = DisplayFrame(node, map_frame)
        self.markers = Markers(node, self._frame)
        self.point_clouds = PointClouds(node, self._frame)
        self._log = ThrottledLogger(node.get_logger())
        self._interfaces = RosInterfaces(node)
        self._interfaces.timer(value_of(node, "diagnostics_period"), self.diagnostics.publish, steady=True)
        self._interfaces.timer(_PATH_SECONDS, self.path.publish, steady=True)

    def update(
        self,
        observation: Observation,
        result: LocalizationResult,
        decision: Decision,
        store: KeyframeStore,
    ) -> None:
        """Shows one image, after its pose and status have been published; the diagnostics are updated before.

        Args:
            observation: The image.
            result: What the localizer found in it.
            decision: What the gate decided about it.
            store: The map; hence for the thread that may use it.
        """
        try:
            if observation.image is not None:
                self.debug_image.update(observation, result, decision, store.thumbnail)
            self.markers.update(result, decision, observation.stamp, store)
            self.point_clouds.update(result, decision, observation.stamp, store)
        except MapError as error:  # no pose depends on a picture
            self._log.warning(f"no debug image or markers: {error}")

    @property
    def map_has_subscribers(self) -> bool:
        """Whether somebody subscribes to the map itself, as markers or as points."""
        return self.markers.map_has_subscribers or self.point_clouds.map_has_subscribers

    def publish_map(self, store: KeyframeStore) -> None:
        """Publishes the map's cameras and points where somebody subscribes and they are not published yet.

        Args:
            store: The open map; hence for the thread that may use it.
        """
        try:
            self.markers.publish_map(store)
            self.point_clouds.publish_map(store)
        except MapError as error:
            self._log.warning(f"no markers or points of the map: {error}")

    def close(self) -> None:
        """Destroys topics and timers."""
        self._interfaces.close()
        for part in (self.diagnostics, self.path, self.debug_image, self.markers, self.point_clouds, self._frame):
            part.close()
