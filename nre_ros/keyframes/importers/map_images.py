# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The images that a map was built from, with the poses, cameras and points that the map has for them.

A map file contains no images. Where the files of its images are at hand, their names in the map find them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nre_ros.errors import ImportSourceError
from nre_ros.geometry import Camera, invert
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.importers.image_files import read_image
from nre_ros.keyframes.importers.map_source import MapSource
from nre_ros.keyframes.importers.text_files import check_folder, digest
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.types import Keyframe


class MapImagesSource(MapSource):
    """The keyframes of a map whose image files are in a folder.

    Args:
        path: The map file.
        images: Folder that the names of the keyframes are relative to.

    Attributes:
        missing: Names of keyframes without an image file.

    Raises:
        ImportSourceError: The folder has no image of the map.
        MapError: The map cannot be read.
    """

    def __init__(self, path: Path | str, images: Path | str) -> None:
        self.path, self.images = Path(path), check_folder(images)
        with KeyframeStore.open(path) as store:
            self._keyframes: dict[str, Keyframe] = {}
            self.missing: tuple[str, ...] = ()
            self.frame_id = store.metadata()["frame_id"]
            for name, keyframe_id in store.names().items():
                if (self.images / name).is_file():
                    self._keyframes[name] = store.load([keyframe_id])[0]
                else:
                    self.missing += (name,)
        if not self._keyframes:
            first = next((f", the first: {name}" for name in self.missing), "")
            raise ImportSourceError(
                f"{images} has none of the {len(self.missing)} images that map {path} names{first} (maps of bags name "
                "stamps, not files: use the bag)"
            )
        if self.missing:
            total = len(self.missing) + len(self._keyframes)
            self.notes = (
                f"{images} lacks {len(self.missing)} of {total} images of map {path}: {self.missing[0]}, ...",
            )

    def names(self) -> list[str]:
        """Returns the names of the images; see ``MapSource``."""
        return list(self._keyframes)

    def describe(self) -> dict[str, Any]:
        """Returns what the keyframes depend on; see ``MapSource``."""
        return {"importer": "map", "map": digest(self.path), "images_folder": str(self.images.resolve())}

    def pose_and_camera(self, name: str) -> tuple[npt.NDArray[np.float64], Camera]:
        """Returns pose and camera of an image; see ``MapSource``."""
        keyframe = self._keyframes[name]
        return keyframe.T_map_cam, keyframe.camera

    def image_to_check(self, name: str) -> npt.NDArray[np.uint8]:
        """Returns the pixels of an image; see ``MapSource``."""
        return read_image(self.images / name)

    def map_points(self, name: str) -> npt.NDArray[np.float64]:
        """Returns the points of a keyframe.

        Args:
            name: Name of its image.

        Returns:
            [N, 3] in the map.
        """
        return self._keyframes[name].points.astype(np.float64)

    def keyframe(self, name: str, builder: KeyframeBuilder) -> Keyframe:
        """Makes the keyframe of an image with the map's points and new features; see ``MapSource``."""
        old = self._keyframes[name]
        T = invert(old.T_map_cam)
        local = old.points.astype(np.float64) @ T[:3, :3].T + T[:3, 3]
        pixels = old.camera.project(torch.from_numpy(local))[0].numpy()
        image = self.image_to_check(name)
        return builder.build(
            name, old.stamp, image, old.camera, old.T_map_cam, pixels, old.points.astype(np.float64), old.point_ids
        )
