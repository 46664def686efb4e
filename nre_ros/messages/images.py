# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Pixels of sensor_msgs/Image and CompressedImage messages; no ROS here.

OpenCV alone decodes the pixels, so that every machine gets the same ones. cv_bridge needs ROS from apt and fails with
numpy 2. Neither cv_bridge nor rosbags-image reads rows that are padded beyond the width.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImageError, UnknownEncodingError
from nre_ros.images import decode_image
from nre_ros.messages.protocols import CompressedImageMessage, ImageMessage

# Encoding -> type and number of channels of a pixel, conversion to BGR (None: the pixels are BGR or grey).
# OpenCV names a Bayer pattern by its second row, ROS by the first: RGGB is OpenCV's BG.
_ENCODINGS: dict[str, tuple[type[np.generic], int, int | None]] = {
    "mono8": (np.uint8, 1, None),
    "8UC1": (np.uint8, 1, None),
    "mono16": (np.uint16, 1, None),
    "bgr8": (np.uint8, 3, None),
    "8UC3": (np.uint8, 3, None),
    "rgb8": (np.uint8, 3, cv2.COLOR_RGB2BGR),
    "bgra8": (np.uint8, 4, cv2.COLOR_BGRA2BGR),
    "8UC4": (np.uint8, 4, cv2.COLOR_BGRA2BGR),
    "rgba8": (np.uint8, 4, cv2.COLOR_RGBA2BGR),
    "bgr16": (np.uint16, 3, None),
    "rgb16": (np.uint16, 3, cv2.COLOR_RGB2BGR),
    "bgra16": (np.uint16, 4, cv2.COLOR_BGRA2BGR),
    "rgba16": (np.uint16, 4, cv2.COLOR_RGBA2BGR),
    "bayer_rggb8": (np.uint8, 1, cv2.COLOR_BayerBG2BGR),
    "bayer_bggr8": (np.uint8, 1, cv2.COLOR_BayerRG2BGR),
    "bayer_gbrg8": (np.uint8, 1, cv2.COLOR_BayerGR2BGR),
    "bayer_grbg8": (np.uint8, 1, cv2.COLOR_BayerGB2BGR),
    "bayer_rggb16": (np.uint16, 1, cv2.COLOR_BayerBG2BGR),
    "bayer_bggr16": (np.uint16, 1, cv2.COLOR_BayerRG2BGR),
    "bayer_gbrg16": (np.uint16, 1, cv2.COLOR_BayerGR2BGR),
    "bayer_grbg16": (np.uint16, 1, cv2.COLOR_BayerGB2BGR),
    "yuv422": (np.uint8, 2, cv2.COLOR_YUV2BGR_UYVY),
    "uyvy": (np.uint8, 2, cv2.COLOR_YUV2BGR_UYVY),
    "yuv422_yuy2": (np.uint8, 2, cv2.COLOR_YUV2BGR_YUY2),
    "yuyv": (np.uint8, 2, cv2.COLOR_YUV2BGR_YUY2),
}
# A plane of grey in full size, then a plane of interleaved colour in half the size.
_SEMI_PLANAR = {"nv12": cv2.COLOR_YUV2BGR_NV12, "nv21": cv2.COLOR_YUV2BGR_NV21}
# A plane of grey in full size, then two planes of colour in half the size, whose rows are half as long.
_PLANAR = {
    "i420": cv2.COLOR_YUV2BGR_I420,
    "iyuv": cv2.COLOR_YUV2BGR_I420,
    "yuv420p": cv2.COLOR_YUV2BGR_I420,
    "yv12": cv2.COLOR_YUV2BGR_YV12,
}


def image_array(message: ImageMessage | CompressedImageMessage) -> npt.NDArray[np.uint8]:
    """Decodes a camera image.

    Images of 16 bits are reduced to the upper eight of the bits in use.

    Args:
        message: Image or CompressedImage.

    Returns:
        Pixels, BGR [H, W, 3] or grey [H, W]. They may share memory with the message.

    Raises:
        ImageError: The image has an unknown encoding, is damaged or holds depth.
    """
    if isinstance(message, CompressedImageMessage):
        return _compressed_array(message)
    return _raw_array(message)


