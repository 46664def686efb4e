# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""COLMAP's files images.txt and images.bin: names, poses and cameras of the images; the keypoints are not read.

Layout: https://colmap.github.io/format.html
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImportSourceError
from nre_ros.geometry import invert
from nre_ros.keyframes.importers.pose_checks import pose_from_wxyz

_POINT2D_BYTES = 24


@dataclass(frozen=True)
class ModelImage:
    """One image of a model.

    Attributes:
        values: [7] qw qx qy qz tx ty tz from the world to the camera, as in the file.
        camera_id: Id of the camera in the model.
    """

    values: npt.NDArray[np.float64]
    camera_id: int

    def T_map_cam(self) -> npt.NDArray[np.float64]:
        """Returns the pose of the camera [4, 4].

        Raises:
            PoseError: The numbers are no pose.
        """
        inverse: npt.NDArray[np.float64] = invert(pose_from_wxyz(self.values[:4], self.values[4:]))
        return inverse


def read_images_file(path: Path) -> dict[str, ModelImage]:
    """Reads images.txt or images.bin, by the name's ending.

    Args:
        path: The file.

    Returns:
        Image name -> entry.

    Raises:
        ImportSourceError: The file cannot be read, a line is no image, or there is no image.
    """
    entries = _read_text(path) if path.suffix == ".txt" else _read_binary(path)
    if not entries:
        raise ImportSourceError(f"{path} is empty")
    return entries


def _read_text(path: Path) -> dict[str, ModelImage]:
    """Each image has two lines; the second, the keypoints, is skipped."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ImportSourceError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error
    entries, keypoints_follow = {}, False
    for line in map(str.strip, text.splitlines()):
        if line.startswith("#") or keypoints_follow or not line:
            keypoints_follow = keypoints_follow and line.startswith("#")
            continue
        fields = line.split(maxsplit=9)
        try:
            entries[fields[9]] = ModelImage(np.array([float(field) for field in fields[1:8]]), int(fields[8]))
        except (ValueError, IndexError):
            raise ImportSourceError(
                f"{path}: not a line of COLMAP's images.txt (ID QW QX QY QZ TX TY TZ CAMERA NAME): {line[:80]!r}"
            ) from None
        keypoints_follow = True
    return entries


def _read_binary(path: Path) -> dict[str, ModelImage]:
    data, at = path.read_bytes(), 8
    entries: dict[str, ModelImage] = {}
    try:
        for _ in range(struct.unpack_from("<Q", data)[0]):
            _, *values, camera_id = struct.unpack_from("<I7dI", data, at)
            end = data.index(b"\0", at + 64)
            name = data[at + 64 : end].decode()
            (points,) = struct.unpack_from("<Q", data, end + 1)
            at = end + 9 + points * _POINT2D_BYTES
            if at > len(data):
                raise ValueError(f"{len(data)} bytes, expected {at} or more")
            entries[name] = ModelImage(np.array(values), camera_id)
    except (struct.error, ValueError) as error:
        raise ImportSourceError(f"{path} is truncated or no images.bin of COLMAP ({error})") from None
    return entries
