# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Kapture folders: cameras, rigs, trajectories and images; points are triangulated from the known poses.

Format 1.1: https://github.com/naver/kapture/blob/main/kapture_format.adoc.  Poses of trajectories.txt
lead from the world to the device, those of rigs.txt from the rig to the sensor; a rig may be a
part of another.  Camera models are COLMAP's, and so is the place of the first pixel.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nre_ros.errors import CameraError, ImportSourceError, NreError, PoseError
from nre_ros.geometry import Camera, invert
from nre_ros.keyframes.importers.cameras import camera_from_colmap, usable_camera
from nre_ros.keyframes.importers.common import check_folder, digest, read_image, read_lines, read_list
from nre_ros.keyframes.importers.posed.colmap_poses import checked_pose
from nre_ros.keyframes.importers.posed.posed_frames import PosedFrames

_MAX_NESTING = 8
"""Rigs within rigs; beyond that it is a ring."""


class KaptureSource(PosedFrames):
    """The camera records of a kapture folder, in the order of their stamps, or those of ``list_path`` alone.

    folder: with ``sensors/`` in it.  Names are the paths of the records; stamps are the
    records' own.  A record without pose or camera is left out when its turn comes.  Raises
    ``ImportSourceError`` when a required file is missing or a line is none of its file.
    """

    def __init__(self, folder, list_path=None):
        self.folder = check_folder(folder)
        sensors = check_folder(self.folder / "sensors")
        files = {name: sensors / f"{name}.txt" for name in ("sensors", "trajectories", "records_camera", "rigs")}
        for name in ("sensors", "trajectories", "records_camera"):
            if not files[name].is_file():
                raise ImportSourceError(f"{self.folder} cannot be used: it has no sensors/{name}.txt")
        if not files["rigs"].is_file():
            del files["rigs"]  # cameras without a rig need none
        self.images = sensors / "records_data"
        self.cameras = _read_sensors(files["sensors"])
        self.poses = {
            (_stamp(stamp, files["trajectories"]), device): pose
            for stamp, device, *pose in _rows(files["trajectories"], 9)
        }
        self.rigs: dict[str, list[tuple[str, list[str]]]] = {}
        for rig, sensor, *pose in _rows(files["rigs"], 9) if "rigs" in files else ():
            self.rigs.setdefault(sensor, []).append((rig, pose))
        records = files["records_camera"]
        rows = [(_stamp(stamp, records), device, image) for stamp, device, image, *_ in _rows(records, 3)]
        self.records = {name: (stamp, device) for stamp, device, name in sorted(rows)}
        self.list = None if list_path is None else read_list(list_path)
        self._digest = digest(*files.values())

    def names(self) -> list[str]:
        return list(self.records) if self.list is None else self.list

    def describe(self) -> dict:
        return {"importer": "kapture", "folder": str(self.folder.resolve()), "files": self._digest}

    def pose(self, name: str) -> tuple[int, np.ndarray]:
        stamp, device = self._record(name)
        T_cam_map = self._from_world(stamp, device, 0)
        if T_cam_map is None:
            raise PoseError(f"no pose of {device} or its rig at the time {stamp}")
        return stamp, invert(T_cam_map)

    def camera(self, name: str) -> Camera:
        _, device = self._record(name)
        return usable_camera(self.cameras, device, "sensors.txt")

    def image(self, name: str) -> np.ndarray:
        return read_image(self.images / name)

    def _record(self, name: str) -> tuple[int, str]:
        if name not in self.records:
            raise ImportSourceError(f"records_camera.txt of {self.folder} has no image of that name")
        return self.records[name]

    def _from_world(self, stamp: int, device: str, nesting: int) -> np.ndarray | None:
        """T_device_map [4, 4] from the device's own trajectory or that of a rig which it is on."""
        if (stamp, device) in self.poses:
            return _transform(self.poses[stamp, device], f"pose of {device} at {stamp}")
        if nesting > _MAX_NESTING:
            raise PoseError(f"rigs.txt leads in a ring from {device}")
        for rig, pose in self.rigs.get(device, ()):
            T_rig_map = self._from_world(stamp, rig, nesting + 1)
            if T_rig_map is not None:
                return _transform(pose, f"pose of {device} on {rig}") @ T_rig_map
        return None


def _rows(path: Path, count: int) -> list[list[str]]:
    """The comma-separated lines of a file; ``ImportSourceError`` for one that has fewer fields than ``count``."""
    rows = []
    for line in read_lines(path):
        if line.startswith("#"):
            continue
        fields = [field.strip() for field in line.split(",")]
        if len(fields) < count:
            raise ImportSourceError(f"{path}: line of {len(fields)} fields, expected {count}: {line[:80]!r}")
        rows.append(fields)
    return rows


def _stamp(text: str, path: Path) -> int:
    try:
        return int(text)
    except ValueError:
        raise ImportSourceError(f"{path}: timestamp is not a whole number: {text[:40]!r}") from None


def _read_sensors(path: Path) -> dict[str, Camera | CameraError]:
    """Sensor id -> camera, or the reason why it is none."""
    cameras = {}
    for sensor, _, kind, *parameters in _rows(path, 3):
        if kind != "camera":
            continue
        try:
            model, width, height, *values = parameters
            cameras[sensor] = camera_from_colmap(model, round(float(width)), round(float(height)), values)
        except ValueError as error:
            reason = error if isinstance(error, NreError) else f"its parameters are no numbers: {parameters}"
            cameras[sensor] = CameraError(f"camera {sensor}: {reason}")
    return cameras


def _transform(fields: list[str], what: str) -> np.ndarray:
    """[4, 4] of qw qx qy qz tx ty tz; ``PoseError`` if they are no pose."""
    try:
        values = np.array([float(field) for field in fields])
    except ValueError:
        raise PoseError(f"{what} is incomplete: {', '.join(fields)}") from None
    try:
        return checked_pose(values[:4], values[4:])
    except PoseError as error:
        raise PoseError(f"{what}: {error}") from None
