# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Predicts the robot's pose from an earlier one, by odometry or by its largest speed.

With odometry the pose moves along, and its covariance grows with time, path length and rotation by the drift of
odometry.  Without odometry the pose stays, and its covariance grows by how far the robot can have moved.  A
measured pose agrees with the prediction if the Mahalanobis distance between both is small: its square has a
chi-square distribution with the pose's 6 degrees of freedom (Bar-Shalom, Li, Kirubarajan, Estimation with
Applications to Tracking and Navigation, 2001, 5.4).

Poses are [4, 4] ``T_b_a`` in metres; covariances are [6, 6] of (x, y, z, rotation about x, y, z), both in the map's
axes, as in geometry_msgs/PoseWithCovariance (metres, radians).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from nre_ros.geometry import covariance_of_frame, invert, pose_error
from nre_ros.pose_faults import pose_fault

_MIN_JUMP_METRES = 0.1
_MIN_JUMP_RADIANS = math.radians(5.0)
"""Steps of odometry up to this size are no jump, however short the time: filters correct themselves."""
_SPEED_SIGMAS = 3.0
"""Number of standard deviations that the largest speed counts as."""


@dataclass(frozen=True)
class MotionModel:
    """How the robot moves and how its odometry drifts; drifts are one standard deviation each.

    Attributes:
        drift_per_metre: Metres of error for each metre of path.
        drift_per_radian: Radians of error for each radian of rotation.
        rotation_drift_per_metre: Radians of error for each metre of path.
        drift_per_second: Metres of error for each second, also at rest.
        rotation_drift_per_second: Radians of error for each second, also at rest.
        max_speed: Largest speed, m/s; odometry that is faster has jumped.
        max_turn_rate: Largest rotation rate, rad/s; odometry that is faster has jumped.
    """

    drift_per_metre: float = 0.05
    drift_per_radian: float = 0.05
    rotation_drift_per_metre: float = math.radians(1.0)
    drift_per_second: float = 0.01
    rotation_drift_per_second: float = math.radians(0.1)
    max_speed: float = 2.0
    max_turn_rate: float = math.radians(180.0)


@dataclass(frozen=True, eq=False)
class OdometryReading:
    """Odometry at one time.

    Attributes:
        T_odom_base: Pose [4, 4] of the body in the odometry frame.
        segment: Number of jumps before; readings of two segments cannot be compared.
        path_length: Metres since the beginning of the track, along the path.
        rotation: Radians since the beginning of the track, added up without sign.
    """

    T_odom_base: npt.NDArray[np.float64]
    segment: int
    path_length: float
    rotation: float


class OdometryTrack:
    """Accumulates path length and rotation of the odometry, and notices odometry that jumps or is not finite."""

    def __init__(self, model: MotionModel) -> None:
        self.model = model
        self.reset()

    def reset(self) -> None:
        """Starts a new track."""
        self._stamp = 0
        self._newest: OdometryReading | None = None
        self._remark = ""
        self._segment = 0

    def read(self, stamp: int, T_odom_base: npt.NDArray[np.float64] | None) -> tuple[OdometryReading | None, str]:
        """Adds the odometry of one image to the track.

        Args:
            stamp: Time of the image, nanoseconds.
            T_odom_base: Pose [4, 4] of the body in the odometry frame; None without odometry.

        Returns:
            The reading, None without usable odometry, and a remark about odometry that cannot be used (or "").
        """
        if T_odom_base is None:
            return None, ""
        fault = pose_fault("odometry", T_odom_base)
        if fault:
            return None, fault
        T_odom_base = np.asarray(T_odom_base, dtype=np.float64)
        newest, remark = self._newest, ""
        if newest is not None and stamp == self._stamp and np.array_equal(newest.T_odom_base, T_odom_base):
            return newest, self._remark  # the same reading again, with its remark
        if newest is None:
            reading = OdometryReading(T_odom_base, self._segment, 0.0, 0.0)
        else:
            seconds = abs(stamp - self._stamp) / 1e9
            metres, radians = pose_error(newest.T_odom_base, T_odom_base)
            remark = self._jump(seconds, metres, radians)
            if stamp < self._stamp and not remark:  # a late image of another camera
                return OdometryReading(T_odom_base, newest.segment, newest.path_length, newest.rotation), ""
            self._segment += bool(remark)
            reading = OdometryReading(
                T_odom_base, self._segment, newest.path_length + metres, newest.rotation + radians
            )
        self._stamp, self._newest, self._remark = stamp, reading, remark
        return reading, remark

    def _jump(self, seconds: float, metres: float, radians: float) -> str:
        model = self.model
        too_far = metres > model.max_speed * seconds + _MIN_JUMP_METRES
        # more than half a turn cannot be measured
        too_much_rotation = radians > model.max_turn_rate * seconds + _MIN_JUMP_RADIANS
        if not (too_far or too_much_rotation):
            return ""
        return f"odometry jumped by {metres:.2f} m and {math.degrees(radians):.1f} deg within {seconds:.2f} s"


