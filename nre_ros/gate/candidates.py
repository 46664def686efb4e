# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A fix as the gate weighs it: its poses as those of the robot's body, with covariances to be trusted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nre_ros.gate.fix import Fix
from nre_ros.gate.motion import Reading, Waypoint, position_spread, turn_spread
from nre_ros.gate.settings import GateSettings
from nre_ros.geometry import covariance_of_frame, invert
from nre_ros.pose_faults import covariance_fault, pose_fault

_COARSE = np.diag([0.1**2] * 3 + [math.radians(2.0) ** 2] * 3)
"""Covariance of another pose of an image, on top of the first one's, that went through the coarse stage alone."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """One of the poses of a fix: of the camera, and of the body with its covariance after inflation and floor.

    waypoint.confidence: in this pose.
    """

    T_map_cam: np.ndarray
    covariance: np.ndarray
    waypoint: Waypoint


def candidates_of(fix: Fix, reading: Reading | None, settings: GateSettings) -> Iterator[Candidate]:
    """The fix's own pose, then those of its alternatives that say something: probable enough, and certain enough."""
    T_cam_base = invert(np.asarray(fix.T_base_cam, dtype=np.float64))
    own = np.asarray(fix.covariance, dtype=np.float64)
    poses = [(fix.T_map_cam, own, fix.confidence)]
    first_share = max(1 - sum(other.share for other in fix.alternatives), 1e-9)
    for other in fix.alternatives:
        if other.share < settings.least_share or pose_fault("", other.T_map_cam):
            continue
        known = other.covariance is not None and not covariance_fault("", other.covariance)
        covariance = other.covariance if known else own + _COARSE
        if not uncertainty_fault(covariance, settings):
            poses.append((other.T_map_cam, covariance, min(fix.confidence * other.share / first_share, 1.0)))
    for T_map_cam, covariance, confidence in poses:
        T_map_cam = np.asarray(T_map_cam, dtype=np.float64)
        covariance = settings.inflation**2 * np.asarray(covariance, dtype=np.float64) + floor(settings)
        of_base = covariance_of_frame(covariance, T_map_cam, T_cam_base)
        waypoint = Waypoint(fix.stamp, T_map_cam @ T_cam_base, of_base, reading, confidence)
        yield Candidate(T_map_cam, covariance, waypoint)


def floor(settings: GateSettings) -> np.ndarray:
    """[6, 6] what is added to every covariance."""
    return np.diag([settings.floor_metres**2] * 3 + [settings.floor_radians**2] * 3)


def uncertainty_fault(covariance: np.ndarray, settings: GateSettings) -> str:
    """Why a pose of this covariance is too uncertain to be of use, in words; empty where it is not."""
    metres, radians = position_spread(covariance), turn_spread(covariance)
    if metres > settings.max_metres:
        return f"its position is uncertain by {metres:.2f} m, at most {settings.max_metres:.2f} m may be"
    if radians > settings.max_radians:
        degrees, most = math.degrees(radians), math.degrees(settings.max_radians)
        return f"its rotation is uncertain by {degrees:.1f} deg, at most {most:.1f} deg may be"
    return ""


def base_odometry(T_odom_cam, T_base_cam) -> np.ndarray | None:
    """Odometry of the body, NaN as it came."""
    if T_odom_cam is None:
        return None
    return np.asarray(T_odom_cam, dtype=np.float64) @ invert(np.asarray(T_base_cam, dtype=np.float64))