def _raw_array(message: ImageMessage) -> npt.NDArray[np.uint8]:
    width, height, encoding = message.width, message.height, message.encoding
    if width == 0 or height == 0:
        raise ImageError(f"image of {width}x{height} pixels is empty")
    if encoding in _SEMI_PLANAR or encoding in _PLANAR:
        return _planar_array(message)
    if encoding not in _ENCODINGS:
        raise UnknownEncodingError(
            f"unknown image encoding {encoding!r}, supported are mono, colour, Bayer, YUV 4:2:2 and 4:2:0"
        )
    sample_type, channels, conversion = _ENCODINGS[encoding]
    dtype: np.dtype[Any] = np.dtype(sample_type).newbyteorder(">" if message.is_bigendian else "<")
    pixel = dtype.itemsize * channels
    if message.step < width * pixel:
        raise ImageError(f"image step of {message.step} bytes is less than a row of {width} {encoding} pixels")
    if len(message.data) < message.step * height:
        raise ImageError(
            f"image data has {len(message.data)} bytes, {message.step} x {height} = {message.step * height} expected"
        )
    shape: tuple[int, ...] = (height, width, channels)
    strides: tuple[int, ...] = (message.step, pixel, dtype.itemsize)
    if channels == 1:
        shape, strides = shape[:2], strides[:2]
    image = np.ndarray(shape, dtype, memoryview(message.data), strides=strides)
    if dtype.itemsize == 2:
        image = _upper_eight_bits(image)
    if conversion is None:
        return np.ascontiguousarray(image)
    try:
        return _uint8(cv2.cvtColor(np.ascontiguousarray(image), conversion))
    except cv2.error as error:  # such as an odd width for YUV
        raise ImageError(f"image of {width}x{height} {encoding} pixels cannot be converted: {error.err}") from None


def _planar_array(message: ImageMessage) -> npt.NDArray[np.uint8]:
    """Decodes YUV 4:2:0: ``height`` rows of grey, all ``step`` bytes long, and half as many bytes of colour."""
    width, height, step, rows = message.width, message.height, message.step, message.height * 3 // 2
    if width % 2 or height % 2:
        raise ImageError(f"image of {width}x{height} {message.encoding} pixels: its sides must be even")
    if step < width or len(message.data) < step * rows:
        raise ImageError(f"image data has {len(message.data)} bytes, {step} x {rows} = {step * rows} expected")
    buffer = memoryview(message.data)
    if message.encoding in _SEMI_PLANAR:
        planes = np.ndarray((rows, width), np.uint8, buffer, strides=(step, 1))
        return _uint8(cv2.cvtColor(np.ascontiguousarray(planes), _SEMI_PLANAR[message.encoding]))
    grey = np.ndarray((height, width), np.uint8, buffer, strides=(step, 1))
    colour = np.ndarray((height, width // 2), np.uint8, buffer, offset=step * height, strides=(step // 2, 1))
    planes = np.concatenate([grey.ravel(), colour.ravel()]).reshape(rows, width)
    return _uint8(cv2.cvtColor(planes, _PLANAR[message.encoding]))


def _upper_eight_bits(image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Keeps the upper eight of the bits in use: cameras of 10 or 12 bits leave the highest bits empty."""
    shift = max(int(image.max()).bit_length() - 8, 0)
    return (image >> shift).astype(np.uint8)


def _compressed_array(message: CompressedImageMessage) -> npt.NDArray[np.uint8]:
    if "compressedDepth" in message.format:
        raise ImageError(f"compressed image holds depth, it is no camera image: format {message.format!r}")
    # the intrinsics belong to the sensor's pixels: an orientation tag must not rotate the image
    flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return _uint8(decode_image(bytes(message.data), flags, f"compressed image (format {message.format!r})"))


def _uint8(image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Gives an image of bytes its precise type; does not copy."""
    return image.astype(np.uint8, copy=False)
