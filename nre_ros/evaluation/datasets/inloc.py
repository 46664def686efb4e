# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""InLoc (Taira et al., CVPR 2018): the map consists of cutouts of laser scans, the queries are phone images.

A cutout database/cutouts/FLOOR/SCAN/BUILDING_cutout_SCAN_*.jpg has a 3D point per pixel in the scan's frame (XYZcut
``[H, W, 3]`` in .jpg.mat). The pose and the focal length of a cutout are computed from these points. The last 4 x 4
matrix of database/alignments/FLOOR/transformations/BUILDING_trans_SCAN.txt transforms the scan to the floor. The query
poses are not public: the result is the submission file for https://www.visuallocalization.net.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from nre_ros.errors import EvaluationError, ImportSourceError, PoseError
from nre_ros.evaluation.datasets.dataset import PublishedMethod, Scene, SubmittedDataset
from nre_ros.evaluation.datasets.mat_files import MatReader
from nre_ros.evaluation.inputs import DatasetImage, DatasetInput
from nre_ros.geometry import Camera, check_camera, invert
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.importers.image_files import read_image
from nre_ros.keyframes.importers.map_source import MapSource
from nre_ros.keyframes.importers.pose_checks import rigid_motion
from nre_ros.keyframes.importers.text_files import check_folder, read_lines
from nre_ros.keyframes.types import Keyframe

_FOCAL = 28.0 / 36.0
"""Focal length of the phone relative to the longer image side: 28 mm on 36 mm film (hloc's localize_inloc.py)."""
_FIELD_OF_VIEW = np.radians(60.0)
"""Approximate field of view of the cutouts, from which the search for their focal length starts."""
_CUTOUT_POINTS = 4000
"""Number of evenly spaced points of a cutout from which its camera is computed."""
_MAX_RMS = 1.0
"""Largest reprojection error of these points in pixels (RMS); with a larger error no camera is accepted."""
_MATRIX_LINES = slice(7, 11)


class InlocSource(MapSource):
    """The cutouts of all floors."""

    def __init__(self, root: Path) -> None:
        """Finds the cutouts.

        Args:
            root: Folder of the data set.

        Raises:
            ImportSourceError: There is no cutout.
        """
        self.root = check_folder(root)
        files = (self.root / "database/cutouts").glob("*/*/*.jpg")
        self._names = sorted(str(file.relative_to(self.root)) for file in files)
        if not self._names:
            raise ImportSourceError(f"{root} contains no database/cutouts/FLOOR/SCAN/*.jpg")
        self._mat_files = MatReader()

    def names(self) -> list[str]:
        return list(self._names)

    def describe(self) -> dict:
        return {"importer": "inloc", "folder": str(self.root.resolve())}

    def keyframe(self, name: str, builder: KeyframeBuilder) -> Keyframe:
        image, points = read_image(self.root / name), self._scan(name)
        if points.shape != (*image.shape[:2], 3):
            raise ImportSourceError(f"{name}.mat has points of shape {points.shape}, the image {image.shape[:2]}")
        camera, T_cam_scan = camera_of_points(points)
        depth = points @ T_cam_scan[2, :3] + T_cam_scan[2, 3]
        depth = np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)
        return builder.build_rgbd(name, 0, image, depth, camera, self.alignment(name) @ invert(T_cam_scan))

    def alignment(self, name: str) -> np.ndarray:
        """Reads the alignment of a cutout's scan.

        Args:
            name: Name of the cutout.

        Returns:
            T_floor_scan ``[4, 4]``.

        Raises:
            NreError: The alignment file is missing or has another format.
        """
        floor, scan, file = Path(name).parts[-3:]
        folder = self.root / "database/alignments" / floor / "transformations"
        path = folder / f"{file.split('_')[0]}_trans_{scan}.txt"
        lines = _all_lines(path)[_MATRIX_LINES]
        try:
            return rigid_motion(np.array([line.split() for line in lines], dtype=np.float64), f"alignment {path}")
        except ValueError:
            raise ImportSourceError(f"{path} contains no 4 x 4 matrix in lines 8 to 11") from None

    def _scan(self, name: str) -> np.ndarray:
        """XYZcut ``[H, W, 3]`` float64, NaN where nothing was measured."""
        return self._mat_files.read(self.root / f"{name}.mat", "XYZcut")


