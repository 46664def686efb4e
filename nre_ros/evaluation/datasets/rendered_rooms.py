# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Rendered rooms as a data set: a hand-held camera makes the map, and a robot with a worse camera takes the queries."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nre_ros.errors import EvaluationError
from nre_ros.evaluation.datasets.dataset import Scene, TrajectoryDataset
from nre_ros.evaluation.inputs import DatasetInput
from nre_ros.gallery.render import Gallery
from nre_ros.gallery.rgbd import RgbdFolder, write_rgbd
from nre_ros.gallery.room import build_room
from nre_ros.gallery.sensor import Sensor
from nre_ros.gallery.trajectory import CameraMount, mapping_poses, robot_loop
from nre_ros.geometry import Camera
from nre_ros.keyframes.importers.rgbd.folder import RgbdFolderSource

CAMERA = Camera(320, 240, 260.0, 260.0, 159.5, 119.5)
_QUERY_SENSOR = Sensor(gain=0.8, gamma=1.1, blur=0.7, noise=4.0)
_DURATION = 30.0
"""Time that the robot drives once round the room, seconds."""
_COMPLETE = "complete"
"""File in the folder of a room whose images are all there."""


class RenderedRooms(TrajectoryDataset):
    """Rooms of given seeds, which are rendered into the data set's folder if they are not there.

    Args:
        seeds: Of the rooms. Training draws its rooms from numbers up to 2^31, so that a room of a small seed is almost
            certainly none of them.
        keyframes: Views of the map of each room.
        queries: Query images in each room.

    Raises:
        EvaluationError: There is no room, or there are too few views.
    """

    def __init__(self, seeds: Sequence[int], keyframes: int = 80, queries: int = 40):
        if not seeds or keyframes < 4 or queries < 1:
            raise EvaluationError(
                f"rendered rooms: {len(seeds)} rooms with {keyframes} keyframes and {queries} queries; at least 1 room, 4 "
                "keyframes and 1 query are needed"
            )
        self._seeds, self._keyframes, self._queries = list(dict.fromkeys(seeds)), keyframes, queries

    def scenes(self, root: Path, names: Sequence[str] = ()) -> list[Scene]:
        return [self._scene(root, seed) for seed in self._seeds if not names or f"room_{seed}" in names]

    def _scene(self, root: Path, seed: int) -> Scene:
        name = f"room_{seed}"
        folder = root / f"{name}_{self._keyframes}_{self._queries}"
        sources = [
            RgbdFolderSource(files.images, files.depth, files.poses, files.list, files.camera)
            for files in self._files(folder, seed)
        ]
        return Scene(name, sources[0], DatasetInput.from_source(sources[1], str(folder.resolve())))

    def _files(self, folder: Path, seed: int) -> tuple[RgbdFolder, RgbdFolder]:
        """The files of the map's images and of the queries."""
        parts = folder / "map", folder / "queries"
        if not (folder / _COMPLETE).exists():
            print(f"rendering room {seed}: {self._keyframes} keyframes, {self._queries} queries", file=sys.stderr)
            for part in parts:
                shutil.rmtree(part, ignore_errors=True)  # of an interrupted run
            try:
                self._render(parts, seed)
                (folder / _COMPLETE).touch()
            except OSError as error:
                raise EvaluationError(f"{folder} cannot be written: {error.strerror}") from error
        names = ("images", "depth", "list.txt", "poses.txt", "cameras.txt")
        keyframes, queries = (RgbdFolder(*(part / name for name in names)) for part in parts)
        return keyframes, queries

    def _render(self, parts: tuple[Path, Path], seed: int) -> None:
        length, width, height = np.random.default_rng([seed, 0]).uniform((5.0, 4.0, 2.8), (8.0, 6.5, 3.4))
        size = float(length), float(width), float(height)
        gallery = Gallery(build_room(seed, size))
        seconds = np.linspace(0, _DURATION, self._queries, endpoint=False)
        on_robot: npt.NDArray[np.float64] = (
            robot_loop(size, _DURATION, seed).T_map_base(seconds) @ CameraMount().T_base_cam
        )
        write_rgbd(parts[0], gallery, CAMERA, mapping_poses(size, self._keyframes, seed), seed=seed)
        rate = self._queries / _DURATION
        write_rgbd(parts[1], gallery, CAMERA, on_robot, sensor=_QUERY_SENSOR, seed=seed + 1, rate=rate)
