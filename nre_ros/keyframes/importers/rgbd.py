"""Folders of colour and depth images with a list of poses (TUM format: t x y z qx qy qz qw)."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np

from nre_ros.errors import ImportSourceError, PoseError
from nre_ros.geometry import Camera, pose_matrix
from nre_ros.keyframes.builder import KeyframeBuilder
from nre_ros.keyframes.importers.cameras import read_cameras_txt
from nre_ros.keyframes.importers.common import (
    MapSource, check_folder, digest, read_depth, read_image, read_lines, read_list,
)
from nre_ros.keyframes.types import Keyframe

_QUATERNION_TOLERANCE = 0.01
"""A quaternion whose length is further from 1 than this is a mistake, not a rounded one."""


class RgbdSource(MapSource):
    """Images of ``list_path`` in folder ``images``, each with a depth image and a pose.

    poses: line i (comments not counted) is the pose, camera to map, of line i of the list.
    cameras: COLMAP's ``cameras.txt`` with the one camera of all images.
    depth: folder of 16-bit PNG files with the images' stems, aligned with them;
    value / ``depth_scale`` is metres along the optical axis, 0 none.
    Raises ``ImportSourceError`` or ``CameraError`` when these do not fit together.
    """

    def __init__(self, images, depth, poses, list_path, cameras, depth_scale: float = 1000.0):
        self.images, self.depth = check_folder(images), check_folder(depth)
        if not (np.isfinite(depth_scale) and depth_scale > 0):
            raise ImportSourceError(f"depth scale {depth_scale} is not positive")
        self.depth_scale = depth_scale
        self.camera = _one_camera(cameras)
        self.poses_path = poses
        listed = read_list(list_path)
        lines = [line for line in read_lines(poses) if not line.startswith("#")]
        if len(lines) != len(listed):
            raise ImportSourceError(f"{poses} has {len(lines)} poses, {list_path} has {len(listed)} images")
        self.pose_lines = dict(zip(listed, lines))
        if len(self.pose_lines) != len(listed):
            twice = next(name for name in listed if listed.count(name) > 1)
            raise ImportSourceError(f"{list_path} has {twice} more than once")
        self._digest = digest(poses, list_path, cameras)

    def names(self) -> list[str]:
        return list(self.pose_lines)

    def describe(self) -> dict:
        return {
            "importer": "rgbd", "images_folder": str(self.images.resolve()), "depth": str(self.depth.resolve()),
            "depth_scale": self.depth_scale, "lists": self._digest,
        }

    def keyframe(self, name: str, builder: KeyframeBuilder) -> Keyframe:
        stamp, T_map_cam = parse_tum_line(self.pose_lines[name])
        image = read_image(self.images / name)
        depth = read_depth((self.depth / name).with_suffix(".png"), self.depth_scale)
        keyframe = builder.build_rgbd(name, stamp, image, depth, self.camera, T_map_cam)
        if not len(keyframe.points):
            raise ImportSourceError("no point with smooth depth in this image")
        return keyframe


def parse_tum_line(line: str) -> tuple[int, np.ndarray]:
    """Stamp in nanoseconds and T [4, 4] of one line ``t x y z qx qy qz qw``.

    Raises ``ImportSourceError`` for other lines, ``PoseError`` for values that are no pose.
    """
    fields = line.split()
    try:
        # a double keeps a quarter of a microsecond of today's seconds: not the nanoseconds
        seconds, values = Decimal(fields[0]), np.array([float(field) for field in fields[1:]])
    except (ValueError, InvalidOperation, IndexError):
        raise ImportSourceError(f"pose is not 't x y z qx qy qz qw': {line[:80]!r}") from None
    if len(values) != 7:
        raise ImportSourceError(f"pose has {len(fields)} numbers, expected t x y z qx qy qz qw: {line[:80]!r}")
    if not (seconds.is_finite() and np.isfinite(values).all()):
        raise PoseError(f"pose is not finite: {line[:120]!r}")
    length = float(np.linalg.norm(values[3:]))
    if abs(length - 1.0) > _QUATERNION_TOLERANCE:
        raise PoseError(f"quaternion has length {length:.4g}, expected 1: {line[:120]!r}")
    return int(seconds * 10**9), pose_matrix(values[:3], values[3:])


def _one_camera(path) -> Camera:
    cameras = read_cameras_txt(Path(path))
    if len(cameras) != 1:
        raise ImportSourceError(f"{path} has {len(cameras)} cameras, an RGB-D folder takes one")
    return next(iter(cameras.values()))
