# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""COLMAP's files rigs and frames (.txt or .bin, since COLMAP 3.12): poses of rigs and the places of cameras on them.

Where a model has frames, COLMAP takes the poses of its images from them and ignores those of the file images.
Layout: https://colmap.github.io/format.html
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImportSourceError, PoseError
from nre_ros.geometry import position_quaternion
from nre_ros.keyframes.importers.colmap.binary_file import read_binary_file
from nre_ros.keyframes.importers.lookup import look_up
from nre_ros.keyframes.importers.pose_checks import pose_from_wxyz
from nre_ros.keyframes.importers.text_files import numbered_entries, without_header

_CAMERA, _OTHER_SENSOR = 0, -1
_SENSOR_TYPES = {"CAMERA": _CAMERA, "IMU": 1}
_BINARY = {"type": "<i", "id": "<I", "long": "<Q", "count": "<I", "flag": "<B", "double": "<d"}
"""Kind of a number -> its form in a binary file."""

_Sensor = tuple[int, int]
"""Type and id of a sensor."""
_Take = Callable[[str], "int | float"]
"""Function that reads the next number of a record; its argument is a kind of ``_BINARY``."""
_Record = TypeVar("_Record")


@dataclass(frozen=True)
class Rig:
    """A rig.

    Attributes:
        reference: The sensor whose frame is the rig's.
        poses: Other sensor -> [7] qw qx qy qz tx ty tz from the rig to it; None if that is not known.
    """

    reference: _Sensor | None
    poses: dict[_Sensor, npt.NDArray[np.float64] | None]


@dataclass(frozen=True)
class Frame:
    """What a rig measured at one time.

    Attributes:
        rig_id: Id of the rig.
        values: [7] qw qx qy qz tx ty tz from the world to the rig.
        sensor: The camera that took an image.
    """

    rig_id: int
    values: npt.NDArray[np.float64]
    sensor: _Sensor


@dataclass(frozen=True)
class RigPoses:
    """The poses of images by their rigs.

    Attributes:
        rigs: Id of a rig -> rig.
        frames: Id of an image -> its frame.
    """

    rigs: dict[int, Rig]
    frames: dict[int, Frame]

    def values(self, image_id: int) -> npt.NDArray[np.float64]:
        """Returns the pose of an image by its rig: [7] qw qx qy qz tx ty tz from the world to the camera.

        Args:
            image_id: Id of the image.

        Raises:
            PoseError: No frame has the image, its rig is missing, or the place of its camera on the rig is not known.
        """
        frame = look_up(self.frames, image_id, f"no frame of the model has image {image_id}", PoseError)
        rig = look_up(self.rigs, frame.rig_id, f"the model has no rig {frame.rig_id}", PoseError)
        if frame.sensor == rig.reference:
            return frame.values
        camera = f"camera {frame.sensor[1]} on rig {frame.rig_id}"
        values = look_up(rig.poses, frame.sensor, f"the model has no {camera}", PoseError)
        if values is None:
            raise PoseError(f"the place of {camera} is not known")
        T_rig_map = pose_from_wxyz(frame.values[:4], frame.values[4:])
        position, quaternion = position_quaternion(pose_from_wxyz(values[:4], values[4:]) @ T_rig_map)
        return np.concatenate([np.roll(quaternion, 1), position])


def read_rig_poses(rigs: Path, frames: Path) -> RigPoses:
    """Reads the rigs and frames of a model, by the names' ending.

    Args:
        rigs: rigs.txt or rigs.bin.
        frames: frames.txt or frames.bin.

    Returns:
        The poses by rig.

    Raises:
        ImportSourceError: A file cannot be read.
    """
    by_image: dict[int, Frame] = {}
    for frame in _parse_records(frames, _parse_frame):
        by_image.update(frame)
    return RigPoses(dict(_parse_records(rigs, _parse_rig)), by_image)


def _parse_rig(take: _Take) -> tuple[int, Rig]:
    rig_id, count = int(take("id")), int(take("count"))
    reference, poses = None, {}
    for index in range(count):
        sensor = int(take("type")), int(take("id"))
        if index == 0:
            reference = sensor
        else:
            poses[sensor] = _seven(take) if take("flag") else None
    return rig_id, Rig(reference, poses)


def _parse_frame(take: _Take) -> dict[int, Frame]:
    take("id")
    rig_id, values = int(take("id")), _seven(take)
    frames = {}
    for _ in range(int(take("count"))):
        sensor, image_id = (int(take("type")), int(take("id"))), int(take("long"))
        if sensor[0] == _CAMERA:
            frames[image_id] = Frame(rig_id, values, sensor)
    return frames


def _seven(take: _Take) -> npt.NDArray[np.float64]:
    return np.array([take("double") for _ in range(7)], dtype=np.float64)


def _parse_records(path: Path, parse: Callable[[_Take], _Record]) -> list[_Record]:
    """What ``parse`` makes of each record of a file; ``ImportSourceError`` where a number is missing."""
    if path.suffix == ".txt":
        return [_parse_line(path, number, line, parse) for number, line in without_header(numbered_entries(path))]
    data, at = read_binary_file(path), 8

    def take(kind: str) -> int | float:
        nonlocal at
        (value,) = struct.unpack_from(_BINARY[kind], data, at)
        at += struct.calcsize(_BINARY[kind])
        number: int | float = value
        return number

    try:
        return [parse(take) for _ in range(struct.unpack_from("<Q", data)[0])]
    except struct.error as error:
        raise ImportSourceError(f"{path} is truncated or no {path.name} of COLMAP ({error})") from None


def _parse_line(path: Path, number: int, line: str, parse: Callable[[_Take], _Record]) -> _Record:
    fields = iter(line.split())

    def take(kind: str) -> int | float:
        field = next(fields, "")
        if kind == "type":
            return _SENSOR_TYPES.get(field, _OTHER_SENSOR)
        return float(field) if kind == "double" else int(field)

    try:
        return parse(take)
    except ValueError:
        raise ImportSourceError(f"{path}: line {number} is not as COLMAP writes it: {line[:80]!r}") from None
