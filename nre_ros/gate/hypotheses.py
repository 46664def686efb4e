# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The poses that one image suggests, as poses of the robot's body with covariances that the gate can use."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nre_ros.gate.motion import BodyPose, OdometryReading, position_stddev, rotation_stddev
from nre_ros.gate.observation import Observation
from nre_ros.gate.settings import GateSettings
from nre_ros.geometry import covariance_of_frame, invert
from nre_ros.pose_faults import covariance_fault, pose_fault

if TYPE_CHECKING:
    from nre_ros.localization.result import Alternative, LocalizationResult

_COARSE_COVARIANCE = np.diag([0.1**2] * 3 + [math.radians(2.0) ** 2] * 3)
"""Added to the first pose's covariance for an alternative that went through the coarse stage alone."""


@dataclass(frozen=True, eq=False)
class PoseHypothesis:
    """One pose of an image.

    Attributes:
        T_map_cam: Pose [4, 4] of the camera.
        covariance: Its covariance [6, 6], inflated and with the lower limit added.
        body: The same pose of the robot's body; its confidence is that of this hypothesis.
    """

    T_map_cam: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]
    body: BodyPose


def fault_of(observation: Observation, result: LocalizationResult, settings: GateSettings) -> str:
    """Checks whether the first pose of a result can be judged.

    Faults of the odometry are found by ``OdometryTrack``.

    Args:
        observation: The image.
        result: Its localization result, with one hypothesis at least.
        settings: Settings of the gate.

    Returns:
        Why the pose cannot be judged, empty if it can.
    """
    first = result.hypotheses[0]
    if observation.stamp <= 0:
        return f"its stamp is {observation.stamp} ns"
    if not np.isfinite(result.confidence):
        return f"its confidence is {result.confidence}"
    if not result.success and result.confidence < settings.min_alternative_confidence:
        return (
            f"its confidence is {result.confidence:.2f}, the smallest of one of several poses is "
            f"{settings.min_alternative_confidence:.2f} (min_alternative_confidence)"
        )
    return (
        pose_fault("its pose", first.T_map_cam)
        or covariance_fault("its covariance", _covariance_of(first))
        or pose_fault("the camera's pose on the robot", observation.T_base_cam)
        or uncertainty_fault(_covariance_of(first), settings)
    )


def hypotheses_of(
    observation: Observation,
    result: LocalizationResult,
    reading: OdometryReading | None,
    settings: GateSettings,
) -> Iterator[PoseHypothesis]:
    """Yields the first pose of an image, then those alternatives that are probable and certain enough to be judged.

    Args:
        observation: The image.
        result: Its localization result, with one hypothesis at least.
        reading: Odometry at the image's stamp; None without odometry.
        settings: Settings of the gate.

    Yields:
        The poses, each with a covariance that is inflated and has the lower limit added.
    """
    first, *others = result.hypotheses
    T_cam_base = invert(np.asarray(observation.T_base_cam, dtype=np.float64))
    own = np.asarray(first.covariance, dtype=np.float64)
    weighted = [(first.T_map_cam, own, result.confidence)]
    first_share = max(1 - sum(other.share for other in others), 1e-9)
    for other in others:
        if other.share < settings.min_alternative_share or pose_fault("", other.T_map_cam):
            continue
        covariance = own + _COARSE_COVARIANCE
        if other.covariance is not None and not covariance_fault("", other.covariance):
            covariance = other.covariance
        confidence = min(result.confidence * other.share / first_share, 1.0)
        if confidence >= settings.min_alternative_confidence and not uncertainty_fault(covariance, settings):
            weighted.append((other.T_map_cam, covariance, confidence))
    for pose, reported, confidence in weighted:
        T_map_cam = np.asarray(pose, dtype=np.float64)
        covariance = settings.covariance_inflation**2 * np.asarray(reported, dtype=np.float64)
        covariance = covariance + min_covariance(settings)
        of_base = covariance_of_frame(covariance, T_map_cam, T_cam_base)
        body = BodyPose(observation.stamp, T_map_cam @ T_cam_base, of_base, reading, confidence)
        yield PoseHypothesis(T_map_cam, covariance, body)


def largest_alternative_share(result: LocalizationResult) -> float:
    """Returns the share of the most probable alternative to the first pose, 0 without an alternative.

    Args:
        result: Localization result of an image.
    """
    return max((other.share for other in result.hypotheses[1:]), default=0.0)


def min_covariance(settings: GateSettings) -> npt.NDArray[np.float64]:
    """Returns the covariance [6, 6] that is added to every reported covariance.

    Args:
        settings: Settings of the gate, with the lower limits of the standard deviations.
    """
    return np.diag([settings.min_position_stddev**2] * 3 + [settings.min_rotation_stddev**2] * 3)


def uncertainty_fault(covariance: npt.NDArray[np.float64], settings: GateSettings) -> str:
    """Checks whether a pose is certain enough to be judged.

    Args:
        covariance: [6, 6] of (x, y, z, rotation about x, y, z), metres and radians.
        settings: Settings of the gate, with the largest standard deviations.

    Returns:
        Why the pose is too uncertain, empty if it is not.
    """
    metres, radians = position_stddev(covariance), rotation_stddev(covariance)
    if metres > settings.max_position_stddev:
        return (
            f"the standard deviation of its position is {metres:.2f} m, "
            f"more than {settings.max_position_stddev:.2f} m (max_position_stddev)"
        )
    if radians > settings.max_rotation_stddev:
        degrees, most = math.degrees(radians), math.degrees(settings.max_rotation_stddev)
        return (
            f"the standard deviation of its rotation is {degrees:.1f} deg, more than {most:.1f} deg "
            "(max_rotation_stddev_deg)"
        )
    return ""


def body_odometry(observation: Observation) -> npt.NDArray[np.float64] | None:
    """Computes the pose of the robot's body in the odometry frame.

    Args:
        observation: Extrinsics and odometry of the camera.

    Returns:
        ``T_odom_base`` [4, 4], not checked for NaN; None without odometry.
    """
    if observation.T_odom_cam is None:
        return None
    T_cam_base = invert(np.asarray(observation.T_base_cam, dtype=np.float64))
    return np.asarray(observation.T_odom_cam, dtype=np.float64) @ T_cam_base


def _covariance_of(first: Alternative) -> npt.NDArray[np.float64]:
    """Its covariance, an array of another shape where it has none: a fault."""
    return np.asarray(first.covariance, dtype=np.float64)
