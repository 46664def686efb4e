# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Writes down what the node says: ``python -m nre_ros.replay.listener OUTPUT.jsonl``.

One JSON object a line, with the time of arrival by the machine's monotonic clock, which all
processes share: ``status`` and ``pose`` messages, the transforms from the map frame, and once the
``camera``.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from contextlib import suppress
from dataclasses import asdict

from nre_ros import ros_environment


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output")
    parser.add_argument("--camera-info", required=True, metavar="TOPIC")
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
        _subscribe(node, file, arguments.camera_info)
        print("listening", flush=True)
        try:
            executor.spin()
        except (KeyboardInterrupt, ExternalShutdownException):
            pass
    rclpy.try_shutdown()
    return 0


def _subscribe(node, file, camera_info: str) -> None:
    from geometry_msgs.msg import PoseStamped
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import CameraInfo
    from tf2_msgs.msg import TFMessage

    from nre_ros.errors import CameraError
    from nre_ros.messages.camera_info import camera_from_info
    from nre_ros.msg import LocalizationStatus
    from nre_ros.node.conversions import stamp_nanoseconds

    map_frames = set()
    cameras = []

    def write(**event):
        file.write(json.dumps({**event, "monotonic": time.monotonic()}) + "\n")
        file.flush()

    def on_status(message):
        map_frames.add(message.header.frame_id)
        write(
            event="status",
            stamp=stamp_nanoseconds(message.header.stamp),
            success=message.pose_valid,
            state=message.state,
            confidence=message.confidence,
            reason=message.reason,
            points_used=message.points_used,
            **_pose(message.pose.pose),
            covariance=message.pose.covariance.tolist(),
            milliseconds=dict(zip(message.stages, message.stage_milliseconds)),
            total_milliseconds=message.total_milliseconds,
            images_received=message.images_received,
            metres=message.metres,
            mahalanobis=message.mahalanobis,
            jump=message.jump,
        )

    def on_transforms(message):
        for t in message.transforms:
            if t.header.frame_id in map_frames:
                p, q = t.transform.translation, t.transform.rotation
                write(
                    event="transform",
                    stamp=stamp_nanoseconds(t.header.stamp),
                    child=t.child_frame_id,
                    position=[p.x, p.y, p.z],
                    quaternion=[q.x, q.y, q.z, q.w],
                )

    def on_camera_info(message):
        if not cameras:
            with suppress(CameraError):  # the node says what is wrong with it; a later one may be right
                cameras.append(camera_from_info(message))
                write(event="camera", **asdict(cameras[0]))

    node.create_subscription(CameraInfo, camera_info, on_camera_info, qos_profile_sensor_data)
    node.create_subscription(LocalizationStatus, "status", on_status, 100)
    node.create_subscription(
        PoseStamped,
        "pose",
        lambda message: write(event="pose", stamp=stamp_nanoseconds(message.header.stamp), **_pose(message.pose)),
        100,
    )
    node.create_subscription(TFMessage, "/tf", on_transforms, 100)


def _pose(pose) -> dict:
    p, q = pose.position, pose.orientation
    return {"position": [p.x, p.y, p.z], "quaternion": [q.x, q.y, q.z, q.w]}


if __name__ == "__main__":
    sys.exit(main())
