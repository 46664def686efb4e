# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""COLMAP's cameras.txt and its camera models.

COLMAP puts the centre of the first pixel at (0.5, 0.5), this package at (0, 0): principal
points shift by half a pixel here, keypoints in ``colmap``, and nothing anywhere else.
Models: https://colmap.github.io/cameras.html
"""

from __future__ import annotations

from pathlib import Path

from nre_ros.errors import CameraError, ImportSourceError
from nre_ros.geometry import EQUIDISTANT, PINHOLE, RADIAL_TANGENTIAL, Camera
from nre_ros.keyframes.importers.common import read_lines

HALF_PIXEL = 0.5
"""Subtract it from COLMAP's pixel coordinates to get ours."""

_MODELS = {
    # name: number of parameters, one focal length for both axes?, model, distortion of the rest
    "SIMPLE_PINHOLE": (3, True, PINHOLE, lambda k: ()),
    "PINHOLE": (4, False, PINHOLE, lambda k: ()),
    "SIMPLE_RADIAL": (4, True, RADIAL_TANGENTIAL, lambda k: (k[0], 0.0, 0.0, 0.0)),
    "RADIAL": (5, True, RADIAL_TANGENTIAL, lambda k: (k[0], k[1], 0.0, 0.0)),
    "OPENCV": (8, False, RADIAL_TANGENTIAL, tuple),
    "FULL_OPENCV": (12, False, RADIAL_TANGENTIAL, tuple),
    "OPENCV_FISHEYE": (8, False, EQUIDISTANT, tuple),
}


_NUMBERS = {
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
}


def colmap_model(number: int) -> tuple[str, int]:
    """Name and number of parameters of a camera model of ``cameras.bin``.  Raises ``CameraError``."""
    if number not in _NUMBERS:
        raise CameraError(f"COLMAP camera model number {number} is not known")
    return _NUMBERS[number]


def camera_from_colmap(model: str, width: int, height: int, parameters) -> Camera:
    """The camera of COLMAP's model name, size and parameters.  Raises ``CameraError``."""
    if model not in _MODELS:
        raise CameraError(f"COLMAP camera model {model} is not supported, known: {', '.join(_MODELS)}")
    count, one_focal, ours, distortion = _MODELS[model]
    values = [float(value) for value in parameters]
    if len(values) != count:
        raise CameraError(f"COLMAP camera model {model} has {count} parameters, got {len(values)}")
    if one_focal:
        values.insert(1, values[0])
    fx, fy, cx, cy, *rest = values
    return Camera(int(width), int(height), fx, fy, cx - HALF_PIXEL, cy - HALF_PIXEL, ours, distortion(rest))


def camera_of_size(cameras: list[Camera], image) -> Camera:
    """The camera of the size of an image [H, W, ...]; the first one where none has it: its size is checked later."""
    return next((camera for camera in cameras if (camera.height, camera.width) == image.shape[:2]), cameras[0])


def usable_camera(cameras: dict, camera_id, owner: str) -> Camera:
    """The camera of that id.

    cameras: id -> ``Camera``, or the ``CameraError`` that says why it is none, which is then raised.
    """
    if camera_id not in cameras:
        raise CameraError(f"{owner} has no camera {camera_id}")
    camera = cameras[camera_id]
    if isinstance(camera, CameraError):
        raise camera
    return camera


def read_cameras_txt(path) -> dict[int, Camera]:
    """Camera id -> camera of a COLMAP ``cameras.txt``.

    Raises ``ImportSourceError`` or ``CameraError`` naming the file and the line's camera.
    """
    cameras = {}
    for line in read_lines(path):
        if line.startswith("#"):
            continue
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
            raise CameraError(f"{path}: camera {camera_id}: {error}") from None
    if not cameras:
        raise ImportSourceError(f"{path} has no camera")
    return cameras


def write_cameras_txt(path, cameras: dict[int, Camera]) -> None:
    """Writes a COLMAP ``cameras.txt``; 5 radial-tangential coefficients become FULL_OPENCV's 8 with zeros."""
    lines = ["# CAMERA_ID MODEL WIDTH HEIGHT PARAMETERS (COLMAP's pixel convention)"]
    for camera_id, camera in cameras.items():
        model, distortion = _colmap_model(camera)
        values = (camera.fx, camera.fy, camera.cx + HALF_PIXEL, camera.cy + HALF_PIXEL, *distortion)
        parameters = " ".join(repr(float(value)) for value in values)
        lines.append(f"{camera_id} {model} {camera.width} {camera.height} {parameters}")
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _colmap_model(camera: Camera) -> tuple[str, tuple[float, ...]]:
    if camera.model == PINHOLE:
        return "PINHOLE", ()
    if camera.model == EQUIDISTANT:
        return "OPENCV_FISHEYE", camera.distortion
    if len(camera.distortion) == 4:
        return "OPENCV", camera.distortion
    return "FULL_OPENCV", (*camera.distortion, *(0.0,) * (8 - len(camera.distortion)))
