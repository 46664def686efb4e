# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Kidnapped robot: the time until it is localized after being carried to another room.

Odometry does not notice the transport. Until the robot is localized, the gate's prediction, and with it the pose prior
of every image, is in the wrong room.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from common import Options, Table
from perceptual_aliasing import build_map, is_wrong, take_image
from rendered_rooms import CAMERA, place_of

from nre_ros.gallery.render import Gallery
from nre_ros.gallery.room import SIZE, build_room
from nre_ros.gallery.trajectory import CameraMount, OdometryNoise, drifting_odometry, robot_loop
from nre_ros.gate.gate import Gate
from nre_ros.gate.observation import Observation
from nre_ros.geometry import invert
from nre_ros.keyframes.retrieval.pose_prior import PosePrior
from nre_ros.localization.localizer import Localizer

KIDNAPS, RATE, BEFORE, AFTER = 20, 2, 5, 12
"""Number of trials, images a second, and images before and after the transport."""
_LOOP = 40.0
"""Seconds that one round of a room takes."""


def run(options: Options) -> Iterator[Table]:
    """Measures the seconds from the first image in the new room until a pose there is accepted."""
    galleries = [Gallery(build_room(options.seed + room, pixels_per_metre=200)) for room in range(2)]
    map_path = options.folder / f"kidnap_{options.seed}.db"
    if not map_path.exists():
        build_map(map_path, galleries, options)
    rows = []
    with Localizer(map_path, options.device, options.seed) as localizer:
        for prior in (False, True):
            found, wrong, posed = [], 0, 0
            for number in range(options.queries or KIDNAPS):
                seconds, old, localized = _kidnap(localizer, galleries, prior, options.seed + number)
                found += [seconds] if seconds is not None else []
                wrong, posed = wrong + old, posed + localized
            rows.append(
                (
                    "the gate's prediction" if prior else "none",
                    options.queries or KIDNAPS,
                    len(found),
                    _of(np.median, found),
                    _of(np.max, found),
                    wrong,
                    posed / (AFTER * (options.queries or KIDNAPS)),
                )
            )
    yield Table(
        f"A robot carried to another room, {RATE} images a second",
        (
            "pose prior",
            "trials",
            "localized",
            "seconds (median)",
            "(worst)",
            "poses accepted in the old room",
            "images with a pose",
        ),
        rows,
        [f"Localized: of {AFTER} images after the transport, one pose is accepted in the right room."],
    )


def _kidnap(localizer: Localizer, galleries, with_prior: bool, seed: int) -> tuple[float | None, int, int]:
    """Seconds until the robot is localized (None: never), poses accepted in the old room, images with a pose."""
    count = BEFORE + AFTER
    base = robot_loop(SIZE, _LOOP, seed).T_map_base(np.arange(count * 10) / RATE / 10)
    odometry = drifting_odometry(base, OdometryNoise(), seed)[::10]
    T_base_cam = CameraMount().T_base_cam
    begin = robot_loop(SIZE, _LOOP, seed + 1).T_map_base([seed * 7.0 % _LOOP])[0]
    carried = [begin @ invert(base[::10][BEFORE]) @ T for T in base[::10]]  # it continues its motion from the new place
    gate, found, old, posed = Gate(), None, 0, 0
    for i in range(count):
        room = int(i >= BEFORE)
        T_room_cam = (carried[i] if room else base[::10][i]) @ T_base_cam
        truth = place_of(room) @ T_room_cam
        stamp, T_odom_cam = 10**9 + i * 10**9 // RATE, odometry[i] @ T_base_cam
        observation = Observation(stamp, T_odom_cam=T_odom_cam)
        expected = gate.predict(observation) if with_prior else None
        image = take_image(galleries[room], T_room_cam, [seed, i])
        result = localizer.localize(image, CAMERA, PosePrior(*expected) if expected else None)
        decision = gate.judge(observation, result)
        posed += room and decision.judged
        if room and decision.accepted:
            wrong = is_wrong(decision.T_map_cam, truth)
            old += wrong
            found = (i - BEFORE) / RATE if found is None and not wrong else found
    return found, old, posed


def _of(function, values: list[float]) -> float | None:
    return float(function(values)) if values else None
