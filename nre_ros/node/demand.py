# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which images are wanted: by the mode, and by calls of ~/relocalize that wait for one."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from rclpy.node import Node
from rclpy.task import Future

from nre_ros.gate.gate import Gate, State
from nre_ros.msg import LocalizationStatus
from nre_ros.node.entities import Entities
from nre_ros.node.parameters import value_of

_LOOK_SECONDS = 0.2
"""Between two looks at the deadlines of those who wait."""


@dataclass(eq=False)
class _Waiting:
    """since, until: by the monotonic clock; last: the newest status of an image that came since."""

    answer: Future
    since: float
    until: float
    last: LocalizationStatus | None = None


class Demand:
    """Decides for each image as it comes, and answers those who wait for a pose."""

    def __init__(self, node: Node, entities: Entities, gate: Gate):
        self._node, self._gate = node, gate
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        entities.timer(_LOOK_SECONDS, self._give_up, steady=True)

    def wanted(self) -> bool:
        """Whether an image that comes now is to be localized."""
        mode = value_of(self._node, "mode")
        if mode == "continuous" or self._waiting:
            return True
        return mode == "until_localized" and self._gate.state != State.LOCALIZED

    def wait(self, seconds: float) -> Future:
        """Its result will be (success, words, status): of the next image whose pose is accepted, or of the last one."""
        answer = Future(executor=self._node.executor)
        now = time.monotonic()
        with self._lock:
            self._waiting.append(_Waiting(answer, now, now + seconds))
        return answer

    def told(self, arrival: float, status: LocalizationStatus):
        """Takes note of an image's status; answers those who waited for it if its pose was accepted."""
        with self._lock:
            heard = [waiting for waiting in self._waiting if arrival >= waiting.since]
            for waiting in heard:
                waiting.last = status
            if not status.pose_valid:
                return
            self._waiting = [waiting for waiting in self._waiting if waiting not in heard]
        p = status.pose.pose.position
        words = f"localized at {p.x:.2f} {p.y:.2f} {p.z:.2f} in {status.header.frame_id}: {status.verdict}"
        for waiting in heard:
            self._answer(waiting, True, words)

    def close(self):
        """Answers all who still wait."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for one in waiting:
            self._answer(one, False, "the node is not active any more")

    def _give_up(self):
        now = time.monotonic()
        with self._lock:
            late = [waiting for waiting in self._waiting if waiting.until < now]
            self._waiting = [waiting for waiting in self._waiting if waiting not in late]
        for waiting in late:
            seconds = waiting.until - waiting.since
            words = (
                f"no image has been localized within {seconds:.1f} s"
                if waiting.last is None
                else (f"not localized within {seconds:.1f} s: {waiting.last.reason}")
            )
            self._answer(waiting, False, words)

    def _answer(self, waiting: _Waiting, success: bool, words: str):
        waiting.answer.set_result((success, words, waiting.last or LocalizationStatus()))
        if self._node.executor is not None:
            self._node.executor.wake()  # the waiting coroutine goes on at the executor's next turn
