# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Depth from sensor_msgs/Image and CompressedImage messages; no ROS here."""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImageError
from nre_ros.images import is_truncated
from nre_ros.messages.protocols import CompressedImageMessage, ImageMessage

_DEPTH_TYPES = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}
_COMPRESSED_DEPTH = "compressedDepth"
_COMPRESSED_DEPTH_HEADER_BYTES = 12
"""Of compressed_depth_image_transport: int32 format, float32 A, float32 B."""


def is_depth(message: ImageMessage | CompressedImageMessage) -> bool:
    """Returns whether an image message holds depth, by its encoding or format.

    Args:
        message: Image or CompressedImage.
    """
    kind = str(getattr(message, "format", "") or getattr(message, "encoding", ""))
    return _COMPRESSED_DEPTH in kind or kind.split(";")[0].strip() in ("16UC1", "32FC1")


def depth_array(
    message: ImageMessage | CompressedImageMessage, depth_scale: float | None = None
) -> npt.NDArray[np.float32]:
    """Decodes a depth image.

    Args:
        message: Image, or CompressedImage of compressed_depth_image_transport (PNG).
        depth_scale: Value of one metre; None: that of the encoding (``encoded_depth_scale``).

    Returns:
        Depth [H, W] in metres along the optical axis, 0 where the camera measured none.

    Raises:
        ImageError: The message is no depth image or is damaged.
    """
    scale = encoded_depth_scale(message) if depth_scale is None else depth_scale
    if isinstance(message, CompressedImageMessage):
        return _metres(_compressed_depth(message), scale)
    return _metres(_raw_depth(message), scale)


def encoded_depth_scale(message: ImageMessage | CompressedImageMessage) -> float:
    """Returns the value of one metre by a message's encoding: depth of 32 bits is in metres, of 16 in mm (REP-118).

    Args:
        message: Image or CompressedImage of depth.
    """
    kind = str(getattr(message, "format", "") or getattr(message, "encoding", ""))
    return 1.0 if kind.startswith("32FC1") else 1000.0


def _raw_depth(message: ImageMessage) -> npt.NDArray[Any]:
    if message.encoding not in _DEPTH_TYPES:
        raise ImageError(f"depth image has encoding {message.encoding!r}, expected 16UC1 or 32FC1")
    width, height = message.width, message.height
    dtype = np.dtype(_DEPTH_TYPES[message.encoding]).newbyteorder(">" if message.is_bigendian else "<")
    if message.step < width * dtype.itemsize or len(message.data) < message.step * height:
        raise ImageError(
            f"depth image of {width}x{height} pixels has {len(message.data)} bytes in rows of {message.step}"
        )
    strides = (message.step, dtype.itemsize)
    return np.ndarray((height, width), dtype, memoryview(message.data), strides=strides)


def _compressed_depth(message: CompressedImageMessage) -> npt.NDArray[Any]:
    """Decodes a header of 12 bytes and a 16-bit PNG; floating-point depth is stored as A / depth + B."""
    data, header = bytes(message.data), _COMPRESSED_DEPTH_HEADER_BYTES if _COMPRESSED_DEPTH in message.format else 0
    if "rvl" in message.format.lower():
        raise ImageError(f"depth is compressed as {message.format!r}, only PNG is supported")
    png = data[header:]
    if not png.startswith(b"\x89PNG") or is_truncated(png):
        raise ImageError(f"compressed depth of {len(data)} bytes, format {message.format!r}, is no whole PNG image")
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 2 or image.dtype != np.uint16:
        raise ImageError(f"compressed depth, format {message.format!r}, is no 16-bit grey PNG image")
    if not message.format.startswith("32FC1"):
        return image
    if not header:
        raise ImageError(f"compressed depth, format {message.format!r}, lacks compressedDepth's header")
    a, b = struct.unpack_from("<ff", data, 4)
    with np.errstate(divide="ignore"):
        return np.where(image > 0, np.float32(a) / (image.astype(np.float32) - np.float32(b)), 0)


def _metres(depth: npt.NDArray[Any], depth_scale: float) -> npt.NDArray[np.float32]:
    """Converts to metres, and what is no depth to 0."""
    metres = depth.astype(np.float32)
    if depth_scale != 1:
        metres /= np.float32(depth_scale)
    if depth.dtype.kind == "u":
        return metres
    return np.where(np.isfinite(metres) & (metres > 0), metres, np.float32(0))
