"""The one thread that works on images, with one place for the newest of each camera.

The executor's thread only puts work in and never waits; an image that comes while the thread
is at work replaces the one of its camera that waits.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable

MAX_REQUESTS = 8
"""Requests that may wait; more are turned away."""


class Worker:
    """Runs callables one at a time: requests in their order, then the newest offer of each source in turn.

    report: told of the errors that a callable raises; the thread goes on.
    """

    def __init__(self, report: Callable[[Exception], None]):
        self._report = report
        self._changed = threading.Condition()
        self._offers: dict[Hashable, Callable[[], None]] = {}  # in the order in which their turns come
        self._requests: deque[Callable[[], None]] = deque()
        self._stopped = False
        # daemon: a computation that cannot be interrupted must not keep the process alive
        self._thread = threading.Thread(target=self._run, name="localize", daemon=True)

    def start(self):
        self._thread.start()

    def offer(self, source: Hashable, work: Callable[[], None]):
        """Work to be done in place of any earlier offer of ``source`` that still waits, whose turn it keeps."""
        with self._changed:
            self._offers[source] = work
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
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._requests or self._offers)
            if self._stopped:
                return None
            if self._requests:
                return self._requests.popleft()
            return self._offers.pop(next(iter(self._offers)))
