# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Poses in a room: keyframes that cover it, the smooth loop of a robot, and the robot's drifting odometry.

The frames follow REP-103 and REP-105: ``base_link`` has x forward, y left, z up and lies on the floor; ``camera_link``
has the same axes at the camera; the optical frame has z forward, x right, y down.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

from nre_ros.gallery.room import SIZE
from nre_ros.geometry import invert, pose_matrix

START_STAMP = 1_700_000_000_000_000_000
"""Nanoseconds since the epoch: the default stamp of the first written message."""

T_LINK_OPTICAL = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
"""Optical frame to camera_link at the same place (REP-103)."""


def level_pose(position: npt.ArrayLike, yaw: float, pitch: float = 0.0) -> npt.NDArray[np.float64]:
    """Makes the pose of a body with x forward and no roll.

    Args:
        position: Position [3], metres.
        yaw: Rotation to the left, radians.
        pitch: Rotation upward, radians.

    Returns:
        Pose [4, 4], body to map.
    """
    return pose_matrix(np.asarray(position, dtype=np.float64), Rotation.from_euler("ZY", [yaw, -pitch]).as_quat())


def camera_pose(position: npt.ArrayLike, yaw: float, pitch: float = 0.0) -> npt.NDArray[np.float64]:
    """Makes the pose of a camera without roll.

    Args:
        position: Position [3], map frame, metres.
        yaw: Viewing direction, from the map's x to the left, radians.
        pitch: Viewing direction, upward, radians.

    Returns:
        ``T_map_cam`` [4, 4], optical frame to map.
    """
    return level_pose(position, yaw, pitch) @ T_LINK_OPTICAL


@dataclass(frozen=True)
class CameraMount:
    """The mounting of a camera on a robot.

    Attributes:
        T_base_link: Pose [4, 4] of camera_link in base_link.
        T_link_cam: Pose [4, 4] of the optical frame in camera_link.
    """

    T_base_link: npt.NDArray[np.float64] = field(
        default_factory=lambda: level_pose([0.1, 0.0, 0.9], 0.0, np.radians(8))
    )
    T_link_cam: npt.NDArray[np.float64] = field(default_factory=T_LINK_OPTICAL.copy)

    @property
    def T_base_cam(self) -> npt.NDArray[np.float64]:
        """Pose [4, 4] of the optical frame in base_link."""
        return self.T_base_link @ self.T_link_cam


