# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Reads a ground-truth trajectory from a pose or odometry topic of a bag."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rosbags.highlevel import AnyReader
from scipy.spatial.transform import Rotation

from nre_ros.errors import EvaluationError, NreError, PoseError
from nre_ros.evaluation.ground_truth import GroundTruth, GroundTruthEntries
from nre_ros.geometry import pose_matrix
from nre_ros.keyframes.importers.bag.topics import POSE_TYPES
from nre_ros.keyframes.importers.pose_checks import check_quaternion
from nre_ros.messages.bag import choose_topic
from nre_ros.messages.damaged_bag import open_readable, readable_messages
from nre_ros.messages.frame_ids import frame_name
from nre_ros.messages.stamps import stamp_in_recording
from nre_ros.messages.transform_buffer import TransformBuffer


def read_topic(path: Path | str, topic: str, camera_frame: str = "") -> GroundTruth:
    """Reads the poses of a topic of type PoseStamped, PoseWithCovarianceStamped or Odometry.

    Where the child frame of an Odometry message is not the camera's frame, the static transforms of the bag convert
    the pose to the camera.

    Args:
        path: Bag to read.
        topic: Topic to read.
        camera_frame: Frame of the images.

    Returns:
        The trajectory.

    Raises:
        NreError: There is no such topic (the message lists the topics of the bag), the frame changes within the topic,
            or no pose is valid.
    """
    entries = GroundTruthEntries()
    frames: dict[str, bool] = {}  # a set that keeps its order
    reader, _ = open_readable(path)
    with closing(reader):
        found = {connection.topic: connection.msgtype for connection in reader.connections}
        choose_topic(path, found, POSE_TYPES, topic, "ground truth")
        to_camera = _StaticTransforms(reader, camera_frame)
        connections = [connection for connection in reader.connections if connection.topic == topic]
        for connection, log_time, raw in readable_messages(reader, connections, []):
            message: Any = reader.deserialize(raw, connection.msgtype)
            pose = message.pose if connection.msgtype == POSE_TYPES[0] else message.pose.pose
            p, q = pose.position, pose.orientation
            numbers = np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w])
            problem = _problem(numbers)
            if problem:
                entries.reject(problem)
                continue
            frames[frame_name(message.header.frame_id)] = True
            entries.add(
                stamp_in_recording(message, log_time),
                to_camera.camera_pose(numbers, getattr(message, "child_frame_id", "")),
            )
    if len(frames) > 1:
        raise EvaluationError(f"ground truth {topic}: the frame changes within the topic ({', '.join(frames)})")
    return entries.trajectory(topic, next(iter(frames), ""))


def _problem(numbers: npt.NDArray[np.float64]) -> str:
    if not np.isfinite(numbers).all():
        return f"pose is not finite: {numbers.tolist()}"
    try:
        check_quaternion(numbers[3:])
    except PoseError as error:
        return str(error)
    return ""


class _StaticTransforms:
    """Converts poses of a robot frame to poses of the camera with the static transforms of a bag."""

    def __init__(self, reader: AnyReader, camera_frame: str) -> None:
        self._camera_frame = frame_name(camera_frame)
        self._buffer = TransformBuffer()
        self._T_child_cam: dict[str, npt.NDArray[np.float64]] = {}
        connections = [connection for connection in reader.connections if connection.topic.endswith("/tf_static")]
        self._has_static = bool(connections)
        for connection, _, raw in reader.messages(connections) if connections else ():
            message: Any = reader.deserialize(raw, connection.msgtype)
            for item in message.transforms:
                t, q = item.transform.translation, item.transform.rotation
                self._buffer.insert(
                    0, item.header.frame_id, item.child_frame_id, [t.x, t.y, t.z], [q.x, q.y, q.z, q.w], static=True
                )

    def camera_pose(self, numbers: npt.NDArray[np.float64], child: str) -> npt.NDArray[np.float64]:
        """The camera's pose x y z qx qy qz qw for the pose of the frame ``child``."""
        child = frame_name(child)
        if not child or not self._camera_frame or child == self._camera_frame:
            return numbers
        if child not in self._T_child_cam:
            try:
                self._T_child_cam[child] = self._buffer.lookup(child, self._camera_frame, 0)
            except NreError as error:
                cure = (
                    ""
                    if self._has_static
                    else "; the bag has no /tf_static, which is sent once: record it from the start"
                )
                raise EvaluationError(
                    f"ground truth of frame {child} cannot be converted to the camera's {self._camera_frame}: {error}{cure}"
                ) from error
        T = pose_matrix(numbers[:3], numbers[3:]) @ self._T_child_cam[child]
        return np.r_[T[:3, 3], Rotation.from_matrix(T[:3, :3]).as_quat()]
