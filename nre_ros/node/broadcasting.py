# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""From the camera's pose to TF and to the frame that the pose topics speak of."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import numpy as np
from rclpy.node import Node

from nre_ros.geometry import covariance_of_frame
from nre_ros.node.entities import Entities
from nre_ros.node.parameters import value_of
from nre_ros.node.transforms import TransformError, Transforms


@dataclass(frozen=True)
class Frames:
    """Names of the frames; empty ones as ``declarations`` describes them."""

    map: str
    odom: str
    base: str
    camera: str
    pose: str

    @classmethod
    def of(cls, node: Node, map_frame: str) -> Frames:
        """From the parameters; ``map_frame``: the name in the map file."""
        names = {name: value_of(node, f"{name}_frame") for name in ("map", "odom", "base", "camera", "pose")}
        several = (
            len(value_of(node, "cameras")) > 1
        )  # whose poses would follow each other without a word which is whose
        pose = names["pose"] or (names["base"] if several else "")
        return cls(**{**names, "map": names["map"] or map_frame, "pose": pose})

    @property
    def child(self) -> str:
        """What the map is connected with on /tf; empty: the camera."""
        return self.odom or self.base


class Correction:
    """The latest map->odom, broadcast by a timer and dated into the future (REP-105).

    Nothing is broadcast before the first ``update``, nor without a running clock.
    """

    def __init__(self, node: Node, entities: Entities, transforms: Transforms, frames: Frames):
        self._node, self._transforms, self._frames = node, transforms, frames
        self._lock = threading.Lock()
        self._T_map_odom: np.ndarray | None = None
        self._last = 0
        entities.timer(1.0 / value_of(node, "transform_rate"), self.broadcast)

    def update(self, T_map_odom: np.ndarray):
        """Takes a new correction and broadcasts it at once."""
        with self._lock:
            self._T_map_odom = T_map_odom
        self.broadcast()

    def forget(self):
        """Ends the broadcasts until the next ``update``."""
        with self._lock:
            self._T_map_odom, self._last = None, 0

    def broadcast(self):
        """Broadcasts the correction, unless a paused clock would repeat a stamp."""
        now = self._node.get_clock().now().nanoseconds
        if now == 0 or not value_of(self._node, "publish_tf"):
            return
        with self._lock:
            if self._T_map_odom is None or now <= self._last:
                return
            self._last = now
            stamp = now + round(value_of(self._node, "transform_tolerance") * 1e9)
            self._transforms.broadcast(self._T_map_odom, self._frames.map, self._frames.odom, stamp)


class FrameLookups:
    """What TF has to say about one image.  All methods raise ``TransformError`` with the consequence."""

    def __init__(self, node: Node, transforms: Transforms, frames: Frames, several_cameras: bool = False):
        self._node, self._transforms, self._frames, self._several = node, transforms, frames, several_cameras

    def camera_on_body(self, camera: str, stamp: int) -> np.ndarray:
        """``T_body_cam`` [4, 4] in the body that moves: the robot's base; the camera itself, where there is one."""
        return self.between(self._frames.base, camera, stamp, "no pose") if self._several else np.eye(4)

    def between(self, target: str, source: str, stamp: int, consequence: str) -> np.ndarray:
        """``T_target_source`` [4, 4]."""
        return self._look_up(consequence, target, source, stamp)

    def odometry(self, camera: str, stamp: int, patience: float = math.inf) -> np.ndarray | None:
        """``T_odom_cam`` [4, 4] at the image's stamp; None where the robot has no odometry.

        patience: seconds to wait for it at most, and no longer than ``transform_timeout``.
        """
        frames = self._frames
        if not frames.odom:
            return None
        return self._look_up(f"no {frames.map} -> {frames.odom}", frames.odom, camera, stamp, patience)

    def published_pose(
        self, T_map_cam: np.ndarray, covariance: np.ndarray, camera: str, stamp: int, patience: float = math.inf
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pose [4, 4] and covariance [6, 6] of ``pose_frame``, or of the camera where that is empty."""
        frame = self._frames.pose
        if frame in ("", camera):
            return T_map_cam, covariance
        T_cam_frame = self._look_up("no pose", camera, frame, stamp, patience)
        return T_map_cam @ T_cam_frame, covariance_of_frame(covariance, T_map_cam, T_cam_frame)

    def broadcast_child(self, T_map_cam: np.ndarray, camera: str, stamp: int):
        """Broadcasts map->base or map->camera at the image's stamp, where there is no odometry."""
        frames, child = self._frames, self._frames.base or camera
        T_cam_child = self._look_up(f"no {frames.map} -> {child or 'camera'}", camera, child, stamp)
        self._transforms.broadcast(T_map_cam @ T_cam_child, frames.map, child, stamp)

    def _look_up(
        self, consequence: str, target: str, source: str, stamp: int, patience: float = math.inf
    ) -> np.ndarray:
        if not (target and source):
            raise TransformError(f"{consequence}: neither image nor camera_info has a frame_id, set camera_frame")
        timeout = min(value_of(self._node, "transform_timeout"), patience)
        try:
            return self._transforms.lookup(target, source, stamp, timeout)
        except TransformError as error:
            raise TransformError(f"{consequence}: {error}") from None
