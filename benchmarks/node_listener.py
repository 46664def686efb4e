# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The listener of the benchmark ``node``: measures when the node's poses arrive."""

from __future__ import annotations

import time
from collections.abc import Callable

NODE_STAGES = ("decode", "odometry", "publish")
"""Stages of an image that belong to the node, not to the estimator."""
_SAMPLE_SECONDS = 2.0


def listen(seconds: float, usage: Callable[[], tuple[float, int]]) -> tuple[list[dict], list[tuple[float, float, int]]]:
    """Listens to the node.

    Args:
        seconds: how long, after the first pose.
        usage: reads resident megabytes and threads of the node.

    Returns:
        For each pose ``delay`` (ms from its stamp to its arrival) and ``estimator`` (ms of the estimator's stages), and
        every two seconds the time, resident megabytes and threads of the node.
    """
    from nre_ros import ros_environment

    ros_environment.set_prefix_path()
    import rclpy
    from geometry_msgs.msg import PoseStamped
    from nre_ros.msg import LocalizationStatus

    from nre_ros.node.conversions import stamp_nanoseconds

    rclpy.init(args=[])
    node = rclpy.create_node("stream_listener")
    delays: dict[int, float] = {}
    estimators: dict[int, float] = {}

    def on_pose(message):
        stamp = stamp_nanoseconds(message.header.stamp)
        delays[stamp] = (node.get_clock().now().nanoseconds - stamp) / 1e6

    def on_status(message):
        stages = dict(zip(message.stages, message.stage_milliseconds))
        own = sum(value for name, value in stages.items() if name not in NODE_STAGES)
        estimators[stamp_nanoseconds(message.header.stamp)] = own

    node.create_subscription(PoseStamped, "pose", on_pose, 100)
    node.create_subscription(LocalizationStatus, "status", on_status, 100)
    deadline = time.monotonic() + 120
    while not delays and time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.1)
    began, samples = time.monotonic(), []
    while (now := time.monotonic()) - began < seconds and delays:
        rclpy.spin_once(node, timeout_sec=0.1)
        if not samples or now - began - samples[-1][0] >= _SAMPLE_SECONDS:
            samples.append((now - began, *usage()))
    node.destroy_node()
    rclpy.shutdown()
    stamps = sorted(delays.keys() & estimators.keys())
    return [{"delay": delays[stamp], "estimator": estimators[stamp]} for stamp in stamps], samples
