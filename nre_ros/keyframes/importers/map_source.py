# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The interface of an importer: where the images, poses and cameras of a map come from.

``MapSource``             any input of ``build_map``: makes one keyframe a name
``PosedImageSource``      ... whose images have known poses and cameras
``DepthSource``           ... and depth, from which the points are lifted (``depth_source``)
``TriangulatedSource``    ... and no depth: points are triangulated between images (``triangulated_source``)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImageError
from nre_ros.geometry import Camera
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.building.culling import STILL_IMAGES, CullingRule
from nre_ros.keyframes.importers.pose_columns import PoseColumns
from nre_ros.keyframes.types import Keyframe


class MapSource(ABC):
    """The input of a map: named images, each of which becomes a keyframe.

    Constructors raise ``ImportSourceError`` when the input as a whole cannot be used. Several threads call ``keyframe``
    at the same time; the importing thread calls the other methods, and so does ``keyframe``.

    Attributes:
        culling_rule: Which views are near-duplicates, unless the user chooses another rule.
        refine: Whether the depths of the points are refined against other views.
        frame_id: Name of the frame that the poses are in.
        notes: What the user should know before the import, one line each.
        counts: What happened to how many images before the import, as rows of the closing table.
        pose_columns: How the text file of the poses was read; None if the poses come from elsewhere.
    """

    culling_rule: CullingRule = STILL_IMAGES
    refine: bool = False
    frame_id: str = "map"
    notes: tuple[str, ...] = ()
    counts: tuple[tuple[str, str], ...] = ()
    pose_columns: PoseColumns | None = None

    @abstractmethod
    def names(self) -> list[str]:
        """Returns the names of the images to import, in order."""

    @abstractmethod
    def keyframe(self, name: str, builder: KeyframeBuilder) -> Keyframe:
        """Makes the keyframe of an image.

        Args:
            name: One of ``names``.
            builder: Extracts features and chooses points.

        Returns:
            The keyframe.

        Raises:
            NreError: The image is left out; the message is the reason.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Returns what the keyframes depend on (folders, files, options), as plain JSON values."""

    def close(self) -> None:  # noqa: B027  # most sources have nothing to close
        """Closes the files that the source keeps open; a source without such files needs no closing."""

    def pose_and_camera(self, name: str) -> tuple[npt.NDArray[np.float64], Camera] | None:
        """Returns pose and camera of an image, if they are known without its features.

        Near-duplicates are then found before features are extracted.

        Args:
            name: One of ``names``.

        Returns:
            ``T_map_cam`` [4, 4] and the camera; None if they are not known before ``keyframe``.

        Raises:
            NreError: The image is left out; the message is the reason.
        """
        return None

    def image_to_check(self, name: str) -> npt.NDArray[np.uint8]:
        """Returns the pixels of an image, to compare the poses with the images (``pose_agreement``).

        Args:
            name: One of ``names``.

        Raises:
            NreError: The image cannot be read.
        """
        raise ImageError("images of this source cannot be compared with its poses")

    def depth_to_check(self, name: str) -> npt.NDArray[np.float32] | None:
        """Returns depths along z, to compare the poses with the images (``pose_agreement``).

        Args:
            name: One of ``names``.

        Returns:
            [H, W] metres, 0 where there is none; None if the source has no depth.

        Raises:
            NreError: The depth cannot be read.
        """
        return None

    def depth_unit(self) -> float | None:
        """Returns the depth value of one metre, as ``--depth-scale`` gives it; None if the user cannot choose it."""
        return None


class PosedImageSource(MapSource):
    """A source of images with known poses and cameras.

    Attributes:
        T_pose_cam: [4, 4] pose of the camera's optical frame in the frame whose poses the source has.
        frame_warning: Why the poses are probably not those of the optical frame; for users who have not said of what.
    """

    T_pose_cam: npt.NDArray[np.float64] | None = None
    frame_warning: str = ""

    @abstractmethod
    def pose(self, name: str) -> tuple[int, npt.NDArray[np.float64]]:
        """Returns stamp and pose of an image.

        Args:
            name: One of ``names``.

        Returns:
            Stamp in nanoseconds, 0 if there is none, and the pose [4, 4] as the source has it.

        Raises:
            NreError: The image has no pose; the message is the reason.
        """

    @abstractmethod
    def camera(self, name: str) -> Camera:
        """Returns the camera of an image.

        Args:
            name: One of ``names``.

        Raises:
            CameraError: The image has no usable camera.
        """

    @abstractmethod
    def image(self, name: str) -> npt.NDArray[np.uint8]:
        """Returns the pixels of an image.

        Args:
            name: One of ``names``.

        Returns:
            BGR [H, W, 3] or grey [H, W], uint8.

        Raises:
            ImageError: The image cannot be read.
        """

    def camera_pose(self, name: str) -> tuple[int, npt.NDArray[np.float64]]:
        """Returns the stamp of an image and the pose of its camera's optical frame.

        Args:
            name: One of ``names``.

        Returns:
            Stamp in nanoseconds, 0 if there is none, and ``T_map_cam`` [4, 4].

        Raises:
            NreError: The image has no pose; the message is the reason.
        """
        stamp, pose = self.pose(name)
        return stamp, pose if self.T_pose_cam is None else pose @ self.T_pose_cam

    def pose_and_camera(self, name: str) -> tuple[npt.NDArray[np.float64], Camera]:
        """Returns ``T_map_cam`` [4, 4] and the camera of an image; raises as ``pose`` and ``camera``."""
        return self.camera_pose(name)[1], self.camera(name)

    def image_to_check(self, name: str) -> npt.NDArray[np.uint8]:
        """Returns the pixels of an image; see ``MapSource``."""
        return self.image(name)
