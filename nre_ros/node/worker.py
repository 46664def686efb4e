# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The worker: the thread that localizes images, with one waiting place for the newest image of each camera.

The executor's thread only adds work and never waits.  An image that arrives while the worker is busy replaces the
waiting image of its camera.

When the worker becomes free, the waiting image is up to one camera interval old.  If the work takes several
intervals it pays to wait for the next image: the pose is then as old as the computation took and no older, and
fewer than one image in eight is lost by the wait.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial

from nre_ros.process import adopt_threads

MAX_REQUESTS = 8
"""Requests that may wait; more are rejected."""
_FRESH_SECONDS = 0.008
"""An offer that has waited no longer than this is taken."""
_MIN_INTERVALS = 4
"""If the work takes at least so many intervals between offers, waiting for a newer offer pays."""


@dataclass(frozen=True, eq=False)
class _Offer:
    """Work, when it was offered (monotonic seconds), and how long after the one before (seconds)."""

    work: Callable[[], None]
    at: float
    interval: float


class Worker:
    """Runs callables one at a time: requests in their order, then the newest offer of each source in turn."""

    def __init__(self, on_error: Callable[[Exception], None]) -> None:
        """Creates the thread; ``on_error`` is called with the errors that a callable raises, and the thread goes on."""
        self._on_error = on_error
        self._changed = threading.Condition()
        self._offers: dict[Hashable, _Offer] = {}  # in the order in which their turns come
        self._last: dict[Hashable, float] = {}
        self._duration = 0.0  # seconds, of the last offer's work
        self._requests: deque[Callable[[], None]] = deque()
        self._stopped = False
        # daemon: a computation that cannot be interrupted must not keep the process alive
        self._thread = threading.Thread(target=self._run, name="localize", daemon=True)

    @property
    def running(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def offer(self, source: Hashable, work: Callable[[], None]) -> bool:
        """Adds work that may be replaced.

        Args:
            source: The camera; one offer of each source waits.
            work: Replaces the waiting offer of the source, and keeps its turn.

        Returns:
            Whether an offer was replaced, whose work will not be done.
        """
        now = time.monotonic()
        with self._changed:
            replaced = source in self._offers
            self._offers[source] = _Offer(work, now, now - self._last.get(source, 0.0))
            self._last[source] = now
            self._changed.notify()
            return replaced

    def request(self, work: Callable[[], None]) -> bool:
        """Adds work that is not replaced.

        Args:
            work: Called on the worker's thread.

        Returns:
            False when too many requests wait already, or the worker has been stopped.
        """
        with self._changed:
            if self._stopped or len(self._requests) >= MAX_REQUESTS:
                return False
            self._requests.append(work)
            self._changed.notify()
            return True

    def discard_offers(self) -> list[Hashable]:
        """Discards the waiting offers and returns their sources."""
        with self._changed:
            sources = list(self._offers)
            self._offers.clear()
            return sources

    def stop(self, timeout: float | None = None) -> bool:
        """Takes no more work and waits for the thread to end.

        Args:
            timeout: Seconds to wait; None: however long the work takes.

        Returns:
            Whether the thread has ended.
        """
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        adopt_threads()
        while work := self._next():
            try:
                work()
            except Exception as error:
                self._on_error(error)

    def _next(self) -> Callable[[], None] | None:
        waited = False  # wait once a turn: on a busy machine even the newest offer is soon old
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
                    return partial(self._timed, offer.work)
                waited = True

    def _newer_comes(self, source: Hashable, offer: _Offer) -> bool:
        """Waits for a newer offer where that pays; false when ``offer`` is to be taken."""
        now = time.monotonic()
        if now - offer.at < _FRESH_SECONDS or self._duration < _MIN_INTERVALS * offer.interval:
            return False
        patience = offer.at + 1.5 * offer.interval - now
        return patience > 0 and self._changed.wait_for(
            lambda: self._stopped or bool(self._requests) or self._offers.get(source) is not offer, patience
        )

    def _timed(self, work: Callable[[], None]) -> None:
        started = time.monotonic()
        try:
            work()
        finally:
            self._duration = time.monotonic() - started
