# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The topic /diagnostics: is the robot localized, how well, how fast, in which map, and with how much memory.

Levels: OK: localized.  WARN: not localized yet, lost, localized a while ago, with a low confidence, or with a camera frame
or intrinsics that are probably wrong.  ERROR: the map cannot be read, or the device is lost.  STALE: no image for a while.
"""

from __future__ import annotations

import math
import resource
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from nre_ros.gate.decision import Decision, State
from nre_ros.gate.motion import position_stddev, rotation_stddev
from nre_ros.gate.observation import Observation
from nre_ros.node.interfaces import DisplayTopic
from nre_ros.node.parameters import value_of

_RATE_SECONDS = 10.0
"""Seconds over which rates are counted."""
_Entry = TypeVar("_Entry", float, tuple[float, bool, float])
"""A time (monotonic seconds), or a tuple that begins with one."""


class Diagnostics:
    """Sums up the images of the last seconds; may be used by several threads."""

    def __init__(self, node: Node, facts: Callable[[], dict[str, str]] = dict) -> None:
        """Creates the topic; ``publish`` has to be called by a timer of real time.

        Args:
            node: The node.
            facts: Called at each publication for more values, name -> value, such as the map's file.
        """
        self._node, self._facts = node, facts
        self._name = node.get_fully_qualified_name().lstrip("/")  # all robots publish on /diagnostics
        self._topic = DisplayTopic(node, DiagnosticArray, "/diagnostics")
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._arrivals: deque[float] = deque()
        self._localized: deque[tuple[float, bool, float]] = deque()  # time, accepted, milliseconds
        self._fault = ""
        self._warnings: dict[str, str] = {}  # what is warned about -> what is wrong
        self._state, self._reason = State.UNLOCALIZED, ""
        self._accepted: tuple[float, float, npt.NDArray[np.float64]] | None = None  # time, confidence, covariance

    def image_arrived(self) -> None:
        """Counts an image, whether it will be localized or not."""
        with self._lock:
            _remember(self._arrivals, time.monotonic())

    def update(self, observation: Observation, decision: Decision, milliseconds: float) -> None:
        """Records the decision about an image.

        Args:
            observation: The image.
            decision: The gate's decision about it.
            milliseconds: Time from the image's arrival to its status.
        """
        now = time.monotonic()
        with self._lock:
            _remember(self._localized, (now, decision.accepted, milliseconds))
            self._state, self._fault = decision.state, observation.map_fault or observation.device_fault
            self._reason = "" if decision.accepted else decision.reason
            if decision.accepted and decision.covariance is not None:
                self._accepted = now, decision.confidence, decision.covariance

    def warn(self, what: str, text: str) -> None:
        """Reports a fault of the configuration from now on.

        Args:
            what: What is warned about, the name of the value.
            text: What is wrong, and what to do; empty: nothing is wrong any more.
        """
        with self._lock:
            self._warnings.pop(what, None)
            if text:
                self._warnings[what] = text

    def forget(self, reason: str) -> None:
        """Reports that no pose is known any more.

        Args:
            reason: Why.
        """
        with self._lock:
            self._state, self._reason, self._accepted = State.UNLOCALIZED, reason, None

    def publish(self) -> None:
        """Publishes the present state."""
        with self._lock:
            level, text = self._level()
            values = self._values()
        values.update(self._facts())
        status = DiagnosticStatus(level=level, name=f"{self._name}: localization", message=text)
        status.hardware_id = values.get("device", "")
        status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._topic.publish(message)

    def close(self) -> None:
        """Destroys the topic."""
        self._topic.close()

    def _level(self) -> tuple[bytes, str]:
        now = time.monotonic()
        if self._fault:
            return DiagnosticStatus.ERROR, self._fault
        silent = now - (self._arrivals[-1] if self._arrivals else self._started)
        if silent > value_of(self._node, "stale_after"):
            return DiagnosticStatus.STALE, f"no image for {silent:.0f} s"
        if not self._arrivals:
            return DiagnosticStatus.WARN, "no image yet"
        reason = f": {self._reason}" if self._reason else ""
        if self._state != State.LOCALIZED or self._accepted is None:
            return DiagnosticStatus.WARN, ("lost" if self._state == State.LOST else "not localized") + reason
        when, confidence, covariance = self._accepted
        accuracy = (
            f"within {100 * position_stddev(covariance):.1f} cm and {math.degrees(rotation_stddev(covariance)):.2f} deg"
        )
        if now - when > value_of(self._node, "lost_seconds"):  # no image is localized, by the mode or at all
            return DiagnosticStatus.WARN, f"localized {accuracy}, {now - when:.0f} s ago"
        if confidence < value_of(self._node, "low_confidence"):
            return DiagnosticStatus.WARN, f"localized {accuracy}, with a confidence of only {confidence:.2f}"
        if self._warnings:
            return DiagnosticStatus.WARN, f"localized {accuracy}, but {'; '.join(self._warnings.values())}"
        return DiagnosticStatus.OK, f"localized {accuracy}" + (f"; last image{reason}" if reason else "")

    def _values(self) -> dict[str, str]:
        now = time.monotonic()
        span = min(_RATE_SECONDS, max(now - self._started, 1e-3))
        arrivals = [t for t in self._arrivals if now - t <= _RATE_SECONDS]
        recent = [entry for entry in self._localized if now - entry[0] <= _RATE_SECONDS]
        values = {
            "state": self._state.name.lower(),
            "images a second": f"{len(arrivals) / span:.1f}",
            "localized a second": f"{len(recent) / span:.1f}",
        }
        if recent:
            values["accepted"] = f"{np.mean([accepted for _, accepted, _ in recent]):.0%}"
            values["milliseconds an image"] = f"{np.median([milliseconds for *_, milliseconds in recent]):.0f}"
        values |= self._warnings
        if self._accepted:
            when, confidence, covariance = self._accepted
            values["confidence"] = f"{confidence:.2f}"
            values["position deviation (m)"] = f"{position_stddev(covariance):.4f}"
            values["rotation deviation (deg)"] = f"{math.degrees(rotation_stddev(covariance)):.3f}"
            values["seconds since an accepted pose"] = f"{now - when:.1f}"
        return values


def device_facts(device: torch.device) -> dict[str, str]:
    """Returns the values of the diagnostics about a device: its name, and how much memory is used.

    Args:
        device: A torch device.

    Returns:
        Name -> value.
    """
    facts = {"device": str(device), "process memory (MB)": f"{_resident_megabytes():.0f}"}
    if device.type == "cuda":
        try:
            free, total = torch.cuda.mem_get_info(device)
            facts["device"] = torch.cuda.get_device_name(device)
            facts["device memory used (MB)"] = f"{(total - free) / 2**20:.0f} of {total / 2**20:.0f}"
            facts["device memory of this node (MB)"] = f"{torch.cuda.memory_allocated(device) / 2**20:.0f}"
        except RuntimeError as error:  # the device is lost
            facts["device error"] = str(error).partition("\n")[0]
    return facts


def _resident_megabytes() -> float:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 2**20
    except OSError:  # not Linux: the largest so far, which macOS gives in bytes and others in kB
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _remember(entries: deque[_Entry], entry: _Entry) -> None:
    """Appends an entry and removes those older than the window; the last one stays whatever its age."""
    entries.append(entry)
    now = time.monotonic()
    while now - (entries[0][0] if isinstance(entries[0], tuple) else entries[0]) > _RATE_SECONDS:
        entries.popleft()
