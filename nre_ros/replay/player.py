# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Plays a bag through DDS at its own pace: ``python -m nre_ros.replay.player BAG``.

Messages go out as the bytes that the bag holds, in the bag's order, with /clock for nodes that
use simulated time.  It begins when the topics to wait for have a listener, and tells on
standard output, one JSON object a line, when each image went out.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time

from nre_ros import ros_environment

_CLOCK_PERIOD = 0.025
"""40 Hz, what `ros2 bag play --clock` does by default."""
_DISCOVERY_SECONDS = 60.0
_SETTLE_SECONDS = 1.0
"""After the listeners have appeared: matching goes on for a moment on their side."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bag")
    parser.add_argument("--rate", type=float, default=1.0, help="times real time (default 1)")
    parser.add_argument("--image", required=True, help="topic whose messages are told about")
    parser.add_argument("--wait-for", nargs="*", default=[], metavar="TOPIC", help="begin when these have a listener")
    arguments = parser.parse_args()
    ros_environment.prepare()
    import rclpy
    from rclpy.executors import ExternalShutdownException

    rclpy.init(args=[])
    try:
        return _play(arguments)
    except (KeyboardInterrupt, ExternalShutdownException):
        return 130
    finally:
        rclpy.try_shutdown()


def _play(arguments) -> int:
    import rclpy

    from nre_ros.messages.bag import open_bag
    from nre_ros.messages.stamps import header_stamp

    node = rclpy.create_node("bag_player")
    with open_bag(arguments.bag) as reader:
        # a recorded /clock would contradict the player's own
        played = [connection for connection in reader.connections if connection.topic != "/clock"]
        publishers = {c.topic: p for c in played if (p := _publisher(node, c)) is not None}
        timeline = _Timeline(node, reader.start_time, arguments.rate)
        if not _wait_for_listeners([publishers[topic] for topic in arguments.wait_for if topic in publishers]):
            print(f"nobody listens to {', '.join(arguments.wait_for)}", file=sys.stderr)
            return 1
        timeline.begin()
        for connection, stamp, raw in reader.messages():
            timeline.wait_until(stamp)
            if connection.topic in publishers:
                publishers[connection.topic].publish(bytes(raw))
            if connection.topic == arguments.image:
                stamp = header_stamp(reader.deserialize(raw, connection.msgtype))
                _tell(event="image", stamp=stamp, monotonic=time.monotonic())
    time.sleep(_SETTLE_SECONDS)  # what is still in the queues goes out
    node.destroy_node()
    return 0


def _wait_for_listeners(publishers) -> bool:
    deadline = time.monotonic() + _DISCOVERY_SECONDS
    while not all(publisher.get_subscription_count() for publisher in publishers):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    time.sleep(_SETTLE_SECONDS)
    return True


class _Timeline:
    """The bag's time: keeps the pace and publishes it on /clock."""

    def __init__(self, node, first: int, rate: float):
        from rosgraph_msgs.msg import Clock

        self._message = Clock()
        self._publisher = node.create_publisher(Clock, "/clock", 10)
        self._first, self._rate = first, rate

    def begin(self) -> None:
        self._begin = time.monotonic()
        self._tick(self._first)

    def wait_until(self, stamp: int) -> None:
        """Returns when the bag's time has reached ``stamp`` (nanoseconds); the clock ticks meanwhile."""
        due = self._begin + (stamp - self._first) / 1e9 / self._rate
        while (now := time.monotonic()) < due:
            if now - self._told >= _CLOCK_PERIOD:
                self._tick(self._first + int((now - self._begin) * 1e9 * self._rate))
            time.sleep(min(_CLOCK_PERIOD, due - now))
        if now - self._told >= _CLOCK_PERIOD:
            self._tick(stamp)

    def _tick(self, nanoseconds: int) -> None:
        self._told = time.monotonic()
        self._message.clock.sec, self._message.clock.nanosec = divmod(nanoseconds, 10**9)
        self._publisher.publish(self._message)


def _publisher(node, connection):
    """A publisher of the connection's topic; None for a type that is not installed."""
    from rclpy.qos import DurabilityPolicy, QoSProfile

    package, _, name = connection.msgtype.split("/")
    try:
        kind = getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError):
        print(f"{connection.topic} is not played: {connection.msgtype} is not installed", file=sys.stderr)
        return None
    if connection.topic == "/tf_static":
        quality = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    else:
        quality = QoSProfile(depth=10)
    return node.create_publisher(kind, connection.topic, quality)


def _tell(**event) -> None:
    print(json.dumps(event), flush=True)


if __name__ == "__main__":
    sys.exit(main())
