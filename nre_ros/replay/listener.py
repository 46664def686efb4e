# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The listener of a replay: writes the node's messages to a file, ``python -m nre_ros.replay.listener FILE.jsonl``.

Each line is a JSON object with the time of arrival by the machine's monotonic clock, which all processes share. The
events are ``status`` and ``pose`` messages, and transforms from the map frame (``transform``).
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

from nre_ros import ros_environment

if TYPE_CHECKING:
    from geometry_msgs.msg import Pose, PoseStamped
    from rclpy.node import Node
    from tf2_msgs.msg import TFMessage

    from nre_ros.msg import LocalizationStatus

READY = "listening"
"""What the process prints when its subscriptions exist."""


def main() -> int:
    """Writes until the process is asked to end; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", metavar="FILE.jsonl", help="file to write")
    arguments = parser.parse_args()
    ros_environment.prepare()
    import rclpy
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rclpy.init(args=[])
    node = rclpy.create_node("replay_listener")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    with open(arguments.output, "w", encoding="utf-8") as file:
        _EventWriter(file).subscribe(node)
        print(READY, flush=True)
        try:
            executor.spin()
        except (KeyboardInterrupt, ExternalShutdownException):
            pass
    rclpy.try_shutdown()
    return 0


class _EventWriter:
    """Writes one line for each message."""

    def __init__(self, file: TextIO):
        from nre_ros.node.conversions import stamp_nanoseconds

        self._file = file
        self._stamp = stamp_nanoseconds
        self._map_frames: set[str] = set()

    def subscribe(self, node: Node) -> None:
        """Subscribes to the node's topics."""
        from geometry_msgs.msg import PoseStamped
        from tf2_msgs.msg import TFMessage

        from nre_ros.msg import LocalizationStatus

        node.create_subscription(LocalizationStatus, "status", self._on_status, 100)
        node.create_subscription(PoseStamped, "pose", self._on_pose, 100)
        node.create_subscription(TFMessage, "/tf", self._on_transforms, 100)

    def _on_status(self, message: LocalizationStatus) -> None:
        self._map_frames.add(message.header.frame_id)
        self._write(
            event="status",
            stamp=self._stamp(message.header.stamp),
            success=message.pose_valid,
            state=message.state,
            confidence=message.confidence,
            reason=message.reason,
            points_used=message.points_used,
            **_pose_fields(message.pose.pose),
            covariance=message.pose.covariance.tolist(),
            milliseconds=dict(zip(message.stages, message.stage_milliseconds)),
            total_milliseconds=message.total_milliseconds,
            images_received=message.images_received,
            metres=message.metres,
            mahalanobis=message.mahalanobis,
            jump=message.jump,
        )

    def _on_pose(self, message: PoseStamped) -> None:
        self._write(event="pose", stamp=self._stamp(message.header.stamp), **_pose_fields(message.pose))

    def _on_transforms(self, message: TFMessage) -> None:
        for t in message.transforms:
            if t.header.frame_id in self._map_frames:
                p, q = t.transform.translation, t.transform.rotation
                self._write(
                    event="transform",
                    stamp=self._stamp(t.header.stamp),
                    child=t.child_frame_id,
                    position=[p.x, p.y, p.z],
                    quaternion=[q.x, q.y, q.z, q.w],
                )

    def _write(self, **event: Any) -> None:
        self._file.write(json.dumps({**event, "monotonic": time.monotonic()}) + "\n")
        self._file.flush()


def _pose_fields(pose: Pose) -> dict[str, list[float]]:
    p, q = pose.position, pose.orientation
    return {"position": [p.x, p.y, p.z], "quaternion": [q.x, q.y, q.z, q.w]}


if __name__ == "__main__":
    sys.exit(main())
