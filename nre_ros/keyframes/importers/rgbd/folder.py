# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Maps from folders of colour and depth images with a list of poses in TUM's format."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImportSourceError
from nre_ros.geometry import Camera
from nre_ros.keyframes.importers.colmap.cameras import only_camera
from nre_ros.keyframes.importers.depth_source import DepthSource
from nre_ros.keyframes.importers.image_files import check_depth_scale, read_depth, read_image
from nre_ros.keyframes.importers.lookup import look_up
from nre_ros.keyframes.importers.pose_columns import PoseConvention, describe_columns
from nre_ros.keyframes.importers.text_files import check_folder, digest, read_list
from nre_ros.keyframes.importers.text_trajectory import read_text_trajectory


class RgbdFolderSource(DepthSource):
    """Listed images, each with a depth image and a pose.

    Args:
        images: Folder of the colour images.
        depth: Folder of 16-bit PNG files with the images' stems, aligned with the images; value / depth_scale is
            metres along the optical axis, 0 where there is none.
        poses: Trajectory file; line i (header and comments not counted) is the pose of line i of the list.
        list_path: File of image names, one a line.
        cameras: COLMAP's ``cameras.txt`` with the one camera of all images.
        depth_scale: Depth value of one metre.
        convention: What the user says of the poses.

    Raises:
        ImportSourceError: The files do not fit together: the numbers of poses and images differ, for example.
        CameraError: The camera cannot be used.
    """

    def __init__(
        self,
        images: Path | str,
        depth: Path | str,
        poses: Path | str,
        list_path: Path | str,
        cameras: Path | str,
        depth_scale: float = 1000.0,
        convention: PoseConvention = PoseConvention(),
    ) -> None:
        super().__init__()
        self.images, self.depths = check_folder(images), check_folder(depth)
        self.depth_scale = check_depth_scale(depth_scale)
        self.only_camera = only_camera(cameras)
        self.listed = read_list(list_path)
        trajectory = read_text_trajectory(poses, convention)
        lines, self.pose_columns = trajectory.lines, trajectory.columns
        if len(set(self.listed)) != len(self.listed):
            twice = next(name for name in self.listed if self.listed.count(name) > 1)
            raise ImportSourceError(f"{list_path} has {twice} more than once")
        if len(lines) != len(self.listed):
            raise ImportSourceError(
                f"{poses} has {len(lines)} poses, {list_path} has {len(self.listed)} images: line i must be the pose of "
                "image i"
            )
        self.pose_lines = dict(zip(self.listed, lines))
        self.notes = () if self.pose_columns.is_tum else (f"poses of {poses}: {self.pose_columns.describe()}",)
        self._digest = digest(poses, list_path, cameras)

    def names(self) -> list[str]:
        """Returns the names of the images; see ``MapSource``."""
        return list(self.listed)

    def describe(self) -> dict[str, Any]:
        """Returns what the keyframes depend on; see ``MapSource``."""
        return {
            "importer": "rgbd",
            "images_folder": str(self.images.resolve()),
            "depth": str(self.depths.resolve()),
            "depth_scale": self.depth_scale,
            "lists": self._digest,
            **describe_columns(self.pose_columns),
        }

    def pose(self, name: str) -> tuple[int, npt.NDArray[np.float64]]:
        """Returns stamp and pose of an image; see ``PosedImageSource``."""
        return look_up(self.pose_lines, name, "the list has no image of that name").stamped_pose()

    def camera(self, name: str) -> Camera:
        """Returns the camera of all images; see ``PosedImageSource``."""
        return self.only_camera

    def image(self, name: str) -> npt.NDArray[np.uint8]:
        """Returns the pixels of an image; see ``PosedImageSource``."""
        return read_image(self.images / name)

    def depth(self, name: str) -> npt.NDArray[np.float32]:
        """Returns the depth of an image; see ``DepthSource``."""
        return read_depth(self.depths / f"{os.path.splitext(name)[0]}.png", self.depth_scale)

    def depth_unit(self) -> float | None:
        """Returns the depth value of one metre; see ``MapSource``."""
        return self.depth_scale
