# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Stand-in for tf_transformations, written from its documented behaviour: quaternions are x, y, z, w."""

import numpy as np
from scipy.spatial.transform import Rotation
from stand_in_calls import counted


@counted
def quaternion_matrix(quaternion):
    """[4, 4] of a quaternion, which need not have unit length; a zero quaternion gives the identity."""
    matrix = np.eye(4)
    if np.linalg.norm(quaternion) > np.finfo(float).eps:
        matrix[:3, :3] = Rotation.from_quat(quaternion).as_matrix()
    return matrix


@counted
def quaternion_from_matrix(matrix):
    """Quaternion of the rotation of [4, 4]."""
    return Rotation.from_matrix(np.asarray(matrix)[:3, :3]).as_quat()
