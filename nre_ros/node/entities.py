# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Subscriptions, timers and services that a part of the node makes, and that end with it."""

from __future__ import annotations

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions


class Entities:
    """Makes them on ``node`` and destroys them together; for the executor's thread."""

    def __init__(self, node: Node):
        self._node = node
        # a call that waits for its answer keeps all others of its group waiting, were they not reentrant
        self._calls = ReentrantCallbackGroup()
        self._destroyers: list = []

    def subscription(self, message, topic: str, callback, quality: QoSProfile) -> str:
        """Subscribes, with a QoS that users can override by parameters; returns the resolved name."""
        options = QoSOverridingOptions.with_default_policies()
        made = self._node.create_subscription(message, topic, callback, quality, qos_overriding_options=options)
        self._destroyers.append(lambda: self._node.destroy_subscription(made))
        return made.topic_name

    def timer(self, seconds: float, callback, steady: bool = False) -> None:
        """Calls back every so many seconds of the node's time, or of real time: simulated time may stand still."""
        clock = Clock(clock_type=ClockType.STEADY_TIME) if steady else None
        made = self._node.create_timer(seconds, callback, clock=clock)
        self._destroyers.append(lambda: self._node.destroy_timer(made))

    def service(self, kind, name: str, callback) -> None:
        """Offers a service."""
        made = self._node.create_service(kind, name, callback, callback_group=self._calls)
        self._destroyers.append(lambda: self._node.destroy_service(made))

    def close(self) -> None:
        """Destroys all that was made; closing twice is allowed."""
        while self._destroyers:
            self._destroyers.pop()()
