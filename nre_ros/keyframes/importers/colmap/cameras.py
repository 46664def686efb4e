# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""COLMAP's camera models and its files cameras.txt and cameras.bin.

COLMAP puts the centre of the first pixel at (0.5, 0.5), this package at (0, 0). Principal points are shifted by half a
pixel here, keypoints in ``model_source``, and nothing anywhere else.
Models: https://colmap.github.io/cameras.html
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy.typing as npt

from nre_ros.errors import CameraError, ImportSourceError
from nre_ros.geometry import EQUIDISTANT, PINHOLE, RADIAL_TANGENTIAL, Camera, check_camera
from nre_ros.keyframes.importers.colmap.binary_file import read_binary_file
from nre_ros.keyframes.importers.text_files import numbered_entries, without_header

HALF_PIXEL = 0.5
"""Subtract it from COLMAP's pixel coordinates to get this package's."""


class _Model(NamedTuple):
    """A camera model of COLMAP.

    Attributes:
        parameters: Number of parameters.
        one_focal_length: Whether both axes share a focal length.
        model: Name of the model in this package.
        distortion: Coefficients behind the principal point -> coefficients in this package.
    """

    parameters: int
    one_focal_length: bool
    model: str
    distortion: Callable[[Sequence[float]], tuple[float, ...]]


_MODELS = {
    "SIMPLE_PINHOLE": _Model(3, True, PINHOLE, lambda k: ()),
    "PINHOLE": _Model(4, False, PINHOLE, lambda k: ()),
    "SIMPLE_RADIAL": _Model(4, True, RADIAL_TANGENTIAL, lambda k: (k[0], 0.0, 0.0, 0.0)),
    "RADIAL": _Model(5, True, RADIAL_TANGENTIAL, lambda k: (k[0], k[1], 0.0, 0.0)),
    "OPENCV": _Model(8, False, RADIAL_TANGENTIAL, tuple),
    "FULL_OPENCV": _Model(12, False, RADIAL_TANGENTIAL, tuple),
    "OPENCV_FISHEYE": _Model(8, False, EQUIDISTANT, tuple),
}

_MODEL_NUMBERS = {
    # number in cameras.bin: name, number of parameters (COLMAP's sensor/models.h)
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
    7: ("FOV", 5),
    8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5),
    10: ("THIN_PRISM_FISHEYE", 12),
    11: ("RAD_TAN_THIN_PRISM_FISHEYE", 16),
    12: ("SIMPLE_DIVISION", 4),
    13: ("DIVISION", 5),
    14: ("SIMPLE_FISHEYE", 3),
    15: ("FISHEYE", 4),
    16: ("EUCM", 6),
    17: ("EQUIRECTANGULAR", 2),
}


def camera_from_colmap(model: str, width: int, height: int, parameters: Iterable[float | str]) -> Camera:
    """Converts a camera of COLMAP.

    Args:
        model: Name of COLMAP's camera model.
        width: Width of the images in pixels.
        height: Height of the images in pixels.
        parameters: COLMAP's parameters: focal length or lengths, principal point, distortion.

    Returns:
        The camera, in this package's pixel convention.

    Raises:
        CameraError: The model is not supported, or the parameters cannot be used or are impossible.
    """
    if model not in _MODELS:
        raise CameraError(f"COLMAP camera model {model} is not supported, known: {', '.join(_MODELS)}")
    count, one_focal_length, own_model, distortion = _MODELS[model]
    values = [float(value) for value in parameters]
    if len(values) != count:
        raise CameraError(f"COLMAP camera model {model} has {count} parameters, got {len(values)}")
    if one_focal_length:
        values.insert(1, values[0])
    fx, fy, cx, cy, *rest = values
    return check_camera(
        Camera(int(width), int(height), fx, fy, cx - HALF_PIXEL, cy - HALF_PIXEL, own_model, distortion(rest))
    )


def camera_of_size(cameras: Sequence[Camera], image: npt.NDArray[Any]) -> Camera:
    """Returns the camera that has the size of an image, or the first camera; the caller checks the size.

    Args:
        cameras: The cameras, at least one.
        image: [H, W, ...].
    """
    return next((camera for camera in cameras if (camera.height, camera.width) == image.shape[:2]), cameras[0])


def only_camera(path: Path | str) -> Camera:
    """Returns the camera of a ``cameras.txt`` that has one.

    Args:
        path: The file.

    Raises:
        ImportSourceError: The file cannot be read, or does not have exactly one camera.
        CameraError: The camera cannot be used.
    """
    cameras = read_cameras_txt(path)
    if len(cameras) != 1:
        raise ImportSourceError(f"{path} has {len(cameras)} cameras, an RGB-D folder takes one")
    return next(iter(cameras.values()))


