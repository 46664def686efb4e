# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the robot must be by now: an earlier pose carried on by odometry, or by its largest speed.

With odometry the pose moves along and its covariance grows with the time and the way, by what
odometry drifts.  Without, the pose stays, and the covariance grows by how far the robot may have
gone meanwhile.  The two agree with a fix when the Mahalanobis distance between them is one that
chance explains: squared, it has a chi-square distribution with the pose's 6 degrees of freedom
(Bar-Shalom, Li, Kirubarajan, Estimation with Applications to Tracking and Navigation, 2001, 5.4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from nre_ros.geometry import covariance_of_frame, invert, pose_error
from nre_ros.pose_faults import pose_fault

_SLACK_METRES = 0.1
_SLACK_RADIANS = math.radians(5.0)
"""Odometry that steps by so little has not jumped, however short the time: filters correct themselves."""
_SIGMAS = 3.0
"""Standard deviations that the largest speed counts as."""


@dataclass(frozen=True)
class MotionModel:
    """How the robot moves, and how its odometry errs (one standard deviation each).

    drift_per_metre: metres of error a metre driven.  drift_per_radian: radians of error a radian turned.
    turn_drift_per_metre: radians of error a metre driven.  drift_per_second, turn_drift_per_second:
    metres and radians of error a second, also when standing still.
    max_speed (m/s), max_turn (rad/s): faster motion is none.
    """

    drift_per_metre: float = 0.05
    drift_per_radian: float = 0.05
    turn_drift_per_metre: float = math.radians(1.0)
    drift_per_second: float = 0.01
    turn_drift_per_second: float = math.radians(0.1)
    max_speed: float = 2.0
    max_turn: float = math.radians(180.0)


@dataclass(frozen=True, eq=False)
class Reading:
    """Odometry at one time.  path (metres), turned (radians): since the track's beginning, however crooked.

    segment: counts the jumps; poses of two segments have nothing to do with each other.
    """

    T_odom_base: np.ndarray
    segment: int
    path: float
    turned: float


class OdometryTrack:
    """Measures the way that odometry tells of, and notices when it jumps or is not finite."""

    def __init__(self, model: MotionModel):
        self.model = model
        self.reset()

    def reset(self) -> None:
        """Forgets the way so far."""
        self._stamp, self._newest, self._remark = 0, None, ""
        self._segment = 0

    def read(self, stamp: int, T_odom_base: np.ndarray | None) -> tuple[Reading | None, str]:
        """The reading at ``stamp`` nanoseconds, and a remark where the odometry given cannot be followed."""
        if T_odom_base is None:
            return None, ""
        fault = pose_fault("odometry", T_odom_base)
        if fault:
            return None, fault
        T_odom_base = np.asarray(T_odom_base, dtype=np.float64)
        newest, remark = self._newest, ""
        if newest is not None and stamp == self._stamp and np.array_equal(newest.T_odom_base, T_odom_base):
            return newest, self._remark  # asked again: what was to be said of it still is
        if newest is None:
            reading = Reading(T_odom_base, self._segment, 0.0, 0.0)
        else:
            seconds = abs(stamp - self._stamp) / 1e9
            metres, radians = pose_error(newest.T_odom_base, T_odom_base)
            remark = self._jump(seconds, metres, radians)
            if stamp < self._stamp and not remark:  # of another camera, a little late
                return Reading(T_odom_base, newest.segment, newest.path, newest.turned), ""
            self._segment += bool(remark)
            reading = Reading(T_odom_base, self._segment, newest.path + metres, newest.turned + radians)
        self._stamp, self._newest, self._remark = stamp, reading, remark
        return reading, remark

    def _jump(self, seconds: float, metres: float, radians: float) -> str:
        model = self.model
        far = metres > model.max_speed * seconds + _SLACK_METRES
        # more than half a turn cannot be seen
        turned = radians > model.max_turn * seconds + _SLACK_RADIANS
        if not (far or turned):
            return ""
        return f"odometry jumped by {metres:.2f} m and {math.degrees(radians):.1f} deg within {seconds:.2f} s"


@dataclass(frozen=True, eq=False)
class Waypoint:
    """The body's pose in the map [4, 4] at ``stamp``, its covariance [6, 6], and odometry there, if any."""

    stamp: int
    T_map_base: np.ndarray
    covariance: np.ndarray
    reading: Reading | None
    confidence: float = 1.0


@dataclass(frozen=True, eq=False)
class Prediction:
    """Where the body is expected [4, 4], and the covariance [6, 6] of that.

    followed: by odometry; else it is the earlier pose, with all that may have happened since.
    """

    T_map_base: np.ndarray
    covariance: np.ndarray
    followed: bool

    @property
    def spread(self) -> float:
        """Largest standard deviation of the position, metres."""
        return position_spread(self.covariance)


@dataclass(frozen=True)
class Gap:
    """Between a prediction and a fix: Mahalanobis distance, metres and radians."""

    mahalanobis: float
    metres: float
    radians: float

    def words(self) -> str:
        """Such as ``0.12 m and 0.4 deg``."""
        return f"{self.metres:.2f} m and {math.degrees(self.radians):.1f} deg"


def predict(origin: Waypoint, stamp: int, reading: Reading | None, model: MotionModel) -> Prediction:
    """Where the body of ``origin`` is at ``stamp``, by odometry where both have it and it did not jump."""
    seconds = abs(stamp - origin.stamp) / 1e9
    if reading is None or origin.reading is None or reading.segment != origin.reading.segment:
        growth = _isotropic(model.max_speed * seconds / _SIGMAS, model.max_turn * seconds / _SIGMAS)
        return Prediction(origin.T_map_base, origin.covariance + growth, False)
    T_then_now = invert(origin.reading.T_odom_base) @ reading.T_odom_base
    metres, radians = pose_error(origin.reading.T_odom_base, reading.T_odom_base)
    path = max(abs(reading.path - origin.reading.path), metres)
    turned = max(abs(reading.turned - origin.reading.turned), radians)
    turn = model.drift_per_radian * turned + model.turn_drift_per_metre * path + model.turn_drift_per_second * seconds
    # a heading that goes wrong on the way takes the position with it, by half the way on average
    position = model.drift_per_metre * path + model.drift_per_second * seconds + turn * path / 2
    covariance = covariance_of_frame(origin.covariance, origin.T_map_base, T_then_now) + _isotropic(position, turn)
    return Prediction(origin.T_map_base @ T_then_now, covariance, True)


def gap_between(prediction: Prediction, T_map_base: np.ndarray, covariance: np.ndarray) -> Gap:
    """How far a pose [4, 4] with covariance [6, 6] is from where it is expected."""
    turn = Rotation.from_matrix(T_map_base[:3, :3] @ prediction.T_map_base[:3, :3].T).as_rotvec()
    error = np.concatenate([T_map_base[:3, 3] - prediction.T_map_base[:3, 3], turn])
    squared = error @ np.linalg.solve(prediction.covariance + covariance, error)
    return Gap(math.sqrt(max(squared, 0.0)), float(np.linalg.norm(error[:3])), float(np.linalg.norm(turn)))


def position_spread(covariance: np.ndarray) -> float:
    """Largest standard deviation of the position in any direction, metres."""
    return math.sqrt(max(np.linalg.eigvalsh(covariance[:3, :3])[-1], 0.0))


def turn_spread(covariance: np.ndarray) -> float:
    """Largest standard deviation of the rotation about any axis, radians."""
    return math.sqrt(max(np.linalg.eigvalsh(covariance[3:, 3:])[-1], 0.0))


def _isotropic(metres: float, radians: float) -> np.ndarray:
    return np.diag([metres**2] * 3 + [radians**2] * 3)
