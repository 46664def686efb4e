# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The pose between images: the last accepted one carried on by odometry (parameter ``follow_odometry``)."""

from __future__ import annotations

import numpy as np
from rclpy.node import Node

from nre_ros.gate.gate import Gate, State
from nre_ros.node.broadcasting import FrameLookups, Frames
from nre_ros.node.entities import Entities
from nre_ros.node.parameters import value_of
from nre_ros.node.publishing import Publishers
from nre_ros.node.transforms import TransformError, Transforms


class Follower:
    """Publishes a pose whenever odometry has news, as often as map->odom is broadcast, while localized.

    Its covariance grows with the time and the way since the last accepted pose.
    """

    def __init__(
        self,
        node: Node,
        entities: Entities,
        transforms: Transforms,
        lookups: FrameLookups,
        frames: Frames,
        gate: Gate,
        publishers: Publishers,
    ):
        self._node, self._transforms, self._lookups, self._frames = node, transforms, lookups, frames
        self._gate, self._publishers = gate, publishers
        self._camera, self._T_body_cam, self._newest = "", np.eye(4), 0
        entities.timer(1.0 / value_of(node, "transform_rate"), self._follow)

    def accepted(self, camera: str, T_body_cam: np.ndarray, stamp: int):
        """An image's pose has been published, of this camera, which is followed from now on."""
        self._camera, self._T_body_cam, self._newest = camera, T_body_cam, max(stamp, self._newest)

    def forget(self):
        """Follows nothing until the next accepted pose."""
        self._camera, self._newest = "", 0

    def _follow(self):
        """On the executor's thread: nothing here waits."""
        camera = self._camera
        if not (value_of(self._node, "follow_odometry") and camera and self._frames.odom):
            return
        try:
            T_odom_cam, stamp = self._transforms.latest(self._frames.odom, camera)
            if stamp <= self._newest:
                return
            expected = self._gate.predict(stamp, T_odom_cam, self._T_body_cam)
            if expected is None or self._gate.state != State.LOCALIZED:
                return
            T, covariance = self._lookups.published_pose(*expected, camera, stamp, patience=0)
        except TransformError:  # the next one may be there
            return
        self._newest = stamp
        self._publishers.pose(T, covariance, self._frames.map, stamp)
