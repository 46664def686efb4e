# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""InLoc (Taira et al., CVPR 2018) as it is downloaded: cutouts of scans with a 3D point a pixel, phone images.

database/cutouts/FLOOR/SCAN/BUILDING_cutout_SCAN_*.jpg with .jpg.mat (XYZcut [H, W, 3] in the scan's frame) and
database/alignments/FLOOR/transformations/BUILDING_trans_SCAN.txt, whose last 4 x 4 numbers take the scan to the
floor; query/iphone7/*.JPG.  Where and with which focal length a cutout was rendered follows from its points.
Poses of the queries are the owners' secret: the outcome is the file for https://www.visuallocalization.net.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from nre_ros.errors import EvaluationError, ImportSourceError, PoseError
from nre_ros.evaluation.datasets.scene import Published, Scene, SubmittedDataset
from nre_ros.evaluation.inputs import Frame, PosedInput
from nre_ros.geometry import Camera, invert
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.importers.image_files import read_image
from nre_ros.keyframes.importers.map_source import MapSource
from nre_ros.keyframes.importers.pose_checks import rigid_motion
from nre_ros.keyframes.importers.text_files import check_folder, read_lines
from nre_ros.keyframes.types import Keyframe

_FOCAL = 28.0 / 36.0
"""Of the phone's images, in their longer side: 28 mm of 36 mm film (hloc's localize_inloc.py)."""
_FIELD_OF_VIEW = np.radians(60.0)
"""Of the cutouts, about: where the search for their focal length begins."""
_POINTS = 4000
"""Of a cutout, evenly spaced, from which its camera is found."""
_MAX_RMS = 1.0
"""Pixels between these points' projections and their own pixels beyond which they fit no camera."""
_MATRIX_LINES = slice(7, 11)


class InlocSource(MapSource):
    """The cutouts of all floors.  Raises ``ImportSourceError`` when there is none."""

    def __init__(self, root: Path):
        self.root = check_folder(root)
        files = (self.root / "database/cutouts").glob("*/*/*.jpg")
        self._names = sorted(str(file.relative_to(self.root)) for file in files)
        if not self._names:
            raise ImportSourceError(f"{root} has no database/cutouts/FLOOR/SCAN/*.jpg")

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
        """T_floor_scan [4, 4] of a cutout's scan."""
        floor, scan, file = Path(name).parts[-3:]
        folder = self.root / "database/alignments" / floor / "transformations"
        path = folder / f"{file.split('_')[0]}_trans_{scan}.txt"
        lines = _all_lines(path)[_MATRIX_LINES]
        try:
            return rigid_motion(np.array([line.split() for line in lines], dtype=np.float64), f"alignment {path}")
        except ValueError:
            raise ImportSourceError(f"{path} has no 4 x 4 matrix in its lines 8 to 11") from None

    def _scan(self, name: str) -> np.ndarray:
        """XYZcut [H, W, 3] float64, nan where nothing was measured."""
        from scipy.io import loadmat

        path = self.root / f"{name}.mat"
        try:
            return np.asarray(loadmat(path, variable_names=["XYZcut"])["XYZcut"], dtype=np.float64)
        except (OSError, ValueError, KeyError, NotImplementedError) as error:
            raise ImportSourceError(f"{path} has no XYZcut: {' '.join(str(error).split())}") from error


def camera_of_points(points: np.ndarray) -> tuple[Camera, np.ndarray]:
    """The camera (one focal length, principal point in the middle) and T_cam_scan [4, 4] of points [H, W, 3] a pixel.

    Raises ``PoseError`` when they are too few, or no pinhole camera sees them so.
    """
    height, width = points.shape[:2]
    y, x = np.nonzero(np.isfinite(points).all(-1))
    step = max(1, len(x) // _POINTS)
    pixels = np.stack([x, y], axis=1)[::step].astype(np.float32)
    seen = points[y, x][::step].astype(np.float32)
    if len(seen) < 100:
        raise PoseError(f"only {len(seen)} points tell where the cutout was taken")
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
        [seen], [pixels], (width, height), K, np.zeros(5), flags=fixed
    )
    if not rms < _MAX_RMS:
        raise PoseError(f"the points fit no pinhole camera: {rms:.2f} pixels off")
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = cv2.Rodrigues(rotations[0])[0], translations[0][:, 0]
    return Camera(width, height, float(K[0, 0]), float(K[1, 1]), (width - 1) / 2, (height - 1) / 2), T


class Inloc(SubmittedDataset):
    """One map of both floors; recall at (25 cm, 50 cm, 1 m) and 10 degrees is the server's."""

    published = (
        Published(
            "hloc (SuperPoint + SuperGlue)",
            "hloc's README",
            {"inloc": ("", "", "46.5 / 65.7 / 78.3 (DUC1), 52.7 / 72.5 / 79.4 (DUC2)")},
        ),
    )
    notes = (
        "Recall is computed by visuallocalization.net from the submission file. Figures of PixLoc and ACE could not be "
        "found.",
    )

    def scenes(self, root: Path, wanted: tuple[str, ...] = ()) -> list[Scene]:
        root = check_folder(root)
        source = InlocSource(root)
        files = sorted(file for file in (root / "query").glob("*/*") if file.suffix.lower() in (".jpg", ".jpeg"))
        if not files:
            raise EvaluationError(f"{root} has no query/iphone7/*.JPG")
        frames = [Frame(str(file.relative_to(root)), 0, None, lambda file=file: _phone_image(file)) for file in files]
        return [Scene("inloc", source, PosedInput(frames, str((root / "query").resolve())))]


def _phone_image(path: Path) -> tuple[np.ndarray, Camera]:
    image = read_image(path)
    height, width = image.shape[:2]
    focal = max(width, height) * _FOCAL
    return image, Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)


def _all_lines(path: Path) -> list[str]:
    """With the empty ones, which the format counts."""
    read_lines(path)  # tells what is wrong with the file
    return path.read_text(encoding="utf-8").splitlines()
