# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Pixels of sensor_msgs/Image and CompressedImage messages, of rclpy or read from a bag; no ROS in here.

Pixels are decoded with OpenCV alone, on every machine the same way: cv_bridge is missing
without apt's ROS and breaks with numpy 2, and neither it nor rosbags-image reads rows that
are padded beyond the width.  Wrong messages raise ``ImageError``.
"""

from __future__ import annotations

import struct

import cv2
import numpy as np

from nre_ros.errors import ImageError
from nre_ros.geometry import Camera

# Encoding -> type and number of channels of a pixel, conversion to BGR (None: is BGR or grey already).
# OpenCV names a Bayer pattern by its second row, ROS by the first: RGGB is OpenCV's BG.
_ENCODINGS = {
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
# Grey in full, then colour at half the size in pairs.
_SEMI_PLANAR = {"nv12": cv2.COLOR_YUV2BGR_NV12, "nv21": cv2.COLOR_YUV2BGR_NV21}


def image_array(message) -> np.ndarray:
    """Pixels as uint8 BGR [H, W, 3] or grey [H, W] of an Image or a CompressedImage; raises ``ImageError``."""
    return _compressed_array(message) if hasattr(message, "format") else _raw_array(message)


def _raw_array(message) -> np.ndarray:
    width, height, encoding = message.width, message.height, message.encoding
    if width == 0 or height == 0:
        raise ImageError(f"image of {width}x{height} pixels is empty")
    if encoding in _SEMI_PLANAR:
        return _semi_planar_array(message)
    if encoding not in _ENCODINGS:
        raise ImageError(f"unknown image encoding {encoding!r}: mono, colour, Bayer, YUV 4:2:2 and 4:2:0 are known")
    dtype, channels, conversion = _ENCODINGS[encoding]
    dtype = np.dtype(dtype).newbyteorder(">" if message.is_bigendian else "<")
    pixel = dtype.itemsize * channels
    if message.step < width * pixel:
        raise ImageError(f"image step of {message.step} bytes is less than a row of {width} {encoding} pixels")
    if len(message.data) < message.step * height:
        raise ImageError(
            f"image data has {len(message.data)} bytes, {message.step} x {height} = {message.step * height} expected"
        )
    shape, strides = (height, width, channels), (message.step, pixel, dtype.itemsize)
    if channels == 1:
        shape, strides = shape[:2], strides[:2]
    image = np.ndarray(shape, dtype, memoryview(message.data), strides=strides)
    if dtype.itemsize == 2:
        image = _eight_bits(image)
    if conversion is None:
        return np.ascontiguousarray(image)
    try:
        return cv2.cvtColor(np.ascontiguousarray(image), conversion)
    except cv2.error as error:  # such as an odd width for YUV
        raise ImageError(f"image of {width}x{height} {encoding} pixels cannot be converted: {error.err}") from None


def _semi_planar_array(message) -> np.ndarray:
    """YUV 4:2:0: ``height`` rows of grey and half as many of colour, all ``step`` bytes long."""
    width, height, step, rows = message.width, message.height, message.step, message.height * 3 // 2
    if width % 2 or height % 2:
        raise ImageError(f"image of {width}x{height} {message.encoding} pixels: its sides must be even")
    if step < width or len(message.data) < step * rows:
        raise ImageError(f"image data has {len(message.data)} bytes, {step} x {rows} = {step * rows} expected")
    planes = np.ndarray((rows, width), np.uint8, memoryview(message.data), strides=(step, 1))
    return cv2.cvtColor(np.ascontiguousarray(planes), _SEMI_PLANAR[message.encoding])


def _eight_bits(image: np.ndarray) -> np.ndarray:
    """The upper eight of the bits in use: cameras of 10 or 12 bits leave the highest ones empty."""
    shift = max(int(image.max()).bit_length() - 8, 0)
    return (image >> shift).astype(np.uint8)


def _compressed_array(message) -> np.ndarray:
    data = bytes(message.data)
    if "compressedDepth" in message.format:
        raise ImageError(f"compressed image holds depth, no camera image: format {message.format!r}")
    # OpenCV decodes what there is of a torn file and leaves the rest grey
    torn = (data.startswith(b"\xff\xd8") and not data.rstrip(b"\0").endswith(b"\xff\xd9")) or (
        data.startswith(b"\x89PNG") and b"IEND" not in data[-16:]
    )
    if torn:
        raise ImageError(f"compressed image is truncated: {len(data)} bytes without an end marker")
    # the intrinsics belong to the sensor's pixels: an orientation tag must not turn them
    flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = None
    if data:
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error:
            pass
    if image is None:
        raise ImageError(f"compressed image of {len(data)} bytes, format {message.format!r}, cannot be decoded")
    return image


def check_size(image: np.ndarray, camera: Camera):
    """Raises ``ImageError`` when the image is not of the camera's size."""
    height, width = image.shape[:2]
    if (width, height) != (camera.width, camera.height):
        raise ImageError(f"image is {width}x{height} but camera_info says {camera.width}x{camera.height} pixels")