def read_cameras_txt(path: Path | str) -> dict[int, Camera]:
    """Reads COLMAP's ``cameras.txt``, all of whose cameras must be usable.

    Args:
        path: The file.

    Returns:
        Camera id -> camera.

    Raises:
        ImportSourceError: The file cannot be read, a line is no camera, or there is no camera.
        CameraError: A camera cannot be used.
    """
    cameras = {}
    for camera_id, camera in _read_text(path).items():
        if isinstance(camera, CameraError):
            raise CameraError(f"{path}: camera {camera_id}: {camera}")
        cameras[camera_id] = camera
    return cameras


def read_model_cameras(path: Path) -> dict[int, Camera | CameraError]:
    """Reads cameras.txt or cameras.bin, by the name's ending.

    Args:
        path: The file.

    Returns:
        Camera id -> camera, or the reason why the camera cannot be used.

    Raises:
        ImportSourceError: The file cannot be read, is no such file, or has no camera.
        CameraError: A camera of cameras.bin has an unknown model, so that the rest of the file cannot be read.
    """
    return _read_text(path) if path.suffix == ".txt" else read_cameras_bin(path)


def _read_text(path: Path | str) -> dict[int, Camera | CameraError]:
    cameras: dict[int, Camera | CameraError] = {}
    for _, line in without_header(numbered_entries(path)):
        fields = line.split()
        try:
            camera_id, model, (width, height) = int(fields[0]), fields[1], map(int, fields[2:4])
            parameters = [float(field) for field in fields[4:]]
        except (ValueError, IndexError):
            raise ImportSourceError(
                f"{path}: not a line of COLMAP's cameras.txt (ID MODEL WIDTH HEIGHT PARAMETERS): {line[:80]!r}"
            ) from None
        try:
            cameras[camera_id] = camera_from_colmap(model, width, height, parameters)
        except CameraError as error:
            cameras[camera_id] = error
    if not cameras:
        raise ImportSourceError(f"{path} has no camera")
    return cameras


def read_cameras_bin(path: Path) -> dict[int, Camera | CameraError]:
    """Reads COLMAP's ``cameras.bin``.

    Args:
        path: The file.

    Returns:
        Camera id -> camera, or the reason why the camera cannot be used.

    Raises:
        ImportSourceError: The file is truncated, is no such file, or has no camera.
        CameraError: A camera has an unknown model, so that the rest of the file cannot be read.
    """
    data, at = read_binary_file(path), 8
    cameras: dict[int, Camera | CameraError] = {}
    try:
        for _ in range(struct.unpack_from("<Q", data)[0]):
            camera_id, model, width, height = struct.unpack_from("<IiQQ", data, at)
            if model not in _MODEL_NUMBERS:
                raise CameraError(f"COLMAP camera model number {model} is not known")
            name, count = _MODEL_NUMBERS[model]
            parameters = struct.unpack_from(f"<{count}d", data, at + 24)
            at += 24 + 8 * count
            try:
                cameras[camera_id] = camera_from_colmap(name, width, height, parameters)
            except CameraError as error:
                cameras[camera_id] = error
    except struct.error as error:
        raise ImportSourceError(f"{path} is truncated or no cameras.bin of COLMAP ({error})") from None
    if not cameras:
        raise ImportSourceError(f"{path} is empty")
    return cameras


def write_cameras_txt(path: Path | str, cameras: Mapping[int, Camera]) -> None:
    """Writes COLMAP's ``cameras.txt``; 5 radial-tangential coefficients become the 8 of FULL_OPENCV, with zeros.

    Args:
        path: The file.
        cameras: Camera id -> camera.
    """
    lines = ["# CAMERA_ID MODEL WIDTH HEIGHT PARAMETERS (COLMAP's pixel convention)"]
    for camera_id, camera in cameras.items():
        model, distortion = _colmap_model(camera)
        values = (camera.fx, camera.fy, camera.cx + HALF_PIXEL, camera.cy + HALF_PIXEL, *distortion)
        parameters = " ".join(repr(float(value)) for value in values)
        lines.append(f"{camera_id} {model} {camera.width} {camera.height} {parameters}")
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _colmap_model(camera: Camera) -> tuple[str, tuple[float, ...]]:
    """Name of COLMAP's model of a camera, and its distortion parameters."""
    if camera.model == PINHOLE:
        return "PINHOLE", ()
    if camera.model == EQUIDISTANT:
        return "OPENCV_FISHEYE", camera.distortion
    if len(camera.distortion) == 4:
        return "OPENCV", camera.distortion
    return "FULL_OPENCV", (*camera.distortion, *(0.0,) * (8 - len(camera.distortion)))
