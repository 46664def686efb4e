# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Maps from other maps and their images: the same keyframes and points with other features.

A map belongs to the features that made it. Its poses, cameras and 3D points do not: only the descriptors are computed
again, where the images show the points. All that was done to the map (pruning, merging, better poses) is kept.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch

from nre_ros.errors import ImageError, ImportSourceError
from nre_ros.geometry import Camera, invert, transform
from nre_ros.images import check_image_size
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.building.culling import CullingRule
from nre_ros.keyframes.importers.image_files import read_image
from nre_ros.keyframes.importers.map_source import MapSource
from nre_ros.keyframes.importers.text_files import check_folder
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.thumbnail import decode_thumbnail
from nre_ros.keyframes.tools.derived_map import provenance
from nre_ros.keyframes.types import Keyframe

OUTSIDE_IMAGE = "outside the image"
"""Key of ``KeyframeBuilder.tally``: points that are left out since they do not project into their keyframe's image."""
_IMAGE_FOLDERS = ("", "images", "sensors/records_data")
"""Where the images of a data set may lie in its folder: there itself, in the demo's format, in kapture's."""
_RECORDED_FOLDERS = ("images_folder", "folder", "bag")
"""Keys under which importers record where their images are."""
_BAG_SUFFIXES = (".mcap", ".db3")
_MAX_DIFFERENCE = 16.0
"""Mean difference between an image and a keyframe's thumbnail, in grey levels; JPEG makes 2 to 4."""


class NamedImages(Protocol):
    """Images by the names of the keyframes."""

    def image(self, name: str) -> npt.NDArray[np.uint8]:
        """Returns the pixels of an image.

        Args:
            name: Name of the keyframe.

        Returns:
            BGR [H, W, 3] or grey [H, W], uint8.

        Raises:
            ImageError: There is no such image, or it cannot be read.
        """

    def close(self) -> None:
        """Closes the files that are kept open."""


class FolderImages(NamedImages):
    """The images in a folder; their names are relative to it, or to a data set's folder of images in it.

    Args:
        folder: The folder.

    Raises:
        ImportSourceError: There is no such folder.
    """

    def __init__(self, folder: Path | str) -> None:
        self._folder = check_folder(folder)

    def image(self, name: str) -> npt.NDArray[np.uint8]:
        """Returns the pixels of an image; see ``NamedImages``."""
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts:  # a map may be of unknown origin
            raise ImageError(f"{name[:80]!r} is no name of an image in a folder")
        places = [self._folder / folder / relative for folder in _IMAGE_FOLDERS]
        return read_image(next((path for path in places if _is_file(path)), places[0]))

    def close(self) -> None:
        """There is nothing to close."""


def named_images(path: Path | str, topic: str = "") -> NamedImages:
    """Opens a folder of images or a bag.

    Args:
        path: The folder, or a rosbag2 (its folder or one of its files).
        topic: Topic of the images in a bag; empty: the only one.

    Returns:
        The images; the caller closes them.

    Raises:
        ImportSourceError: There is no such folder or bag, or the bag cannot be read.
    """
    path = Path(path)
    if path.suffix in _BAG_SUFFIXES or (path / "metadata.yaml").is_file() or _has_bag_file(path):
        try:
            from nre_ros.keyframes.importers.bag.named_images import BagImages
        except ImportError as error:
            raise ImportSourceError(f"reading bags needs rosbags ({error}): pip install rosbags") from error
        return BagImages(path, topic)
    return FolderImages(path)


def recorded_images(store: KeyframeStore) -> list[str]:
    """Finds where the images of a map are, by what the map records of how it was built.

    Args:
        store: The map.

    Returns:
        The recorded folders and bags that exist, each once.

    Raises:
        ImportSourceError: There is none.
    """
    places: list[str] = []
    found: list[Any] = [provenance(store)["source"]]
    while found:
        source = found.pop(0)
        if isinstance(source, dict):
            places += [source[key] for key in _RECORDED_FOLDERS if isinstance(source.get(key), str)]
            # maps that were merged, pruned, repaired or rebuilt name the maps that they were made of
            found += [source.get("source"), *(source["maps"] if isinstance(source.get("maps"), list) else [])]
        elif isinstance(source, str) and source.startswith("{"):
            try:
                found.append(json.loads(source))
            except (ValueError, RecursionError):
                pass  # free text
    existing = [place for place in dict.fromkeys(places) if _exists(place)]
    if not existing:
        where = f"its images are no longer at {', '.join(places)[:200]}" if places else "it names no images"
        raise ImportSourceError(f"map {store.path}: {where}: give their folder or bag with --images")
    return existing


