# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Settings of the validation gate."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from nre_ros.errors import NreError
from nre_ros.gate.motion import MotionModel


class SettingsError(NreError, ValueError):
    """A setting of the gate that is out of range."""


@dataclass(frozen=True)
class GateSettings:
    """When a pose is accepted.

    Attributes:
        gate_probability: Probability with which a correct pose passes the chi-square test against odometry.
        first_fixes: Consecutive poses that must agree with each other before the first one is accepted.
        first_seconds: Time that these poses must span, seconds.
        jump_fixes: Consecutive poses that must agree before a pose is accepted that odometry does not explain.
        jump_seconds: Time that these poses must span, seconds.
        single_confidence: A first pose of this confidence is accepted alone; 0: never.
        max_alternative_share: An image whose alternative pose has a larger share is evidence for neither pose.
        min_alternative_share: An alternative pose with a smaller share is not compared with odometry.
        min_alternative_confidence: Smallest confidence of an alternative pose, and of each pose of an image whose first
            pose alone is not confident enough; 0: any, where all poses of the image together are confident enough.
        covariance_inflation: Factor on the reported standard deviations.
        min_position_stddev: Metres, added to the reported deviations in squares.
        min_rotation_stddev: Radians, added to the reported deviations in squares.
        max_position_stddev: Metres; poses less certain than this are rejected.
        max_rotation_stddev: Radians; poses less certain than this are rejected.
        max_prediction_stddev: Metres; agreement with a prediction less certain than this is no evidence.
        lost_seconds: Time without an accepted pose after which the robot is lost, seconds.
        lost_metres: Path length without an accepted pose after which the robot is lost, metres.
        motion: How the robot moves and how its odometry drifts.

    Raises:
        SettingsError: A setting is out of range.
    """

    gate_probability: float = 0.999
    first_fixes: int = 2
    first_seconds: float = 0.2
    jump_fixes: int = 3
    jump_seconds: float = 1.5
    single_confidence: float = 0.0
    max_alternative_share: float = 0.35
    min_alternative_share: float = 0.1
    min_alternative_confidence: float = 0.0
    covariance_inflation: float = 1.0
    min_position_stddev: float = 0.02
    min_rotation_stddev: float = math.radians(0.5)
    max_position_stddev: float = 0.5
    max_rotation_stddev: float = math.radians(10.0)
    max_prediction_stddev: float = 2.0
    lost_seconds: float = 10.0
    lost_metres: float = 10.0
    motion: MotionModel = field(default_factory=MotionModel)

    def __post_init__(self) -> None:
        if not 0 < self.gate_probability < 1:
            raise SettingsError(f"gate_probability is {self.gate_probability}, expected a probability between 0 and 1")
        for name in ("first_fixes", "jump_fixes"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected at least 1")
        for name in (
            "covariance_inflation",
            "min_position_stddev",
            "min_rotation_stddev",
            "max_position_stddev",
            "max_rotation_stddev",
            "max_prediction_stddev",
            "lost_seconds",
            "lost_metres",
        ):
            if not getattr(self, name) > 0:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected a positive number")
        for name in (
            "first_seconds",
            "jump_seconds",
            "single_confidence",
            "max_alternative_share",
            "min_alternative_share",
            "min_alternative_confidence",
        ):
            if not getattr(self, name) >= 0:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected 0 or more")
        for name, value in vars(self.motion).items():
            if not value >= 0:
                raise SettingsError(f"{name} is {value}, expected 0 or more")
