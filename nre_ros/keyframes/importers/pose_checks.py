# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Checks of poses that other programs wrote, and their conversion into matrices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nre_ros.errors import PoseError
from nre_ros.geometry import pose_matrix

QUATERNION_LENGTH_TOLERANCE = 0.01
"""A quaternion whose length differs from 1 by more is a mistake, not a rounded number."""
_MAX_SCALE_ERROR = 0.01
"""Largest difference of a rotation's singular values from 1."""


def check_quaternion(quaternion: npt.ArrayLike, context: str = "") -> None:
    """Checks that a quaternion has unit length, up to rounding.

    Args:
        quaternion: 4 finite numbers, in any order.
        context: Appended to the message, for example the line of the file.

    Raises:
        PoseError: The length is not 1.
    """
    length = float(np.linalg.norm(np.asarray(quaternion, dtype=np.float64)))
    if abs(length - 1.0) > QUATERNION_LENGTH_TOLERANCE:
        raise PoseError(f"quaternion has length {length:.4g}, expected 1{context}")


def pose_from_wxyz(quaternion: npt.ArrayLike, position: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Converts a pose whose quaternion begins with w, as COLMAP, kapture and Cambridge Landmarks write it.

    Args:
        quaternion: [4] qw qx qy qz.
        position: [3].

    Returns:
        [4, 4].

    Raises:
        PoseError: A number is not finite, or the quaternion has not unit length.
    """
    if np.shape(quaternion) != (4,):
        raise PoseError(f"a quaternion has 4 numbers, got {np.size(quaternion)}")
    w, *xyz = (float(value) for value in np.asarray(quaternion))
    T = pose_matrix(position, (*xyz, w))
    check_quaternion((w, *xyz))
    return T


def rigid_motion(matrix: npt.ArrayLike | Sequence[Sequence[float]], what: str) -> npt.NDArray[np.float64]:
    """Checks a matrix and makes its rotation orthonormal.

    Args:
        matrix: [4, 4].
        what: Name of the matrix in the message.

    Returns:
        [4, 4] with an orthonormal rotation.

    Raises:
        PoseError: The matrix has another shape, is not finite or is no rigid motion.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.shape != (4, 4):
        raise PoseError(f"{what} has shape {matrix.shape}, expected 4 x 4")
    if not np.isfinite(matrix).all():
        raise PoseError(f"{what} is not finite")
    U, scales, Vt = np.linalg.svd(matrix[:3, :3])
    if np.abs(scales - 1).max() > _MAX_SCALE_ERROR or np.linalg.det(U @ Vt) < 0:
        raise PoseError(f"{what} is not a rigid motion: its rotation has singular values {scales.round(3).tolist()}")
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = U @ Vt, matrix[:3, 3]
    return T
