"""The one thread that works on images, with one place for the newest of them.

The executor's thread only puts work in and never waits; an image that comes while the thread
is at work replaces the one that waits.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

MAX_REQUESTS = 8
"""Requests that may wait; more are turned away."""


class Worker:
    """Runs callables one at a time: requests in their order, and the newest offer.

    report: told of the errors that a callable raises; the thread goes on.
    """

    def __init__(self, report: Callable[[Exception], None]):
        self._report = report
        self._changed = threading.Condition()
        self._offer: Callable[[], None] | None = None
        self._requests: deque[Callable[[], None]] = deque()
        self._stopped = False
        # daemon: a computation that cannot be interrupted must not keep the process alive
        self._thread = threading.Thread(target=self._run, name="localize", daemon=True)

    def start(self):
        self._thread.start()

    def offer(self, work: Callable[[], None]):
        """Work to be done next, in place of any earlier offer that still waits."""
        with self._changed:
            self._offer = work
            self._changed.notify()

    def request(self, work: Callable[[], None]) -> bool:
        """Work that is not replaced; false when too much waits already."""
        with self._changed:
            if len(self._requests) >= MAX_REQUESTS:
                return False
            self._requests.append(work)
            self._changed.notify()
            return True

    def forget(self):
        """Drops the waiting offer."""
        with self._changed:
            self._offer = None

    def stop(self, timeout: float) -> bool:
        """Takes no more work; true when the thread has ended within ``timeout`` seconds."""
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
            self._changed.wait_for(lambda: self._stopped or self._requests or self._offer)
            if self._stopped:
                return None
            if self._requests:
                return self._requests.popleft()
            work, self._offer = self._offer, None
            return work
