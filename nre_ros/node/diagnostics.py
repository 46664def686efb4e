# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""/diagnostics: is the robot localized, how well, how fast, in which map, and with how much memory.

Levels: OK localized; WARN not yet, lost, a while ago, or with little confidence; ERROR the map cannot be read; STALE no
image for a while.
"""

from __future__ import annotations

import math
import resource
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from nre_ros.gate.decision import Decision, State
from nre_ros.gate.motion import position_spread, turn_spread
from nre_ros.localization.result import LocalizationResult
from nre_ros.node.parameters import value_of
from nre_ros.node.topics import Topic

_WINDOW = 10.0
"""Seconds that rates are counted over."""


class Diagnostics:
    """Sums up the images of the last seconds; ``publish`` is called by a timer of real time.

    facts: asked at each publication for what else there is to tell, name -> value, such as the map's file.
    """

    def __init__(self, node: Node, facts: Callable[[], dict[str, str]] = dict):
        self._node, self._facts = node, facts
        self._topic = Topic(node, DiagnosticArray, "/diagnostics")
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._arrivals: deque[float] = deque()
        self._localized: deque[tuple[float, bool, float]] = deque()  # time, believed, milliseconds
        self._trouble, self._state, self._reason = "", State.UNLOCALIZED, ""
        self._believed: tuple[float, float, np.ndarray] | None = None  # time, confidence, covariance

    def arrived(self) -> None:
        """An image has come, whether it will be localized or not."""
        with self._lock:
            _remember(self._arrivals, time.monotonic())

    def update(
        self,
        result: LocalizationResult,
        decision: Decision | None,
        state: State,
        milliseconds: float,
        trouble: str = "",
    ) -> None:
        """An image has been localized or not, in so many milliseconds; decision: None where it had no pose.

        trouble: what makes localizing impossible, in one line; empty: nothing.
        """
        now, believed = time.monotonic(), decision is not None and decision.accepted
        with self._lock:
            _remember(self._localized, (now, believed, milliseconds))
            self._state, self._trouble = state, trouble
            self._reason = "" if believed else decision.reason if decision else result.reason
            if believed:
                self._believed = now, result.confidence, decision.covariance

    def publish(self) -> None:
        """Says how it stands."""
        with self._lock:
            level, words = self._level()
            values = self._values()
        values.update(self._facts())
        status = DiagnosticStatus(level=level, name=f"{self._node.get_name()}: localization", message=words)
        status.hardware_id = values.get("device", "")
        status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._topic.publish(message)

    def close(self) -> None:
        self._topic.close()

    def _level(self) -> tuple[bytes, str]:
        now = time.monotonic()
        if self._trouble:
            return DiagnosticStatus.ERROR, self._trouble
        silent = now - (self._arrivals[-1] if self._arrivals else self._began)
        if silent > value_of(self._node, "stale_after"):
            return DiagnosticStatus.STALE, f"no image for {silent:.0f} s"
        if not self._arrivals:
            return DiagnosticStatus.WARN, "no image yet"
        why = f": {self._reason}" if self._reason else ""
        if self._state != State.LOCALIZED or self._believed is None:
            return DiagnosticStatus.WARN, ("lost" if self._state == State.LOST else "not localized") + why
        when, confidence, covariance = self._believed
        how = f"within {100 * position_spread(covariance):.1f} cm and {math.degrees(turn_spread(covariance)):.2f} deg"
        if now - when > value_of(self._node, "lost_seconds"):  # images are not localized: by the mode, or not at all
            return DiagnosticStatus.WARN, f"localized {how}, {now - when:.0f} s ago"
        if confidence < value_of(self._node, "low_confidence"):
            return DiagnosticStatus.WARN, f"localized {how}, with a confidence of {confidence:.2f} only"
        return DiagnosticStatus.OK, f"localized {how}" + (f"; last image{why}" if why else "")

    def _values(self) -> dict[str, str]:
        now = time.monotonic()
        span = min(_WINDOW, max(now - self._began, 1e-3))
        arrivals = [t for t in self._arrivals if now - t <= _WINDOW]
        recent = [entry for entry in self._localized if now - entry[0] <= _WINDOW]
        values = {
            "state": self._state.name.lower(),
            "images a second": f"{len(arrivals) / span:.1f}",
            "localized a second": f"{len(recent) / span:.1f}",
        }
        if recent:
            values["believed"] = f"{np.mean([believed for _, believed, _ in recent]):.0%}"
            values["milliseconds an image"] = f"{np.median([milliseconds for *_, milliseconds in recent]):.0f}"
        if self._believed:
            when, confidence, covariance = self._believed
            values["confidence"] = f"{confidence:.2f}"
            values["position deviation (m)"] = f"{position_spread(covariance):.4f}"
            values["rotation deviation (deg)"] = f"{math.degrees(turn_spread(covariance)):.3f}"
            values["seconds since a believed pose"] = f"{now - when:.1f}"
        return values


def device_facts(device) -> dict[str, str]:
    """Name of a torch device and how much memory is used there, as diagnostic values."""
    facts = {"device": str(device), "process memory (MB)": f"{_resident_megabytes():.0f}"}
    if device.type == "cuda":
        import torch

        free, total = torch.cuda.mem_get_info(device)
        facts["device"] = torch.cuda.get_device_name(device)
        facts["device memory used (MB)"] = f"{(total - free) / 2**20:.0f} of {total / 2**20:.0f}"
        facts["device memory of this node (MB)"] = f"{torch.cuda.memory_allocated(device) / 2**20:.0f}"
    return facts


def _resident_megabytes() -> float:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 2**20
    except OSError:  # not Linux: the largest so far, which macOS gives in bytes and others in kB
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _remember(entries: deque, entry) -> None:
    """Appends, and drops what is older than the window; the last one stays whatever its age."""
    entries.append(entry)
    now = time.monotonic()
    while now - (entries[0][0] if isinstance(entries[0], tuple) else entries[0]) > _WINDOW:
        entries.popleft()
