# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Initial poses: stated on the topic ``initialpose``, or read from the file that the last run has left."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile

from nre_ros.errors import NreError, PoseError
from nre_ros.gate.gate import Gate
from nre_ros.gate.hypotheses import body_odometry
from nre_ros.gate.last_pose import LastPose
from nre_ros.gate.observation import Observation
from nre_ros.geometry import covariance_of_frame, invert
from nre_ros.messages.frame_ids import frame_name
from nre_ros.node.conversions import matrix_of_pose, stamp_nanoseconds
from nre_ros.node.interfaces import RosInterfaces
from nre_ros.node.logs import ThrottledLogger
from nre_ros.node.parameters import value_of
from nre_ros.node.start_checks import user_path
from nre_ros.node.tf import FrameLookups, Frames, TransformError
from nre_ros.pose_faults import covariance_fault

_SAVE_SECONDS, _END_SECONDS = 2.0, 0.2
"""Between two writings of the last pose; for the end of its thread, which does not write, at least."""
_MOVED_METRES, _MOVED_RADIANS = 0.5, 0.35
"""Distance and angle (one standard deviation) that a robot may be moved by while it is switched off."""


@dataclass(frozen=True, eq=False)
class InitialPose:
    """A pose that a user or the last run states.

    Attributes:
        T: Pose [4, 4] of ``frame`` in the map.
        covariance: [6, 6] of (x, y, z, rotation about x, y, z) in the map's axes.
        frame: Empty: the camera.
        stamp: Nanoseconds, 0: now.
        source: Where the pose comes from, for log messages.
        epoch: How often the node had forgotten its pose; images that arrived before are not compared with this one.
    """

    T: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]
    frame: str
    stamp: int
    source: str
    epoch: int = 0


class InitialPoseInput:
    """Keeps the newest initial pose until the next image, whose odometry tells how the robot has moved since."""

    def __init__(
        self,
        node: Node,
        interfaces: RosInterfaces,
        lookups: FrameLookups,
        frames: Frames,
        forget: Callable[[str], int],
    ) -> None:
        """Subscribes to ``initialpose``.

        Args:
            node: The node.
            interfaces: Where the subscription is created.
            lookups: For poses in other frames than the map.
            frames: Names of the frames.
            forget: Called with the reason when a new pose makes everything before obsolete; returns the new epoch.
        """
        self._logger, self._lookups, self._frames, self._forget = node.get_logger(), lookups, frames, forget
        self._pending: InitialPose | None = None
        self._lock = threading.Lock()
        self._replaced = 0  # how often the pending pose was replaced
        self._camera_frame = ""  # of the newest image
        interfaces.subscription(PoseWithCovarianceStamped, "initialpose", self._on_initialpose, QoSProfile(depth=1))

    @property
    def pending(self) -> bool:
        """Whether a pose waits for the next image."""
        return self._pending is not None

    def set(self, pose: InitialPose | None) -> None:
        """Replaces the pending pose, also while ``apply`` is at work.

        Args:
            pose: The new pose; None: no pose is pending any more.
        """
        with self._lock:
            self._pending = pose
            self._replaced += 1

    def apply(self, gate: Gate, observation: Observation) -> None:
        """Hands the pending pose to the gate, as the pose of its body at the image's stamp or before.

        A pose that cannot be used is logged, and the gate is left as it was.

        Args:
            gate: The validation gate.
            observation: The next image, with its extrinsics and odometry.
        """
        self._camera_frame = observation.camera_frame
        with self._lock:
            pose, replaced = self._pending, self._replaced
            if pose is None or observation.epoch < pose.epoch:
                return
            self._pending = None
        try:
            T_map_cam, covariance = self._pose_of_camera(pose, observation)
            then = self._observation_at(pose, observation)
            T_cam_base = invert(observation.T_base_cam)
            covariance = covariance_of_frame(covariance, T_map_cam, T_cam_base)
            with self._lock:
                if replaced != self._replaced:  # forgotten or replaced while TF was asked
                    return
                gate.set_initial_pose(T_map_cam @ T_cam_base, covariance, then.stamp, body_odometry(then))
        except NreError as error:
            self._logger.warning(f"{pose.source} is rejected: {error}")
            return
        x, y, z = T_map_cam[:3, 3]
        self._logger.info(f"{pose.source}: initial pose of the camera at {x:.2f} {y:.2f} {z:.2f} in {self._frames.map}")

    def _on_initialpose(self, message: PoseWithCovarianceStamped) -> None:
        try:
            T, covariance = self._stated(message)
        except NreError as error:  # whatever is known stays
            self._logger.warning(f"initialpose is rejected: {error}")
            return
        stamp = stamp_nanoseconds(message.header.stamp)
        epoch = self._forget("initialpose was received")
        self.set(InitialPose(T, covariance, self._frames.base, stamp, "initialpose", epoch))

    def _stated(self, message: PoseWithCovarianceStamped) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Pose [4, 4] in the map and covariance [6, 6] of a message, by the TF of now.

        Raises:
            NreError: The message is invalid, or TF does not connect its frame with the map or the robot with the camera.
        """
        T, frames = matrix_of_pose(message.pose.pose), self._frames
        covariance = np.reshape(message.pose.covariance, (6, 6))
        fault = covariance_fault("its covariance", covariance)
        if fault:
            raise PoseError(fault)
        if self._camera_frame and frames.base not in ("", self._camera_frame):
            self._lookups.now_between(frames.base, self._camera_frame, 0, "no pose of the camera")
        frame, stamp = frame_name(message.header.frame_id), stamp_nanoseconds(message.header.stamp)
        if frame in ("", frames.map):
            return T, covariance
        T_map_frame = self._lookups.now_between(frames.map, frame, stamp, f"it is in {frame}, not in the map")
        R = np.kron(np.eye(2), T_map_frame[:3, :3])
        return T_map_frame @ T, R @ covariance @ R.T

    def _pose_of_camera(
        self, pose: InitialPose, observation: Observation
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Pose [4, 4] of the camera in the map, and its covariance [6, 6]."""
        T, covariance = pose.T, pose.covariance
        camera, stamp = observation.camera_frame, observation.stamp
        if pose.frame in ("", camera):
            return T, covariance
        T_frame_cam = self._lookups.between(pose.frame, camera, stamp, "no pose of the camera")
        return T @ T_frame_cam, covariance_of_frame(covariance, T, T_frame_cam)

    def _observation_at(self, pose: InitialPose, observation: Observation) -> Observation:
        """Stamp and odometry of the pose, so that the robot's motion since then counts; else those of the image."""
        if not 0 < pose.stamp <= observation.stamp:
            return observation
        try:
            T_odom_cam = self._lookups.odometry(observation.camera_frame, pose.stamp, patience=0)
        except TransformError:
            return observation
        return replace(observation, stamp=pose.stamp, T_odom_cam=T_odom_cam)


