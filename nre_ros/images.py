# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Decoding of JPEG and PNG data, and the checks that every image goes through; no ROS here."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImageError
from nre_ros.geometry import Camera

_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG", b"IEND"
_PNG_TAIL = 64
"""Bytes at the end of the data among which a PNG's end marker must lie."""


def decode_image(data: bytes, flags: int, name: str) -> npt.NDArray[Any]:
    """Decodes JPEG, PNG or any other image data that OpenCV knows.

    OpenCV decodes truncated data too and fills the missing part with grey. This function refuses such data.

    Args:
        data: The content of an image file.
        flags: OpenCV's ``IMREAD`` flags.
        name: What the error message calls the image, for example ``image /data/1.jpg``.

    Returns:
        The pixels [H, W] or [H, W, 3], uint8 or, with ``IMREAD_UNCHANGED``, the type of the data.

    Raises:
        ImageError: The data is truncated or is no image.
    """
    if is_truncated(data):
        raise ImageError(f"{name} is truncated: {len(data)} bytes without an end marker")
    image = None
    if data:
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error:
            pass
    if image is None:
        raise ImageError(f"{name} cannot be decoded ({len(data)} bytes)")
    return image


def is_truncated(data: bytes) -> bool:
    """Returns whether JPEG or PNG data ends before its end marker; data of other formats is never truncated.

    A JPEG is whole if an end marker follows its last scan: a thumbnail inside the file has an end marker too, but
    ahead of the scan. Bytes behind the end marker are allowed, since some cameras append padding or metadata.

    Args:
        data: The content of an image file.
    """
    if data.startswith(_JPEG_START):
        return data.rfind(_JPEG_END) < data.rfind(_JPEG_SCAN) or _JPEG_END not in data
    if data.startswith(_PNG_START):
        return _PNG_END not in data[-_PNG_TAIL:]
    return False


def check_image_size(image: npt.NDArray[Any], camera: Camera) -> None:
    """Checks that an image has the size that the camera's intrinsics are for.

    Args:
        image: Pixels [H, W] or [H, W, 3].
        camera: The camera that the image is said to be of.

    Raises:
        ImageError: The sizes differ.
    """
    height, width = image.shape[:2]
    if (width, height) != (camera.width, camera.height):
        raise ImageError(f"image is {width}x{height} but its intrinsics are for {camera.width}x{camera.height} pixels")
