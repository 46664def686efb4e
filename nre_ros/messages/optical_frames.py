# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Names and rotations that distinguish a camera's optical frame (z forward) from its body (x forward), REP-103."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MAX_METRES = 3.0
"""Distance of a camera from its body, or from the robot's base."""
_OPTICAL = ("_optical", "_optical_frame", "/optical", "/optical_frame")
_MIN_COSINE = 0.7
"""Of an angle of 45 degrees: cameras are tilted, and no two optical frames that both look at the scene are so far apart."""


def is_optical(name: str) -> bool:
    """Returns whether a frame is an optical one by its name.

    Args:
        name: Name of the frame.
    """
    return name.endswith(_OPTICAL) or name in ("optical", "optical_frame")


def is_optical_of_body(T_body_optical: npt.NDArray[np.float64]) -> bool:
    """Returns whether one frame is turned against another as an optical frame is against its body, and near it.

    Args:
        T_body_optical: [4, 4] pose of the one frame in the other.
    """
    R = T_body_optical[:3, :3]
    turned = R[0, 2] > _MIN_COSINE and -R[2, 1] > _MIN_COSINE
    return bool(turned and np.linalg.norm(T_body_optical[:3, 3]) < MAX_METRES)
