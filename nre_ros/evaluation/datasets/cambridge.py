# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Cambridge Landmarks (Kendall, Grimes, Cipolla, ICCV 2015) as downloaded from the University's repository.

A scene's folder has dataset_train.txt and dataset_test.txt (three lines of heading, then ``image x y z qw
qx qy qz``: the camera's centre and the rotation from the world to the camera), reconstruction.nvm and the
images.  Focal lengths are those of the NVM model, the principal point is the image's centre and distortion
is left out, as ACE and DSAC* take them (their setup_cambridge.py).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nre_ros.errors import CameraError, ImportSourceError
from nre_ros.evaluation.datasets.scene import Dataset, Published, Scene, median_and_recall, scene_folders
from nre_ros.evaluation.inputs import PosedInput
from nre_ros.geometry import Camera
from nre_ros.keyframes.importers.image_files import read_image
from nre_ros.keyframes.importers.pose_checks import pose_from_wxyz
from nre_ros.keyframes.importers.text_files import check_folder, digest, read_lines
from nre_ros.keyframes.importers.triangulated_source import TriangulatedSource

NAMES = ("GreatCourt", "KingsCollege", "OldHospital", "ShopFacade", "StMarysChurch")
_HEADING = 3


class CambridgeSource(TriangulatedSource):
    """The images of one of a scene's two lists.  Raises ``ImportSourceError`` when they do not fit together."""

    def __init__(self, folder: Path, split: str):
        self.folder = check_folder(folder)
        path = self.folder / f"dataset_{split}.txt"
        self.poses, self._path = {}, path
        for line in read_lines(path)[_HEADING - _blank(path) :]:
            name, *numbers = line.split()
            try:
                x, y, z, *quaternion = map(float, numbers)
            except ValueError:
                raise ImportSourceError(f"{path}: not 'image x y z qw qx qy qz': {line[:80]!r}") from None
            self.poses[name] = np.array([x, y, z]), quaternion
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
        stem = str(Path(name).with_suffix(""))
        if stem not in self._focal:
            raise CameraError(f"reconstruction.nvm of {self.folder} has no image {name}")
        width, height = self._size(name)
        focal = self._focal[stem]
        return Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)

    def image(self, name: str) -> np.ndarray:
        return read_image(self.folder / name)

    def _size(self, name: str) -> tuple[int, int]:
        """Images of one sequence have one size: only the first of each is read for it."""
        sequence = str(Path(name).parent)
        if sequence not in self._sizes:
            image = self.image(name)
            self._sizes[sequence] = image.shape[1], image.shape[0]
        return self._sizes[sequence]


class Cambridge(Dataset):
    """Median errors; the maps' points are triangulated from the known poses."""

    columns = ("median [cm / deg]", "within 5 cm, 5 deg [%]", "accepted [%]")
    published = (
        Published(
            "hloc (SuperGlue)",
            "as openxrlab/xrlocalization's docs/en/benchmark/benchmark.md measured it",
            {
                "GreatCourt": ("10.1 / 0.07",),
                "KingsCollege": ("6.9 / 0.11",),
                "OldHospital": ("12.5 / 0.24",),
                "ShopFacade": ("2.9 / 0.14",),
                "StMarysChurch": ("3.8 / 0.12",),
            },
        ),
        Published(
            "PixLoc",
            "Sarlin et al., CVPR 2021, as the same page quotes it",
            {
                "GreatCourt": ("30 / 0.14",),
                "KingsCollege": ("14 / 0.24",),
                "OldHospital": ("16 / 0.32",),
                "ShopFacade": ("5 / 0.23",),
                "StMarysChurch": ("10 / 0.34",),
            },
        ),
    )
    notes = ("ACE's figures could not be verified and are left out.",)

    def scenes(self, root: Path, wanted: tuple[str, ...] = ()) -> list[Scene]:
        return [_scene(folder) for folder in scene_folders(root, NAMES, wanted, "dataset_train.txt")]

    def cells(self, summary: dict) -> tuple[str, ...]:
        return median_and_recall(summary)


def _scene(folder: Path) -> Scene:
    test = CambridgeSource(folder, "test")
    return Scene(folder.resolve().name, CambridgeSource(folder, "train"), PosedInput.of(test, str(folder.resolve())))


def _blank(path: Path) -> int:
    """Empty lines of the heading, which ``read_lines`` leaves out."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return sum(not line.strip() for _, line in zip(range(_HEADING), file))


def _focal_lengths(path: Path) -> dict[str, float]:
    """Image without its ending (the model says .jpg, the files are .png) -> focal length in pixels.

    VisualSFM's NVM_V3: a blank line, the number of cameras, then ``name focal qw qx qy qz cx cy cz distortion 0``.
    """
    lines = read_lines(path)
    try:
        if not lines[0].startswith("NVM_V3"):
            raise ValueError(f"begins with {lines[0][:20]!r}")
        entries = [line.split() for line in lines[2 : 2 + int(lines[1])]]
        return {str(Path(name.lstrip("./")).with_suffix("")): float(focal) for name, focal, *_ in entries}
    except (ValueError, IndexError) as error:
        raise ImportSourceError(f"{path} is no NVM_V3 model: {error}") from None
