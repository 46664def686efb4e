# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The topic ``path``: where the robot has been, by the poses that were believed."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
from rclpy.node import Node
from std_msgs.msg import Header

from nre_ros.node.conversions import pose_message, stamp_message
from nre_ros.node.parameters import value_of
from nre_ros.node.topics import Topic


class PathOutput:
    """Collects poses; ``publish`` is called by a timer, not with each pose: a long path takes long to send."""

    def __init__(self, node: Node, frame: str):
        self._node, self._frame = node, frame
        self._topic = Topic(node, Path, "path", latched=True)
        self._lock = threading.Lock()
        self._poses: deque[PoseStamped] = deque()
        self._last: np.ndarray | None = None
        self._changed = False

    def clear(self) -> None:
        """Begins anew: time went back, or another map was loaded."""
        with self._lock:
            self._changed = bool(self._poses)
            self._poses.clear()
            self._last = None

    def update(self, T_map: np.ndarray, stamp: int) -> None:
        """Adds a believed pose [4, 4] at ``stamp`` nanoseconds, unless it is close to the last one."""
        spacing, length = value_of(self._node, "path_spacing"), value_of(self._node, "path_length")
        with self._lock:
            if self._last is not None and np.linalg.norm(T_map[:3, 3] - self._last) < spacing:
                return
            self._last, self._changed = T_map[:3, 3].copy(), True
            header = Header(frame_id=self._frame, stamp=stamp_message(stamp))
            self._poses.append(PoseStamped(header=header, pose=pose_message(T_map)))
            while len(self._poses) > length:
                self._poses.popleft()

    def publish(self) -> None:
        """Sends the path where it has changed and somebody listens."""
        if not self._topic.wanted:
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
        self._topic.close()
