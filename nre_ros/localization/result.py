# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What localizing one image ends with: a pose, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nre_ros.features import FeatureGrid
from nre_ros.geometry import position_quaternion
from nre_ros.localization.evidence import Evidence


@dataclass(frozen=True, eq=False)
class Alternative:
    """One of several poses that explain the same image.

    Attributes:
        T_map_cam: ``[4, 4]`` float64 pose of the camera's optical frame in the map.
        share: Its probability beside the other poses of the image, in [0, 1].
        covariance: ``[6, 6]`` as of ``LocalizationResult``; None where the pose is only as precise as the coarse stage.
    """

    T_map_cam: npt.NDArray[np.float64]
    share: float = 0.0
    covariance: npt.NDArray[np.float64] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class LocalizationResult:
    """The verdict on one image.

    T_map_cam: [4, 4] float64 pose of the camera's optical frame in the map, None without pose.
    covariance: [6, 6] float64 of (x, y, z, rotation about x, y, z), both in the map's axes, as
        geometry_msgs/PoseWithCovariance has it; None without pose.
    confidence: the probability that the pose is right (``confidence`` says within what).
    alternatives: other poses that explain the image nearly as well.  Where there is no pose because one of two
        places must be meant, both of them.
    evidence: what the confidence was told from; None where the estimator found nothing.
    reason: one line that says why there is no pose; empty with one.
    points_used, points_considered: map points that support the pose, of all those retrieved.
    keyframes: ids of the retrieved keyframes.
    cost: final smoothed loss per point (lower is better), NaN when no stage got that far.
    milliseconds: stage -> time, in the order of the stages.
    points, pixels, losses: [N, 3], [N, 2], [N] of the map points, their projections at the pose
        and their NRE there as a fraction of ln|Omega| (0 perfect, 1 no support); for pictures.
    sample_maps, sample_pixels, sample_grid: loss maps [S, H, W] of a few of these points (as such
        fractions), where the pose puts them [S, 2], and where the maps' cells lie in the image.
    """

    T_map_cam: np.ndarray | None = None
    covariance: np.ndarray | None = None
    confidence: float = 0.0
    reason: str = ""
    alternatives: tuple[Alternative, ...] = ()
    evidence: Evidence | None = field(default=None, repr=False)
    points_used: int = 0
    points_considered: int = 0
    keyframes: tuple[int, ...] = ()
    cost: float = float("nan")
    milliseconds: dict[str, float] = field(default_factory=dict)
    points: np.ndarray | None = field(default=None, repr=False)
    pixels: np.ndarray | None = field(default=None, repr=False)
    losses: np.ndarray | None = field(default=None, repr=False)
    sample_maps: np.ndarray | None = field(default=None, repr=False)
    sample_pixels: np.ndarray | None = field(default=None, repr=False)
    sample_grid: FeatureGrid | None = field(default=None, repr=False)

    @property
    def success(self) -> bool:
        return self.T_map_cam is not None

    @property
    def hypotheses(self) -> tuple[Alternative, ...]:
        """The poses that the validation gate may judge, the most probable first; empty where there is none.

        An accepted pose comes first, its alternatives after it. Without an accepted pose there are hypotheses only where
        one of several poses must be right: odometry may tell which.
        """
        if self.T_map_cam is None:
            return self.alternatives if len(self.alternatives) > 1 else ()
        share = 1 - sum(other.share for other in self.alternatives)
        return (Alternative(self.T_map_cam, share, self.covariance), *self.alternatives)

    def fix(self, stamp: int, T_odom_cam=None, camera: str = "", T_base_cam=None):
        """What the gate judges, None where there is nothing; arguments as of ``Fix``."""
        from nre_ros.gate.fix import AT_BASE, Fix

        if not self.hypotheses:
            return None
        first, *others = self.hypotheses
        return Fix(
            stamp,
            first.T_map_cam,
            first.covariance,
            self.confidence,
            T_odom_cam,
            camera,
            AT_BASE if T_base_cam is None else T_base_cam,
            tuple(others),
        )

    def to_json(self) -> dict:
        """The fields of one line of ``nre_ros localize``'s output (without the image's name)."""
        position = quaternion = covariance = None
        if self.success:
            position, quaternion = (array.tolist() for array in position_quaternion(self.T_map_cam))
            covariance = self.covariance.tolist()
        return {
            "success": self.success,
            "position": position,
            "quaternion": quaternion,
            "covariance": covariance,
            "confidence": self.confidence,
            "seconds": sum(self.milliseconds.values()) / 1e3,
            "reason": self.reason,
            "alternatives": [_alternative(other) for other in self.alternatives],
            "points_used": self.points_used,
            "points_considered": self.points_considered,
            "keyframes": list(self.keyframes),
            "cost": self.cost if np.isfinite(self.cost) else None,
            "milliseconds": self.milliseconds,
        }


def _alternative(other: Alternative) -> dict:
    position, quaternion = (array.tolist() for array in position_quaternion(other.T_map_cam))
    return {"position": position, "quaternion": quaternion, "share": other.share}