class PlanarTrajectory:
    """A smooth motion of the base in the plane z = 0, through waypoints at equal intervals of time.

    Args:
        waypoints: [N, 3] with N >= 2, x, y (metres) and yaw (radians); yaw may jump by whole turns.
        duration: Time from the first to the last waypoint, seconds.

    Raises:
        ValueError: The waypoints have another shape or are not finite, or the duration is not positive.
    """

    def __init__(self, waypoints: npt.NDArray[np.float64], duration: float):
        waypoints = np.array(waypoints, dtype=np.float64)
        if waypoints.ndim != 2 or waypoints.shape[1] != 3 or len(waypoints) < 2 or not np.isfinite(waypoints).all():
            raise ValueError(f"waypoints must be finite [N >= 2, 3], got shape {waypoints.shape}")
        if not duration > 0:
            raise ValueError(f"duration must be positive, got {duration}")
        waypoints[:, 2] = np.unwrap(waypoints[:, 2])
        self.duration = float(duration)
        self._spline = CubicSpline(np.linspace(0, duration, len(waypoints)), waypoints)

    def T_map_base(self, seconds: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Computes poses of the base.

        Args:
            seconds: Times [N] since the start; before and after the motion the base stands still.

        Returns:
            Poses [N, 4, 4], base to map.
        """
        states = self._spline(np.clip(np.atleast_1d(np.asarray(seconds, dtype=float)), 0, self.duration))
        return planar_motions(states)


def planar_motions(states: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Makes rigid motions in the plane.

    Args:
        states: [N, 3] x, y (metres) and yaw (radians).

    Returns:
        [N, 4, 4].
    """
    T = np.tile(np.eye(4), (len(states), 1, 1))
    T[:, :3, :3] = Rotation.from_euler("z", states[:, 2:]).as_matrix()
    T[:, :2, 3] = states[:, :2]
    return T


def mapping_poses(
    size: tuple[float, float, float] = SIZE, keyframes: int = 80, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Makes keyframe poses that cover a room: four laps of a hand-held camera.

    The laps look at the walls, across the room, and along the path in both directions, each from another height (1.2
    to 1.6 m) and distance.

    Args:
        size: Length, width and height of the room, metres.
        keyframes: Number of poses, at least 4.
        seed: Seed of the random variations.

    Returns:
        Poses ``T_room_cam`` [N, 4, 4], optical frame to room.

    Raises:
        ValueError: ``keyframes`` is below 4.
    """
    if keyframes < 4:
        raise ValueError(f"a mapping trajectory needs at least 4 keyframes, got {keyframes}")
    rng = np.random.default_rng(seed)
    # part of the room's half size, heading relative to the outward direction, height, pitch up
    laps = [
        (0.45, 0.0, 1.3, 0.0),
        (0.62, np.pi, 1.6, -0.12),
        (0.54, np.pi / 2, 1.2, 0.0),
        (0.54, -np.pi / 2, 1.45, 0.06),
    ]
    poses = []
    for indices, (part, heading, height, pitch) in zip(np.array_split(np.arange(keyframes), 4), laps):
        angles = 2 * np.pi * (np.arange(len(indices)) + rng.uniform()) / len(indices)
        for angle in angles:
            radius = part * rng.uniform(0.94, 1.06)
            x, y = radius * size[0] / 2 * np.cos(angle), radius * size[1] / 2 * np.sin(angle)
            up, yaw, tilt = rng.normal(scale=(0.04, 0.05, 0.03))
            poses.append(camera_pose([x, y, height + up], angle + heading + yaw, pitch + tilt))
    return np.array(poses)


def robot_loop(
    size: tuple[float, float, float] = SIZE, duration: float = 30.0, seed: int = 0, laps: float = 1.0
) -> PlanarTrajectory:
    """Makes the trajectory of a robot round a room, between and beside the keyframes of ``mapping_poses``.

    The robot swerves by up to 0.4 m, and its heading varies between the walls and its path.

    Args:
        size: Length, width and height of the room, metres.
        duration: Time of the whole trajectory, seconds.
        seed: Seed of the random variations.
        laps: Number of rounds.

    Returns:
        The trajectory of base_link in the room.
    """
    rng = np.random.default_rng(seed)
    start, swerve, turn = rng.uniform(0, 2 * np.pi, 3)
    angle = start + np.linspace(0, 2 * np.pi * laps, max(4, int(24 * laps) + 1))
    part = 0.52 + 0.09 * np.sin(3 * angle + swerve) + rng.normal(scale=0.01, size=angle.shape)
    yaw = angle + np.pi / 4 + 0.8 * np.sin(2 * angle + turn)
    waypoints = np.stack([part * size[0] / 2 * np.cos(angle), part * size[1] / 2 * np.sin(angle), yaw], axis=-1)
    return PlanarTrajectory(waypoints, duration)


@dataclass(frozen=True)
class OdometryNoise:
    """The errors of wheel odometry; with zeros odometry does not drift.

    Attributes:
        slip: Standard deviation of the distance, metres per square root of a metre driven.
        turn_slip: Standard deviation of the yaw, radians per square root of a radian turned.
        veer: Standard deviation of the yaw, radians per square root of a metre driven.
        scale: Standard deviation of the constant relative errors of the wheels' radius and of the track width.
    """

    slip: float = 0.01
    turn_slip: float = 0.01
    veer: float = 0.01
    scale: float = 0.005


def drifting_odometry(T_map_base: npt.NDArray[np.float64], noise: OdometryNoise, seed: int) -> npt.NDArray[np.float64]:
    """Simulates the wheel odometry of a planar motion.

    The errors of the steps accumulate: the odometry model of Thrun, Burgard and Fox, Probabilistic Robotics, 5.4.

    Args:
        T_map_base: True poses [N, 4, 4] of the base.
        noise: Errors of the odometry.
        seed: Seed of the errors.

    Returns:
        ``T_odom_base`` [N, 4, 4]. The odom frame is where the base starts.
    """
    rng = np.random.default_rng(seed)
    steps = invert(T_map_base[:-1]) @ T_map_base[1:]
    move = steps[:, :2, 3]
    turn = np.arctan2(steps[:, 1, 0], steps[:, 0, 0])
    distance = np.linalg.norm(move, axis=1)
    radius_error, track_error = rng.normal(scale=noise.scale, size=2)
    slips = rng.normal(size=(len(steps), 4)) * np.sqrt(np.stack([distance, distance, np.abs(turn), distance], axis=1))
    move = move * (1 + radius_error) + noise.slip * slips[:, :2]
    turn = turn * (1 + track_error) + noise.turn_slip * slips[:, 2] + noise.veer * slips[:, 3]
    yaw = np.concatenate([[0.0], np.cumsum(turn)])
    c, s = np.cos(yaw[:-1]), np.sin(yaw[:-1])
    in_odom = np.stack([c * move[:, 0] - s * move[:, 1], s * move[:, 0] + c * move[:, 1]], axis=1)
    position = np.concatenate([np.zeros((1, 2)), np.cumsum(in_odom, axis=0)])
    return planar_motions(np.column_stack([position, yaw]))
