# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One image's way from message to decision: where it may be, what it shows, and whether that is believed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from rclpy.node import Node

from nre_ros.errors import NreError
from nre_ros.gate.gate import Gate, State
from nre_ros.keyframes.retrieval.pose_prior import PosePrior
from nre_ros.localization.result import LocalizationResult
from nre_ros.node.broadcasting import FrameLookups
from nre_ros.node.engine import Engine
from nre_ros.node.hints import Hints
from nre_ros.node.parameters import value_of
from nre_ros.node.shot import Outcome, Shot
from nre_ros.node.transforms import TransformError
from nre_ros.node.verdicts import Seen, Verdicts

_PATIENCE = 0.05
"""Seconds to wait for odometry before an image is localized: the next reading is on its way, at 20 Hz or more."""


@dataclass(frozen=True, eq=False)
class Look:
    """What an image shows, before anybody has judged it; trouble: why odometry is not known, in words."""

    seen: Seen
    T_odom_cam: np.ndarray | None = None
    T_body_cam: np.ndarray | None = None
    trouble: str = ""


class Judge:
    """Looks at images and has the gate judge their poses; for the worker's thread."""

    def __init__(
        self,
        node: Node,
        engine: Engine,
        lookups: FrameLookups,
        gate: Gate,
        hints: Hints,
        report: Callable[[Exception], None],
    ):
        self._node = node
        self._lookups, self._gate, self._hints = lookups, gate, hints
        self.verdicts = Verdicts(node, engine, report)

    def look(self, shot: Shot) -> Look:
        """Localizes the image, which takes its time, and looks up odometry at its stamp."""
        try:
            T_body_cam = self._lookups.camera_on_body(shot.frame, shot.stamp)
        except TransformError as error:
            return Look(Seen(LocalizationResult(reason=str(error))))
        # now, for the prior, and because TF forgets: on a slow machine or in a fast replay before the image is localized
        T_odom_cam, trouble = self._odometry(shot, math.inf if self._hints.pending else _PATIENCE)
        prior = self._prior(shot, T_odom_cam, T_body_cam)
        seen = self.verdicts.verdict(shot.message, shot.info, shot.name, prior)
        started = time.perf_counter()
        if trouble:
            T_odom_cam, trouble = self._odometry(shot, math.inf if seen.result.fix(shot.stamp) else 0)
        waited = {"odometry": (time.perf_counter() - started) * 1e3}
        result = replace(seen.result, milliseconds={**seen.result.milliseconds, **waited})
        return Look(replace(seen, result=result), T_odom_cam, T_body_cam, trouble)

    def decide(self, shot: Shot, look: Look) -> Outcome:
        """The gate's word on it."""
        result, T_body_cam = look.seen.result, look.T_body_cam
        fix = None if T_body_cam is None else result.fix(shot.stamp, look.T_odom_cam, shot.name, T_body_cam)
        if fix is None:
            if T_body_cam is None:
                self._gate.miss(shot.stamp)
            else:
                self._gate.miss(shot.stamp, look.T_odom_cam, T_body_cam)
            return Outcome(look.seen, None, T_body_cam)
        return Outcome(look.seen, self._gate.judge(fix), T_body_cam)

    def _prior(self, shot: Shot, T_odom_cam: np.ndarray | None, T_body_cam: np.ndarray) -> PosePrior | None:
        """Where the camera is by a hint, or by the last accepted pose; None when that is not known any more."""
        self._hints.tell(self._gate, shot.frame, shot.stamp, T_odom_cam, T_body_cam)
        expected = self._gate.predict(shot.stamp, T_odom_cam, T_body_cam)
        if expected is None or self._gate.state == State.LOST or not value_of(self._node, "use_prior"):
            return None
        try:
            return PosePrior(*expected)
        except NreError:
            return None

    def _odometry(self, shot: Shot, patience: float) -> tuple[np.ndarray | None, str]:
        try:
            return self._lookups.odometry(shot.frame, shot.stamp, patience), ""
        except TransformError as error:
            return None, str(error)
