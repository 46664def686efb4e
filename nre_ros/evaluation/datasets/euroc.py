# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""EuRoC MAV (Burri et al., IJRR 2016) in the ASL layout: in each room, one sequence is the map.

A sequence contains mav0/cam0/{sensor.yaml,data.csv,data/} and mav0/state_groundtruth_estimate0/data.csv with the body
poses in the reference frame at 200 Hz. T_BS of cam0 is the camera's pose in the body frame. The sequences of one room
(V1_*, V2_*, MH_*) share a reference frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from nre_ros.errors import CameraError, EvaluationError, ImportSourceError, NreError, PoseError, one_line
from nre_ros.evaluation.datasets.dataset import Scene, TrajectoryDataset
from nre_ros.evaluation.inputs import DatasetInput
from nre_ros.geometry import EQUIDISTANT, RADIAL_TANGENTIAL, Camera, check_camera, fitting_coefficients
from nre_ros.keyframes.building.culling import VIDEO
from nre_ros.keyframes.importers.image_files import read_image
from nre_ros.keyframes.importers.pose_checks import pose_from_wxyz, rigid_motion
from nre_ros.keyframes.importers.text_files import check_folder, digest, numbered_entries, split_fields, without_header
from nre_ros.keyframes.importers.trajectory import Trajectory
from nre_ros.keyframes.importers.triangulated_source import TriangulatedSource

_MAX_GROUND_TRUTH_GAP = 0.1
"""Largest time in seconds between two ground-truth poses (200 Hz) that are interpolated."""

_MODELS = {"radial-tangential": RADIAL_TANGENTIAL, "equidistant": EQUIDISTANT}


class EurocSource(TriangulatedSource):
    """The images of the left camera of a sequence."""

    culling_rule = VIDEO

    def __init__(self, folder: Path) -> None:
        """Reads the sequence.

        Args:
            folder: Folder that contains mav0.

        Raises:
            ImportSourceError: A file is missing or has another format.
        """
        self.folder = check_folder(folder) / "mav0"
        camera, truth = self.folder / "cam0", self.folder / "state_groundtruth_estimate0/data.csv"
        self._camera, self._T_body_cam = _read_sensor(camera / "sensor.yaml")
        self.stamps = {name.strip(): stamp for stamp, name in _rows(camera / "data.csv", "timestamp,filename", str)}
        self._trajectory = Trajectory(_MAX_GROUND_TRUTH_GAP)
        for stamp, *position, qw, qx, qy, qz in _rows(truth, "timestamp,x,y,z,qw,qx,qy,qz", float):
            try:
                pose_from_wxyz((qw, qx, qy, qz), position)
                self._trajectory.add(stamp, position, [qx, qy, qz, qw])
            except PoseError as error:
                raise ImportSourceError(f"{truth}: pose at {stamp}: {error}") from None
        self._digest = digest(camera / "data.csv", camera / "sensor.yaml", truth)

    def names(self) -> list[str]:
        return list(self.stamps)

    def describe(self) -> dict:
        return {"importer": "euroc", "folder": str(self.folder.resolve()), "files": self._digest}

    def pose(self, name: str) -> tuple[int, np.ndarray]:
        return self.stamps[name], self._trajectory.at(self.stamps[name]) @ self._T_body_cam

    def camera(self, name: str) -> Camera:
        return self._camera

    def image(self, name: str) -> np.ndarray:
        return read_image(self.folder / "cam0/data" / name)


class Euroc(TrajectoryDataset):
    """The absolute trajectory error that papers report for the data set, and recall."""

    def scenes(self, root: Path, names: Sequence[str] = ()) -> list[Scene]:
        root = check_folder(root)
        folders = [root / name for name in names] or sorted(f for f in root.iterdir() if (f / "mav0").is_dir())
        if len(folders) < 2:
            raise EvaluationError(
                f"{root} contains {len(folders)} sequences (folders with mav0): one for the map "
                "and at least one for queries are needed"
            )
        rooms: dict[str, list[Path]] = {}
        for folder in folders:
            rooms.setdefault(folder.name[:2], []).append(folder)
        scenes = [
            Scene(folder.name, EurocSource(first), DatasetInput.from_source(EurocSource(folder), str(folder.resolve())))
            for first, *others in rooms.values()
            for folder in others
        ]
        if not scenes:
            found = ", ".join(folder.name for folder in folders)
            raise EvaluationError(f"no two of {found} belong to the same room (V1_*, V2_*, MH_*)")
        return scenes


def _read_sensor(path: Path) -> tuple[Camera, np.ndarray]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        (width, height), (fx, fy, cx, cy) = values["resolution"], values["intrinsics"]
        distortion = tuple(float(value) for value in values["distortion_coefficients"])
        T = rigid_motion(np.reshape(values["T_BS"]["data"], (4, 4)), f"T_BS of {path}")
        model = _MODELS.get(values["distortion_model"])
        if model is None:
            unknown = values["distortion_model"]
            raise CameraError(f"{path}: unknown distortion_model {unknown!r}, known: {', '.join(_MODELS)}")
        return check_camera(Camera(width, height, fx, fy, cx, cy, model, fitting_coefficients(model, distortion))), T
    except OSError as error:
        raise ImportSourceError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, NreError):
            raise
        reason = one_line(error)
        raise ImportSourceError(f"{path} is not a sensor.yaml of the ASL layout: {reason}") from error


def _rows(path: Path, columns: str, convert: Callable[[str], Any]) -> Iterator[tuple[Any, ...]]:
    """The first columns of a CSV file: a stamp in nanoseconds, and values; lines of a header are left out."""
    count = columns.count(",") + 1
    for number, line in without_header(numbered_entries(path)):
        row = split_fields(line)
        try:
            stamp, *values = int(row[0]), *map(convert, row[1:count])
        except (ValueError, IndexError):
            values = []
        if len(values) != count - 1:
            raise ImportSourceError(f"{path}: line {number}: expected '{columns}', got {line[:80]!r}")
        yield stamp, *values
