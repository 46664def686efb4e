# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The camera of the benchmark ``node``: one raw image at 30 Hz, odometry at rest; python node_camera.py IMAGE CAMERA."""

from __future__ import annotations

import array
import json
import sys
import time
from pathlib import Path

RATE = 30.0
OPTICAL = "camera_optical_frame"


def main(picture: str, intrinsics: str) -> int:
    """Publishes until the process is ended; returns the exit code."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from nre_ros import ros_environment

    ros_environment.prepare()
    import cv2
    import numpy as np
    import rclpy
    from rclpy.executors import ExternalShutdownException
    from sensor_msgs.msg import CameraInfo, Image
    from tf2_msgs.msg import TFMessage

    from nre_ros.node.conversions import transform_message

    rclpy.init(args=[])
    node = rclpy.create_node("camera")
    publishers = [
        node.create_publisher(*what)
        for what in ((Image, "image", 1), (CameraInfo, "camera_info", 1), (TFMessage, "/tf", 10))
    ]
    pixels = cv2.imread(picture)
    image = Image(
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding="bgr8",
        step=3 * pixels.shape[1],
        data=array.array("B", pixels.tobytes()),
    )
    info = CameraInfo(**json.loads(intrinsics))
    image.header.frame_id = info.header.frame_id = OPTICAL
    due = time.monotonic()
    try:
        while rclpy.ok():
            stamp = node.get_clock().now()
            image.header.stamp = info.header.stamp = stamp.to_msg()
            odometry = transform_message(np.eye(4), "odom", OPTICAL, stamp.nanoseconds)
            for publisher, message in zip(publishers, (image, info, TFMessage(transforms=[odometry]))):
                publisher.publish(message)
            due += 1 / RATE
            time.sleep(max(0.0, due - time.monotonic()))
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
