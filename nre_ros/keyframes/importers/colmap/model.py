# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A COLMAP sparse model: which folder and which files are read, and the poses of its images.

The rules are COLMAP's: .bin is read where all files exist as .bin, else .txt; poses come from frames and rigs where
the model has them, else from its images. What the model contains beside that is compared and reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nre_ros.errors import CameraError, ImportSourceError, NreError, PoseError
from nre_ros.geometry import Camera, invert
from nre_ros.keyframes.importers.colmap.cameras import read_model_cameras
from nre_ros.keyframes.importers.colmap.images_file import ModelImage, count_images, read_images_file
from nre_ros.keyframes.importers.colmap.points_file import ModelPoints, read_points_file
from nre_ros.keyframes.importers.colmap.rigs_file import RigPoses, read_rig_poses
from nre_ros.keyframes.importers.lookup import look_up
from nre_ros.keyframes.importers.pose_checks import pose_from_wxyz
from nre_ros.keyframes.importers.text_files import check_folder

_SUFFIXES = (".bin", ".txt")
_SAME_POSE = 1e-3
"""Poses are the same if their rotations differ by less than this (matrices), and their positions by less than this share of
the model's extent, or by rounding (``_ROUNDING``)."""
_ROUNDING = 1e-8
"""Of positions, relative to the distance from the origin."""


@dataclass(frozen=True)
class ColmapModel:
    """A model.

    Attributes:
        folder: Its folder.
        files: The files that were read.
        cameras: Camera id -> camera, or the reason why the camera cannot be used.
        images: Image name -> image.
        points: The points; None if they were not asked for.
        rig_poses: Poses of the images by rig; None if the model has no frames.
        notes: What the user should know, one line each.
    """

    folder: Path
    files: tuple[Path, ...]
    cameras: dict[int, Camera | CameraError]
    images: dict[str, ModelImage]
    points: ModelPoints | None
    rig_poses: RigPoses | None
    notes: tuple[str, ...]

    def image(self, name: str) -> ModelImage:
        """Returns an image.

        Args:
            name: Name of the image.

        Raises:
            ImportSourceError: The model has no such image.
        """
        return look_up(self.images, name, f"the model in {self.folder} has no image of that name")

    def pose_numbers(self, name: str) -> npt.NDArray[np.float64]:
        """Returns the pose of an image as COLMAP writes it: [7] qw qx qy qz tx ty tz from the world to the camera.

        Args:
            name: Name of the image.

        Raises:
            NreError: The model has no such image, or no pose of it.
        """
        image = self.image(name)
        return image.values if self.rig_poses is None else self.rig_poses.values(image.image_id)

    def T_map_cam(self, name: str) -> npt.NDArray[np.float64]:
        """Returns the pose of an image [4, 4].

        Args:
            name: Name of the image.

        Raises:
            NreError: The model has no such image, or no usable pose of it.
        """
        return _matrix(self.pose_numbers(name))

    def camera(self, name: str) -> Camera:
        """Returns the camera of an image.

        Args:
            name: Name of the image.

        Raises:
            NreError: The model has no such image, or no usable camera for it.
        """
        camera_id = self.image(name).camera_id
        if isinstance(unusable := self.cameras.get(camera_id), CameraError):
            raise CameraError(f"camera {camera_id}: {unusable}")
        return look_up(self.cameras, camera_id, f"the model in {self.folder} has no camera {camera_id}", CameraError)


def read_model(sparse: Path | str, points: bool) -> ColmapModel:
    """Reads a model.

    Args:
        sparse: Folder of the model; or a folder of several, as COLMAP's mapper writes them (``0``, ``1``, ...), of
            which the one with the most images is read.
        points: Whether the points and the keypoints are wanted.

    Returns:
        The model.

    Raises:
        ImportSourceError: There is no model, or it cannot be read.
        CameraError: A camera has an unknown model, so that the rest of cameras.bin cannot be read.
    """
    folder, notes = _find_folder(check_folder(sparse))
    files, more = _choose_files(folder, points)
    notes += more
    cameras = read_model_cameras(files["cameras"])
    images = read_images_file(files["images"], keypoints=points)
    found = read_points_file(files["points3D"]) if points else None
    if found is not None and found.left_out:
        notes += (f"{files['points3D']}: {found.left_out} points are not finite and left out",)
    rig_poses, more = _read_rigs(folder, files["images"].suffix, images.entries)
    notes += (*images.notes, *more, *_compare_kinds(files["images"], images.entries))
    return ColmapModel(folder, tuple(files.values()), cameras, images.entries, found, rig_poses, notes)


def _find_folder(sparse: Path) -> tuple[Path, tuple[str, ...]]:
    """The folder itself if it has a model, else the largest model in a folder below it, and a note if that is so."""
    if _has(sparse, "cameras") or _has(sparse, "images"):
        return sparse, ()
    below = [folder for parent in (sparse, sparse / "sparse") if parent.is_dir() for folder in sorted(parent.iterdir())]
    models = [folder for folder in below if _has(folder, "cameras") and _has(folder, "images")]
    if not models:
        return sparse, ()
    counts = {folder: count_images(_file(folder, "images")) for folder in models}
    best = max(models, key=lambda folder: counts[folder])
    others = ", ".join(f"{folder.name} ({counts[folder]} images)" for folder in models if folder != best)
    beside = f"; beside it are {others}: each has a frame of its own" if others else ""
    return best, (f"{sparse} is no model, {best} is read: it has {counts[best]} images{beside}",)


