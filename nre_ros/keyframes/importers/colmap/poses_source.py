# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Maps from the images and poses of a COLMAP model, whose points may be absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nre_ros.geometry import Camera
from nre_ros.keyframes.importers.colmap.model import read_model
from nre_ros.keyframes.importers.image_files import read_image
from nre_ros.keyframes.importers.text_files import check_folder, digest, read_list
from nre_ros.keyframes.importers.triangulated_source import TriangulatedSource


class ColmapPosesSource(TriangulatedSource):
    """The images of a COLMAP model with their poses; points are triangulated. The stamps are 0.

    Args:
        sparse: Folder of the model, with cameras and images (.txt or .bin); see ``read_model``.
        images: Folder that the model's image names are relative to.
        list_path: File of image names, to import only these.

    Raises:
        ImportSourceError: The model cannot be read.
        CameraError: A camera of the model cannot be used.
    """

    def __init__(self, sparse: Path | str, images: Path | str, list_path: Path | str | None = None) -> None:
        self.images = check_folder(images)
        self.list = None if list_path is None else read_list(list_path)
        self.model = read_model(sparse, points=False)
        self.sparse, self.notes = self.model.folder, self.model.notes
        rigs = (
            []
            if self.model.rig_poses is None
            else sorted(self.sparse.glob("rigs.*")) + sorted(self.sparse.glob("frames.*"))
        )
        self._digest = digest(*self.model.files, *rigs)

    def names(self) -> list[str]:
        """Returns the names of the images; see ``MapSource``."""
        return sorted(self.model.images) if self.list is None else self.list

    def describe(self) -> dict[str, Any]:
        """Returns what the keyframes depend on; see ``MapSource``."""
        return {"importer": "posed", "images_folder": str(self.images.resolve()), "model": self._digest}

    def pose(self, name: str) -> tuple[int, npt.NDArray[np.float64]]:
        """Returns stamp and pose of an image; see ``PosedImageSource``."""
        return 0, self.model.T_map_cam(name)

    def camera(self, name: str) -> Camera:
        """Returns the camera of an image; see ``PosedImageSource``."""
        return self.model.camera(name)

    def image(self, name: str) -> npt.NDArray[np.uint8]:
        """Returns the pixels of an image; see ``PosedImageSource``."""
        return read_image(self.images / name)
