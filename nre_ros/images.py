# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Decoding of JPEG and PNG data, and the checks that every image goes through; no ROS here."""

from __future__ import annotations

import re
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImageError
from nre_ros.geometry import Camera

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG_SCAN, _JPEG_FRAMES = 0xDA, (0xC0, 0xC1, 0xC2)
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]", re.DOTALL)
"""A marker with a segment of its own, or the end: none of those inside a scan."""
_JPEG_FILLS = (b"\x55", b"\x92", b"\xfe")
"""Bytes in whose place a JPEG's missing ones would decode to other pixels."""
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"


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
        raise ImageError(f"{name} is truncated: {len(data)} bytes end before its last pixels")
    if data.startswith(_JPEG_START) and not data.endswith(_JPEG_END):
        data += _JPEG_END  # without which OpenCV refuses some
    image = _decode(data, flags)
    if image is None:
        raise ImageError(f"{name} cannot be decoded ({len(data)} bytes)")
    return image


def is_truncated(data: bytes) -> bool:
    """Returns whether JPEG or PNG data ends before its last pixels; data of other formats is never truncated.

    Bytes behind the end marker are allowed, since some cameras append padding, metadata or another image. A JPEG
    without an end marker is whole if it has all pixels: some webcams leave the marker out.

    Args:
        data: The content of an image file.
    """
    if data.startswith(_JPEG_START):
        return not _has_whole_scans(data)
    if data.startswith(_PNG_START):
        return not _has_png_end(data)
    return False


def _decode(data: bytes, flags: int) -> npt.NDArray[Any] | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:
        return None


def _has_whole_scans(data: bytes) -> bool:
    """Whether the end marker of a JPEG follows its scans, or all pixels are there without that."""
    at, frame, components, scanned = 2, 0, 0, 0
    while (found := _JPEG_MARKER.search(data, at)) is not None:
        at, marker = found.end(), data[found.end() - 1]
        if marker == _JPEG_END[1]:
            return True
        segment = data[at : at + 8]  # length, and what follows
        if marker in _JPEG_FRAMES and len(segment) == 8:
            frame, components = marker, segment[7]
        if marker == _JPEG_SCAN and len(segment) > 2:
            scanned += segment[2]
        at += int.from_bytes(segment[:2], "big")
    if frame not in _JPEG_FRAMES[:2] or scanned < components:  # later scans would refine the pixels, or add colour
        return False
    # the pixels are all there if nothing that follows changes them
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = _decode(data + _JPEG_END, flags)
    others = (_decode(data + _jpeg_filling(fill) + _JPEG_END, flags) for fill in _JPEG_FILLS)
    return image is not None and all(other is not None and np.array_equal(image, other) for other in others)


def _jpeg_filling(fill: bytes) -> bytes:
    """What a scan that is not complete may go on with, also behind a restart marker."""
    return fill * 1024 + b"".join(bytes([0xFF, 0xD0 + k]) + fill * 64 for k in range(8))


def _has_png_end(data: bytes) -> bool:
    at = len(_PNG_START)
    while at + 8 <= len(data):
        if data[at + 4 : at + 8] == _PNG_END:
            return True
        at += 12 + int.from_bytes(data[at : at + 4], "big")
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
    if (width, height) == (camera.width, camera.height):
        return
    turned = (
        ": the sides are exchanged, as by an EXIF orientation, which is not applied here (nor by COLMAP): turn the pixels "
        "(`mogrify -auto-orient FILE`), or give the intrinsics of the pixels as they are stored"
    )
    raise ImageError(
        f"image is {width}x{height} but its intrinsics are for {camera.width}x{camera.height} pixels"
        + (turned if (width, height) == (camera.height, camera.width) else "")
    )
