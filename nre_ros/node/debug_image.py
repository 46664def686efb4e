# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The topics ``debug_image`` and ``debug_image/compressed``: map points and keyframes drawn into an image."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from nre_ros.gate.decision import Decision
from nre_ros.gate.observation import Observation
from nre_ros.localization.result import LocalizationResult
from nre_ros.node.conversions import stamp_message
from nre_ros.node.interfaces import DisplayTopic, RateLimiter
from nre_ros.node.parameters import value_of
from nre_ros.node.ros_libraries import LIBRARIES
from nre_ros.pictures.debug import draw_debug


class DebugImage:
    """Draws and publishes while somebody subscribes; costs nothing otherwise."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._raw = DisplayTopic(node, Image, "debug_image")
        self._compressed = DisplayTopic(node, CompressedImage, "debug_image/compressed")
        self._rate = RateLimiter()

    @property
    def has_subscribers(self) -> bool:
        """Whether somebody subscribes to one of the topics."""
        return self._raw.has_subscribers or self._compressed.has_subscribers

    def update(
        self,
        observation: Observation,
        result: LocalizationResult,
        decision: Decision,
        thumbnail: Callable[[int], bytes],
    ) -> None:
        """Publishes the picture of an image, at most ``debug_rate`` times a second.

        Args:
            observation: The image, decoded.
            result: What the localizer found in it.
            decision: What the gate decided about it.
            thumbnail: Returns the JPEG of a keyframe's id.
        """
        if (
            observation.image is None
            or not self.has_subscribers
            or not self._rate.allows(value_of(self._node, "debug_rate"))
        ):
            return
        lines = []
        if decision.judged:
            verb = "accepted" if decision.accepted else "rejected"
            lines.append(f"{decision.state.name.lower()}, {verb}: {decision.reason}")
        picture = draw_debug(observation.image, result, thumbnail, lines)
        header = Header(frame_id=observation.camera_frame, stamp=stamp_message(observation.stamp))
        if self._raw.has_subscribers:
            self._raw.publish(LIBRARIES.image_message(picture, header))
        if self._compressed.has_subscribers:
            self._compressed.publish(LIBRARIES.compressed_image_message(picture, header))

    def close(self) -> None:
        """Destroys the topics."""
        self._raw.close()
        self._compressed.close()
