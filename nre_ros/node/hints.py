# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the robot is said to be: by ``initialpose``, or by the file that the last run has left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile

from nre_ros.errors import NreError, PoseError
from nre_ros.gate.gate import Gate
from nre_ros.gate.last_pose import LastPose
from nre_ros.geometry import covariance_of_frame, invert
from nre_ros.node.broadcasting import FrameLookups, Frames
from nre_ros.node.conversions import matrix_of_pose, stamp_nanoseconds
from nre_ros.node.entities import Entities
from nre_ros.node.parameters import value_of
from nre_ros.node.seldom import SeldomLog
from nre_ros.node.transforms import TransformError
from nre_ros.pose_faults import covariance_fault

_SAVE_SECONDS = 2.0
"""Between two writings of the last pose."""
_MOVED_METRES, _MOVED_RADIANS = 0.5, 0.35
"""By so much (one standard deviation) a robot may be moved while it is switched off."""


@dataclass(frozen=True, eq=False)
class Hint:
    """T [4, 4] of ``frame`` (empty: the camera) in ``parent`` and its covariance [6, 6] in that frame's axes.

    stamp: nanoseconds, 0: of now.  source: who says so, in words.
    """

    T: np.ndarray
    covariance: np.ndarray
    parent: str
    frame: str
    stamp: int
    source: str


class Hints:
    """Keeps the newest hint until an image comes that can be judged by it.

    forget: called when a hint makes all that was believed before obsolete.
    """

    def __init__(self, node: Node, entities: Entities, lookups: FrameLookups, frames: Frames, forget: Callable):
        self._logger, self._lookups, self._frames, self._forget = node.get_logger(), lookups, frames, forget
        self._pending: Hint | None = None
        self._lock = threading.Lock()
        self._given = 0  # counts how often a hint was replaced
        entities.subscription(PoseWithCovarianceStamped, "initialpose", self._on_initialpose, QoSProfile(depth=1))

    @property
    def pending(self) -> bool:
        """Whether one waits for the next image; where odometry had the robot then decides what it is worth later."""
        return self._pending is not None

    def give(self, hint: Hint | None):
        """Replaces the pending hint, and one that is just being told; None: there is none."""
        with self._lock:
            self._pending = hint
            self._given += 1

    def tell(self, gate: Gate, camera: str, stamp: int, T_odom_cam: np.ndarray | None, T_body_cam: np.ndarray):
        """Hands the pending hint to the gate, as the pose of its body at the image's stamp or before."""
        with self._lock:
            hint, self._pending, given = self._pending, None, self._given
        if hint is None:
            return
        try:
            T_map_cam, covariance = self._of_camera(hint, camera, stamp)
            if 0 < hint.stamp <= stamp:
                stamp, T_odom_cam = self._at_its_time(hint, camera, stamp, T_odom_cam)
            T_cam_body = invert(T_body_cam)
            covariance = covariance_of_frame(covariance, T_map_cam, T_cam_body)
            T_odom_body = None if T_odom_cam is None else T_odom_cam @ T_cam_body
            with self._lock:
                if given != self._given:  # forgotten while TF was asked
                    return
                gate.hint(T_map_cam @ T_cam_body, covariance, stamp, T_odom_body)
        except NreError as error:
            self._logger.warning(f"{hint.source} is refused: {error}")
            return
        x, y, z = T_map_cam[:3, 3]
        self._logger.info(f"by {hint.source} the camera is at {x:.2f} {y:.2f} {z:.2f} in {self._frames.map}")

    def _on_initialpose(self, message: PoseWithCovarianceStamped):
        try:
            T = matrix_of_pose(message.pose.pose)
            covariance = np.reshape(message.pose.covariance, (6, 6))
            fault = covariance_fault("its covariance", covariance)
            if fault:
                raise PoseError(fault)
        except PoseError as error:
            self._logger.warning(f"initialpose is refused: {error}")
            return
        stamp = stamp_nanoseconds(message.header.stamp)
        self._forget("by initialpose the robot is said to be elsewhere")
        self.give(Hint(T, covariance, message.header.frame_id, self._frames.base, stamp, "initialpose"))

    def _of_camera(self, hint: Hint, camera: str, stamp: int) -> tuple[np.ndarray, np.ndarray]:
        """The camera's pose in the map by the hint, and its covariance."""
        T, covariance, frames = hint.T, hint.covariance, self._frames
        if hint.parent not in ("", frames.map):
            T_map_parent = self._lookups.between(
                frames.map, hint.parent, hint.stamp or stamp, f"it is in {hint.parent}, not in the map"
            )
            R = np.kron(np.eye(2), T_map_parent[:3, :3])
            T, covariance = T_map_parent @ T, R @ covariance @ R.T
        if hint.frame in ("", camera):
            return T, covariance
        T_frame_cam = self._lookups.between(hint.frame, camera, stamp, "no pose of the camera")
        return T @ T_frame_cam, covariance_of_frame(covariance, T, T_frame_cam)

    def _at_its_time(self, hint: Hint, camera: str, stamp: int, T_odom_cam) -> tuple[int, np.ndarray | None]:
        """The hint's stamp with odometry then, so that what was driven since counts; else the image's."""
        try:
            return hint.stamp, self._lookups.odometry(camera, hint.stamp, patience=0)
        except TransformError:
            return stamp, T_odom_cam


class LastPoseFile:
    """The file of the last accepted pose (parameter ``last_pose_file``): read at the start, kept up to date."""

    def __init__(self, node: Node, frames: Frames):
        self._path, self._frames, self._logger = value_of(node, "last_pose_file"), frames, node.get_logger()
        self._log = SeldomLog(self._logger)
        self._unsaved: LastPose | None = None
        self._saved = 0.0

    def hint(self) -> Hint | None:
        """What the file says; None without one, and where it speaks of another map (which is logged)."""
        if not self._path:
            return None
        try:
            last = LastPose.load(self._path)
        except NreError as error:
            self._logger.warning(str(error))
            return None
        if last is None:
            return None
        if last.map_frame != self._frames.map:
            self._logger.warning(f"{self._path} tells of a pose in {last.map_frame}, not in {self._frames.map}")
            return None
        moved = np.diag([_MOVED_METRES**2] * 3 + [_MOVED_RADIANS**2] * 3)
        return Hint(last.T_map_cam, last.covariance + moved, "", last.camera_frame, 0, f"{self._path}")

    def accepted(self, T_map_cam: np.ndarray, covariance: np.ndarray, camera: str, stamp: int):
        """Takes an accepted pose; it is written at once if the last writing is some seconds ago."""
        if self._path:
            self._unsaved = LastPose(T_map_cam, covariance, self._frames.map, camera, stamp)
            if time.monotonic() - self._saved > _SAVE_SECONDS:
                self.save()

    def save(self):
        """Writes what has not been written yet; a failure is logged."""
        last, self._unsaved = self._unsaved, None
        if last is None:
            return
        self._saved = time.monotonic()
        try:
            last.save(self._path)
        except NreError as error:
            self._log.warning(str(error))
