# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Watches the node's clock and the stamps of the images: time that goes back, and images with unusable stamps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.node import Node

from nre_ros.gate.stamp_order import MAX_DISORDER, StampOrder
from nre_ros.node.image_drops import ImageDrop
from nre_ros.node.logs import ThrottledLogger

_MAX_AHEAD = 10**9
"""Nanoseconds by which a stamp may be ahead of the node's clock; more would make the next good image one of the past."""
_MAX_BEHIND = 10**10
"""Nanoseconds by which a stamp may be behind the node's clock without a warning."""
_BAG_ADVICE = "for a bag: use_sim_time and --clock"


class ClockMonitor:
    """Decides whether time went back, the only place of the node that does.

    Time goes back when a bag starts again, a simulation is reset, or a camera has another clock.  The node's clock
    shows it by a jump, the images by stamps that are more than a second older than an image that arrived before.
    """

    def __init__(self, node: Node, log: ThrottledLogger, on_time_went_back: Callable[[str], None]) -> None:
        """Starts watching; ``on_time_went_back`` is called on the executor's thread with the reason."""
        self._node, self._log, self._on_time_went_back = node, log, on_time_went_back
        self._arrivals = StampOrder()
        self._newest_arrival = 0.0  # monotonic seconds at which the newest stamp arrived
        self._newest_localized = 0
        self._lock = threading.Lock()  # images arrive on the executor's thread and are checked on the worker's
        self._handle = node.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False),
            post_callback=lambda jump: self._on_clock_jump(),
        )

    def arrived(self, stamp: int) -> None:
        """Records the stamp of an image that has just arrived, and reports a stamp that shows that time went back.

        Args:
            stamp: Nanoseconds.
        """
        if self._check_stamp(stamp):
            return
        with self._lock:
            seconds = self._arrivals.add(stamp)
            if seconds:
                self._newest_localized = 0
            if stamp >= self._arrivals.newest:
                self._newest_arrival = time.monotonic()
        if seconds:
            self._on_time_went_back(f"the stamps of the images went back by {seconds:.1f} s")

    def forget(self) -> None:
        """Forgets which image was localized: an image that arrived before may have passed the check meanwhile."""
        with self._lock:
            self._newest_localized = 0

    def current_stamp(self) -> int:
        """Returns the stamp that an image would have now, extrapolated from those before; 0 before the first image."""
        with self._lock:
            newest, arrival = self._arrivals.newest, self._newest_arrival
        return newest + round(1e9 * (time.monotonic() - arrival)) if newest else 0

    def check(self, stamp: int) -> tuple[ImageDrop, str] | None:
        """Checks the stamp of an image that is about to be localized.

        Args:
            stamp: Nanoseconds.

        Returns:
            Why the image is dropped, as a kind and in words; None for an image that can be localized.
        """
        fault = self._check_stamp(stamp)
        if fault is not None:
            return fault
        # compared with the newest one localized, not the newest one arrived: a slow camera would never have its turn
        with self._lock:
            newer = (self._newest_localized - stamp) / 1e9
            if stamp < self._newest_localized - MAX_DISORDER:
                return ImageDrop.STALE_STAMP, f"image has waited until one was localized that is {newer:.1f} s newer"
            self._newest_localized = max(stamp, self._newest_localized)
        behind = self._node.get_clock().now().nanoseconds - stamp
        if behind > _MAX_BEHIND:
            self._log.warning(f"the image's stamp is {behind / 1e9:.1f} s behind this node's clock ({_BAG_ADVICE})")
        return None

    def close(self) -> None:
        """Stops watching."""
        self._handle.unregister()

    def _check_stamp(self, stamp: int) -> tuple[ImageDrop, str] | None:
        if not stamp:
            return ImageDrop.NO_STAMP, "image has no time stamp (0): nobody could use its pose"
        now = self._node.get_clock().now().nanoseconds
        if now and stamp > now + _MAX_AHEAD:
            ahead = (stamp - now) / 1e9
            return ImageDrop.FUTURE_STAMP, f"image is stamped {ahead:.1f} s ahead of this node's clock ({_BAG_ADVICE})"
        return None

    def _on_clock_jump(self) -> None:
        with self._lock:
            self._arrivals.reset()
            self._newest_localized = 0
        self._on_time_went_back("the clock went back")