class RebuildSource(MapSource):
    """The keyframes of a map with their images.

    Args:
        store: The map; the caller closes it.
        images: Where the images are: the first that has an image counts.

    Raises:
        ImportSourceError: The map has no keyframes.
    """

    culling_rule = CullingRule(0.0, 1.0)

    def __init__(self, store: KeyframeStore, images: Sequence[NamedImages]) -> None:
        self._store, self._images = store, list(images)
        self._ids = store.names()
        self.frame_id = store.metadata()["frame_id"]
        if not self._ids:
            raise ImportSourceError(f"map {store.path} has no keyframes")

    def names(self) -> list[str]:
        """Returns the names of the images; see ``MapSource``."""
        return list(self._ids)

    def describe(self) -> dict[str, Any]:
        """Returns what the keyframes depend on; see ``MapSource``."""
        # poses may be corrected in the same file, between two runs that continue each other
        return {"importer": "map rebuild", "keyframes": self._store.content_hash(), **provenance(self._store)}

    def close(self) -> None:
        """Closes the images; see ``MapSource``."""
        for images in self._images:
            images.close()

    def keyframe(self, name: str, builder: KeyframeBuilder) -> Keyframe:
        """Makes the keyframe of an image; see ``MapSource``."""
        old = self._store.get(self._ids[name])
        image = image_of_keyframe(self._images, old)
        pixels, inside = project_into_image(old.points, old.camera, old.T_map_cam)
        builder.tally[OUTSIDE_IMAGE] += int((~inside).sum())
        if len(inside) and not inside.any():
            raise ImportSourceError("none of the keyframe's points projects into its image")
        ids = None if old.point_ids is None else old.point_ids[inside]
        points = old.points[inside]
        return builder.build(name, old.stamp, image, old.camera, old.T_map_cam, pixels[inside], points, ids)


def image_of_keyframe(places: Sequence[NamedImages], keyframe: Keyframe) -> npt.NDArray[np.uint8]:
    """Reads the image that a keyframe was made of.

    Args:
        places: Where the images are: the first that has an image counts.
        keyframe: The keyframe, with its thumbnail.

    Returns:
        BGR [H, W, 3] or grey [H, W], uint8.

    Raises:
        ImageError: No place has the image (the first place's error), or it is another image than the keyframe's.
    """
    image = first_image(places, keyframe.name)
    check_image_size(image, keyframe.camera)
    check_same_image(image, keyframe.thumbnail)
    return image


def first_image(places: Sequence[NamedImages], name: str) -> npt.NDArray[np.uint8]:
    """Reads an image from the first place that has it.

    Args:
        places: Where images are.
        name: Name of the keyframe.

    Returns:
        BGR [H, W, 3] or grey [H, W], uint8.

    Raises:
        ImageError: No place has the image; the first place's error.
    """
    errors = []
    for images in places:
        try:
            return images.image(name)
        except ImageError as error:
            errors.append(error)
    raise errors[0]


def project_into_image(
    points: npt.NDArray[np.floating], camera: Camera, T_map_cam: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Projects points of the map into an image.

    Args:
        points: [N, 3] in the map.
        camera: The image's camera.
        T_map_cam: [4, 4] its pose.

    Returns:
        Pixels [N, 2], and which points the image shows [N].
    """
    in_camera = transform(torch.from_numpy(invert(T_map_cam)), torch.from_numpy(points.astype(np.float64)))
    projected, valid, _ = camera.project(in_camera)
    pixels = projected.numpy()
    inside: npt.NDArray[np.bool_] = valid.numpy() & np.isfinite(pixels).all(axis=1)
    inside &= ((pixels >= -0.5) & (pixels <= np.array([camera.width, camera.height]) - 0.5)).all(axis=1)
    return pixels, inside


def check_same_image(image: npt.NDArray[np.uint8], thumbnail: bytes) -> None:
    """Checks that an image is the one that a keyframe was made of, as far as the keyframe has a thumbnail.

    Args:
        image: BGR [H, W, 3] or grey [H, W], uint8.
        thumbnail: JPEG data of the keyframe; empty without one.

    Raises:
        ImageError: The image looks unlike the thumbnail.
    """
    expected = decode_thumbnail(thumbnail)
    if expected is None:
        return
    found = cv2.resize(image, (expected.shape[1], expected.shape[0]), interpolation=cv2.INTER_AREA)
    if found.ndim == 2:
        found = cv2.cvtColor(found, cv2.COLOR_GRAY2BGR)
    difference = float(np.abs(found.astype(np.float32) - expected.astype(np.float32)).mean())
    if difference > _MAX_DIFFERENCE:
        raise ImageError(
            f"another image than the keyframe's: it differs from the thumbnail by {difference:.0f} grey levels"
        )


def _has_bag_file(path: Path) -> bool:
    return path.is_dir() and any(file.suffix in _BAG_SUFFIXES for file in path.iterdir())


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _exists(place: str) -> bool:
    try:
        return Path(place).exists()
    except (OSError, ValueError):  # a name that no file can have
        return False
