# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The frame of markers and point clouds, whose coordinates programs such as RViz compute in single precision."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.node.conversions import stamp_message, transform_message


class DisplayFrame:
    """The map's frame; for a map far from its origin, as in UTM coordinates, a frame at the origin of the map file.

    That frame is called ``<map frame>_origin``. It has the axes of the map's frame, and its transform is published on
    /tf_static. For the thread that may use the map.
    """

    def __init__(self, node: Node, map_frame: str) -> None:
        self._node, self._map_frame = node, map_frame
        self._publisher: Publisher | None = None
        self._published: npt.NDArray[np.float64] | None = None

    def header(self, store: KeyframeStore, stamp: int = 0) -> tuple[Header, npt.NDArray[np.float64]]:
        """Returns the header of a display message, and what its coordinates are relative to.

        Args:
            store: The open map.
            stamp: Nanoseconds; 0 for a message that is valid at any time.

        Returns:
            The header, and the origin [3] of its frame in the map's frame, to be subtracted from coordinates.

        Raises:
            MapError: The map cannot be read.
        """
        origin, frame = store.origin, self._map_frame
        if origin.any():
            frame = f"{self._map_frame}_origin"
            self._broadcast(origin, frame)
        return Header(frame_id=frame, stamp=stamp_message(stamp)), origin

    def close(self) -> None:
        """Ends the topic, if it was needed."""
        if self._publisher is not None:
            self._node.destroy_publisher(self._publisher)
            self._publisher = self._published = None

    def _broadcast(self, origin: npt.NDArray[np.float64], frame: str) -> None:
        """Publishes the transform once for each origin; /tf_static is latched."""
        if self._published is not None and np.array_equal(self._published, origin):
            return
        if self._publisher is None:
            qos = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            self._publisher = self._node.create_publisher(TFMessage, "/tf_static", qos)
        T = np.eye(4)
        T[:3, 3] = origin
        now = self._node.get_clock().now().nanoseconds
        self._publisher.publish(TFMessage(transforms=[transform_message(T, self._map_frame, frame, now)]))
        self._published = origin
