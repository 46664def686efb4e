# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One camera's subscription to depth images, which are evidence for or against the poses of its images."""

from __future__ import annotations

import time
from collections import deque

import numpy as np
import numpy.typing as npt
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from nre_ros.errors import ImageError
from nre_ros.messages.depth_images import depth_array
from nre_ros.messages.frame_ids import frame_name
from nre_ros.node.interfaces import RosInterfaces
from nre_ros.node.logs import ThrottledLogger
from nre_ros.node.parameters import value_of
from nre_ros.node.qos import sensor_qos, transport_topic
from nre_ros.node.serialized_image import SerializedImage

_KEPT = 10
"""Depth images that are kept: an image is localized some tenths of a second after it arrived."""
_SAME_STAMP = 20_000_000
"""Nanoseconds between an image and its depth image: drivers that synchronize them give both the same stamp."""
_LOSS = 10**9
"""Nanoseconds after which the depth camera is thought to have stopped: no image waits for its depth any more."""
_PATIENCE = 0.05
"""Seconds to wait for a depth image that comes after its image."""


class DepthInput:
    """Keeps the newest depth images of one camera."""

    def __init__(self, node: Node, interfaces: RosInterfaces, camera_name: str) -> None:
        """Subscribes, if the parameter ``depth_transport`` asks for depth images.

        Args:
            node: Has the parameters of ``nre_ros.node.parameters``.
            interfaces: Makes the subscription.
            camera_name: Namespace of the topics; empty: none.
        """
        self._log = ThrottledLogger(node.get_logger())
        self._newest: deque[SerializedImage] = deque(maxlen=_KEPT)
        self.topic = ""
        transport = value_of(node, "depth_transport")
        if transport == "none":
            return
        name = f"{camera_name}/depth" if camera_name else "depth"
        kind, topic = (Image, name) if transport == "raw" else (CompressedImage, transport_topic(node, name, transport))
        subscription = interfaces.subscription(
            kind, topic, lambda data: self._newest.append(SerializedImage(kind, data)), sensor_qos(), serialized=True
        )
        self.topic = subscription.topic_name

    def at(self, stamp: int, camera_frame: str, size: tuple[int, int]) -> npt.NDArray[np.float32] | None:
        """Finds the depth of an image; waits for a moment if that has not come yet.

        A depth image that cannot be used is reported in the log and ignored.

        Args:
            stamp: Stamp of the image, nanoseconds.
            camera_frame: The image's optical frame.
            size: Width and height of the image.

        Returns:
            [H, W] metres along the optical axis, 0 where none was measured; None where there is no depth image.
        """
        found = self._nearest(stamp)
        if found is None:
            return None
        try:
            message = found.message()
            frame = frame_name(message.header.frame_id)
            if frame and camera_frame and frame != camera_frame:
                raise ImageError(
                    f"its frame is {frame}, that of the image is {camera_frame}: the depth must be registered to the image"
                )
            depth = depth_array(message)
            if depth.shape[::-1] != size:
                raise ImageError(
                    f"it has {depth.shape[1]}x{depth.shape[0]} pixels, the image has {size[0]}x{size[1]}: the depth must be "
                    "registered to the image"
                )
            return depth
        except ImageError as error:
            self._log.warning(f"the depth image on {self.topic} is ignored: {error}")
            return None

    def _nearest(self, stamp: int) -> SerializedImage | None:
        deadline = time.monotonic() + _PATIENCE
        while self.topic and self._newest:
            images = list(self._newest)
            nearest = min(images, key=lambda image: abs(image.stamp - stamp))
            if abs(nearest.stamp - stamp) <= _SAME_STAMP:
                return nearest
            newest = max(image.stamp for image in images)
            if newest > stamp or newest < stamp - _LOSS or time.monotonic() > deadline:
                return None
            time.sleep(0.002)
        return None