def camera_of_points(points: np.ndarray) -> tuple[Camera, np.ndarray]:
    """Computes the pinhole camera that sees the points of a cutout in their pixels.

    Args:
        points: ``[H, W, 3]`` point of each pixel in the scan's frame, NaN where nothing was measured.

    Returns:
        The camera (one focal length, principal point in the image centre) and T_cam_scan ``[4, 4]``.

    Raises:
        PoseError: There are too few points, or no pinhole camera fits.
    """
    height, width = points.shape[:2]
    y, x = np.nonzero(np.isfinite(points).all(-1))
    step = max(1, len(x) // _CUTOUT_POINTS)
    pixels = np.stack([x, y], axis=1)[::step].astype(np.float32)
    measured = points[y, x][::step].astype(np.float32)
    if len(measured) < 100:
        raise PoseError(
            f"only {len(measured)} points of the cutout are measured, which is too few to compute its camera"
        )
    focal = width / 2 / np.tan(_FIELD_OF_VIEW / 2)
    K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    fixed = (
        cv2.CALIB_USE_INTRINSIC_GUESS
        | cv2.CALIB_FIX_PRINCIPAL_POINT
        | cv2.CALIB_FIX_ASPECT_RATIO
        | cv2.CALIB_ZERO_TANGENT_DIST
        | cv2.CALIB_FIX_K1
        | cv2.CALIB_FIX_K2
        | cv2.CALIB_FIX_K3
    )
    rms, K, _, rotations, translations = cv2.calibrateCamera(
        [measured], [pixels], (width, height), K, np.zeros(5), flags=fixed
    )
    if not rms < _MAX_RMS:
        raise PoseError(f"no pinhole camera fits the points of the cutout: the reprojection error is {rms:.2f} pixels")
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = cv2.Rodrigues(rotations[0])[0], translations[0][:, 0]
    return check_camera(Camera(width, height, float(K[0, 0]), float(K[1, 1]), (width - 1) / 2, (height - 1) / 2)), T


class Inloc(SubmittedDataset):
    """One map of both floors. The server computes recall at (25 cm, 50 cm, 1 m) and 10 degrees."""

    published = (
        PublishedMethod(
            "hloc (SuperPoint + SuperGlue)",
            "hloc's README",
            {"inloc": ("", "", "46.5 / 65.7 / 78.3 (DUC1), 52.7 / 72.5 / 79.4 (DUC2)")},
        ),
    )
    notes = (
        "visuallocalization.net computes the recall from the submission file. No figures of PixLoc and ACE were found.",
    )

    def scenes(self, root: Path, names: Sequence[str] = ()) -> list[Scene]:
        root = check_folder(root)
        source = InlocSource(root)
        files = sorted(file for file in (root / "query").glob("*/*") if file.suffix.lower() in (".jpg", ".jpeg"))
        if not files:
            raise EvaluationError(f"{root} contains no query/iphone7/*.JPG")
        images = [
            DatasetImage(str(file.relative_to(root)), 0, None, partial(_load_phone_image, file)) for file in files
        ]
        return [Scene("inloc", source, DatasetInput(images, str((root / "query").resolve())))]


def _load_phone_image(path: Path) -> tuple[np.ndarray, Camera]:
    image = read_image(path)
    height, width = image.shape[:2]
    focal = max(width, height) * _FOCAL
    return image, check_camera(Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2))


def _all_lines(path: Path) -> list[str]:
    """All lines of a file, including empty ones, which the format counts."""
    read_lines(path)  # raises an error that describes a problem with the file
    return path.read_text(encoding="utf-8").splitlines()