def is_depth(message) -> bool:
    """Whether an Image or a CompressedImage holds depth."""
    kind = getattr(message, "format", None) or getattr(message, "encoding", "")
    return "compressedDepth" in kind or kind.split(";")[0].strip() in ("16UC1", "32FC1")


def depth_array(message) -> np.ndarray:
    """[H, W] float32 metres along z, 0 where there is none, of a depth Image or CompressedImage.

    16-bit depth is millimetres, 32-bit metres (REP-118).  Raises ``ImageError``.
    """
    if hasattr(message, "format"):
        return _compressed_depth(message)
    dtype = {"16UC1": np.uint16, "mono16": np.uint16, "32FC1": np.float32}.get(message.encoding)
    if dtype is None:
        raise ImageError(f"depth image has encoding {message.encoding!r}, expected 16UC1 or 32FC1")
    width, height = message.width, message.height
    dtype = np.dtype(dtype).newbyteorder(">" if message.is_bigendian else "<")
    if message.step < width * dtype.itemsize or len(message.data) < message.step * height:
        raise ImageError(
            f"depth image of {width}x{height} pixels has {len(message.data)} bytes in rows of {message.step}"
        )
    strides = (message.step, dtype.itemsize)
    return _metres(np.ndarray((height, width), dtype, memoryview(message.data), strides=strides))


def _metres(depth: np.ndarray) -> np.ndarray:
    if depth.dtype.kind == "u":
        return depth.astype(np.float32) / np.float32(1000)
    depth = depth.astype(np.float32)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def _compressed_depth(message) -> np.ndarray:
    """compressed_depth_image_transport: 12 bytes (int32 format, float32 A, float32 B), then a 16-bit PNG.

    Depth in float is stored as A / depth + B.
    """
    data, header = bytes(message.data), 12 if "compressedDepth" in message.format else 0
    if "rvl" in message.format.lower():
        raise ImageError(f"depth is compressed as {message.format!r}, PNG is known alone")
    if not data[header:].startswith(b"\x89PNG") or b"IEND" not in data[-16:]:
        raise ImageError(f"compressed depth of {len(data)} bytes, format {message.format!r}, is no whole PNG image")
    image = cv2.imdecode(np.frombuffer(data, np.uint8, offset=header), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 2 or image.dtype != np.uint16:
        raise ImageError(f"compressed depth, format {message.format!r}, is no 16-bit grey PNG image")
    if not message.format.startswith("32FC1"):
        return _metres(image)
    if not header:
        raise ImageError(f"compressed depth, format {message.format!r}, lacks compressedDepth's header")
    a, b = struct.unpack_from("<ff", data, 4)
    with np.errstate(divide="ignore"):
        return _metres(np.where(image > 0, np.float32(a) / (image.astype(np.float32) - np.float32(b)), 0))
