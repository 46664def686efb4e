# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The rule by which stamps show that time went back: a looped bag, a simulation that was reset."""

from __future__ import annotations

MAX_DISORDER = 10**9
"""Nanoseconds by which a stamp may be older than the newest one, because several cameras are not in order."""


class StampOrder:
    """Watches a sequence of stamps (nanoseconds).

    Attributes:
        newest: The newest stamp so far, 0 before the first one.
    """

    def __init__(self) -> None:
        self.newest = 0

    def reset(self, newest: int = 0) -> None:
        """Starts a new sequence of stamps.

        Args:
            newest: Newest stamp so far, nanoseconds; 0 before the first one.
        """
        self.newest = newest

    def add(self, stamp: int) -> float:
        """Adds the next stamp of the sequence.

        Args:
            stamp: Nanoseconds.

        Returns:
            Seconds by which time went back, so that a new sequence has begun; 0 where it did not.
        """
        back = self.newest - stamp
        self.newest = stamp if back > MAX_DISORDER else max(self.newest, stamp)
        return back / 1e9 if back > MAX_DISORDER else 0.0
