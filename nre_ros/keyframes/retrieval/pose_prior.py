# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Pose prior: where the camera may be, and which keyframes then share a view with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nre_ros.errors import PoseError
from nre_ros.pose_faults import covariance_fault, pose_fault

_HALF_VIEW_WIDTH = 0.5
"""Half of the width of a view, as a part of its distance."""
_SHARED_VIEW_ANGLE = np.radians(30.0)
"""Standard deviation of the angle between two cameras at one place that share a view."""


@dataclass(frozen=True, eq=False)
class PosePrior:
    """A prior of the camera's pose.

    Attributes:
        T_map_cam: [4, 4].
        covariance: [6, 6] of (x, y, z, rotation about x, y, z) in the map's axes, as in
            geometry_msgs/PoseWithCovariance (metres, radians).

    Raises:
        PoseError: The pose is not rigid, or the covariance is none.
    """

    T_map_cam: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        problem = pose_fault("prior pose", self.T_map_cam) or covariance_fault("prior covariance", self.covariance)
        if problem:
            raise PoseError(problem)
        T, covariance = (np.asarray(value, dtype=np.float64) for value in (self.T_map_cam, self.covariance))
        object.__setattr__(self, "T_map_cam", T)
        object.__setattr__(self, "covariance", (covariance + covariance.T) / 2)

    def log_weights(
        self, viewpoints: npt.NDArray[np.float32], distance: float, origin: npt.ArrayLike = (0.0, 0.0, 0.0)
    ) -> npt.NDArray[np.float64]:
        """Rates how well views can overlap with the view from the prior pose.

        The centre points of the views at the given distance are compared, and the viewing directions. Both may differ by
        what the covariance allows and by the extent of a view. Under an unbounded covariance all views are equal.

        Args:
            viewpoints: [M, 6], see ``viewpoints_of``.
            distance: Typical distance from a camera to what it sees, in metres.
            origin: [3] origin of the viewpoints in the map.

        Returns:
            Log weights [M], at most 0.
        """
        centre, axis = self.T_map_cam[:3, 3] - np.asarray(origin), self.T_map_cam[:3, 2]
        # the axis a rotates to a + w x a, its centre point moves by t - distance [a]x w
        cross = np.cross(np.eye(3), axis)  # of a unit vector e, rows: e x a = -[a]x e
        J = np.hstack([np.eye(3), distance * cross.T])
        centre_covariance = J @ self.covariance @ J.T + (_HALF_VIEW_WIDTH * distance) ** 2 * np.eye(3)
        angle_variance = np.linalg.eigvalsh(cross.T @ self.covariance[3:, 3:] @ cross)[-1] + _SHARED_VIEW_ANGLE**2
        views = viewpoints.astype(np.float64)
        offset = views[:, :3] + distance * views[:, 3:] - (centre + distance * axis)
        # column by column: numpy's BLAS is no faster on three columns, and its threads keep spinning
        whitened = np.linalg.inv(np.linalg.cholesky(centre_covariance))
        squared_distance = sum(sum(row[i] * offset[:, i] for i in range(3)) ** 2 for row in whitened)
        angle = np.arccos(sum(axis[i] * views[:, 3 + i] for i in range(3)).clip(-1, 1))
        weights: npt.NDArray[np.float64] = -0.5 * (squared_distance + angle**2 / angle_variance)
        return weights


def viewpoints_of(
    T_map_cam: npt.NDArray[np.float64], origin: npt.ArrayLike = (0.0, 0.0, 0.0)
) -> npt.NDArray[np.float32]:
    """Computes the viewpoints of poses.

    Args:
        T_map_cam: [M, 4, 4] poses.
        origin: [3] in the map, from which centres are measured: far coordinates are coarse in single precision.

    Returns:
        [M, 6] float32, the camera's centre in metres from the origin, and its viewing direction, in the map's axes.
    """
    return np.concatenate([T_map_cam[:, :3, 3] - np.asarray(origin), T_map_cam[:, :3, 2]], axis=1).astype(np.float32)
