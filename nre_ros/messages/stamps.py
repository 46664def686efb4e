# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Stamps as numbers and in words."""

from __future__ import annotations


def stamp_nanoseconds(stamp) -> int:
    """Nanoseconds since the epoch of a builtin_interfaces/Time, of rclpy or from a bag."""
    return stamp.sec * 10**9 + stamp.nanosec


def seconds_of(stamp: int) -> str:
    """Seconds of a stamp in nanoseconds, exactly, as TUM files have them: the name of a recording's image."""
    return f"{stamp // 10**9}.{stamp % 10**9:09d}"
