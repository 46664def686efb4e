# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Notices when time goes back: a bag that starts again, a simulation that is reset, a camera of another age."""

from __future__ import annotations

import time
from collections.abc import Callable

from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.node import Node

from nre_ros.node.seldom import SeldomLog

_BACKWARDS = 10**9
"""Nanoseconds by which an image may be older than the newest one, of another camera; more, and time went back."""
_AHEAD = 10**9
"""By which a stamp may be ahead of the node's clock; more would make the next good image one of the past."""
_LATE = 10**10
"""By which a stamp may be behind it without a word."""
_BAG = "for a bag: use_sim_time and --clock"


class Times:
    """Watches the node's clock and the images' stamps; ``went_back`` is told in words."""

    def __init__(self, node: Node, log: SeldomLog, went_back: Callable[[str], None]):
        self._node, self._log, self._went_back = node, log, went_back
        self._newest, self._came, self._localized = 0, 0.0, 0
        self._handle = node.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False),
            post_callback=lambda jump: self._back("the clock"),
        )

    def arrived(self, stamp: int) -> None:
        """An image of this stamp (nanoseconds) has come; in the order of arrival, which is that of time."""
        if self._fault(stamp):
            return
        if stamp < self._newest - _BACKWARDS:
            self._back(f"the images' stamps, by {(self._newest - stamp) / 1e9:.1f} s,")
        if stamp >= self._newest:
            self._newest, self._came = stamp, time.monotonic()

    def by_now(self) -> int:
        """The stamp that an image would have now by the ones before, of whatever clock; 0 before the first."""
        return self._newest + round(1e9 * (time.monotonic() - self._came)) if self._newest else 0

    def refusal(self, stamp: int) -> str:
        """Why an image that is about to be localized cannot be, or empty."""
        fault = self._fault(stamp)
        if fault:
            return fault
        if (
            stamp < self._localized - _BACKWARDS
        ):  # not than the newest that came: a slow camera would never have its turn
            return f"image has waited until one was localized that is {(self._localized - stamp) / 1e9:.1f} s newer"
        self._localized = max(stamp, self._localized)
        late = self._node.get_clock().now().nanoseconds - stamp
        if late > _LATE:
            self._log.warning(f"the image's stamp is {late / 1e9:.1f} s behind this node's clock ({_BAG})")
        return ""

    def _fault(self, stamp: int) -> str:
        """What is wrong with a stamp as such, in words."""
        if not stamp:
            return "image has no time stamp (0): nobody could use its pose"
        now = self._node.get_clock().now().nanoseconds
        if now and stamp > now + _AHEAD:
            return f"image is stamped {(stamp - now) / 1e9:.1f} s ahead of this node's clock ({_BAG})"
        return ""

    def close(self):
        """Stops watching."""
        self._handle.unregister()

    def _back(self, what: str):
        self._newest = self._localized = 0
        self._went_back(f"{what} went back")
