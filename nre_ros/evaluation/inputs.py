# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The query images of an evaluation, one at a time, with their cameras and their ground truth.

``bag_input`` has the images of a bag.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from nre_ros.errors import EvaluationError, NreError
from nre_ros.evaluation.ground_truth import NO_GROUND_TRUTH, GroundTruthAssociation, read_tum_of_list
from nre_ros.geometry import Camera, describe_unusual_cameras
from nre_ros.keyframes.importers.colmap.cameras import camera_of_size, read_cameras_txt
from nre_ros.keyframes.importers.image_files import read_image
from nre_ros.keyframes.importers.map_source import PosedImageSource
from nre_ros.keyframes.importers.text_files import check_folder, image_names
from nre_ros.sampling import evenly_spaced_indices

if TYPE_CHECKING:
    from nre_ros.evaluation.options import EvaluationOptions

LoadImage = Callable[[], tuple[npt.NDArray[np.uint8], Camera]]
"""Function that reads an image (uint8 BGR ``[H, W, 3]`` or grey ``[H, W]``) and its camera; raises ``NreError``."""

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Query:
    """One image to localize.

    Attributes:
        name: Name, unique within a run.
        stamp: Nanoseconds, 0 for an image without a stamp.
        load: Function that reads the image and its camera. An image that cannot be read counts as an image without a
            pose.
    """

    name: str
    stamp: int
    load: LoadImage = field(repr=False)


class EvaluationInput(ABC):
    """The query images of an evaluation.

    Attributes:
        every: Only every n-th image is a query.
        notes: Problems of the input that are known from the start, one line each.
        damage: Problems that were found while the queries were read, one line each.
    """

    every: int = 1
    notes: Sequence[str] = ()
    damage: Sequence[str] = ()

    @abstractmethod
    def __len__(self) -> int:
        """Number of queries."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Returns what the results depend on.

        Returns:
            Plain JSON values.
        """

    @abstractmethod
    def queries(self) -> Iterator[Query]:
        """Iterates over the queries in their order.

        Yields:
            The queries.
        """

    @abstractmethod
    def load_images(self, names: Collection[str]) -> Iterator[tuple[str, npt.NDArray[np.uint8], Camera]]:
        """Reads some of the images once more, for pictures.

        Args:
            names: Names of the images.

        Yields:
            Name, image and camera. Images that cannot be read are left out.
        """

    @abstractmethod
    def ground_truth(self, options: EvaluationOptions, map_frame: str) -> GroundTruthAssociation:
        """Finds the ground truth of the images.

        Args:
            options: Options of the evaluation.
            map_frame: Name of the map's frame.

        Returns:
            The association of images with ground-truth poses.

        Raises:
            NreError: The ground truth cannot be read, or does not fit the images or the map.
        """


