# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The player of a replay: publishes a bag over DDS at its own pace, ``python -m nre_ros.replay.player BAG``.

Messages are sent as the bytes that the bag contains, in the order of the bag, with /clock for nodes that use simulated
time. Playing starts when the topics of ``--wait-for`` have subscribers. One JSON object a line on standard output
reports when each image was sent.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nre_ros import ros_environment
from nre_ros.errors import NreError
from nre_ros.packages import BAGS, ROS, require

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.publisher import Publisher

_INTERRUPTED = 130
"""Exit code after a signal."""
_CLOCK_PERIOD = 0.025
"""Seconds: 40 Hz, as `ros2 bag play --clock` does by default."""
_DISCOVERY_SECONDS = 60.0
_SETTLE_SECONDS = 1.0
"""Time for DDS to finish matching on the subscribers' side, and to send what is still queued at the end."""


def main() -> int:
    """Plays the bag that the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bag", help="bag to play")
    parser.add_argument("--rate", type=float, default=1.0, help="speed, as a multiple of real time (default: 1)")
    parser.add_argument("--image", required=True, metavar="TOPIC", help="topic whose messages are reported")
    parser.add_argument(
        "--wait-for", nargs="*", default=[], metavar="TOPIC", help="start when these topics have subscribers"
    )
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(_INTERRUPTED))  # there is nothing to close
    try:
        ros_environment.prepare()
        require(*BAGS, *ROS)
        return _run(arguments)
    except NreError as error:
        print(f"bag player: {error}", file=sys.stderr)
        return 2


def _run(arguments: argparse.Namespace) -> int:
    import rclpy
    from rclpy.executors import ExternalShutdownException
    from rclpy.impl.implementation_singleton import rclpy_implementation

    rclpy.init(args=[])
    try:
        return _play(arguments)
    except ExternalShutdownException:
        return _INTERRUPTED
    except rclpy_implementation.RCLError:
        if rclpy.ok():
            raise
        return _INTERRUPTED  # a message was about to go out when a signal shut the context down
    finally:
        rclpy.try_shutdown()


def _play(arguments: argparse.Namespace) -> int:
    import rclpy

    from nre_ros.messages.bag import open_bag
    from nre_ros.messages.stamps import header_stamp

    node = rclpy.create_node("bag_player")
    with open_bag(arguments.bag) as reader:
        # a recorded /clock would contradict the player's own
        played = [connection for connection in reader.connections if connection.topic != "/clock"]
        _check_topics(arguments, {connection.topic: connection.msgtype for connection in played})
        publishers = {c.topic: p for c in played if (p := _create_publisher(node, c.topic, c.msgtype)) is not None}
        if arguments.image not in publishers:
            raise NreError(f"bag {arguments.bag}: topic {arguments.image} cannot be played")
        timeline = _Timeline(node, reader.start_time, arguments.rate)
        awaited = [topic for topic in arguments.wait_for if topic in publishers]
        missing = _wait_for_subscribers({topic: publishers[topic] for topic in awaited})
        if missing:
            raise NreError(
                f"no subscriber to {', '.join(missing)} after {_DISCOVERY_SECONDS:.0f} s: nothing was played"
            )
        timeline.start()
        for connection, stamp, raw in reader.messages():
            timeline.wait_until(stamp)
            if connection.topic in publishers:
                publishers[connection.topic].publish(bytes(raw))
            if connection.topic == arguments.image:
                message: Any = reader.deserialize(raw, connection.msgtype)
                _report(event="image", stamp=header_stamp(message), monotonic=time.monotonic())
    time.sleep(_SETTLE_SECONDS)
    node.destroy_node()
    return 0


def _check_topics(arguments: argparse.Namespace, found: Mapping[str, str]) -> None:
    """Raises ``NreError`` if the bag lacks the image topic or all the topics to wait for: nobody would listen."""
    from nre_ros.messages.bag import topic_listing

    for wanted in ([arguments.image], arguments.wait_for):
        if wanted and not found.keys() & set(wanted):
            raise NreError(
                f"bag {arguments.bag} has no topic {', '.join(wanted)}; it has: {topic_listing(dict(found))}"
            )


def _wait_for_subscribers(publishers: Mapping[str, Publisher]) -> list[str]:
    """Waits until each topic has a subscriber; returns the topics without one when the time is over."""
    deadline = time.monotonic() + _DISCOVERY_SECONDS
    while missing := [topic for topic, publisher in publishers.items() if not publisher.get_subscription_count()]:
        if time.monotonic() > deadline:
            return missing
        time.sleep(0.02)
    time.sleep(_SETTLE_SECONDS)
    return []


class _Timeline:
    """Keeps the pace of the bag and publishes the bag's time on /clock."""

    def __init__(self, node: Node, first: int, rate: float):
        from rosgraph_msgs.msg import Clock

        self._message = Clock()
        self._publisher = node.create_publisher(Clock, "/clock", 10)
        self._first, self._rate = first, rate
        self._started = self._last_tick = 0.0

    def start(self) -> None:
        self._started = time.monotonic()
        self._tick(self._first)

    def wait_until(self, stamp: int) -> None:
        """Returns when the bag's time has reached ``stamp`` (nanoseconds); the clock goes on meanwhile."""
        due = self._started + (stamp - self._first) / 1e9 / self._rate
        while (now := time.monotonic()) < due:
            if now - self._last_tick >= _CLOCK_PERIOD:
                self._tick(self._first + int((now - self._started) * 1e9 * self._rate))
            time.sleep(min(_CLOCK_PERIOD, due - now))
        if now - self._last_tick >= _CLOCK_PERIOD:
            self._tick(stamp)

    def _tick(self, nanoseconds: int) -> None:
        self._last_tick = time.monotonic()
        self._message.clock.sec, self._message.clock.nanosec = divmod(nanoseconds, 10**9)
        self._publisher.publish(self._message)


def _create_publisher(node: Node, topic: str, message_type: str) -> Publisher | None:
    """Makes the publisher of a topic; None if its message type is not installed."""
    from rclpy.qos import DurabilityPolicy, QoSProfile

    package, _, name = message_type.split("/")
    try:
        message_class = getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError):
        print(f"{topic}: not played, {message_type} is not installed", file=sys.stderr)
        return None
    if topic == "/tf_static":
        quality = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    else:
        quality = QoSProfile(depth=10)
    return node.create_publisher(message_class, topic, quality)


def _report(**event: Any) -> None:
    print(json.dumps(event), flush=True)


if __name__ == "__main__":
    sys.exit(main())