def _has(folder: Path, stem: str) -> bool:
    return any((folder / f"{stem}{suffix}").is_file() for suffix in _SUFFIXES)


def _file(folder: Path, stem: str) -> Path:
    """The binary file of a model, else the text file."""
    return next(path for path in (folder / f"{stem}{suffix}" for suffix in _SUFFIXES) if path.is_file())


def _choose_files(folder: Path, points: bool) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Stem -> file: all .bin or all .txt; a mixture only without points, with a note."""
    stems = ("cameras", "images", "points3D") if points else ("cameras", "images")
    for suffix in _SUFFIXES:
        files = {stem: folder / f"{stem}{suffix}" for stem in stems}
        if all(path.is_file() for path in files.values()):
            return files, ()
    for stem in stems:
        if not _has(folder, stem):
            cure = "; without points, use `nre_ros map build posed`" if stem == "points3D" else ""
            raise ImportSourceError(f"{folder} is no COLMAP model: it has neither {stem}.txt nor {stem}.bin{cure}")
    files = {stem: _file(folder, stem) for stem in stems}
    mixture = ", ".join(path.name for path in files.values())
    if points:
        raise ImportSourceError(f"{folder} is no whole COLMAP model: {mixture} are not all .bin or all .txt")
    return files, (f"{folder} has a model in two forms: {mixture} are read together",)


def _read_rigs(folder: Path, suffix: str, images: Mapping[str, ModelImage]) -> tuple[RigPoses | None, tuple[str, ...]]:
    """Poses by rig, if the model has them, and a note if they differ from those of the images."""
    rigs, frames = folder / f"rigs{suffix}", folder / f"frames{suffix}"
    if not (rigs.is_file() and frames.is_file()):
        one = next((path for path in (rigs, frames) if path.is_file()), None)
        unused = f"{one} is not used, since {rigs.name if one == frames else frames.name} is missing"
        return None, () if one is None else (unused,)
    poses = read_rig_poses(rigs, frames)
    by_rig = {name: _values_or_none(poses, image) for name, image in images.items()}
    differing, farthest = _differences({name: values for name, values in by_rig.items() if values is not None}, images)
    notes = []
    missing = sum(values is None for values in by_rig.values())
    if missing:
        notes.append(f"{missing} of {len(images)} images have no pose in {frames.name} and {rigs.name}")
    if differing:
        notes.append(
            f"{differing} of {len(images)} images have another pose in {frames.name} and {rigs.name} than in "
            f"images{suffix}, up to {farthest:.3g} apart: those of {frames.name} are used, as by COLMAP"
        )
    return poses, tuple(notes)


def _compare_kinds(file: Path, images: Mapping[str, ModelImage]) -> tuple[str, ...]:
    """A note if a text form of the model lies beside the binary one and contains something else."""
    other = file.with_suffix(".txt")
    if file.suffix == ".txt" or not other.is_file():
        return ()
    try:
        theirs = read_images_file(other).entries
        differing, farthest = _differences({name: image.values for name, image in theirs.items()}, images)
    except NreError:
        return ()
    if theirs.keys() == images.keys() and not differing:
        return ()
    return (
        f"{file} and {other.name} are not the same model: {len(images)} and {len(theirs)} images, {differing} with "
        f"another pose, up to {farthest:.3g} apart: {file.name} is used, as by COLMAP",
    )


def _values_or_none(poses: RigPoses, image: ModelImage) -> npt.NDArray[np.float64] | None:
    try:
        return poses.values(image.image_id)
    except NreError:
        return None


def _differences(values: Mapping[str, npt.NDArray[np.float64]], images: Mapping[str, ModelImage]) -> tuple[int, float]:
    """Number of images whose pose differs from the one in ``images``, and the largest distance of the positions."""
    pairs = []
    for name in values.keys() & images.keys():
        try:
            pairs.append((_matrix(values[name]), _matrix(images[name].values)))
        except PoseError:
            continue  # reported when the image itself is imported
    if not pairs:
        return 0, 0.0
    a, b = np.array(pairs).swapaxes(0, 1)
    places = b[:, :3, 3]
    extent = float(np.linalg.norm(places - np.median(places, axis=0), axis=1).max())
    apart = np.linalg.norm(a[:, :3, 3] - places, axis=1)
    limits = np.maximum(_SAME_POSE * max(extent, 1.0), _ROUNDING * np.linalg.norm(places, axis=1))
    differing = (np.abs(a - b)[:, :3, :3].max(axis=(1, 2)) > _SAME_POSE) | (apart > limits)
    return int(differing.sum()), float(apart[differing].max(initial=0.0))


def _matrix(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """[4, 4] from the camera to the world."""
    inverse: npt.NDArray[np.float64] = invert(pose_from_wxyz(values[:4], values[4:]))
    return inverse
