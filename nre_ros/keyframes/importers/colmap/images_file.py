# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""COLMAP's files images.txt and images.bin: names, poses, cameras and keypoints of the images.

Layout: https://colmap.github.io/format.html
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImportSourceError
from nre_ros.keyframes.importers.colmap.binary_file import read_binary_file
from nre_ros.keyframes.importers.pose_checks import QUATERNION_LENGTH_TOLERANCE
from nre_ros.keyframes.importers.text_files import is_number, read_text, split_fields

NO_POINT = -1
"""Id of the point of a keypoint that shows none."""

_POINT2D = np.dtype([("pixel", "<f8", 2), ("point", "<i8")])
_HEAD_FIELDS = 9
"""Numbers ahead of the name in a line of an image."""


@dataclass(frozen=True)
class ModelImage:
    """One image of a model.

    Attributes:
        values: [7] qw qx qy qz tx ty tz from the world to the camera, as in the file.
        camera_id: Id of the camera in the model.
        image_id: Id of the image in the model.
        pixels: [K, 2] keypoints in COLMAP's pixel convention; none if they were not asked for.
        point_ids: [K] ids of their points, ``NO_POINT`` for none.
    """

    values: npt.NDArray[np.float64]
    camera_id: int
    image_id: int = 0
    pixels: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)), repr=False)
    point_ids: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64), repr=False)


@dataclass(frozen=True)
class ImagesFile:
    """The contents of images.txt or images.bin.

    Attributes:
        entries: Image name -> entry.
        notes: What is unusual in the file, one line each.
    """

    entries: dict[str, ModelImage]
    notes: tuple[str, ...] = ()


def read_images_file(path: Path, keypoints: bool = False) -> ImagesFile:
    """Reads images.txt or images.bin, by the name's ending.

    An image of images.txt without its line of keypoints has none.

    Args:
        path: The file.
        keypoints: Whether the keypoints are wanted.

    Returns:
        The images.

    Raises:
        ImportSourceError: The file cannot be read, a line is no image, or there is no image.
    """
    images = _read_text(path, keypoints) if path.suffix == ".txt" else _read_binary(path, keypoints)
    if not images.entries:
        raise ImportSourceError(f"{path} is empty: it has no image")
    return images


def count_images(path: Path) -> int:
    """Returns the number of images of images.txt or images.bin; 0 if the file cannot be read.

    Args:
        path: The file.
    """
    try:
        return len(read_images_file(path).entries)
    except ImportSourceError:
        return 0


def _read_text(path: Path, keypoints: bool) -> ImagesFile:
    """Each image has two lines; the second, the keypoints, may be empty, or missing."""
    entries: dict[str, ModelImage] = {}
    name, bare, repeated = "", 0, 0
    for number, line in _lines_behind_header(path):
        if name and (not line or _are_keypoints(line)):
            if keypoints and line:
                entries[name] = _with_keypoints(entries[name], line, f"{path}: line {number}")
            name = ""
        elif line:
            bare += bool(name)
            name, entry = _parse_image(line, path)
            repeated += name in entries
            entries[name] = entry
    notes = []
    if bare:
        notes.append(f"{path}: {bare} of {len(entries)} images have no line of keypoints behind them")
    if repeated:
        notes.append(f"{path}: {repeated} images are listed more than once, the last entry of each is used")
    return ImagesFile(entries, tuple(notes))


def _lines_behind_header(path: Path) -> list[tuple[int, str]]:
    """The numbered lines without comments; leading lines without a number, which name the columns, are left out."""
    lines = [(number, line.strip()) for number, line in enumerate(read_text(path).splitlines(), start=1)]
    lines = [(number, line) for number, line in lines if not line.startswith("#")]
    first = next((i for i, (_, line) in enumerate(lines) if any(map(is_number, split_fields(line)))), 0)
    return lines[first:]


def _are_keypoints(line: str) -> bool:
    """Whether a line behind an image contains numbers alone, and is not the line of an image whose name is a number."""
    fields = line.split(maxsplit=_HEAD_FIELDS + 2)
    if not all(map(is_number, fields[: _HEAD_FIELDS + 1])):
        return False
    if len(fields) != _HEAD_FIELDS + 1 or not (fields[0].isdecimal() and fields[8].isdecimal()):
        return True
    return abs(float(np.linalg.norm([float(value) for value in fields[1:5]])) - 1) > QUATERNION_LENGTH_TOLERANCE


def _parse_image(line: str, path: Path) -> tuple[str, ModelImage]:
    fields = line.split(maxsplit=_HEAD_FIELDS)
    try:
        values = np.array([float(value) for value in fields[1:8]])
        return fields[9], ModelImage(values, int(fields[8]), int(fields[0]))
    except (ValueError, IndexError):
        raise ImportSourceError(
            f"{path}: not a line of COLMAP's images.txt (ID QW QX QY QZ TX TY TZ CAMERA NAME): {line[:80]!r}"
        ) from None


def _with_keypoints(entry: ModelImage, line: str, where: str) -> ModelImage:
    fields = line.split()
    try:
        if len(fields) % 3:
            raise ValueError("the number of fields is no multiple of 3")
        pixels = np.array([fields[0::3], fields[1::3]], dtype=np.float64).T
        ids = np.array([int(value) for value in fields[2::3]], dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise ImportSourceError(f"{where} is no list of keypoints X Y POINT3D_ID: {error}") from None
    return ModelImage(entry.values, entry.camera_id, entry.image_id, pixels, ids)


def _read_binary(path: Path, keypoints: bool) -> ImagesFile:
    data, at = read_binary_file(path), 8
    entries: dict[str, ModelImage] = {}
    try:
        for _ in range(struct.unpack_from("<Q", data)[0]):
            image_id, *values, camera_id = struct.unpack_from("<I7dI", data, at)
            end = data.index(b"\0", at + 64)
            name = data[at + 64 : end].decode()
            (count,) = struct.unpack_from("<Q", data, end + 1)
            at = end + 9 + count * _POINT2D.itemsize
            if at > len(data):
                raise ValueError(f"{len(data)} bytes, expected {at} or more")
            points = np.frombuffer(data, _POINT2D, count if keypoints else 0, end + 9)
            entries[name] = ModelImage(np.array(values), camera_id, image_id, points["pixel"], points["point"])
    except (struct.error, ValueError) as error:
        raise ImportSourceError(f"{path} is truncated or no images.bin of COLMAP ({error})") from None
    return ImagesFile(entries)
