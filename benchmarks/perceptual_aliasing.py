# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Perceptual aliasing: how many accepted poses are in the wrong one of two identical rooms.

The rooms are 12 m apart, and a robot drives in the first one. Every image fits both rooms; only the robot's motion
distinguishes them. An initial pose says where the robot starts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from common import Options, Table
from rendered_rooms import CAMERA, place_of, write_map

from nre_ros.gallery.render import Gallery
from nre_ros.gallery.room import SIZE, build_room
from nre_ros.gallery.sensor import Sensor
from nre_ros.gallery.trajectory import CameraMount, OdometryNoise, drifting_odometry, mapping_poses, robot_loop
from nre_ros.gate.gate import Gate
from nre_ros.gate.observation import Observation
from nre_ros.geometry import pose_error
from nre_ros.keyframes.retrieval.pose_prior import PosePrior
from nre_ros.localization.localizer import Localizer

KEYFRAMES, SECONDS, LAPS = 60, 600, 15
"""Keyframes of each room; length and rounds of the drive, with one image a second."""
WRONG = 1.0
"""Metres from the truth beyond which a pose is in the wrong room."""
SETS = {"free": "without prior", "prior": "with the gate's prediction as pose prior"}
_SENSOR = Sensor(gain=0.9, blur=0.5, noise=3.0)
_STEPS = 10
"""Odometry readings a second."""


def run(options: Options) -> Iterator[Table]:
    """Counts all poses and those that the gate accepts, with and without odometry."""
    sets = options.selected_sets(SETS)
    gallery = Gallery(build_room(options.seed, pixels_per_metre=200))
    map_path = options.folder / f"identical_rooms_{options.seed}.db"
    if not map_path.exists():
        build_map(map_path, [gallery, gallery], options)
    stamps, poses, odometry = _drive(options)
    images = [take_image(gallery, T, [options.seed, i]) for i, T in enumerate(poses)]
    table = Table(
        f"{len(images)} images of {SECONDS / 60:.0f} minutes in one of two identical rooms",
        ("images localized", "accepted by", "poses", "in the wrong room", "right poses rejected", "jumps"),
        notes=[f"In the wrong room: error above {WRONG:.0f} m. An initial pose says where the robot starts."],
    )
    with Localizer(map_path, options.device, options.seed) as localizer:
        if "free" in sets:
            results = [localizer.localize(image, CAMERA) for image in images]
            table.rows += _gated_without_prior(results, stamps, poses, odometry)
        if "prior" in sets:
            for name, readings in (("gate, with odometry", odometry), ("gate, without", [None] * len(poses))):
                row = _localized_with_prior(localizer, images, stamps, poses, readings)
                table.rows.append((SETS["prior"], name, *row))
    yield table


def _gated_without_prior(results, stamps, poses, odometry) -> list[tuple]:
    """The same poses, all accepted, and accepted by the gate."""
    posed = [result for result in results if result.success]
    wrong = sum(is_wrong(result.T_map_cam, T) for result, T in zip(results, poses) if result.success)
    rows = [(SETS["free"], "no gate", len(posed), wrong, 0, None)]
    for name, readings in (("gate, with odometry", odometry), ("gate, without", [None] * len(poses))):
        count = _Count(_gate(stamps[0], poses[0], readings[0]))
        for taken in zip(stamps, results, poses, readings):
            count.judge(*taken)
        rows.append((SETS["free"], name, *count.row()))
    return rows


def _localized_with_prior(localizer: Localizer, images, stamps, poses, readings) -> tuple:
    """Localizes every image with the gate's prediction as pose prior, as the node does."""
    count = _Count(_gate(stamps[0], poses[0], readings[0]))
    for image, stamp, truth, T_odom_cam in zip(images, stamps, poses, readings):
        prior = PosePrior(*count.gate.predict(Observation(stamp, T_odom_cam=T_odom_cam)))
        count.judge(stamp, localizer.localize(image, CAMERA, prior), truth, T_odom_cam)
    return count.row()


class _Count:
    """Counts what the gate decides."""

    def __init__(self, gate: Gate):
        self.gate = gate
        self._accepted = self._wrong = self._rejected = self._jumps = 0

    def judge(self, stamp: int, result, truth: np.ndarray, T_odom_cam) -> None:
        decision = self.gate.judge(Observation(stamp, T_odom_cam=T_odom_cam), result)
        if not decision.judged:
            return
        self._accepted += decision.accepted
        self._wrong += decision.accepted and is_wrong(decision.T_map_cam, truth)
        self._rejected += not (decision.accepted or is_wrong(result.hypotheses[0].T_map_cam, truth))
        self._jumps += decision.accepted and decision.jump

    def row(self) -> tuple:
        return self._accepted, self._wrong, self._rejected, self._jumps


def _gate(stamp: int, T_map_cam: np.ndarray, T_odom_cam: np.ndarray | None) -> Gate:
    gate = Gate()
    gate.set_initial_pose(T_map_cam, np.diag([0.5**2] * 3 + [0.26**2] * 3), stamp, T_odom_cam)
    return gate


def build_map(path, galleries: list[Gallery], options: Options) -> None:
    """Builds a map of rooms side by side, each with a mapping trajectory of its own."""
    write_map(
        path,
        (
            (f"room{room}/{i:03d}", gallery, T, place_of(room) @ T)
            for room, gallery in enumerate(galleries)
            for i, T in enumerate(mapping_poses(SIZE, KEYFRAMES, options.seed + room))
        ),
        CAMERA,
        options,
    )


def _drive(options: Options) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Stamps of the images (ns), and the camera's poses [N, 4, 4] in the first room and by odometry."""
    base = robot_loop(SIZE, SECONDS, options.seed, LAPS).T_map_base(np.arange(SECONDS * _STEPS) / _STEPS)
    odometry = drifting_odometry(base, OdometryNoise(), options.seed)
    T_base_cam = CameraMount().T_base_cam
    taken = range(0, len(base), _STEPS * max(1, SECONDS // (options.queries or SECONDS)))
    stamps = [10**9 + i * 10**9 // _STEPS for i in taken]
    return stamps, base[taken] @ T_base_cam, odometry[taken] @ T_base_cam


def take_image(gallery: Gallery, T_room_cam: np.ndarray, seed) -> np.ndarray:
    """Renders a noisy image from a pose in the gallery's room."""
    return _SENSOR(gallery.render(CAMERA, T_room_cam).image, np.random.default_rng(seed))


def is_wrong(T_map_cam: np.ndarray, truth: np.ndarray) -> bool:
    """Returns whether a pose is in another room than the true one."""
    return pose_error(T_map_cam, truth)[0] > WRONG
