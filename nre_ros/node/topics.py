# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Publishers of what people look at: made in one way, and asked whether anybody does."""

from __future__ import annotations

import time

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions


class Topic:
    """A publisher; its QoS can be overridden by parameters.  ``latched``: who comes later gets the last message."""

    def __init__(self, node: Node, message, name: str, latched: bool = False, depth: int = 1):
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        quality, options = QoSProfile(depth=depth, durability=durability), QoSOverridingOptions.with_default_policies()
        self._node = node
        self._publisher = node.create_publisher(message, name, quality, qos_overriding_options=options)

    @property
    def wanted(self) -> bool:
        """Whether somebody subscribes."""
        return self._publisher.get_subscription_count() > 0

    def publish(self, message) -> None:
        self._publisher.publish(message)

    def close(self) -> None:
        self._node.destroy_publisher(self._publisher)


class Pace:
    """Lets so many through a second, by real time."""

    def __init__(self):
        self._next = 0.0

    def allows(self, rate: float) -> bool:
        """Whether it is time again."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + 1 / rate
        return True
