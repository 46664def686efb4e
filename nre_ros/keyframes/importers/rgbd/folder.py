# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Folders of colour and depth images with a list of poses (TUM format: t x y z qx qy qz qw)."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np

from nre_ros.errors import ImportSourceError, PoseError
from nre_ros.geometry import Camera, pose_matrix
from nre_ros.keyframes.importers.cameras import read_cameras_txt
from nre_ros.keyframes.importers.common import check_folder, digest, read_depth, read_image, read_lines, read_list
from nre_ros.keyframes.importers.rgbd.depth_frames import DepthFrames

QUATERNION_TOLERANCE = 0.01
"""A quaternion whose length is further from 1 than this is a mistake, not a rounded one."""


class RgbdSource(DepthFrames):
    """Images of ``list_path`` in folder ``images``, each with a depth image and a pose.

    poses: line i (comments not counted) is the pose, camera to map, of line i of the list.  Of
    lists of different lengths the lines that both have belong together; the rest is left out and told.
    cameras: COLMAP's ``cameras.txt`` with the one camera of all images.
    depth: folder of 16-bit PNG files with the images' stems, aligned with them;
    value / ``depth_scale`` is metres along the optical axis, 0 none.
    Raises ``ImportSourceError`` or ``CameraError`` when these do not fit together.
    """

    def __init__(self, images, depth, poses, list_path, cameras, depth_scale: float = 1000.0):
        super().__init__()
        self.images, self.depths = check_folder(images), check_folder(depth)
        self.depth_scale = check_depth_scale(depth_scale)
        self.only_camera = one_camera(cameras)
        self.listed = read_list(list_path)
        lines = [line for line in read_lines(poses) if not line.startswith("#")]
        if len(set(self.listed)) != len(self.listed):
            twice = next(name for name in self.listed if self.listed.count(name) > 1)
            raise ImportSourceError(f"{list_path} has {twice} more than once")
        self.pose_lines = dict(zip(self.listed, lines))
        self._counts = f"{poses} has {len(lines)} poses, {list_path} has {len(self.listed)} images"
        if len(lines) != len(self.listed):
            self.notes = (f"{self._counts}: line i is taken for line i, and what is over is left out",)
        self._digest = digest(poses, list_path, cameras)

    def names(self) -> list[str]:
        return list(self.listed)

    def describe(self) -> dict:
        return {
            "importer": "rgbd",
            "images_folder": str(self.images.resolve()),
            "depth": str(self.depths.resolve()),
            "depth_scale": self.depth_scale,
            "lists": self._digest,
        }

    def pose(self, name: str) -> tuple[int, np.ndarray]:
        if name not in self.pose_lines:
            raise PoseError(f"no pose for this image: {self._counts}")
        return parse_tum_line(self.pose_lines[name])

    def camera(self, name: str) -> Camera:
        return self.only_camera

    def image(self, name: str) -> np.ndarray:
        return read_image(self.images / name)

    def depth(self, name: str) -> np.ndarray:
        return read_depth((self.depths / name).with_suffix(".png"), self.depth_scale)


def parse_tum_line(line: str) -> tuple[int, np.ndarray]:
    """Stamp in nanoseconds and T [4, 4] of one line ``t x y z qx qy qz qw``.

    Raises ``ImportSourceError`` for other lines, ``PoseError`` for values that are no pose.
    """
    stamp, values = tum_values(line)
    return stamp, pose_matrix(values[:3], values[3:])


def tum_values(line: str) -> tuple[int, np.ndarray]:
    """Stamp in nanoseconds and ``x y z qx qy qz qw`` [7] of one line; raises as ``parse_tum_line``."""
    fields = line.split()
    try:
        values = np.array([float(field) for field in fields[1:]])
    except ValueError:
        raise ImportSourceError(f"pose is not 't x y z qx qy qz qw': {line[:80]!r}") from None
    if len(values) != 7:
        raise ImportSourceError(f"pose has {len(fields)} numbers, expected t x y z qx qy qz qw: {line[:80]!r}")
    if not np.isfinite(values).all():
        raise PoseError(f"pose is not finite: {line[:120]!r}")
    stamp = stamp_nanoseconds(fields[0])
    length = float(np.linalg.norm(values[3:]))
    if abs(length - 1.0) > QUATERNION_TOLERANCE:
        raise PoseError(f"quaternion has length {length:.4g}, expected 1: {line[:120]!r}")
    return stamp, values


def stamp_nanoseconds(text: str) -> int:
    """Nanoseconds of seconds in decimal; a double would keep a quarter of a microsecond of today's."""
    try:
        seconds = Decimal(text)
    except InvalidOperation:
        raise ImportSourceError(f"time stamp is not a number: {text[:40]!r}") from None
    if not seconds.is_finite():
        raise PoseError(f"time stamp is not finite: {text[:40]!r}")
    return int(seconds * 10**9)


def check_depth_scale(depth_scale: float) -> float:
    """The scale, or ``ImportSourceError`` unless it is a positive number."""
    if not (np.isfinite(depth_scale) and depth_scale > 0):
        raise ImportSourceError(f"depth scale {depth_scale} is not positive")
    return depth_scale


def one_camera(path) -> Camera:
    """The only camera of a COLMAP ``cameras.txt``.  Raises ``ImportSourceError``, ``CameraError``."""
    cameras = read_cameras_txt(Path(path))
    if len(cameras) != 1:
        raise ImportSourceError(f"{path} has {len(cameras)} cameras, an RGB-D folder takes one")
    return next(iter(cameras.values()))
