# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Maps from sequences of the TUM RGB-D benchmark as they are downloaded: rgb.txt, depth.txt, groundtruth.txt.

Sturm et al., "A Benchmark for the Evaluation of RGB-D SLAM Systems", IROS 2012. Layout, depth factor and intrinsics:
https://cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats (depth is registered to colour; the ground truth is the
colour camera's optical frame).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImportSourceError, NreError
from nre_ros.geometry import RADIAL_TANGENTIAL, Camera
from nre_ros.keyframes.building.culling import VIDEO
from nre_ros.keyframes.importers.colmap.cameras import only_camera
from nre_ros.keyframes.importers.depth_source import DepthSource
from nre_ros.keyframes.importers.image_files import check_depth_scale, nearest_stamp, read_depth, read_image
from nre_ros.keyframes.importers.pose_columns import PoseColumns, PoseConvention, describe_columns
from nre_ros.keyframes.importers.text_files import digest, numbered_entries, split_fields, without_header
from nre_ros.keyframes.importers.text_trajectory import parse_stamp, read_text_trajectory
from nre_ros.keyframes.importers.trajectory import Trajectory

FILES = ("rgb.txt", "depth.txt", "groundtruth.txt")

DEPTH_SCALE = 5000.0
"""Depth value of one metre."""

CAMERAS = {
    "freiburg1": Camera(
        640, 480, 517.3, 516.5, 318.6, 255.3, RADIAL_TANGENTIAL, (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)
    ),
    "freiburg2": Camera(
        640, 480, 520.9, 521.0, 325.1, 249.7, RADIAL_TANGENTIAL, (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)
    ),
    "freiburg3": Camera(640, 480, 535.4, 539.2, 320.1, 247.6),  # its images are undistorted
}
"""The colour camera by the name in the sequence's folder (the benchmark's own calibration)."""

MAX_OFFSET = 0.02
"""Seconds between a colour image and its depth image (the default of the benchmark's associate.py)."""
_MAX_MOTION_CAPTURE_GAP = 0.1
"""Seconds between two poses of the motion capture (100 Hz) beyond which nothing is interpolated."""


class TumSource(DepthSource):
    """The folder of one sequence.

    Args:
        folder: The folder.
        cameras: COLMAP's ``cameras.txt``, for folders without freiburg1..3 in the name.
        depth_scale: Depth value of one metre, if it is not ``DEPTH_SCALE``.
        convention: What the user says of the poses.

    Raises:
        ImportSourceError: A list is missing or wrong, or the camera is not known.
    """

    culling_rule = VIDEO

    def __init__(
        self,
        folder: Path | str,
        cameras: Path | str | None = None,
        depth_scale: float | None = None,
        convention: PoseConvention = PoseConvention(),
    ) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.only_camera = _camera_of(self.folder) if cameras is None else only_camera(cameras)
        self.depth_scale = check_depth_scale(DEPTH_SCALE if depth_scale is None else depth_scale)
        images = _stamped_files(self.folder / "rgb.txt")
        self.stamps = {name: stamp for stamp, name in images}
        if repeated := len(images) - len(self.stamps):
            self.counts = (("repeated lines", f"{repeated} of rgb.txt, the last line of an image is used"),)
        depths = sorted(_stamped_files(self.folder / "depth.txt"))
        self._depth_stamps = np.array([stamp for stamp, _ in depths], dtype=np.int64)
        self._depth_names = [name for _, name in depths]
        self.trajectory, self.pose_columns, wrong_lines = _ground_truth(self.folder / "groundtruth.txt", convention)
        self.notes = (f"TUM RGB-D sequence: {len(self.stamps)} colour images, {len(depths)} depth images",)
        if wrong_lines:
            self.notes += (f"{wrong_lines} lines of groundtruth.txt are no pose and left out",)
        if not self.pose_columns.is_tum:
            self.notes += (f"poses of groundtruth.txt: {self.pose_columns.describe()}",)

    def names(self) -> list[str]:
        """Returns the names of the images; see ``MapSource``."""
        return list(self.stamps)

    def describe(self) -> dict[str, Any]:
        """Returns what the keyframes depend on; see ``MapSource``."""
        return {
            "importer": "tum",
            "folder": str(self.folder.resolve()),
            "depth_scale": self.depth_scale,
            "camera": repr(self.only_camera),
            "lists": digest(*(self.folder / file for file in FILES)),
            **describe_columns(self.pose_columns),
        }

    def pose(self, name: str) -> tuple[int, npt.NDArray[np.float64]]:
        """Returns stamp and pose of an image; see ``PosedImageSource``."""
        return self.stamps[name], self.trajectory.at(self.stamps[name])

    def camera(self, name: str) -> Camera:
        """Returns the colour camera; see ``PosedImageSource``."""
        return self.only_camera

    def image(self, name: str) -> npt.NDArray[np.uint8]:
        """Returns the pixels of an image; see ``PosedImageSource``."""
        return read_image(self.folder / name)

    def depth(self, name: str) -> npt.NDArray[np.float32]:
        """Returns the depth image nearest in time; see ``DepthSource``."""
        nearest = nearest_stamp(self._depth_stamps, self.stamps[name], MAX_OFFSET)
        return read_depth(self.folder / self._depth_names[nearest], self.depth_scale)

    def depth_unit(self) -> float | None:
        """Returns the depth value of one metre; see ``MapSource``."""
        return self.depth_scale


def _camera_of(folder: Path) -> Camera:
    for name, camera in CAMERAS.items():
        if name in folder.resolve().name:
            return camera
    raise ImportSourceError(
        f"the camera of {folder} is not known: its name has none of {', '.join(CAMERAS)}; give --camera"
    )


def _stamped_files(path: Path) -> list[tuple[int, str]]:
    """Stamp in nanoseconds and file name of each line of rgb.txt or depth.txt."""
    entries = []
    for _, line in without_header(numbered_entries(path)):
        fields = split_fields(line)
        if len(fields) > 2 and fields == line.split():  # a name with spaces
            fields = line.split(maxsplit=1)
        if len(fields) != 2:
            raise ImportSourceError(f"{path}: not 'timestamp filename': {line[:80]!r}")
        try:
            entries.append((parse_stamp(fields[0]), fields[1]))
        except NreError as error:
            raise ImportSourceError(f"{path}: {error}") from None
    return entries


def _ground_truth(path: Path, convention: PoseConvention) -> tuple[Trajectory, PoseColumns, int]:
    """The poses, how they were read, and the number of lines that are no pose."""
    trajectory, wrong_lines = Trajectory(_MAX_MOTION_CAPTURE_GAP), 0
    text = read_text_trajectory(path, convention)
    for line in text.lines:
        if line.values is None:
            wrong_lines += 1
        else:
            trajectory.add(line.stamp, line.values[:3], line.values[3:])
    if not len(trajectory):
        raise ImportSourceError(f"{path} has no pose")
    return trajectory, text.columns, wrong_lines
