# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Reading of colour and depth images from files, and the checks of sizes and depth scale that go with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImageError, ImportSourceError
from nre_ros.images import decode_image


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Reads a colour image, without turning it by its EXIF orientation (COLMAP does not turn images either).

    Args:
        path: The image file.

    Returns:
        BGR [H, W, 3], uint8.

    Raises:
        ImageError: The file is missing, truncated or no image.
    """
    image: npt.NDArray[np.uint8] = _decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return image


def read_depth(path: Path, depth_scale: float) -> npt.NDArray[np.float32]:
    """Reads a depth image.

    Args:
        path: Image file with one channel of 16 bits.
        depth_scale: Pixel value of one metre.

    Returns:
        [H, W] metres along the optical axis, 0 where nothing was measured.

    Raises:
        ImageError: The file is missing, truncated or no 16-bit image.
    """
    depth = _decode(path, cv2.IMREAD_UNCHANGED)
    if depth.dtype != np.uint16 or depth.ndim != 2:
        raise ImageError(f"depth image {path} has shape {depth.shape} and type {depth.dtype}, expected 16-bit grey")
    return depth.astype(np.float32) / np.float32(depth_scale)


def check_depth_size(depth: npt.NDArray[Any], width: int, height: int, what: str) -> None:
    """Checks the size of a depth image.

    Args:
        depth: [H, W].
        width: Expected width in pixels.
        height: Expected height in pixels.
        what: What the size is compared with, for the message.

    Raises:
        ImageError: The sizes differ.
    """
    if depth.shape != (height, width):
        raise ImageError(f"depth of {depth.shape[1]}x{depth.shape[0]} pixels, {what} {width}x{height}")


def check_depth_scale(depth_scale: float) -> float:
    """Checks a depth scale.

    Args:
        depth_scale: Pixel value of one metre.

    Returns:
        The scale as it came.

    Raises:
        ImportSourceError: The scale is not a positive number.
    """
    if not (np.isfinite(depth_scale) and depth_scale > 0):
        raise ImportSourceError(f"depth scale {depth_scale} is not positive")
    return depth_scale


def nearest_stamp(stamps: npt.NDArray[np.int64], stamp: int, max_offset: float) -> int:
    """Finds the depth image that belongs to a colour image.

    Args:
        stamps: [D] nanoseconds, of the depth images.
        stamp: Nanoseconds, of the colour image.
        max_offset: Largest difference in seconds.

    Returns:
        Index of the nearest stamp.

    Raises:
        ImageError: No stamp is near enough.
    """
    offsets = np.abs(stamps - stamp)
    if not len(offsets) or offsets.min() > max_offset * 1e9:
        raise ImageError(f"no depth image within {max_offset} s of this image")
    return int(offsets.argmin())


def _decode(path: Path, flags: int) -> npt.NDArray[Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"image {path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # a name that no file can have
        raise ImageError(f"image {str(path)!r} cannot be read: {error}") from error
    return decode_image(data, flags, f"image {path}")
