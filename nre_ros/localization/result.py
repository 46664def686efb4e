# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The result for one image: a pose, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nre_ros.features import FeatureGrid
from nre_ros.geometry import position_quaternion
from nre_ros.localization.depth import DepthAgreement
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
    """The answer for one image: a pose of at least ``min_confidence``, or the reason why there is none.

    Attributes:
        T_map_cam: ``[4, 4]`` float64 pose of the camera's optical frame in the map; None without a pose.
        covariance: ``[6, 6]`` float64 of (x, y, z, rotation about x, y, z), both in the map's axes, metres and radians,
            as geometry_msgs/PoseWithCovariance has it; None without a pose.
        confidence: Probability that the pose is right (``confidence.py`` defines right). It is also given for a pose
            that is below ``min_confidence``; 0 where the estimator found no pose or no covariance.
        reason: One line that says why there is no pose; empty with one.
        alternatives: Distinct poses that explain the image nearly as well. Where there is no pose because one of two
            poses must be right, both of them.
        evidence: What the confidence was computed from; None where the estimator found no pose.
        points_used: Number of inliers of the pose.
        points_considered: Number of points of the retrieved keyframes.
        keyframes: Ids of the retrieved keyframes.
        search_cut: Whether the search for poses ended before it could be sure: a better pose may exist.
        map_share: Share of the position's variance in ``covariance`` that errors of the map have, in [0, 1]; the image has
            the rest (see ``covariance.py``).
        depth: How the image's depth and the estimated pose agree; None without depth or without an estimate.
        cost: Smoothed loss per point of the last stage (lower is better); NaN when no stage got that far.
        milliseconds: Stage -> time, in the order of the stages.
        points: ``[N, 3]`` map points in front of the camera, for pictures.
        pixels: ``[N, 2]`` their projections at the pose.
        losses: ``[N]`` their NRE there as a fraction of ln|Omega| (0 perfect, 1 no match).
        sample_maps: ``[S, H, W]`` loss maps of a few of these points, as such fractions.
        sample_pixels: ``[S, 2]`` where the pose puts these points.
        sample_grid: Where the maps' cells lie in the image.
    """

    T_map_cam: npt.NDArray[np.float64] | None = None
    covariance: npt.NDArray[np.float64] | None = None
    confidence: float = 0.0
    reason: str = ""
    alternatives: tuple[Alternative, ...] = ()
    evidence: Evidence | None = field(default=None, repr=False)
    points_used: int = 0
    points_considered: int = 0
    keyframes: tuple[int, ...] = ()
    search_cut: bool = False
    map_share: float = 0.0
    depth: DepthAgreement | None = None
    cost: float = float("nan")
    milliseconds: dict[str, float] = field(default_factory=dict)
    points: npt.NDArray[np.float64] | None = field(default=None, repr=False)
    pixels: npt.NDArray[np.float64] | None = field(default=None, repr=False)
    losses: npt.NDArray[np.float64] | None = field(default=None, repr=False)
    sample_maps: npt.NDArray[np.float64] | None = field(default=None, repr=False)
    sample_pixels: npt.NDArray[np.float64] | None = field(default=None, repr=False)
    sample_grid: FeatureGrid | None = field(default=None, repr=False)

    @property
    def success(self) -> bool:
        """Whether there is a pose."""
        return self.T_map_cam is not None

    @property
    def hypotheses(self) -> tuple[Alternative, ...]:
        """The poses that the validation gate may judge, the most probable first; empty where there is none.

        An accepted pose comes first, its alternatives after it. Without an accepted pose there are hypotheses only
        where one of several poses must be right: odometry may tell which.
        """
        if self.T_map_cam is None:
            return self.alternatives if len(self.alternatives) > 1 else ()
        share = 1 - sum(other.share for other in self.alternatives)
        return (Alternative(self.T_map_cam, share, self.covariance), *self.alternatives)

    def to_json(self) -> dict[str, object]:
        """Returns the fields of one line of ``nre_ros localize``'s output, without the image's name."""
        position = quaternion = covariance = None
        if self.T_map_cam is not None and self.covariance is not None:
            position, quaternion = (array.tolist() for array in position_quaternion(self.T_map_cam))
            covariance = self.covariance.tolist()
        return {
            "success": self.success,
            "position": position,
            "quaternion": quaternion,
            "covariance": covariance,
            "map_share": self.map_share,
            "confidence": self.confidence,
            "seconds": sum(self.milliseconds.values()) / 1e3,
            "reason": self.reason,
            "alternatives": [_alternative(other) for other in self.alternatives],
            "points_used": self.points_used,
            "points_considered": self.points_considered,
            "keyframes": list(self.keyframes),
            "search_cut": self.search_cut,
            **({} if self.depth is None else {"depth": self.depth.to_json()}),
            "cost": self.cost if np.isfinite(self.cost) else None,
            "milliseconds": self.milliseconds,
        }


def _alternative(other: Alternative) -> dict[str, object]:
    position, quaternion = (array.tolist() for array in position_quaternion(other.T_map_cam))
    return {"position": position, "quaternion": quaternion, "share": other.share}
