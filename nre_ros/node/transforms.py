# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Transforms in and out: tf2_ros where it is installed, else /tf and /tf_static by hand.

Times are integer nanoseconds, motions 4x4 ``T_target_source``.  The rest of the node does not
know which of the two is at work.
"""

from __future__ import annotations

import threading
import time

import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time

from nre_ros.geometry import pose_matrix
from nre_ros.messages.transform_buffer import (
    ConnectivityError,
    ExtrapolationError,
    FrameLookupError,
    TransformBuffer,
    TransformError,
)
from nre_ros.node.conversions import stamp_nanoseconds, transform_message
from nre_ros.node.seldom import SeldomLog

try:
    import tf2_ros
except ImportError:  # no wheel of it exists
    tf2_ros = None

__all__ = ["TransformError", "Transforms", "open_transforms"]

POLL_SECONDS = 0.005
"""Between two tries of a look-up in tf2_ros, which does not tell when a transform has come."""
CACHE_SECONDS = 30.0
"""History kept, three times tf2's default: an image may take as long where a bag is played faster than it was."""


class Transforms:
    """Looks transforms up, waiting for those that are still on their way, and broadcasts."""

    def __init__(self):
        self._closed = threading.Event()

    def lookup(self, target: str, source: str, stamp: int, timeout: float) -> np.ndarray:
        """``T_target_source`` [4, 4] at ``stamp`` nanoseconds.

        Waits up to ``timeout`` seconds of real time (simulated time may stand still), so it is
        never called from the executor's thread, whose callbacks bring the transforms.
        Raises ``TransformError`` in tf2's words.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                return self._lookup(target, source, stamp)
            except TransformError:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or self._closed.is_set():
                    raise
            self._wait(remaining)

    def latest(self, target: str, source: str) -> tuple[np.ndarray, int]:
        """The newest ``T_target_source`` [4, 4] and its stamp (0: it is static), without waiting.

        Raises ``TransformError``.
        """
        raise NotImplementedError

    def stop(self):
        """Ends all waiting."""
        self._closed.set()

    def close(self):
        """Stops listening and broadcasting."""
        self.stop()

    def clear(self):
        """Forgets the history, not the static transforms."""
        raise NotImplementedError

    def broadcast(self, T: np.ndarray, parent: str, child: str, stamp: int):
        """Publishes ``T_parent_child`` on /tf."""
        raise NotImplementedError

    def _lookup(self, target, source, stamp):
        raise NotImplementedError

    def _wait(self, seconds: float):
        raise NotImplementedError


class Tf2Transforms(Transforms):
    """By tf2_ros."""

    def __init__(self, node: Node):
        super().__init__()
        self._node = node
        self._buffer = tf2_ros.Buffer(cache_time=Duration(seconds=CACHE_SECONDS))
        self._listener = tf2_ros.TransformListener(self._buffer, node)
        self._broadcaster = tf2_ros.TransformBroadcaster(node)

    def close(self):
        super().close()
        self._listener.unregister()
        self._node.destroy_publisher(self._broadcaster.pub_tf)

    def clear(self):
        self._buffer.clear()

    def broadcast(self, T, parent, child, stamp):
        self._broadcaster.sendTransform(transform_message(T, parent, child, stamp))

    def latest(self, target, source):
        transform = self._ask(target, source, 0)
        return _matrix(transform.transform), stamp_nanoseconds(transform.header.stamp)

    def _lookup(self, target, source, stamp):
        return _matrix(self._ask(target, source, stamp).transform)

    def _ask(self, target, source, stamp):
        try:
            return self._buffer.lookup_transform(target, source, Time(nanoseconds=stamp))
        except tf2_ros.LookupException as error:
            raise FrameLookupError(str(error)) from None
        except tf2_ros.ConnectivityException as error:
            raise ConnectivityError(str(error)) from None
        except tf2_ros.ExtrapolationException as error:
            raise ExtrapolationError(str(error)) from None
        except tf2_ros.TransformException as error:
            raise TransformError(str(error)) from None

    def _wait(self, seconds):
        self._closed.wait(min(seconds, POLL_SECONDS))


class OwnTransforms(Transforms):
    """By the project's ``TransformBuffer``, with the topics and QoS of tf2_ros."""

    def __init__(self, node: Node):
        from tf2_msgs.msg import TFMessage

        super().__init__()
        self._node = node
        self._message = TFMessage
        self._log = SeldomLog(node.get_logger())
        self._buffer = TransformBuffer(CACHE_SECONDS)
        moving = QoSProfile(depth=100)
        static = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._subscriptions = [
            node.create_subscription(TFMessage, "/tf", lambda message: self._insert(message, False), moving),
            node.create_subscription(TFMessage, "/tf_static", lambda message: self._insert(message, True), static),
        ]
        self._publisher = node.create_publisher(TFMessage, "/tf", moving)

    def stop(self):
        super().stop()
        with self._buffer.changed:
            self._buffer.changed.notify_all()

    def close(self):
        super().close()
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._node.destroy_publisher(self._publisher)

    def clear(self):
        self._buffer.clear()

    def broadcast(self, T, parent, child, stamp):
        self._publisher.publish(self._message(transforms=[transform_message(T, parent, child, stamp)]))

    def _insert(self, message, static: bool):
        for transform in message.transforms:
            position, quaternion = _values(transform.transform)
            refusal = self._buffer.insert(
                stamp_nanoseconds(transform.header.stamp),
                transform.header.frame_id,
                transform.child_frame_id,
                position,
                quaternion,
                static,
            )
            if refusal:
                self._log.warning(refusal)

    def latest(self, target, source):
        stamp = self._buffer.latest_time(target, source)
        return self._buffer.lookup(target, source, stamp), stamp

    def _lookup(self, target, source, stamp):
        return self._buffer.lookup(target, source, stamp)

    def _wait(self, seconds):
        with self._buffer.changed:
            if not self._closed.is_set():
                self._buffer.changed.wait(seconds)


def open_transforms(node: Node) -> Transforms:
    """The transforms of this machine, listening from now on."""
    return Tf2Transforms(node) if tf2_ros else OwnTransforms(node)


def _values(transform) -> tuple[list[float], list[float]]:
    t, q = transform.translation, transform.rotation
    return [t.x, t.y, t.z], [q.x, q.y, q.z, q.w]


def _matrix(transform) -> np.ndarray:
    return pose_matrix(*_values(transform))
