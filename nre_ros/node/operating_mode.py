# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The operating mode: which images are localized, by the parameter ``mode`` and by calls of ~/relocalize."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from rclpy.node import Node
from rclpy.task import Future

from nre_ros.gate.decision import State
from nre_ros.gate.gate import Gate
from nre_ros.msg import LocalizationStatus
from nre_ros.node.interfaces import RosInterfaces
from nre_ros.node.parameters import value_of

_CHECK_SECONDS = 0.2
"""Between two checks for calls whose time-out has passed."""


@dataclass(eq=False)
class _WaitingCall:
    """A call of ~/relocalize; ``since`` and ``until`` are monotonic seconds.

    ``last``: the newest status of an image that came since.
    """

    answer: Future
    since: float
    until: float
    last: LocalizationStatus | None = None


class OperatingMode:
    """Decides for each image as it arrives, and answers the calls that wait for a pose.

    May be used by several threads.
    """

    def __init__(self, node: Node, interfaces: RosInterfaces, gate: Gate) -> None:
        self._node, self._gate = node, gate
        self._lock = threading.Lock()
        self._waiting: list[_WaitingCall] = []
        interfaces.timer(_CHECK_SECONDS, self._answer_late_calls, steady=True)

    def wants_image(self) -> bool:
        """Returns whether an image that arrives now is to be localized."""
        mode = value_of(self._node, "mode")
        if mode == "continuous" or self._waiting:
            return True
        return mode == "until_localized" and self._gate.state != State.LOCALIZED

    def wait_for_pose(self, seconds: float) -> Future:
        """Waits for an image that arrives from now on and whose pose is accepted.

        Args:
            seconds: Time-out.

        Returns:
            A future of (success, message, status); the status is that of the accepted or of the last image.
        """
        answer: Future = Future(executor=self._node.executor)
        now = time.monotonic()
        with self._lock:
            self._waiting.append(_WaitingCall(answer, now, now + seconds))
        return answer

    def image_processed(self, arrival: float, status: LocalizationStatus) -> None:
        """Answers the calls that waited for this image, if its pose was accepted.

        Args:
            arrival: When the image arrived, monotonic seconds; calls that came later wait on.
            status: The image's status.
        """
        with self._lock:
            concerned = [call for call in self._waiting if arrival >= call.since]
            for call in concerned:
                call.last = status
            if not status.pose_valid:
                return
            self._waiting = [call for call in self._waiting if call not in concerned]
        p = status.pose.pose.position
        message = f"localized at {p.x:.2f} {p.y:.2f} {p.z:.2f} in {status.header.frame_id}: {status.gate_reason}"
        for call in concerned:
            self._answer(call, True, message)

    def close(self) -> None:
        """Answers all calls that still wait."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for call in waiting:
            self._answer(call, False, "the node is not active any more")

    def _answer_late_calls(self) -> None:
        now = time.monotonic()
        with self._lock:
            late = [call for call in self._waiting if call.until < now]
            self._waiting = [call for call in self._waiting if call not in late]
        for call in late:
            seconds = call.until - call.since
            if call.last is None:
                self._answer(call, False, f"no image has been localized within {seconds:.1f} s")
            else:
                self._answer(call, False, f"not localized within {seconds:.1f} s: {call.last.reason}")

    def _answer(self, call: _WaitingCall, success: bool, message: str) -> None:
        call.answer.set_result((success, message, call.last or LocalizationStatus()))
        if self._node.executor is not None:
            self._node.executor.wake()  # the waiting coroutine goes on at the executor's next turn
