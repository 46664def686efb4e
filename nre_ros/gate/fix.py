# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One fix, a pose that an image suggests, as the gate takes it.

All poses are 4x4 ``T_b_a`` (metres), covariances [6, 6] of (x, y, z, rotation about x, y, z), both
in the map's axes, as geometry_msgs/PoseWithCovariance has it (metres, radians).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nre_ros.localization.result import Alternative
from nre_ros.pose_faults import covariance_fault, pose_fault

AT_BASE = np.eye(4)
"""Of a camera that is the body itself."""
AT_BASE.flags.writeable = False


@dataclass(frozen=True, eq=False)
class Fix:
    """A pose from one image, not yet believed.

    stamp: of the image, nanoseconds.  T_map_cam, covariance: of the camera.  confidence: 0 to 1.
    T_odom_cam: odometry and extrinsics at the stamp (odom->base->camera); None without odometry.
    camera: its name, for the words.  T_base_cam: where the camera is on the robot; needed (for
    every fix) when several cameras feed one gate, else the camera itself is the body that moves.
    alternatives: other poses that explain the image nearly as well; what has ``T_map_cam`` and ``share``.
    """

    stamp: int
    T_map_cam: np.ndarray
    covariance: np.ndarray
    confidence: float = 1.0
    T_odom_cam: np.ndarray | None = None
    camera: str = ""
    T_base_cam: np.ndarray = field(default_factory=lambda: AT_BASE)
    alternatives: tuple[Alternative, ...] = ()

    def fault(self) -> str:
        """Why nothing can be done with it, in words; empty for a proper fix.  Odometry is judged elsewhere."""
        if self.stamp <= 0:
            return f"its stamp is {self.stamp} ns"
        if not np.isfinite(self.confidence):
            return f"its confidence is {self.confidence}"
        return (
            pose_fault("its pose", self.T_map_cam)
            or covariance_fault("its covariance", self.covariance)
            or pose_fault("the camera's place on the robot", self.T_base_cam)
        )
