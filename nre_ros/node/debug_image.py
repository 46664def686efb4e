# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The topics ``debug_image`` and ``debug_image/compressed``: what the estimator saw in an image."""

from __future__ import annotations

import array
from collections.abc import Callable

import cv2
import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from nre_ros.gate.decision import Decision
from nre_ros.localization.result import LocalizationResult
from nre_ros.node.conversions import stamp_message
from nre_ros.node.parameters import value_of
from nre_ros.node.topics import Pace, Topic
from nre_ros.pictures.debug import draw_debug

_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 80]


class DebugImage:
    """Draws and publishes, where somebody subscribes; costs nothing else."""

    def __init__(self, node: Node):
        self._node = node
        self._raw = Topic(node, Image, "debug_image")
        self._compressed = Topic(node, CompressedImage, "debug_image/compressed")
        self._pace = Pace()

    @property
    def wanted(self) -> bool:
        """Whether the image is worth keeping for ``update``."""
        return self._raw.wanted or self._compressed.wanted

    def update(
        self,
        image: np.ndarray,
        result: LocalizationResult,
        decision: Decision | None,
        frame: str,
        stamp: int,
        thumbnail: Callable[[int], bytes],
    ) -> None:
        """image: BGR or grey, of the camera's ``frame`` at ``stamp`` ns.  thumbnail: of a keyframe's id, as JPEG."""
        if not self.wanted or not self._pace.allows(value_of(self._node, "debug_rate")):
            return
        words = []
        if decision is not None:
            words.append(
                f"{decision.state.name.lower()}, {'believed' if decision.accepted else 'rejected'}: {decision.reason}"
            )
        picture = draw_debug(image, result, thumbnail, words)
        header = Header(frame_id=frame, stamp=stamp_message(stamp))
        if self._raw.wanted:
            self._raw.publish(_image(picture, header))
        if self._compressed.wanted:
            data = cv2.imencode(".jpg", picture, _QUALITY)[1].tobytes()
            self._compressed.publish(
                CompressedImage(header=header, format="bgr8; jpeg compressed bgr8", data=array.array("B", data))
            )

    def close(self) -> None:
        self._raw.close()
        self._compressed.close()


def _image(picture: np.ndarray, header: Header) -> Image:
    height, width = picture.shape[:2]
    data = array.array("B", picture.tobytes())
    return Image(header=header, height=height, width=width, encoding="bgr8", step=3 * width, data=data)
