# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Time stamps of messages as integer nanoseconds, and as text."""

from __future__ import annotations

from nre_ros.messages.protocols import Stamped, Time


def stamp_nanoseconds(stamp: Time) -> int:
    """Returns a stamp in nanoseconds since the epoch.

    Args:
        stamp: Message ``builtin_interfaces/Time``.
    """
    return stamp.sec * 10**9 + stamp.nanosec


def header_stamp(message: Stamped) -> int:
    """Returns the stamp in a message's header in nanoseconds since the epoch.

    Args:
        message: Any message with a header.
    """
    return stamp_nanoseconds(message.header.stamp)


def stamp_in_recording(message: Stamped, log_time: int) -> int:
    """Returns the stamp of a recorded message; without a stamp (0), the time at which it was recorded.

    Args:
        message: Any message with a header.
        log_time: Nanoseconds when the message was recorded.
    """
    return header_stamp(message) or log_time


def seconds_text(stamp: int) -> str:
    """Formats a stamp as decimal seconds, with all nine decimals.

    Files in TUM's format have such stamps. The images of a recording are named by this text too.

    Args:
        stamp: Nanoseconds.

    Returns:
        For example ``1700000000.000000001``.
    """
    return f"{stamp // 10**9}.{stamp % 10**9:09d}"
