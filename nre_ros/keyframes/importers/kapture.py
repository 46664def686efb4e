# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Maps from kapture folders: cameras, rigs, trajectories and images; points are triangulated from the known poses.

Format 1.1: https://github.com/naver/kapture/blob/main/kapture_format.adoc. Poses of trajectories.txt lead from the
world to the device, those of rigs.txt from the rig to the sensor. A rig may be part of another rig. Camera models and
the place of the first pixel are COLMAP's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nre_ros.errors import CameraError, ImportSourceError, NreError, PoseError
from nre_ros.geometry import Camera, invert
from nre_ros.keyframes.importers.colmap.cameras import camera_from_colmap
from nre_ros.keyframes.importers.image_files import read_image
from nre_ros.keyframes.importers.lookup import look_up
from nre_ros.keyframes.importers.pose_checks import pose_from_wxyz
from nre_ros.keyframes.importers.text_files import check_folder, digest, read_list
from nre_ros.keyframes.importers.triangulated_source import TriangulatedSource

_MAX_NESTING = 8
"""Rigs within rigs; a deeper chain is taken for a loop."""


class KaptureSource(TriangulatedSource):
    """The camera records of a kapture folder, in the order of their stamps.

    Names are the image paths of the records, stamps are the records' own. A record without pose or camera is left out
    when it is imported.

    Args:
        folder: Folder that contains ``sensors/``.
        list_path: File of image names, to import only these.

    Raises:
        ImportSourceError: A required file is missing, or a line does not belong in its file.
    """

    def __init__(self, folder: Path | str, list_path: Path | str | None = None) -> None:
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
        poses = [
            ((_stamp(stamp, files["trajectories"]), device), pose)
            for stamp, device, *pose in _rows(files["trajectories"], 9)
        ]
        self.poses = dict(poses)
        self.rigs: dict[str, list[tuple[str, list[str]]]] = {}
        for rig, sensor, *pose in _rows(files["rigs"], 9) if "rigs" in files else ():
            self.rigs.setdefault(sensor, []).append((rig, pose))
        records = files["records_camera"]
        rows = [(_stamp(stamp, records), device, image) for stamp, device, image, *_ in _rows(records, 3)]
        self.records = {name: (stamp, device) for stamp, device, name in sorted(rows)}
        repeated = (
            ("trajectories.txt", "the last of a device and time", len(poses) - len(self.poses)),
            ("records_camera.txt", "the latest of an image", len(rows) - len(self.records)),
        )
        self.counts = tuple(
            ("repeated lines", f"{count} of {file}, {used} is used") for file, used, count in repeated if count
        )
        self.list = None if list_path is None else read_list(list_path)
        self._digest = digest(*files.values())

    def names(self) -> list[str]:
        """Returns the names of the images; see ``MapSource``."""
        return list(self.records) if self.list is None else self.list

    def describe(self) -> dict[str, Any]:
        """Returns what the keyframes depend on; see ``MapSource``."""
        return {"importer": "kapture", "folder": str(self.folder.resolve()), "files": self._digest}

    def pose(self, name: str) -> tuple[int, npt.NDArray[np.float64]]:
        """Returns stamp and pose of an image; see ``PosedImageSource``."""
        stamp, device = self._record(name)
        T_cam_map = self._from_world(stamp, device, 0)
        if T_cam_map is None:
            raise PoseError(f"no pose of {device} or its rig at the time {stamp}")
        return stamp, invert(T_cam_map)

    def camera(self, name: str) -> Camera:
        """Returns the camera of an image; see ``PosedImageSource``."""
        _, device = self._record(name)
        return look_up(self.cameras, device, f"sensors.txt has no camera {device}", CameraError)

    def image(self, name: str) -> npt.NDArray[np.uint8]:
        """Returns the pixels of an image; see ``PosedImageSource``."""
        return read_image(self.images / name)

    def _record(self, name: str) -> tuple[int, str]:
        return look_up(self.records, name, f"records_camera.txt of {self.folder} has no image of that name")

    def _from_world(self, stamp: int, device: str, nesting: int) -> npt.NDArray[np.float64] | None:
        """T_device_map [4, 4] from the device's own trajectory, or from that of a rig it is mounted on."""
        if (stamp, device) in self.poses:
            return _transform(self.poses[stamp, device], f"pose of {device} at {stamp}")
        if nesting > _MAX_NESTING:
            raise PoseError(f"rigs.txt has a loop at {device}")
        for rig, pose in self.rigs.get(device, ()):
            T_rig_map = self._from_world(stamp, rig, nesting + 1)
            if T_rig_map is not None:
                T_device_map: npt.NDArray[np.float64] = _transform(pose, f"pose of {device} on {rig}") @ T_rig_map
                return T_device_map
        return None


def _rows(path: Path, count: int) -> list[list[str]]:
    """The comma-separated fields of a file's lines; ``ImportSourceError`` for a line of fewer fields than ``count``."""
    rows = []
    for line in read_list(path):
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
    """Sensor id -> camera, or the reason why the camera cannot be used."""
    cameras: dict[str, Camera | CameraError] = {}
    for sensor, _, kind, *parameters in _rows(path, 3):
        if kind != "camera":
            continue
        try:
            model, width, height, *values = parameters
            cameras[sensor] = camera_from_colmap(model, round(float(width)), round(float(height)), values)
        except (ValueError, OverflowError) as error:  # infinity is no size
            reason = error if isinstance(error, NreError) else f"its parameters are no numbers: {parameters}"
            cameras[sensor] = CameraError(f"camera {sensor}: {reason}")
    return cameras


def _transform(fields: Sequence[str], what: str) -> npt.NDArray[np.float64]:
    """[4, 4] of qw qx qy qz tx ty tz; ``PoseError`` if they are no pose."""
    try:
        values = np.array([float(field) for field in fields])
    except ValueError:
        raise PoseError(f"{what} is incomplete: {', '.join(fields)}") from None
    try:
        return pose_from_wxyz(values[:4], values[4:])
    except PoseError as error:
        raise PoseError(f"{what}: {error}") from None
