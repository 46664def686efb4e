# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Odometry propagation: the pose between images (parameter ``odometry_propagation``)."""

from __future__ import annotations

import threading
from dataclasses import replace

from rclpy.node import Node

from nre_ros.gate.decision import State
from nre_ros.gate.gate import Gate
from nre_ros.gate.observation import Observation
from nre_ros.node.interfaces import RosInterfaces
from nre_ros.node.parameters import value_of
from nre_ros.node.publishers import PosePublishers
from nre_ros.node.tf import FrameLookups, Frames, TransformError, Transforms


class OdometryPropagation:
    """Publishes the last accepted pose, propagated by odometry, whenever odometry is newer, while localized.

    At most ``transform_rate`` times a second.  The covariance grows with time and path length since the accepted pose.
    """

    def __init__(
        self,
        node: Node,
        interfaces: RosInterfaces,
        transforms: Transforms,
        lookups: FrameLookups,
        frames: Frames,
        gate: Gate,
        publishers: PosePublishers,
    ) -> None:
        self._node, self._transforms, self._lookups, self._frames = node, transforms, lookups, frames
        self._gate, self._publishers = gate, publishers
        self._lock = threading.Lock()  # guards what follows, and that nothing leaves after `forget`
        self._accepted: Observation | None = None  # whose camera is propagated
        self._newest = 0  # nanoseconds, of the last published pose
        interfaces.timer(1.0 / value_of(node, "transform_rate"), self._on_timer)

    def start_from(self, observation: Observation) -> None:
        """Propagates the camera of an image whose pose has been published.

        Args:
            observation: The image.
        """
        camera = replace(observation, message=None, image=None)  # without the pixels
        with self._lock:
            self._accepted, self._newest = camera, max(observation.stamp, self._newest)

    def forget(self) -> None:
        """Publishes nothing until the next accepted pose."""
        with self._lock:
            self._accepted, self._newest = None, 0

    def _on_timer(self) -> None:
        """Runs on the executor's thread: nothing here waits."""
        with self._lock:
            self._publish()

    def _publish(self) -> None:
        accepted = self._accepted
        if accepted is None or not accepted.camera_frame or not self._frames.odom:
            return
        if not value_of(self._node, "odometry_propagation"):
            return
        try:
            T_odom_cam, stamp = self._transforms.latest(self._frames.odom, accepted.camera_frame)
            if stamp <= self._newest:
                return
            now = Observation(stamp, T_base_cam=accepted.T_base_cam, T_odom_cam=T_odom_cam)
            predicted = self._gate.predict(now)
            if predicted is None or self._gate.state != State.LOCALIZED:
                return
            T, covariance = self._lookups.published_pose(*predicted, accepted.camera_frame, stamp, patience=0)
        except TransformError:  # the next reading may have what is missing
            return
        self._newest = stamp
        self._publishers.publish_pose(T, covariance, self._frames.map, stamp)
