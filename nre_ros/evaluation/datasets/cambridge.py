# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Cambridge Landmarks (Kendall, Grimes, Cipolla, ICCV 2015) as downloaded from the University's repository.

The folder of a scene contains dataset_train.txt, dataset_test.txt, reconstruction.nvm and the images. The lists have
three header lines, then lines ``image x y z qw qx qy qz``: the camera's centre and the rotation from world to camera.
The focal lengths are those of the NVM model, the principal point is the image centre, and distortion is ignored, as in
setup_cambridge.py of ACE and DSAC*.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nre_ros.errors import CameraError, ImportSourceError
from nre_ros.evaluation.datasets.dataset import (
    ACCEPTED_COLUMN,
    RECALL_COLUMN,
    Dataset,
    PublishedMethod,
    Scene,
    median_and_recall,
    scene_folders,
)
from nre_ros.evaluation.inputs import DatasetInput
from nre_ros.geometry import Camera, check_camera
from nre_ros.keyframes.importers.image_files import read_image
from nre_ros.keyframes.importers.pose_checks import pose_from_wxyz
from nre_ros.keyframes.importers.text_files import check_folder, digest, is_number, read_lines
from nre_ros.keyframes.importers.triangulated_source import TriangulatedSource

_SCENES = ("GreatCourt", "KingsCollege", "OldHospital", "ShopFacade", "StMarysChurch")


class CambridgeSource(TriangulatedSource):
    """The training or the test images of a scene."""

    def __init__(self, folder: Path, split: str) -> None:
        """Reads the list and the NVM model.

        Args:
            folder: Folder of the scene.
            split: ``train`` or ``test``.

        Raises:
            ImportSourceError: A file is missing or has another format.
        """
        self.folder = check_folder(folder)
        path = self.folder / f"dataset_{split}.txt"
        self.poses: dict[str, tuple[npt.NDArray[np.float64], list[float]]] = {}
        self._path = path
        lines = read_lines(path)
        first = next((index for index, line in enumerate(lines) if _numbers(line) is not None), 0)
        for line in lines[first:]:  # behind the header
            numbers = _numbers(line)
            if numbers is None:
                raise ImportSourceError(f"{path}: expected 'image x y z qw qx qy qz', got {line[:80]!r}")
            self.poses[line.split()[0]] = np.array(numbers[:3]), numbers[3:]
        if not self.poses:
            raise ImportSourceError(f"{path} names no image")
        self._focal = _focal_lengths(self.folder / "reconstruction.nvm")
        self._sizes: dict[str, tuple[int, int]] = {}

    def names(self) -> list[str]:
        return list(self.poses)

    def describe(self) -> dict:
        files = digest(self._path, self.folder / "reconstruction.nvm")
        return {"importer": "cambridge", "folder": str(self.folder.resolve()), "files": files}

    def pose(self, name: str) -> tuple[int, np.ndarray]:
        centre, quaternion = self.poses[name]
        T_cam_map = pose_from_wxyz(quaternion, [0, 0, 0])
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = T_cam_map[:3, :3].T, centre
        return 0, T

    def camera(self, name: str) -> Camera:
        stem = os.path.splitext(Path(name))[0]
        if stem not in self._focal:
            raise CameraError(f"{self.folder}/reconstruction.nvm contains no image {name}")
        width, height = self._size(name)
        focal = self._focal[stem]
        return check_camera(Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2))

    def image(self, name: str) -> np.ndarray:
        return read_image(self.folder / name)

    def _size(self, name: str) -> tuple[int, int]:
        """The size of an image. All images of a sequence have the same size, so only the first image is read."""
        sequence = str(Path(name).parent)
        if sequence not in self._sizes:
            image = self.image(name)
            self._sizes[sequence] = image.shape[1], image.shape[0]
        return self._sizes[sequence]


class Cambridge(Dataset):
    """Median errors, with map points triangulated from the known poses."""

    columns = ("median [cm / deg]", RECALL_COLUMN, ACCEPTED_COLUMN)
    published = (
        PublishedMethod(
            "hloc (SuperGlue)",
            "measured in docs/en/benchmark/benchmark.md of openxrlab/xrlocalization",
            {
                "GreatCourt": ("10.1 / 0.07",),
                "KingsCollege": ("6.9 / 0.11",),
                "OldHospital": ("12.5 / 0.24",),
                "ShopFacade": ("2.9 / 0.14",),
                "StMarysChurch": ("3.8 / 0.12",),
            },
        ),
        PublishedMethod(
            "PixLoc",
            "Sarlin et al., CVPR 2021, quoted on the same page",
            {
                "GreatCourt": ("30 / 0.14",),
                "KingsCollege": ("14 / 0.24",),
                "OldHospital": ("16 / 0.32",),
                "ShopFacade": ("5 / 0.23",),
                "StMarysChurch": ("10 / 0.34",),
            },
        ),
    )
    notes = ("Figures of ACE could not be verified and are left out.",)

    def scenes(self, root: Path, names: Sequence[str] = ()) -> list[Scene]:
        return [_scene(folder) for folder in scene_folders(root, _SCENES, names, "dataset_train.txt")]

    def cells(self, summary: dict[str, Any]) -> tuple[str, ...]:
        return median_and_recall(summary)


def _scene(folder: Path) -> Scene:
    test = CambridgeSource(folder, "test")
    return Scene(
        folder.resolve().name, CambridgeSource(folder, "train"), DatasetInput.from_source(test, str(folder.resolve()))
    )


def _numbers(line: str) -> list[float] | None:
    """The 7 numbers behind the image's name; None for another line."""
    fields = line.split()[1:]
    return [float(field) for field in fields] if len(fields) == 7 and all(map(is_number, fields)) else None


def _focal_lengths(path: Path) -> dict[str, float]:
    """Image name without suffix (the model lists .jpg, the files are .png) -> focal length in pixels.

    VisualSFM's NVM_V3 format: a blank line, the number of cameras, then lines
    ``name focal qw qx qy qz cx cy cz distortion 0``.
    """
    lines = read_lines(path)
    try:
        if not lines[0].startswith("NVM_V3"):
            raise ValueError(f"the file begins with {lines[0][:20]!r}")
        entries = [line.split() for line in lines[2 : 2 + int(lines[1])]]
        return {os.path.splitext(Path(name.lstrip("./")))[0]: float(focal) for name, focal, *_ in entries}
    except (ValueError, IndexError) as error:
        raise ImportSourceError(f"{path} is not an NVM_V3 model: {error}") from None
