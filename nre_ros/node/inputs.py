"""The node's subscriptions: images, raw or compressed, and the camera's intrinsics."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from nre_ros.node.conversions import stamp_nanoseconds
from nre_ros.node.parameters import value_of


class Inputs:
    """Hands every new image to ``take`` and keeps the newest CameraInfo.

    topics: resolved names of what is listened to.
    camera_info: the newest message, None before the first.  received: how many images came.
    """

    def __init__(self, node: Node, take: Callable[[Image | CompressedImage], None]):
        self._take = take
        self._taken: tuple[str, int] = ("", 0)
        self.camera_info: CameraInfo | None = None
        self.received = 0
        self.camera_info_topic = node.resolve_topic_name("camera_info")
        transport = value_of(node, "image_transport")
        self._image_topics = []
        if transport in ("auto", "raw"):
            self._image_topics.append(_subscribe(node, Image, "image", self._on_raw))
        if transport in ("auto", "compressed"):
            self._image_topics.append(_subscribe(node, CompressedImage, compressed_topic(node), self._on_compressed))
        _subscribe(node, CameraInfo, "camera_info", self._on_camera_info)
        self.topics = [*self._image_topics, self.camera_info_topic]

    def silent(self) -> list[str]:
        """The topics on which nothing has come yet, those of the images as one."""
        images = [] if self._taken[0] else [" or ".join(self._image_topics)]
        return images + ([] if self.camera_info else [self.camera_info_topic])

    def _on_camera_info(self, message: CameraInfo):
        self.camera_info = message

    def _on_raw(self, message: Image):
        self._on_image("raw", message)

    def _on_compressed(self, message: CompressedImage):
        self._on_image("compressed", message)

    def _on_image(self, transport: str, message):
        """Passes the image on, unless it is the one that has just come by the other transport."""
        before, stamp = self._taken, stamp_nanoseconds(message.header.stamp)
        if stamp and stamp == before[1] and transport != before[0]:
            return
        self._taken = transport, stamp
        self.received += 1
        self._take(message)


def compressed_topic(node: Node) -> str:
    """``image/compressed``, or below wherever ``image`` is remapped to, as image_transport has it."""
    own = node.resolve_topic_name("image/compressed")
    if own != node.resolve_topic_name("image/compressed", only_expand=True):
        return own
    return node.resolve_topic_name("image") + "/compressed"


def _subscribe(node: Node, message, topic: str, callback) -> str:
    """Subscribes as REP-2003 has it for sensors, one message deep; returns the resolved name."""
    quality = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    options = QoSOverridingOptions.with_default_policies()
    return node.create_subscription(message, topic, callback, quality, qos_overriding_options=options).topic_name