class LastPoseFile:
    """The file of the last accepted pose (parameter ``last_pose_file``): read at the start, kept up to date.

    A thread of its own writes it, which begins with the first pose: to write a file safely takes long on flash memory.
    May be used by several threads.
    """

    def __init__(self, node: Node, frames: Frames) -> None:
        given = value_of(node, "last_pose_file")
        self._path, self._frames, self._logger = given and str(user_path(given)), frames, node.get_logger()
        self._log = ThrottledLogger(self._logger)
        self._changed = threading.Condition()
        self._unsaved: LastPose | None = None
        self._stopped = False
        # daemon: a file system that hangs must not keep the process alive
        self._thread = threading.Thread(target=self._run, name="last pose", daemon=True)

    def read(self) -> InitialPose | None:
        """Reads the pose in the file.

        Returns None without a file, and for a file that is damaged or of another map (logged).
        """
        if not self._path:
            return None
        try:
            last = LastPose.load(self._path)
        except NreError as error:
            self._logger.warning(str(error))
            return None
        if last is None:
            return None
        if frame_name(last.map_frame) != self._frames.map:
            self._logger.warning(f"{self._path} has a pose in {last.map_frame}, not in {self._frames.map}")
            return None
        moved = np.diag([_MOVED_METRES**2] * 3 + [_MOVED_RADIANS**2] * 3)
        return InitialPose(last.T_map_cam, last.covariance + moved, frame_name(last.camera_frame), 0, f"{self._path}")

    def update(
        self, T_map_cam: npt.NDArray[np.float64], covariance: npt.NDArray[np.float64], camera: str, stamp: int
    ) -> None:
        """Records an accepted pose, which is written when the last writing is some seconds ago; does not wait.

        Args:
            T_map_cam: Pose [4, 4] of the camera in the map.
            covariance: [6, 6] of (x, y, z, rotation about x, y, z) in the map's axes.
            camera: Name of the camera's optical frame.
            stamp: Nanoseconds.
        """
        if not self._path:
            return
        with self._changed:
            self._unsaved = LastPose(T_map_cam, covariance, self._frames.map, camera, stamp)
            if self._thread.ident is None:
                self._thread.start()
            self._changed.notify()

    def forget(self) -> None:
        """Leaves the file as it is until the next accepted pose."""
        with self._changed:
            self._unsaved = None

    def close(self, timeout: float | None = None) -> None:
        """Writes the pose that has not been written yet.

        Args:
            timeout: Seconds to wait for a writing under way; None: however long it takes.
        """
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(None if timeout is None else max(timeout, _END_SECONDS))
            if not self._thread.is_alive():
                self._save()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._unsaved is not None)
                if self._stopped:
                    return
            self._save()
            with self._changed:
                self._changed.wait_for(lambda: self._stopped, _SAVE_SECONDS)

    def _save(self) -> None:
        """Writes the pose that has not been written yet; a failure is logged."""
        with self._changed:
            last, self._unsaved = self._unsaved, None
        if last is None:
            return
        try:
            last.save(self._path)
        except NreError as error:
            self._log.warning(str(error))