class ImageListInput(EvaluationInput):
    """The images of a list, or all images of a folder.

    Attributes:
        folder: Folder that the names are relative to.
        cameras: Cameras of the images.
        names: Image names, including those that ``every`` leaves out.
    """

    def __init__(self, images: Path | str, list_path: Path | str | None, cameras: Path | str, every: int = 1) -> None:
        """Reads the list and the cameras.

        Args:
            images: Folder that the names in the list are relative to.
            list_path: File of image names, one per line; None for all images in the folder.
            cameras: COLMAP's ``cameras.txt``. Of several cameras, each image takes the camera of its size.
            every: Only every n-th image is a query.

        Raises:
            NreError: There is no image or no camera, or the list contains an image twice.
        """
        self.folder = check_folder(images)
        self.every = every
        self.cameras = list(read_cameras_txt(cameras).values())
        self.names = image_names(self.folder, list_path)
        if len(set(self.names)) != len(self.names):
            repeated = next(name for name in self.names if self.names.count(name) > 1)
            raise EvaluationError(f"{list_path}: image {repeated} is listed more than once")
        self.notes = describe_unusual_cameras((str(cameras), camera) for camera in self.cameras)

    def __len__(self) -> int:
        return -(-len(self.names) // self.every)

    def describe(self) -> dict[str, Any]:
        return {"images": str(self.folder.resolve()), **_describe_names(self.names), "cameras": repr(self.cameras)}

    def queries(self) -> Iterator[Query]:
        for name in self.names[:: self.every]:
            yield Query(name, 0, partial(self._load, name))

    def load_images(self, names: Collection[str]) -> Iterator[tuple[str, npt.NDArray[np.uint8], Camera]]:
        return _load_readable({name: partial(self._load, name) for name in names})

    def ground_truth(self, options: EvaluationOptions, map_frame: str) -> GroundTruthAssociation:
        if not options.ground_truth:
            return NO_GROUND_TRUTH
        trajectory, stamp_of_image, has_stamps = read_tum_of_list(options.ground_truth, self.names, options.convention)

        def lookup(
            names: Sequence[str], stamps: npt.NDArray[np.int64]
        ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
            found = np.array([stamp_of_image.get(name, 0) for name in names], dtype=np.int64)  # 0: no pose
            return found if has_stamps else stamps, trajectory.at(found, max_gap=0.0)

        return GroundTruthAssociation(lookup, trajectory.source, trajectory)

    def _load(self, name: str) -> tuple[npt.NDArray[np.uint8], Camera]:
        image = read_image(self.folder / name)
        return image, camera_of_size(self.cameras, image)


@dataclass(frozen=True)
class DatasetImage:
    """A query image of a public data set.

    Attributes:
        name: Name, unique within the data set.
        stamp: Nanoseconds, 0 for an image without a stamp.
        T_map_cam: ``[4, 4]`` ground-truth pose, camera to map, None if it is not known.
        load: Function that reads the image and its camera.
    """

    name: str
    stamp: int
    T_map_cam: npt.NDArray[np.float64] | None
    load: LoadImage = field(repr=False)


class DatasetInput(EvaluationInput):
    """The query images of a public data set, which come with their ground-truth poses or have no public ones.

    Attributes:
        images: Image name to image.
        origin: Where the images come from.
    """

    def __init__(self, images: Sequence[DatasetImage], origin: str, notes: Sequence[str] = ()) -> None:
        """Collects the images.

        Args:
            images: The images.
            origin: Where the images come from.
            notes: What a user should know about the images, one line each.

        Raises:
            EvaluationError: There is no image.
        """
        if not images:
            raise EvaluationError(f"{origin} contains no image")
        self.images = {image.name: image for image in images}
        self.origin = origin
        self.notes = tuple(notes)

    @classmethod
    def from_source(cls, source: PosedImageSource, origin: str) -> DatasetInput:
        """Takes all images of an importer's source.

        An image without a pose has its stamp from ``source.stamps`` (name to nanoseconds) if the source has them.

        Args:
            source: Source of an importer. Its ``notes``, if any, are kept.
            origin: Where the images come from.

        Returns:
            The input.
        """
        images = []
        for name in source.names():
            T_map_cam: npt.NDArray[np.float64] | None
            try:
                stamp, T_map_cam = source.pose(name)
            except NreError:
                stamp, T_map_cam = getattr(source, "stamps", {}).get(name, 0), None
            images.append(DatasetImage(name, stamp, T_map_cam, partial(_load_from_source, source, name)))
        return cls(images, origin, getattr(source, "notes", ()))

    def __len__(self) -> int:
        return len(self.images)

    def describe(self) -> dict[str, Any]:
        return {"images": self.origin, **_describe_names(list(self.images))}

    def subset(self, count: int) -> DatasetInput:
        """Selects evenly spaced images.

        Args:
            count: Number of images, 0 for all.

        Returns:
            An input with these images.
        """
        return DatasetInput(evenly_spaced(list(self.images.values()), count), self.origin, self.notes)

    def queries(self) -> Iterator[Query]:
        for image in self.images.values():
            yield Query(image.name, image.stamp, image.load)

    def load_images(self, names: Collection[str]) -> Iterator[tuple[str, npt.NDArray[np.uint8], Camera]]:
        return _load_readable({name: self.images[name].load for name in names if name in self.images})

    def ground_truth(self, options: EvaluationOptions, map_frame: str) -> GroundTruthAssociation:
        def lookup(
            names: Sequence[str], stamps: npt.NDArray[np.int64]
        ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
            return stamps, self.poses(names)

        return GroundTruthAssociation(lookup, "with the images")

    def poses(self, names: Sequence[str]) -> npt.NDArray[np.float64]:
        """Returns the ground-truth poses of images.

        Args:
            names: N image names.

        Returns:
            ``[N, 4, 4]`` poses, camera to map, NaN where the pose is not known.
        """
        unknown = np.full((4, 4), np.nan)
        poses = (self.images[name].T_map_cam if name in self.images else None for name in names)
        return np.array([unknown if T is None else T for T in poses]).reshape(-1, 4, 4)


def evenly_spaced(items: list[_Item], count: int) -> list[_Item]:
    """Selects evenly spaced items, including the first and the last.

    Args:
        items: The items.
        count: Number of items to select, 0 for all.

    Returns:
        The selected items in their order.
    """
    if not 0 < count < len(items):
        return items
    return [items[k] for k in evenly_spaced_indices(len(items), count)]


def _load_from_source(source: PosedImageSource, name: str) -> tuple[npt.NDArray[np.uint8], Camera]:
    return source.image(name), source.camera(name)


def _load_readable(loaders: dict[str, LoadImage]) -> Iterator[tuple[str, npt.NDArray[np.uint8], Camera]]:
    for name, load in sorted(loaders.items()):
        try:
            image, camera = load()
        except NreError:
            continue
        yield name, image, camera


def _describe_names(names: Sequence[str]) -> dict[str, Any]:
    """Number and hash of the names: a list of the same length with other images is another run."""
    return {"names": len(names), "names_sha256": hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]}
