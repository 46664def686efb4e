# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the gate answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np


class State(IntEnum):
    """As in LocalizationStatus: no pose believed yet; one is; none for too long."""

    UNLOCALIZED = 0
    LOCALIZED = 1
    LOST = 2


@dataclass(frozen=True, eq=False)
class Decision:
    """The gate's word on one fix.

    accepted: it is believed.  state: after it.  reason: in words, with numbers, either way.
    mahalanobis, metres, degrees: between the fix and what was expected; NaN where nothing was.
    jump: odometry does not explain the way from the pose believed before.
    T_map_cam, covariance: what is believed, None when nothing is: the fix's pose, or that of its
    alternatives which agrees better, and its covariance [6, 6] after inflation and floor.
    confidence: of the image in that pose, before odometry spoke; NaN where nothing is believed.
    """

    accepted: bool
    state: State
    reason: str
    mahalanobis: float = math.nan
    metres: float = math.nan
    degrees: float = math.nan
    jump: bool = False
    T_map_cam: np.ndarray | None = None
    covariance: np.ndarray | None = None
    confidence: float = math.nan
