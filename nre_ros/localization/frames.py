# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Composition of frames: from the pose of the camera to what TF and other frames need.

All motions are 4x4 float64, ``T_b_a`` maps coordinates of frame a into frame b; the frame
names follow REP-105 (map, odom, base_link).
"""

from __future__ import annotations

import numpy as np

from nre_ros.geometry import invert


def map_to_odom(T_map_cam: np.ndarray, T_odom_cam: np.ndarray) -> np.ndarray:
    """The correction ``T_map_odom`` that puts the camera where it was localized (REP-105).

    T_odom_cam: odometry and extrinsics (odom->base->camera), both at the time of the image.
    """
    return T_map_cam @ invert(T_odom_cam)


def covariance_of_frame(covariance: np.ndarray, T_map_cam: np.ndarray, T_cam_frame: np.ndarray) -> np.ndarray:
    """[6, 6] covariance of another frame that is rigidly mounted to the camera.

    covariance: of the camera's pose, (x, y, z, rotation about x, y, z) in the map's axes.  A
    small rotation w of the camera about its own centre moves the other origin, which lies at
    l (map's axes) from the camera, by w x l; the rotation itself is shared (Barfoot, State
    Estimation for Robotics, 2017, section 7.1.4, the adjoint in axes of the map).
    """
    x, y, z = T_map_cam[:3, :3] @ T_cam_frame[:3, 3]
    jacobian = np.eye(6)
    jacobian[:3, 3:] = [[0, z, -y], [-z, 0, x], [y, -x, 0]]  # -skew(l)
    return jacobian @ covariance @ jacobian.T