@dataclass(frozen=True, eq=False)
class BodyPose:
    """Pose of the robot's body at one time.

    Attributes:
        stamp: Nanoseconds.
        T_map_base: Pose [4, 4] in the map.
        covariance: [6, 6].
        reading: Odometry at ``stamp``; None without.
        confidence: Probability that the pose is right, by the image alone.
    """

    stamp: int
    T_map_base: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]
    reading: OdometryReading | None
    confidence: float = 1.0


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predicted pose of the robot's body.

    Attributes:
        T_map_base: Pose [4, 4] in the map.
        covariance: [6, 6].
        by_odometry: Whether odometry led from the earlier pose to this one; else it is the earlier pose itself.
    """

    T_map_base: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]
    by_odometry: bool

    @property
    def stddev(self) -> float:
        """Largest standard deviation of the position, metres."""
        return position_stddev(self.covariance)


@dataclass(frozen=True)
class PoseDifference:
    """Difference between a prediction and a measured pose: Mahalanobis distance, metres, radians."""

    mahalanobis: float
    metres: float
    radians: float

    def __str__(self) -> str:
        return f"{self.metres:.2f} m and {math.degrees(self.radians):.1f} deg"


def predict(origin: BodyPose, stamp: int, reading: OdometryReading | None, model: MotionModel) -> Prediction:
    """Predicts where the body of an earlier pose is at another time.

    Odometry is used where both times have it and it did not jump in between.

    Args:
        origin: The earlier pose.
        stamp: Time of the prediction, nanoseconds.
        reading: Odometry at that time; None without.
        model: Speed and drift.

    Returns:
        The predicted pose with its covariance.
    """
    seconds = abs(stamp - origin.stamp) / 1e9
    if reading is None or origin.reading is None or reading.segment != origin.reading.segment:
        growth = _isotropic(model.max_speed * seconds / _SPEED_SIGMAS, model.max_turn_rate * seconds / _SPEED_SIGMAS)
        return Prediction(origin.T_map_base, origin.covariance + growth, False)
    T_then_now = invert(origin.reading.T_odom_base) @ reading.T_odom_base
    metres, radians = pose_error(origin.reading.T_odom_base, reading.T_odom_base)
    path_length = max(abs(reading.path_length - origin.reading.path_length), metres)
    rotation = max(abs(reading.rotation - origin.reading.rotation), radians)
    rotation_drift = (
        model.drift_per_radian * rotation
        + model.rotation_drift_per_metre * path_length
        + model.rotation_drift_per_second * seconds
    )
    # a heading that drifts on the way moves the position, by half the path on average
    position_drift = (
        model.drift_per_metre * path_length + model.drift_per_second * seconds + rotation_drift * path_length / 2
    )
    covariance = covariance_of_frame(origin.covariance, origin.T_map_base, T_then_now)
    covariance = covariance + _isotropic(position_drift, rotation_drift)
    return Prediction(origin.T_map_base @ T_then_now, covariance, True)


def difference(
    prediction: Prediction, T_map_base: npt.NDArray[np.float64], covariance: npt.NDArray[np.float64]
) -> PoseDifference:
    """Compares a measured pose with its prediction.

    Args:
        prediction: Predicted pose of the robot's body.
        T_map_base: Measured pose [4, 4] in the map.
        covariance: Covariance [6, 6] of the measured pose.

    Returns:
        The Mahalanobis distance under the sum of both covariances, the distance and the angle.
    """
    rotation = Rotation.from_matrix(T_map_base[:3, :3] @ prediction.T_map_base[:3, :3].T).as_rotvec()
    error = np.concatenate([T_map_base[:3, 3] - prediction.T_map_base[:3, 3], rotation])
    squared = error @ np.linalg.solve(prediction.covariance + covariance, error)
    return PoseDifference(
        math.sqrt(max(float(squared), 0.0)), float(np.linalg.norm(error[:3])), float(np.linalg.norm(rotation))
    )


def position_stddev(covariance: npt.NDArray[np.float64]) -> float:
    """Computes the largest standard deviation of the position in any direction, in metres.

    Args:
        covariance: [6, 6] of (x, y, z, rotation about x, y, z), metres and radians.
    """
    return math.sqrt(max(np.linalg.eigvalsh(covariance[:3, :3])[-1], 0.0))


def rotation_stddev(covariance: npt.NDArray[np.float64]) -> float:
    """Computes the largest standard deviation of the rotation about any axis, in radians.

    Args:
        covariance: [6, 6] of (x, y, z, rotation about x, y, z), metres and radians.
    """
    return math.sqrt(max(np.linalg.eigvalsh(covariance[3:, 3:])[-1], 0.0))


def _isotropic(metres: float, radians: float) -> npt.NDArray[np.float64]:
    return np.diag([metres**2] * 3 + [radians**2] * 3)
