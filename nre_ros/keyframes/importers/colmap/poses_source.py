# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Maps from the images and poses of a COLMAP model, whose points may be absent.

The files are read here, since pycolmap needs the points too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nre_ros.errors import CameraError, ImportSourceError
from nre_ros.geometry import Camera
from nre_ros.keyframes.importers.colmap.cameras import read_cameras_bin, read_cameras_txt
from nre_ros.keyframes.importers.colmap.images_file import ModelImage, read_images_file
from nre_ros.keyframes.importers.image_files import read_image
from nre_ros.keyframes.importers.lookup import look_up
from nre_ros.keyframes.importers.text_files import check_folder, digest, read_list
from nre_ros.keyframes.importers.triangulated_source import TriangulatedSource


class ColmapPosesSource(TriangulatedSource):
    """The images of a COLMAP model with their poses; points are triangulated. The stamps are 0.

    Args:
        sparse: Folder of the model, with cameras and images (.txt or .bin).
        images: Folder that the model's image names are relative to.
        list_path: File of image names, to import only these.

    Raises:
        ImportSourceError: The model cannot be read.
        CameraError: A camera of the model cannot be used.
    """

    def __init__(self, sparse: Path | str, images: Path | str, list_path: Path | str | None = None) -> None:
        self.sparse, self.images = check_folder(sparse), check_folder(images)
        cameras_file, images_file = _model_file(self.sparse, "cameras"), _model_file(self.sparse, "images")
        self.list = None if list_path is None else read_list(list_path)
        self.cameras: dict[int, Camera | CameraError] = (
            {**read_cameras_txt(cameras_file)} if cameras_file.suffix == ".txt" else read_cameras_bin(cameras_file)
        )
        self.entries = read_images_file(images_file)
        self._digest = digest(cameras_file, images_file)

    def names(self) -> list[str]:
        """Returns the names of the images; see ``MapSource``."""
        return sorted(self.entries) if self.list is None else self.list

    def describe(self) -> dict[str, Any]:
        """Returns what the keyframes depend on; see ``MapSource``."""
        return {"importer": "posed", "images_folder": str(self.images.resolve()), "model": self._digest}

    def pose(self, name: str) -> tuple[int, npt.NDArray[np.float64]]:
        """Returns stamp and pose of an image; see ``PosedImageSource``."""
        return 0, self._entry(name).T_map_cam()

    def camera(self, name: str) -> Camera:
        """Returns the camera of an image; see ``PosedImageSource``."""
        camera_id = self._entry(name).camera_id
        return look_up(self.cameras, camera_id, f"the model in {self.sparse} has no camera {camera_id}", CameraError)

    def image(self, name: str) -> npt.NDArray[np.uint8]:
        """Returns the pixels of an image; see ``PosedImageSource``."""
        return read_image(self.images / name)

    def _entry(self, name: str) -> ModelImage:
        return look_up(self.entries, name, f"the model in {self.sparse} has no image of that name")


def _model_file(sparse: Path, stem: str) -> Path:
    for suffix in (".bin", ".txt"):
        if (sparse / f"{stem}{suffix}").is_file():
            return sparse / f"{stem}{suffix}"
    raise ImportSourceError(f"{sparse} is no COLMAP model: it has neither {stem}.txt nor {stem}.bin")
