# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the gate is told: when a fix is believed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from nre_ros.errors import NreError
from nre_ros.gate.motion import MotionModel


class SettingsError(NreError, ValueError):
    """A setting of the gate that makes no sense."""


@dataclass(frozen=True)
class GateSettings:
    """When a fix is believed.

    agreement: probability with which a right fix passes the test against odometry.
    first_fixes, first_seconds: fixes in a row that agree before the first pose, and over how long.
    jump_fixes, jump_seconds: the same before a pose that odometry cannot explain.
    single_confidence: a fix this confident needs no second one before the first pose; 0: all do.
    max_rival: share of an image's second pose from which on it counts for neither.
    least_share: share of a second pose below which its agreement with odometry is no evidence.
    inflation: factor on stated standard deviations.  floor_metres, floor_radians: smallest ones.
    max_metres, max_radians: fixes less certain than this (one standard deviation) are refused.
    informative_metres: a prediction less certain than this confirms no fix.
    lost_seconds, lost_metres: time and way without a believed fix after which the robot is lost.
    motion: how the robot moves and how its odometry drifts.
    """

    agreement: float = 0.999
    first_fixes: int = 2
    first_seconds: float = 0.2
    jump_fixes: int = 3
    jump_seconds: float = 1.5
    single_confidence: float = 0.0
    max_rival: float = 0.35
    least_share: float = 0.1
    inflation: float = 1.0
    floor_metres: float = 0.02
    floor_radians: float = math.radians(0.5)
    max_metres: float = 0.5
    max_radians: float = math.radians(10.0)
    informative_metres: float = 2.0
    lost_seconds: float = 10.0
    lost_metres: float = 10.0
    motion: MotionModel = field(default_factory=MotionModel)

    def __post_init__(self):
        if not 0 < self.agreement < 1:
            raise SettingsError(f"agreement is {self.agreement}, expected a probability between 0 and 1")
        for name in ("first_fixes", "jump_fixes"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected at least 1")
        positive = (
            "inflation floor_metres floor_radians max_metres max_radians informative_metres lost_seconds lost_metres"
        )
        for name in positive.split():
            if not getattr(self, name) > 0:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected a positive number")
        for name in ("first_seconds", "jump_seconds", "single_confidence", "max_rival", "least_share"):
            if not getattr(self, name) >= 0:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected 0 or more")
        for name, value in vars(self.motion).items():
            if not value >= 0:
                raise SettingsError(f"{name} is {value}, expected 0 or more")
