# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""ROS interfaces of one part of the node: subscriptions, timers, services and topics for displays."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_policy_name_from_kind
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

from nre_ros.keyframes.storage.store import KeyframeStore


def _policy_name(event: Any) -> str:
    """The QoS policy by which a publisher does not fit, of rclpy's event, which has no types."""
    return qos_policy_name_from_kind(event.last_policy_kind)


class RosInterfaces:
    """Creates subscriptions, timers and services on a node and destroys them together.

    For the executor's thread.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        # a service call that waits for its answer would block all others of a group that is not reentrant
        self._service_group = ReentrantCallbackGroup()
        self._destroyers: dict[object, Callable[[], object]] = {}

    def subscription(
        self,
        message_type: type,
        topic: str,
        callback: Callable[[Any], None],
        qos: QoSProfile,
        *,
        serialized: bool = False,
        on_incompatible: Callable[[str], None] | None = None,
    ) -> Subscription:
        """Subscribes to a topic with a QoS that parameters can override.

        Args:
            message_type: Type of the messages.
            topic: Name of the topic, before remapping.
            callback: Called with each message on the executor's thread.
            qos: Default QoS.
            serialized: Whether the callback gets the messages as bytes.
            on_incompatible: Called with the name of the policy where a publisher's QoS does not fit; None: a warning.

        Returns:
            The subscription, which ``close`` destroys.
        """
        events = None
        if on_incompatible is not None:
            events = SubscriptionEventCallbacks(incompatible_qos=lambda event: on_incompatible(_policy_name(event)))
        subscription = self._node.create_subscription(
            message_type,
            topic,
            callback,
            qos,
            event_callbacks=events,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            raw=serialized,
        )
        return self._kept(subscription)

    def latched_subscription(
        self, message_type: type, topic: str, callback: Callable[[Any], None], depth: int
    ) -> Subscription:
        """Subscribes to what latched publishers of a topic have sent before; others are silently left out.

        A volatile subscription gets new messages alone, and one that asks for earlier ones fits no volatile publisher
        (DDS: durability is requested and offered).  A topic that may have either needs both subscriptions.

        Args:
            message_type: Type of the messages.
            topic: Name of the topic, before remapping.
            callback: Called with each message on the executor's thread.
            depth: Earlier messages of each publisher, at most.

        Returns:
            The subscription, which ``close`` destroys.
        """
        qos = QoSProfile(depth=depth, durability=DurabilityPolicy.TRANSIENT_LOCAL)  # reliable, as late delivery is
        silent = SubscriptionEventCallbacks(incompatible_qos=lambda event: None)
        return self._kept(self._node.create_subscription(message_type, topic, callback, qos, event_callbacks=silent))

    def _kept(self, subscription: Subscription) -> Subscription:
        self._destroyers[subscription] = lambda: self._node.destroy_subscription(subscription)
        return subscription

    def destroy(self, subscription: Subscription) -> None:
        """Ends one subscription.

        Args:
            subscription: A subscription that was created here.
        """
        self._destroyers.pop(subscription)()

    def timer(self, seconds: float, callback: Callable[[], None], steady: bool = False) -> None:
        """Calls back periodically.

        Args:
            seconds: Period.
            callback: Called on the executor's thread.
            steady: Whether the period is real time; else it is the node's, which may stand still in a simulation.
        """
        clock = Clock(clock_type=ClockType.STEADY_TIME) if steady else None
        timer = self._node.create_timer(seconds, callback, clock=clock)
        self._destroyers[timer] = lambda: self._node.destroy_timer(timer)

    def service(self, service_type: type, name: str, callback: Callable[[Any, Any], Any]) -> None:
        """Offers a service.

        Args:
            service_type: Type of the service.
            name: Name of the service.
            callback: Takes request and response and returns the response. Its calls may overlap.
        """
        service = self._node.create_service(service_type, name, callback, callback_group=self._service_group)
        self._destroyers[service] = lambda: self._node.destroy_service(service)

    def close(self) -> None:
        """Destroys everything that was created; may be called twice."""
        while self._destroyers:
            self._destroyers.popitem()[1]()


class DisplayTopic:
    """Publisher of a topic that people look at, which is filled only while somebody subscribes.

    Its QoS can be overridden by parameters.
    """

    def __init__(self, node: Node, message_type: type, name: str, latched: bool = False, depth: int = 1) -> None:
        """Creates the publisher; with ``latched`` a late subscriber gets the last message."""
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        qos, options = QoSProfile(depth=depth, durability=durability), QoSOverridingOptions.with_default_policies()
        self._node = node
        self._publisher: Publisher = node.create_publisher(message_type, name, qos, qos_overriding_options=options)

    @property
    def has_subscribers(self) -> bool:
        """Whether somebody subscribes."""
        return self._publisher.get_subscription_count() > 0

    def publish(self, message: object) -> None:
        """Publishes a message.

        Args:
            message: A message of the topic's type.
        """
        self._publisher.publish(message)

    def close(self) -> None:
        """Destroys the publisher."""
        self._node.destroy_publisher(self._publisher)


def displayed(count: int, most: int) -> npt.NDArray[np.int64]:
    """Chooses the elements that a display topic shows: all of few, evenly spaced ones of many.

    Args:
        count: Number of elements.
        most: Largest number of elements to show.

    Returns:
        Increasing indices [min(count, most)].
    """
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64)


class RateLimiter:
    """Limits how often something happens, by real time."""

    def __init__(self) -> None:
        self._next = 0.0

    def allows(self, rate: float) -> bool:
        """Returns whether 1 / ``rate`` seconds have passed since the last time that this was true.

        Args:
            rate: Largest rate, Hz.
        """
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + 1 / rate
        return True


class MapVersion:
    """One state of one open map, to find out whether a display still shows it.

    The open map itself counts, not its path: another file may have the same path and the same revision.
    """

    def __init__(self) -> None:
        """No map."""
        self._store: weakref.ref[KeyframeStore] | None = None
        self._revision: tuple[int, int] | None = None

    @classmethod
    def of(cls, store: KeyframeStore) -> MapVersion:
        """Returns the present version of an open map.

        Args:
            store: The open map.
        """
        version = cls()
        version._store, version._revision = weakref.ref(store), store.revision
        return version

    def is_same_map(self, store: KeyframeStore) -> bool:
        """Returns whether this is a version of an open map.

        Args:
            store: The open map.
        """
        return self._store is not None and self._store() is store

    def is_of(self, store: KeyframeStore) -> bool:
        """Returns whether this is the present version of an open map.

        Args:
            store: The open map.
        """
        return self.is_same_map(store) and self._revision == store.revision
