# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One camera's subscriptions: images, raw or compressed, and the intrinsics."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from nre_ros.node.conversions import stamp_nanoseconds
from nre_ros.node.depth_input import DepthInput
from nre_ros.node.image_drops import DropCounter, ImageDrop
from nre_ros.node.interfaces import RosInterfaces
from nre_ros.node.parameters import value_of
from nre_ros.node.qos import sensor_qos, transport_topic
from nre_ros.node.serialized_image import SerializedImage

_CAMERA_INFOS = 60
"""CameraInfo messages that are kept: an image may wait for a second or two, and intrinsics may change meanwhile."""
_LATCHED_INFOS = 10
"""Latched CameraInfo messages that are asked for: several publishers may share a topic."""
_LATCHED_SECONDS = 0.2
"""Between two checks for latched publishers of CameraInfo, before the first one has come."""
_CHOICE_SECONDS = 0.5
"""Between two checks which transports bring images."""
_STREAM_IMAGES, _STREAM_SECONDS = 5, 2.0
"""So many images in this time are a stream: the other transport is not needed.  Fewer cost little by both."""
_LOSS_SECONDS = 1.0
"""Without an image for so long, the other transport is tried as well."""


class CameraInput:
    """Passes the images of one camera on and keeps the newest CameraInfo messages.

    Images that come too soon or twice are dropped here, and counted.  With ``image_transport: auto`` both transports are
    subscribed until one brings a stream: a driver encodes and sends what somebody subscribes to.

    Attributes:
        name: Name of the camera and of the namespace of its topics; empty for ``image`` and ``camera_info``.
        received: Number of images that arrived, each once.
        depth: The camera's depth images.
    """

    def __init__(
        self,
        node: Node,
        interfaces: RosInterfaces,
        name: str,
        drops: DropCounter,
        on_image: Callable[[CameraInput, SerializedImage], None],
    ) -> None:
        """Subscribes; ``on_image`` is called on the executor's thread with this input and the image."""
        self._node, self._interfaces = node, interfaces
        self._drops, self._on_image, self.name = drops, on_image, name
        self._newest: dict[str, int] = {}  # transport -> stamp
        self._arrivals: dict[str, deque[float]] = {}  # transport -> monotonic seconds of the newest images
        self._due = 0.0  # monotonic seconds
        self._infos: deque[CameraInfo] = deque(maxlen=_CAMERA_INFOS)
        self._incompatible: dict[str, str] = {}  # topic -> policy of the QoS that does not fit a publisher
        self.received = 0
        prefix = f"{name}/" if name else ""
        transport = value_of(node, "image_transport")
        self._image_topics = {
            "raw": f"{prefix}image",
            "compressed": transport_topic(node, f"{prefix}image", "compressed"),
        }
        self._types = {"raw": Image, "compressed": CompressedImage}
        if transport != "auto":
            self._image_topics = {transport: self._image_topics[transport]}
        self._subscriptions: dict[str, Subscription] = {}  # transport -> subscription
        for each in self._image_topics:
            self._subscribe(each)
        self._resolved = {each: subscription.topic_name for each, subscription in self._subscriptions.items()}
        info_topic = f"{prefix}camera_info"
        subscription = interfaces.subscription(
            CameraInfo, info_topic, self._on_camera_info, sensor_qos(), on_incompatible=self._noting(info_topic)
        )
        self._info_topic = subscription.topic_name
        self.depth = DepthInput(node, interfaces, name)
        self._latched_infos: Subscription | None = None
        interfaces.timer(_LATCHED_SECONDS, lambda: self._find_latched_infos(info_topic), steady=True)
        if transport == "auto":
            interfaces.timer(_CHOICE_SECONDS, self._choose_transport, steady=True)

    @property
    def topics(self) -> list[str]:
        """Resolved names of the topics."""
        depth = [self.depth.topic] if self.depth.topic else []
        return [*self._resolved.values(), self._info_topic, *depth]

    def silent_topics(self) -> list[str]:
        """Returns the topics without a message so far, each with what is known of the cause; all of images are one."""
        images = [] if self._newest else [self._silence(*self._resolved.values())]
        return images + ([] if self._infos else [self._silence(self._info_topic)])

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
        if not self._infos or message != self._infos[-1]:  # a latched publisher reaches both subscriptions
            self._infos.append(message)

    def _find_latched_infos(self, topic: str) -> None:
        """Subscribes to what a latched publisher has sent before.

        Not from the start: drivers that are not latched would warn of a subscription that does not fit.
        """
        if self._infos or self._latched_infos is not None:
            return
        publishers = self._node.get_publishers_info_by_topic(self._info_topic)
        if any(publisher.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for publisher in publishers):
            self._latched_infos = self._interfaces.latched_subscription(
                CameraInfo, topic, self._on_camera_info, _LATCHED_INFOS
            )

    # --- images -------------------------------------------------------------------------------------

    def _subscribe(self, transport: str) -> None:
        topic, kind = self._image_topics[transport], self._types[transport]
        self._subscriptions[transport] = self._interfaces.subscription(
            kind,
            topic,
            lambda data: self._receive(transport, SerializedImage(kind, data)),
            sensor_qos(),
            serialized=True,
            on_incompatible=self._noting(topic),
        )
        self._arrivals[transport] = deque(maxlen=_STREAM_IMAGES)

    def _receive(self, transport: str, image: SerializedImage) -> None:
        """Passes an image on, unless it has come already by the other transport or again, or comes too soon.

        The same image twice is no independent evidence of a pose.
        """
        self._arrivals[transport].append(time.monotonic())
        stamp = image.stamp
        same = stamp == self._newest.get(transport)
        if stamp and (same or any(self._has_brought(other, stamp) for other in self._newest if other != transport)):
            self._drops.add(self.name, ImageDrop.DUPLICATE)
            return
        self._newest[transport] = stamp
        self.received += 1
        if not self._is_due():
            self._drops.add(self.name, ImageDrop.RATE_LIMIT)
            return
        self._on_image(self, image)

    def _has_brought(self, transport: str, stamp: int) -> bool:
        """Whether a transport has brought an image of this stamp or soon after it, in the last seconds.

        Before that it may have been another round of a looped bag, which has the same stamps.
        """
        arrivals = self._arrivals[transport]
        recent = bool(arrivals) and time.monotonic() - arrivals[-1] < _STREAM_SECONDS
        return recent and 0 <= self._newest[transport] - stamp < 1e9

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

    def _choose_transport(self) -> None:
        """Ends the subscription that is not needed beside a stream, and tries both when the stream has ended."""
        now = time.monotonic()
        newest = max((times[-1] for times in self._arrivals.values() if times), default=now)
        missing = [transport for transport in self._image_topics if transport not in self._subscriptions]
        if missing:
            if now - newest > _LOSS_SECONDS:
                self._node.get_logger().info(f"no image on {self._shown(self._subscriptions)}: trying both transports")
                self._subscribe(missing[0])
            return
        streams = [
            transport  # raw, which needs no decoding, first
            for transport, times in self._arrivals.items()
            if len(times) == _STREAM_IMAGES and now - times[0] < _STREAM_SECONDS
        ]
        if streams:
            chosen = min(streams, key=list(self._image_topics).index)
            for transport in set(self._subscriptions) - {chosen}:
                self._interfaces.destroy(self._subscriptions.pop(transport))
            self._node.get_logger().info(f"images come on {self._shown([chosen])}: the other transport is left alone")

    def _shown(self, transports: object) -> str:
        return " or ".join(self._resolved[transport] for transport in transports)  # type: ignore[attr-defined]

    # --- why nothing arrives ------------------------------------------------------------------------

    def _noting(self, topic: str) -> Callable[[str], None]:
        """A callback that keeps and logs the policy by which a publisher's QoS does not fit."""

        def note(policy: str) -> None:
            name = self._node.resolve_topic_name(topic)
            self._incompatible[name] = policy
            self._node.get_logger().warning(f"{name}: {_incompatibility(name, policy)}")

        return note

    def _silence(self, *topics: str) -> str:
        """The topics, with the reason for their silence as far as discovery shows it."""
        reasons = []
        for topic in topics:
            publishers = self._node.get_publishers_info_by_topic(topic)
            if topic in self._incompatible:
                reasons.append(_incompatibility(topic, self._incompatible[topic]))
            elif publishers:
                kinds = sorted({publisher.topic_type for publisher in publishers})
                reasons.append(
                    f"{topic} has {len(publishers)} publisher(s) of {', '.join(kinds)} that send nothing, or whose messages "
                    "are lost on the way (large images: config/fastdds_large_images.xml)"
                )
        return f"{' or '.join(topics)} yet: {'; '.join(reasons) or 'nobody publishes it'}"


def _incompatibility(topic: str, policy: str) -> str:
    kind = policy.lower()
    return (
        f"a publisher's QoS does not fit ours in {kind}, none of its messages arrives; set "
        f"qos_overrides.{topic}.subscription.{kind} as the publisher has it"
    )
