# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The gate's decision about one image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt


class State(IntEnum):
    """Whether the robot's pose is known; the numbers are those of LocalizationStatus.

    UNLOCALIZED: no pose has been accepted yet.  LOCALIZED: a pose has been accepted not long ago.  LOST: the last
    accepted pose is too long ago or too far away.
    """

    UNLOCALIZED = 0
    LOCALIZED = 1
    LOST = 2


@dataclass(frozen=True, eq=False)
class Decision:
    """Whether the pose of one image is accepted.

    Attributes:
        accepted: Whether a pose of the image is accepted and may be published.
        state: State of the gate after this image.
        reason: Why the pose is accepted or rejected, with numbers; why there is no pose where ``judged`` is false.
        judged: Whether the image had a pose that the gate could judge.
        mahalanobis: Distance from the predicted pose in standard deviations, NaN without a prediction.
        metres: Distance of the position from the predicted one, NaN without a prediction.
        degrees: Angle between the orientation and the predicted one, NaN without a prediction.
        jump: Whether odometry does not explain the way from the pose that was accepted before.
        T_map_cam: Accepted pose [4, 4]: the first one of the image or the alternative that agrees better; None if
            none is accepted.
        covariance: Its covariance [6, 6] of (x, y, z, rotation about x, y, z) in the map's axes, inflated and with the
            lower limit added; None if no pose is accepted.
        confidence: Probability of the accepted pose by the image alone; NaN if none is accepted.
    """

    accepted: bool
    state: State
    reason: str
    judged: bool = True
    mahalanobis: float = math.nan
    metres: float = math.nan
    degrees: float = math.nan
    jump: bool = False
    T_map_cam: npt.NDArray[np.float64] | None = None
    covariance: npt.NDArray[np.float64] | None = None
    confidence: float = math.nan
