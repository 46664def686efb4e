# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Two rooms that look the same, a robot that drives in one: how many of the poses believed are in the other.

The second room is the first one 12 m away: every image has two right answers, and nothing but the
robot's own motion tells which is true.  Where it starts is told by a hint, for nothing else can know.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from common import Options, Table, UsageError
from rooms import map_of_views

from nre_ros.gallery.render import Gallery
from nre_ros.gallery.room import SIZE, build_room
from nre_ros.gallery.sensor import Sensor
from nre_ros.gallery.trajectory import CameraMount, OdometryNoise, drifting_odometry, mapping_poses, robot_loop
from nre_ros.gate.gate import Gate
from nre_ros.gate.observation import Observation
from nre_ros.geometry import Camera, pose_error
from nre_ros.keyframes.retrieval.pose_prior import PosePrior
from nre_ros.localization.localizer import Localizer

CAMERA = Camera(320, 240, 260.0, 260.0, 159.5, 119.5)
KEYFRAMES, SECONDS, LAPS = 60, 600, 15
"""Keyframes of each room; the drive's length, with an image a second."""
APART, WRONG = 12.0, 1.0
"""Metres between the rooms, and from the truth at which a pose is in the wrong one."""
SETS = {"free": "without prior", "prior": "with the gate's prediction as prior"}
_SENSOR = Sensor(gain=0.9, blur=0.5, noise=3.0)
_STEPS = 10
"""Of odometry a second."""


def run(options: Options) -> Iterator[Table]:
    """Counts of fixes, of all and of those that the gate believes, with and without odometry."""
    unknown = set(options.sets) - set(SETS)
    if unknown:
        raise UsageError(f"unknown set {unknown.pop()!r}, known: {', '.join(SETS)}")
    gallery = Gallery(build_room(options.seed, pixels_per_metre=200))
    map_path = options.folder / f"lookalike_{options.seed}.db"
    if not map_path.exists():
        build_map(map_path, [gallery, gallery], options)
    stamps, poses, odometry = _drive(options)
    images = [take_image(gallery, T, [options.seed, i]) for i, T in enumerate(poses)]
    table = Table(
        f"{len(images)} images of {SECONDS / 60:.0f} minutes in one of two equal rooms",
        ("images localized", "judged by", "poses", "in the wrong room", "right ones kept back", "jumps"),
        notes=[f"In the wrong room: more than {WRONG:.0f} m off. A hint tells where the robot starts."],
    )
    with Localizer(map_path, options.device, options.seed) as localizer:
        if "free" in (options.sets or SETS):
            results = [localizer.localize(image, CAMERA) for image in images]
            table.rows += _judged_free(results, stamps, poses, odometry)
        if "prior" in (options.sets or SETS):
            for name, readings in (("gate, with odometry", odometry), ("gate, without", [None] * len(poses))):
                row = _drive_with(localizer, images, stamps, poses, readings)
                table.rows.append((SETS["prior"], name, *row))
    yield table


def _judged_free(results, stamps, poses, odometry) -> list[tuple]:
    """The same fixes, believed as they come, and judged by the gate."""
    posed = [result for result in results if result.success]
    wrong = sum(is_wrong(result.T_map_cam, T) for result, T in zip(results, poses) if result.success)
    rows = [(SETS["free"], "nothing", len(posed), wrong, 0, None)]
    for name, readings in (("gate, with odometry", odometry), ("gate, without", [None] * len(poses))):
        count = _Count(_gate(stamps[0], poses[0], readings[0]))
        for taken in zip(stamps, results, poses, readings):
            count.judge(*taken)
        rows.append((SETS["free"], name, *count.row()))
    return rows


def _drive_with(localizer: Localizer, images, stamps, poses, readings) -> tuple:
    """Every image localized with the gate's prediction, as the node does it."""
    count = _Count(_gate(stamps[0], poses[0], readings[0]))
    for image, stamp, truth, T_odom_cam in zip(images, stamps, poses, readings):
        prior = PosePrior(*count.gate.predict(Observation(stamp, T_odom_cam=T_odom_cam)))
        count.judge(stamp, localizer.localize(image, CAMERA, prior), truth, T_odom_cam)
    return count.row()


class _Count:
    def __init__(self, gate: Gate):
        self.gate = gate
        self._believed = self._wrong = self._kept_back = self._jumps = 0

    def judge(self, stamp: int, result, truth: np.ndarray, T_odom_cam) -> None:
        decision = self.gate.judge(Observation(stamp, T_odom_cam=T_odom_cam), result)
        if not decision.judged:
            return
        self._believed += decision.accepted
        self._wrong += decision.accepted and is_wrong(decision.T_map_cam, truth)
        self._kept_back += not (decision.accepted or is_wrong(result.hypotheses[0].T_map_cam, truth))
        self._jumps += decision.accepted and decision.jump

    def row(self) -> tuple:
        return self._believed, self._wrong, self._kept_back, self._jumps


def _gate(stamp: int, T_map_cam: np.ndarray, T_odom_cam: np.ndarray | None) -> Gate:
    gate = Gate()
    gate.set_initial_pose(T_map_cam, np.diag([0.5**2] * 3 + [0.26**2] * 3), stamp, T_odom_cam)
    return gate


def build_map(path, galleries: list[Gallery], options: Options) -> None:
    """A map of rooms side by side, each gone through on a way of its own."""
    map_of_views(
        path,
        (
            (f"room{room}/{i:03d}", gallery, T, place_of(room) @ T)
            for room, gallery in enumerate(galleries)
            for i, T in enumerate(mapping_poses(SIZE, KEYFRAMES, options.seed + room))
        ),
        CAMERA,
        options,
    )


def place_of(room: int) -> np.ndarray:
    """[4, 4] of a room in the map."""
    T_map_room = np.eye(4)
    T_map_room[0, 3] = APART * room
    return T_map_room


def _drive(options: Options) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Stamps of the images (ns), the camera's poses [N, 4, 4] in the first room, and odometry's word on them."""
    way = robot_loop(SIZE, SECONDS, options.seed, LAPS).T_map_base(np.arange(SECONDS * _STEPS) / _STEPS)
    odometry = drifting_odometry(way, OdometryNoise(), options.seed)
    T_base_cam = CameraMount().T_base_cam
    taken = range(0, len(way), _STEPS * max(1, SECONDS // (options.queries or SECONDS)))
    stamps = [10**9 + i * 10**9 // _STEPS for i in taken]
    return stamps, way[taken] @ T_base_cam, odometry[taken] @ T_base_cam


def take_image(gallery: Gallery, T_room_cam: np.ndarray, seed) -> np.ndarray:
    """A noisy image from a pose in the gallery's room."""
    return _SENSOR(gallery.render(CAMERA, T_room_cam).image, np.random.default_rng(seed))


def is_wrong(T_map_cam: np.ndarray, truth: np.ndarray) -> bool:
    """Whether a pose is in another room than the true one."""
    return pose_error(T_map_cam, truth)[0] > WRONG
