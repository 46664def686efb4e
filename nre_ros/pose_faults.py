# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Checks of poses and covariances that come from outside; a fault is described in words."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_RIGID = 1e-4
"""Largest deviation of R R^T from the identity; poses may come in single precision."""


def pose_fault(name: str, T: npt.ArrayLike) -> str:
    """Checks that a value is a rigid motion.

    Args:
        name: Name of the value, for the message.
        T: Value that should be ``[4, 4]``.

    Returns:
        Why the value is no rigid motion, in words; empty where it is one.
    """
    T = np.asarray(T, dtype=np.float64)
    if T.shape != (4, 4):
        return f"{name} has the shape {T.shape}, expected (4, 4)"
    if not np.isfinite(T).all():
        return f"{name} is not finite: {_numbers(T[:3, 3])} is its position"
    R = T[:3, :3]
    if np.abs(R @ R.T - np.eye(3)).max() > _RIGID or np.linalg.det(R) < 0 or np.any(T[3] != [0, 0, 0, 1]):
        return f"{name} is no rotation and translation: {_numbers(R.ravel())} is its rotation"
    return ""


def covariance_fault(name: str, covariance: npt.ArrayLike) -> str:
    """Checks that a value is a covariance: a symmetric matrix without negative variances.

    Args:
        name: Name of the value, for the message.
        covariance: Value that should be ``[6, 6]``.

    Returns:
        Why the value is no covariance, in words; empty where it is one.
    """
    covariance = np.asarray(covariance, dtype=np.float64)
    if covariance.shape != (6, 6):
        return f"{name} has the shape {covariance.shape}, expected (6, 6)"
    if not np.isfinite(covariance).all():
        return f"{name} is not finite: {_numbers(covariance.diagonal())} is its diagonal"
    scale = np.abs(covariance).max()
    if np.abs(covariance - covariance.T).max() > 1e-6 * scale:
        return f"{name} is not symmetric, by {np.abs(covariance - covariance.T).max():.3g}"
    lowest = np.linalg.eigvalsh(covariance)[0]
    if lowest < -1e-6 * scale:
        return f"{name} has a negative variance, {lowest:.3g}"
    return ""


def _numbers(values: npt.ArrayLike) -> str:
    return " ".join(f"{value:.3g}" for value in np.ravel(values))
