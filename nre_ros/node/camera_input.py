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
from nre_ros.node.image_drops import DropCounter, ImageDrop
from nre_ros.node.interfaces import RosInterfaces
from nre_ros.node.parameters import value_of

_CAMERA_INFOS = 60
"""CameraInfo messages that are kept: an image may wait for a second or two, and intrinsics may change meanwhile."""


class CameraInput:
    """Passes the images of one camera on and keeps the newest CameraInfo messages.

    Images that come too soon or twice are dropped here, and counted.

    Attributes:
        name: Name of the camera and of the namespace of its topics; empty for ``image`` and ``camera_info``.
        topics: Resolved names of the topics.
        received: Number of images that arrived, each once.
    """

    def __init__(
        self,
        node: Node,
        interfaces: RosInterfaces,
        name: str,
        drops: DropCounter,
        on_image: Callable[[CameraInput, Image | CompressedImage], None],
    ) -> None:
        """Subscribes; ``on_image`` is called on the executor's thread with this input and the message."""
        self._node, self._drops, self._on_image, self.name = node, drops, on_image, name
        self._newest: dict[str, int] = {}  # transport -> stamp
        self._due = 0.0  # monotonic seconds
        self._infos: deque[CameraInfo] = deque(maxlen=_CAMERA_INFOS)
        self.received = 0
        prefix = f"{name}/" if name else ""
        transport = value_of(node, "image_transport")
        # best effort as in REP-2003 for sensors, one message deep
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._image_topics = []
        if transport in ("auto", "raw"):
            self._image_topics.append(interfaces.subscription(Image, f"{prefix}image", self._on_raw, qos))
        if transport in ("auto", "compressed"):
            topic = compressed_topic(node, f"{prefix}image")
            self._image_topics.append(interfaces.subscription(CompressedImage, topic, self._on_compressed, qos))
        self._info_topic = interfaces.subscription(CameraInfo, f"{prefix}camera_info", self._on_camera_info, qos)
        self.topics = [*self._image_topics, self._info_topic]

    def silent_topics(self) -> list[str]:
        """Returns the topics without a message so far; those of the images count as one."""
        images = [] if self._newest else [" or ".join(self._image_topics)]
        return images + ([] if self._infos else [self._info_topic])

    def camera_info_at(self, stamp: int) -> CameraInfo | None:
        """Finds the CameraInfo of an image.

        Args:
            stamp: Stamp of the image, nanoseconds.

        Returns:
            The CameraInfo with the same stamp, else the newest; None before the first.
        """
        infos = list(self._infos)
        same = [info for info in infos if stamp_nanoseconds(info.header.stamp) == stamp]
        return (same or infos or [None])[-1]

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._infos.append(message)

    def _on_raw(self, message: Image) -> None:
        self._receive("raw", message)

    def _on_compressed(self, message: CompressedImage) -> None:
        self._receive("compressed", message)

    def _receive(self, transport: str, message: Image | CompressedImage) -> None:
        """Passes an image on, unless it has come already by the other transport or again, or comes too soon.

        The same image twice is no independent evidence of a pose.
        """
        stamp = stamp_nanoseconds(message.header.stamp)
        same = stamp == self._newest.get(transport)
        late = any(0 <= newest - stamp < 1e9 for other, newest in self._newest.items() if other != transport)
        if stamp and (same or late):
            self._drops.add(self.name, ImageDrop.DUPLICATE)
            return
        self._newest[transport] = stamp
        self.received += 1
        if not self._is_due():
            self._drops.add(self.name, ImageDrop.RATE_LIMIT)
            return
        self._on_image(self, message)

    def _is_due(self) -> bool:
        """Whether ``max_rate`` allows another image now."""
        rate = value_of(self._node, "max_rate")
        if not rate:
            return True
        now = time.monotonic()
        if now < self._due:
            return False
        # from the time when it was due, so that the rate is kept although images come at their own times
        self._due = max(self._due, now - 0.5 / rate) + 1 / rate
        return True


def compressed_topic(node: Node, image: str) -> str:
    """Returns the topic of the compressed images of an image topic, by the rules of image_transport.

    This is ``<image>/compressed``, also below the name that ``image`` is remapped to.

    Args:
        node: The node whose remappings apply.
        image: Name of the image topic, relative to the node's namespace.
    """
    own = node.resolve_topic_name(f"{image}/compressed")
    if own != node.resolve_topic_name(f"{image}/compressed", only_expand=True):
        return own
    return node.resolve_topic_name(image) + "/compressed"
