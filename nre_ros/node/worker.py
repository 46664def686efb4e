# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The one thread that works on images, with one place for the newest of each camera.

The executor's thread only puts work in and never waits; an image that comes while the thread
is at work replaces the one of its camera that waits.

When the thread is free, the image that waits is up to an interval of the camera old.  If the work takes
several intervals it pays to wait for the next one: the pose is then as old as the computation took and
no older, and fewer than one image in eight is lost by it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass

MAX_REQUESTS = 8
"""Requests that may wait; more are turned away."""
_FRESH_SECONDS = 0.008
"""An offer that waited no longer is taken as it is."""
_INTERVALS = 4
"""Intervals between offers that the work takes at least, for waiting to pay."""


@dataclass(frozen=True, eq=False)
class _Offer:
    """Work, when it was offered (monotonic seconds), and how long after the one before."""

    work: Callable[[], None]
    at: float
    interval: float


class Worker:
    """Runs callables one at a time: requests in their order, then the newest offer of each source in turn.

    report: told of the errors that a callable raises; the thread goes on.
    """

    def __init__(self, report: Callable[[Exception], None]):
        self._report = report
        self._changed = threading.Condition()
        self._offers: dict[Hashable, _Offer] = {}  # in the order in which their turns come
        self._last: dict[Hashable, float] = {}
        self._took = 0.0  # seconds, the last offer's work
        self._requests: deque[Callable[[], None]] = deque()
        self._stopped = False
        # daemon: a computation that cannot be interrupted must not keep the process alive
        self._thread = threading.Thread(target=self._run, name="localize", daemon=True)

    def start(self):
        self._thread.start()

    def offer(self, source: Hashable, work: Callable[[], None]):
        """Work to be done in place of any earlier offer of ``source`` that still waits, whose turn it keeps."""
        now = time.monotonic()
        with self._changed:
            self._offers[source] = _Offer(work, now, now - self._last.get(source, 0.0))
            self._last[source] = now
            self._changed.notify()

    def request(self, work: Callable[[], None]) -> bool:
        """Work that is not replaced; false when too much waits already, or nothing will be done any more."""
        with self._changed:
            if self._stopped or len(self._requests) >= MAX_REQUESTS:
                return False
            self._requests.append(work)
            self._changed.notify()
            return True

    def forget(self):
        """Drops the waiting offers."""
        with self._changed:
            self._offers.clear()

    def stop(self, timeout: float | None = None) -> bool:
        """Takes no more work; true when the thread has ended within ``timeout`` seconds (None: however long)."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self):
        while work := self._next():
            try:
                work()
            except Exception as error:
                self._report(error)

    def _next(self) -> Callable[[], None] | None:
        waited = False  # once a turn: on a busy machine even the newest one is soon old
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._stopped or self._requests or self._offers)
                if self._stopped:
                    return None
                if self._requests:
                    return self._requests.popleft()
                source, offer = next(iter(self._offers.items()))
                if waited or not self._newer_comes(source, offer):
                    del self._offers[source]
                    return lambda: self._timed(offer.work)
                waited = True

    def _newer_comes(self, source: Hashable, offer: _Offer) -> bool:
        """Waits for something newer than ``offer`` where that pays; false when ``offer`` is to be taken."""
        now = time.monotonic()
        if now - offer.at < _FRESH_SECONDS or self._took < _INTERVALS * offer.interval:
            return False
        patience = offer.at + 1.5 * offer.interval - now
        return patience > 0 and self._changed.wait_for(
            lambda: self._stopped or self._requests or self._offers.get(source) is not offer, patience
        )

    def _timed(self, work: Callable[[], None]):
        began = time.monotonic()
        try:
            work()
        finally:
            self._took = time.monotonic() - began
