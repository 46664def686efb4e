# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the camera may be: a pose with a covariance, and which keyframes can then show what it sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nre_ros.errors import PoseError
from nre_ros.pose_faults import covariance_fault, pose_fault

_HALF_WIDTH = 0.5
"""Half of what a camera sees across, as a part of the distance at which it sees it."""
_TURN = np.radians(30.0)
"""Turned by so much (one standard deviation) against each other, two cameras at one place still share a view."""


@dataclass(frozen=True, eq=False)
class PosePrior:
    """A guess of the camera's pose.

    T_map_cam: [4, 4].  covariance: [6, 6] of (x, y, z, rotation about x, y, z), both in the map's
    axes, as geometry_msgs/PoseWithCovariance has it (metres, radians).
    Raises ``PoseError`` for a pose that is not rigid and for what is no covariance.
    """

    T_map_cam: np.ndarray
    covariance: np.ndarray

    def __post_init__(self):
        problem = pose_fault("prior pose", self.T_map_cam) or covariance_fault("prior covariance", self.covariance)
        if problem:
            raise PoseError(problem)
        T, covariance = (np.asarray(value, dtype=np.float64) for value in (self.T_map_cam, self.covariance))
        object.__setattr__(self, "T_map_cam", T)
        object.__setattr__(self, "covariance", (covariance + covariance.T) / 2)

    def log_weights(self, views: np.ndarray, distance: float) -> np.ndarray:
        """How well each of the views [M, 6] (see ``views_of``) can overlap with the prior's: [M], 0 at most.

        distance: from a camera to what it sees, typically.  Compared are the points in the middle
        of the views at this distance, and the directions; each within what the covariance leaves
        open and what a view takes in anyway.  A covariance without bounds makes all views alike.
        """
        centre, axis = self.T_map_cam[:3, 3], self.T_map_cam[:3, 2]
        # the axis a turns to a + w x a, its middle point moves by t - distance [a]x w
        cross = np.cross(np.eye(3), axis)  # of a unit vector e, rows: e x a = -[a]x e
        J = np.hstack([np.eye(3), distance * cross.T])
        spread = J @ self.covariance @ J.T + (_HALF_WIDTH * distance) ** 2 * np.eye(3)
        turn = np.linalg.eigvalsh(cross.T @ self.covariance[3:, 3:] @ cross)[-1] + _TURN**2
        views = views.astype(np.float64)
        offset = views[:, :3] + distance * views[:, 3:] - (centre + distance * axis)
        # columns one by one: on so few numpy's BLAS does no better, and it leaves threads spinning
        whitened = np.linalg.inv(np.linalg.cholesky(spread))
        away = sum(sum(row[i] * offset[:, i] for i in range(3)) ** 2 for row in whitened)
        angle = np.arccos(sum(axis[i] * views[:, 3 + i] for i in range(3)).clip(-1, 1))
        return -0.5 * (away + angle**2 / turn)


def views_of(T_map_cam: np.ndarray) -> np.ndarray:
    """Views [M, 6] float32 of poses [M, 4, 4]: the camera's centre and the direction it looks in."""
    return np.concatenate([T_map_cam[:, :3, 3], T_map_cam[:, :3, 2]], axis=1).astype(np.float32)
