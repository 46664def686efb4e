# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The fields of ROS messages that this package reads.

The same message exists in two forms: as a class of rclpy and as what rosbags reads from a recording. Both have these
fields, so that functions that take one of these types work with and without ROS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable


class Time(Protocol):
    """builtin_interfaces/Time.

    Attributes:
        sec: Whole seconds since the epoch.
        nanosec: Nanoseconds to add.
    """

    sec: int
    nanosec: int


class Header(Protocol):
    """std_msgs/Header."""

    stamp: Time
    frame_id: str


class Stamped(Protocol):
    """Any message with a header."""

    header: Header


class ImageMessage(Protocol):
    """sensor_msgs/Image; ``data`` is a buffer of ``height`` rows of ``step`` bytes."""

    header: Header
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any  # array.array of rclpy, numpy array of rosbags


@runtime_checkable
class CompressedImageMessage(Protocol):
    """sensor_msgs/CompressedImage; ``data`` is a buffer with an image file."""

    header: Header
    format: str
    data: Any  # array.array of rclpy, numpy array of rosbags


class RegionOfInterest(Protocol):
    """sensor_msgs/RegionOfInterest."""

    x_offset: int
    y_offset: int
    height: int
    width: int


class CameraInfoMessage(Protocol):
    """sensor_msgs/CameraInfo; ``k`` [9] and ``p`` [12] are row-major matrices."""

    header: Header
    height: int
    width: int
    distortion_model: str
    d: Sequence[float]
    k: Sequence[float]
    p: Sequence[float]
    binning_x: int
    binning_y: int
    roi: RegionOfInterest
