# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""An image message as it arrived, in bytes.

The executor's thread needs the stamp alone.  The worker deserializes the images that it localizes; those that are
dropped before cost nothing more.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import cast

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image

from nre_ros.errors import ImageError

_STAMP_OFFSET = 4
"""Bytes of the encapsulation header (DDS-XTypes 7.6.3.1.2), before the message's first field: its header's stamp."""


@dataclass(frozen=True)
class SerializedImage:
    """A serialized sensor_msgs/Image or CompressedImage.

    Attributes:
        message_type: Image or CompressedImage.
        data: The message in CDR, with the encapsulation header.
    """

    message_type: type
    data: bytes

    @property
    def stamp(self) -> int:
        """Stamp of the image in nanoseconds; 0 if the message is too short to have one."""
        if len(self.data) < _STAMP_OFFSET + 8:
            return 0
        order = "<" if self.data[1] & 1 else ">"
        seconds, nanoseconds = struct.unpack_from(f"{order}iI", self.data, _STAMP_OFFSET)
        return int(seconds) * 10**9 + int(nanoseconds)

    def message(self) -> Image | CompressedImage:
        """Deserializes the message.

        Raises:
            ImageError: The bytes are no such message.
        """
        try:
            return cast("Image | CompressedImage", deserialize_message(self.data, self.message_type))
        except Exception as error:  # rclpy raises its own errors, and those of the conversion to Python
            raise ImageError(f"image message of {len(self.data)} bytes cannot be deserialized: {error}") from error
