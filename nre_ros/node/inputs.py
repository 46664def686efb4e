# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One camera's subscriptions: images, raw or compressed, and the intrinsics."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from nre_ros.node.conversions import stamp_nanoseconds
from nre_ros.node.entities import Entities
from nre_ros.node.parameters import value_of

_INFOS = 60
"""CameraInfo messages that are kept: an image may wait for a second or two, and intrinsics may change meanwhile."""


class CameraInput:
    """Hands the images of one camera to ``take`` and keeps the newest CameraInfo messages.

    name: of the camera, and of the namespace of its topics; empty for ``image`` and ``camera_info``.
    take: called with this input and the message.
    topics: resolved names of what is listened to.  received: how many images came.
    """

    def __init__(
        self, node: Node, entities: Entities, name: str, take: Callable[[CameraInput, Image | CompressedImage], None]
    ):
        self._node, self._take, self.name = node, take, name
        self._newest: dict[str, int] = {}  # transport -> stamp
        self._due = 0.0
        self._infos: deque[CameraInfo] = deque(maxlen=_INFOS)
        self.received = 0
        prefix = f"{name}/" if name else ""
        transport = value_of(node, "image_transport")
        # as REP-2003 has it for sensors, one message deep
        quality = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._image_topics = []
        if transport in ("auto", "raw"):
            self._image_topics.append(entities.subscription(Image, f"{prefix}image", self._on_raw, quality))
        if transport in ("auto", "compressed"):
            topic = compressed_topic(node, f"{prefix}image")
            self._image_topics.append(entities.subscription(CompressedImage, topic, self._on_compressed, quality))
        self._info_topic = entities.subscription(CameraInfo, f"{prefix}camera_info", self._on_camera_info, quality)
        self.topics = [*self._image_topics, self._info_topic]

    def silent(self) -> list[str]:
        """The topics on which nothing has come yet, those of the images as one."""
        images = [] if self._newest else [" or ".join(self._image_topics)]
        return images + ([] if self._infos else [self._info_topic])

    def info_at(self, stamp: int) -> CameraInfo | None:
        """That of the image of this stamp, or the newest; None before the first."""
        infos = list(self._infos)
        own = [info for info in infos if stamp_nanoseconds(info.header.stamp) == stamp]
        return (own or infos or [None])[-1]

    def _on_camera_info(self, message: CameraInfo):
        self._infos.append(message)

    def _on_raw(self, message: Image):
        self._on_image("raw", message)

    def _on_compressed(self, message: CompressedImage):
        self._on_image("compressed", message)

    def _on_image(self, transport: str, message):
        """Passes the image on, unless it comes too soon or has just come already, by the other transport or again.

        The same image twice is no second witness of a pose.
        """
        stamp = stamp_nanoseconds(message.header.stamp)
        same = stamp == self._newest.get(transport)
        late = any(0 <= newest - stamp < 1e9 for other, newest in self._newest.items() if other != transport)
        if stamp and (same or late):
            return
        self._newest[transport] = stamp
        self.received += 1
        if self._is_due():
            self._take(self, message)

    def _is_due(self) -> bool:
        """Whether ``max_rate`` allows another image now."""
        rate = value_of(self._node, "max_rate")
        if not rate:
            return True
        now = time.monotonic()
        if now < self._due:
            return False
        # from when it was due, so that the rate is kept though images come at their own times
        self._due = max(self._due, now - 0.5 / rate) + 1 / rate
        return True


def compressed_topic(node: Node, image: str) -> str:
    """``<image>/compressed``, or below wherever ``image`` is remapped to, as image_transport has it."""
    own = node.resolve_topic_name(f"{image}/compressed")
    if own != node.resolve_topic_name(f"{image}/compressed", only_expand=True):
        return own
    return node.resolve_topic_name(image) + "/compressed"
