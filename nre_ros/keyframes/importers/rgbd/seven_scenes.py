# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Maps from 7-Scenes as it is downloaded: seq-XX/frame-XXXXXX.{color.png,depth.png,pose.txt}.

Shotton et al., "Scene Coordinate Regression Forests for Camera Relocalization in RGB-D Images", CVPR 2013,
https://www.microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes/. The data set names a default depth camera
(focal length 585, centre 320, 240), no calibration and no registration. Its poses are the depth camera's (KinectFusion
tracked the depth camera). The colour camera and its place are those that the field uses (DSAC*, Brachmann and Rother,
PAMI 2021; ACE): focal length 525 and the extrinsics of another Kinect,
https://projet.liris.cnrs.fr/voir/activities-dataset/kinect-calibration.html.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImportSourceError
from nre_ros.geometry import Camera, invert
from nre_ros.keyframes.building.culling import VIDEO
from nre_ros.keyframes.building.depth_registration import register_depth
from nre_ros.keyframes.importers.colmap.cameras import only_camera
from nre_ros.keyframes.importers.depth_source import DepthSource
from nre_ros.keyframes.importers.image_files import read_depth, read_image
from nre_ros.keyframes.importers.pose_checks import rigid_motion
from nre_ros.keyframes.importers.text_files import read_lines, read_list

DEPTH_CAMERA = Camera(640, 480, 585.0, 585.0, 320.0, 240.0)
COLOUR_CAMERA = Camera(640, 480, 525.0, 525.0, 320.0, 240.0)
T_COLOUR_DEPTH = np.array(
    [
        [9.9996518012567637e-01, 2.6765126468950343e-03, -7.9041012313000904e-03, -2.5558943178152542e-02],
        [-2.7409311281316700e-03, 9.9996302803027592e-01, -8.1504520778013286e-03, 1.0109636268061706e-04],
        [7.8819942130445332e-03, 8.1718328771890631e-03, 9.9993554558014031e-01, 2.0318321729487039e-03],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
_NO_DEPTH = 65.535
"""Metres that the value 65535, "no measurement", would be."""
_SEQUENCE = "seq-[0-9][0-9]"


class SevenScenesSource(DepthSource):
    """The folder of a scene, or of one sequence.

    Args:
        folder: The folder.
        sequences: ``train`` or ``test`` (TrainSplit.txt, TestSplit.txt), ``all``, or names like ``seq-01,seq-03``.
        cameras: COLMAP's ``cameras.txt`` with another colour camera.

    Attributes:
        left_out: Sequences that are missing and why, one line each.

    Raises:
        ImportSourceError: There is no such sequence, or it has no images.
    """

    culling_rule = VIDEO

    def __init__(self, folder: Path | str, sequences: str = "train", cameras: Path | str | None = None) -> None:
        super().__init__()
        folder = Path(folder)
        if _is_scene(folder):
            self.folder, wanted = folder, _wanted_sequences(folder, sequences)
        else:
            self.folder, wanted = folder.resolve().parent, [folder.resolve().name]
        self.only_camera = COLOUR_CAMERA if cameras is None else only_camera(cameras)
        self.image_files: list[str] = []
        self.left_out: tuple[str, ...] = ()
        for sequence in wanted:
            found = sorted(file.name[: -len(".color.png")] for file in (self.folder / sequence).glob("*.color.png"))
            if not found:
                zipped = (self.folder / f"{sequence}.zip").is_file()
                self.left_out += (
                    f"{sequence} is left out: " + ("it is still zipped" if zipped else "it has no images"),
                )
            self.image_files += [f"{sequence}/{stem}.color.png" for stem in found]
        if not self.image_files:
            raise ImportSourceError(f"{folder}: no images in {', '.join(wanted)} ({'; '.join(self.left_out)})")
        self.notes = (*self.left_out, f"7-Scenes: {len(self.image_files)} images of {', '.join(wanted)}")

    def names(self) -> list[str]:
        """Returns the names of the images; see ``MapSource``."""
        return list(self.image_files)

    def describe(self) -> dict[str, Any]:
        """Returns what the keyframes depend on; see ``MapSource``."""
        return {"importer": "7-scenes", "folder": str(self.folder.resolve()), "camera": repr(self.only_camera)}

    def pose(self, name: str) -> tuple[int, npt.NDArray[np.float64]]:
        """Returns stamp (0) and pose of an image; see ``PosedImageSource``."""
        path = self._file(name, "pose.txt")
        rows = [line.split() for line in read_lines(path)]
        try:
            matrix = np.array(rows, dtype=np.float64)
        except ValueError:
            raise ImportSourceError(f"{path} is not a 4 x 4 matrix of numbers") from None
        return 0, rigid_motion(matrix, f"pose {path}") @ invert(T_COLOUR_DEPTH)

    def camera(self, name: str) -> Camera:
        """Returns the colour camera; see ``PosedImageSource``."""
        return self.only_camera

    def image(self, name: str) -> npt.NDArray[np.uint8]:
        """Returns the pixels of an image; see ``PosedImageSource``."""
        return read_image(self.folder / name)

    def depth(self, name: str) -> npt.NDArray[np.float32]:
        """Returns the depth of an image in the colour camera's pixels; see ``DepthSource``."""
        depth = read_depth(self._file(name, "depth.png"), 1000.0)
        if depth.shape != (DEPTH_CAMERA.height, DEPTH_CAMERA.width):
            return depth  # refused by its size
        depth[depth >= _NO_DEPTH - 1e-3] = 0.0
        return register_depth(depth, DEPTH_CAMERA, self.only_camera, T_COLOUR_DEPTH)

    def _file(self, name: str, ending: str) -> Path:
        return self.folder / name.replace("color.png", ending)


def is_seven_scenes(folder: Path) -> bool:
    """Returns whether a folder looks like a scene of the data set or one of its sequences.

    Args:
        folder: The folder.
    """
    return _is_scene(folder) or next(folder.glob("frame-*.pose.txt"), None) is not None


def _is_scene(folder: Path) -> bool:
    return any(any(folder.glob(_SEQUENCE + ending)) for ending in ("", ".zip"))


def _wanted_sequences(folder: Path, sequences: str) -> list[str]:
    present = sorted({file.name[:6] for file in folder.glob(_SEQUENCE + "*")})
    if sequences == "all":
        return present
    if sequences not in ("train", "test"):
        return [name.strip() for name in sequences.split(",") if name.strip()]
    split = folder / f"{sequences.capitalize()}Split.txt"
    if not split.is_file():
        raise ImportSourceError(f"{split} is not there: give --sequences all, or their names")
    wanted = []
    for line in read_list(split):
        # more digits than these are no sequence, and may be too long for the name of a folder
        number = re.search(r"(?<!\d)0*(\d{1,6})\s*$", line)
        if number is None:
            raise ImportSourceError(f"{split}: not 'sequence1' or the like in each line")
        wanted.append(f"seq-{int(number[1]):02d}")
    return wanted
