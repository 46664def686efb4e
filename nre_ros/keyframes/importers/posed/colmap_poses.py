# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The images and poses of a COLMAP model whose points may be absent, with their images.

images.txt or images.bin and cameras.txt or cameras.bin are read here: pycolmap wants the points, too.
Layout: https://colmap.github.io/format.html
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from nre_ros.errors import CameraError, ImportSourceError, PoseError
from nre_ros.geometry import Camera, invert, pose_matrix
from nre_ros.keyframes.importers.cameras import camera_from_colmap, colmap_model, read_cameras_txt, usable_camera
from nre_ros.keyframes.importers.common import check_folder, digest, read_image, read_list
from nre_ros.keyframes.importers.posed.posed_frames import PosedFrames
from nre_ros.keyframes.importers.rgbd.folder import QUATERNION_TOLERANCE

_POINT2D_BYTES = 24


class PosedSource(PosedFrames):
    """The images of the model in folder ``sparse``, or those of ``list_path`` alone.

    images: folder that the model's image names are relative to.  The stamps are 0.
    Raises ``ImportSourceError`` or ``CameraError`` when the model cannot be read.
    """

    def __init__(self, sparse, images, list_path=None):
        self.sparse, self.images = check_folder(sparse), check_folder(images)
        cameras, poses = _file(self.sparse, "cameras"), _file(self.sparse, "images")
        self.list = None if list_path is None else read_list(list_path)
        self.cameras = read_cameras_txt(cameras) if cameras.suffix == ".txt" else _read_cameras_bin(cameras)
        self.by_name = _read_images_txt(poses) if poses.suffix == ".txt" else _read_images_bin(poses)
        self._digest = digest(cameras, poses)

    def names(self) -> list[str]:
        return sorted(self.by_name) if self.list is None else self.list

    def describe(self) -> dict:
        return {"importer": "posed", "images_folder": str(self.images.resolve()), "model": self._digest}

    def pose(self, name: str) -> tuple[int, np.ndarray]:
        values, _ = self._entry(name)
        return 0, invert(checked_pose(values[:4], values[4:]))

    def camera(self, name: str) -> Camera:
        _, camera_id = self._entry(name)
        return usable_camera(self.cameras, camera_id, f"the model in {self.sparse}")

    def image(self, name: str) -> np.ndarray:
        return read_image(self.images / name)

    def _entry(self, name: str) -> tuple[np.ndarray, int]:
        if name not in self.by_name:
            raise ImportSourceError(f"the model in {self.sparse} has no image of that name")
        return self.by_name[name]


def checked_pose(quaternion_wxyz, position) -> np.ndarray:
    """[4, 4] of COLMAP's and kapture's order of numbers; ``PoseError`` if they are no pose."""
    w, *xyz = (float(value) for value in quaternion_wxyz)
    T = pose_matrix(position, (*xyz, w))
    length = float(np.linalg.norm((w, *xyz)))
    if abs(length - 1.0) > QUATERNION_TOLERANCE:
        raise PoseError(f"quaternion has length {length:.4g}, expected 1")
    return T


def _file(sparse: Path, stem: str) -> Path:
    for suffix in (".bin", ".txt"):
        if (sparse / f"{stem}{suffix}").is_file():
            return sparse / f"{stem}{suffix}"
    raise ImportSourceError(f"{sparse} is no COLMAP model: it has neither {stem}.txt nor {stem}.bin")


def _read_images_txt(path: Path) -> dict[str, tuple[np.ndarray, int]]:
    """Image name -> (qw qx qy qz tx ty tz [7], camera id); every second line, the keypoints, is left out."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ImportSourceError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error
    entries, keypoints = {}, False
    for line in map(str.strip, text.splitlines()):
        if line.startswith("#") or keypoints or not line:
            keypoints = keypoints and line.startswith("#")
            continue
        fields = line.split(maxsplit=9)
        try:
            entries[fields[9]] = np.array([float(field) for field in fields[1:8]]), int(fields[8])
        except (ValueError, IndexError):
            raise ImportSourceError(
                f"{path}: not a line of COLMAP's images.txt (ID QW QX QY QZ TX TY TZ CAMERA NAME): {line[:80]!r}"
            ) from None
        keypoints = True
    return _some(entries, path)


def _read_images_bin(path: Path) -> dict[str, tuple[np.ndarray, int]]:
    data, entries, at = path.read_bytes(), {}, 8
    try:
        for _ in range(struct.unpack_from("<Q", data)[0]):
            _, *values, camera_id = struct.unpack_from("<I7dI", data, at)
            end = data.index(b"\0", at + 64)
            name = data[at + 64 : end].decode()
            (points,) = struct.unpack_from("<Q", data, end + 1)
            at = end + 9 + points * _POINT2D_BYTES
            if at > len(data):
                raise ValueError(f"{len(data)} bytes, expected {at} or more")
            entries[name] = np.array(values), camera_id
    except (struct.error, ValueError) as error:
        raise ImportSourceError(f"{path} is truncated or no images.bin of COLMAP ({error})") from None
    return _some(entries, path)


def _read_cameras_bin(path: Path) -> dict[int, Camera | CameraError]:
    """Camera id -> camera, or the reason why it is none."""
    data, cameras, at = path.read_bytes(), {}, 8
    try:
        for _ in range(struct.unpack_from("<Q", data)[0]):
            camera_id, model, width, height = struct.unpack_from("<IiQQ", data, at)
            name, count = colmap_model(model)
            parameters = struct.unpack_from(f"<{count}d", data, at + 24)
            at += 24 + 8 * count
            try:
                cameras[camera_id] = camera_from_colmap(name, width, height, parameters)
            except CameraError as error:
                cameras[camera_id] = CameraError(f"{path}: camera {camera_id}: {error}")
    except struct.error as error:
        raise ImportSourceError(f"{path} is truncated or no cameras.bin of COLMAP ({error})") from None
    return _some(cameras, path)


def _some(entries: dict, path: Path) -> dict:
    if not entries:
        raise ImportSourceError(f"{path} is empty")
    return entries
