# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What is evaluated: the images of a recording or of a list, one at a time, with their cameras.

A ``Query`` whose image cannot be read has the reason instead: it counts as an image without a pose.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from nre_ros.errors import EvaluationError, NreError
from nre_ros.geometry import Camera
from nre_ros.keyframes.importers.colmap.cameras import camera_of_size, read_cameras_txt
from nre_ros.keyframes.importers.image_files import read_image
from nre_ros.keyframes.importers.text_files import check_folder, image_names


@dataclass(frozen=True)
class Query:
    """One image to localize.

    name: unique in the run; stamp: nanoseconds, 0 for none.  load: gives the image (uint8 BGR [H, W, 3] or
    grey) and its camera when it is asked for; raises an ``NreError`` that says why there is none.
    """

    name: str
    stamp: int
    load: Callable[[], tuple[np.ndarray, Camera]] = field(repr=False)


class ImageListInput:
    """The images of ``list_path`` (all of the folder without one).

    cameras: COLMAP's cameras.txt; of several, each image takes the one of its size.
    Raises an ``NreError`` when there is no image, or no camera.
    """

    def __init__(self, images, list_path, cameras, every: int = 1):
        self.folder = check_folder(images)
        self.every = every
        self.cameras = list(read_cameras_txt(cameras).values())
        self.names = image_names(self.folder, list_path)
        if len(set(self.names)) != len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise EvaluationError(f"{list_path} has {twice} more than once")

    def __len__(self) -> int:
        return -(-len(self.names) // self.every)

    def describe(self) -> dict:
        """What the results depend on, as plain JSON values."""
        return {"images": str(self.folder.resolve()), **_about_names(self.names), "cameras": repr(self.cameras)}

    def queries(self) -> Iterator[Query]:
        """The images in their order."""
        for name in self.names[:: self.every]:
            yield Query(name, 0, lambda name=name: self.load(name))

    def load(self, name: str) -> tuple[np.ndarray, Camera]:
        """Image and camera of a name."""
        image = read_image(self.folder / name)
        return image, camera_of_size(self.cameras, image)

    def find(self, names: set[str]) -> Iterator[tuple[str, np.ndarray, Camera]]:
        """Those images again, for pictures; what cannot be read is left out."""
        for name in sorted(names):
            try:
                yield name, *self.load(name)
            except NreError:
                continue


@dataclass(frozen=True)
class Frame:
    """An image of a data set: name, stamp in nanoseconds (0: none), T_map_cam [4, 4] (None: not known), ``load``
    as of ``Query``."""

    name: str
    stamp: int
    T_map_cam: np.ndarray | None
    load: Callable[[], tuple[np.ndarray, Camera]] = field(repr=False)


class PosedInput:
    """Images that come with their true poses, or without: those of a public data set.

    what: where they are from.  notes: what to know about them, a line each.
    """

    every = 1

    def __init__(self, frames: list[Frame], what: str, notes: tuple[str, ...] = ()):
        if not frames:
            raise EvaluationError(f"{what} has no image")
        self.frames, self.what, self.notes = {frame.name: frame for frame in frames}, what, tuple(notes)

    @classmethod
    def of(cls, source, what: str) -> PosedInput:
        """All images of an importer's source that knows ``names``, ``pose``, ``camera`` and ``image``.

        The stamp of an image without a pose is in its ``stamps`` (name -> nanoseconds), where it has times.
        """
        frames = []
        for name in source.names():
            try:
                stamp, T_map_cam = source.pose(name)
            except NreError:
                stamp, T_map_cam = getattr(source, "stamps", {}).get(name, 0), None
            frames.append(Frame(name, stamp, T_map_cam, lambda name=name: (source.image(name), source.camera(name))))
        return cls(frames, what, getattr(source, "notes", ()))

    def __len__(self) -> int:
        return len(self.frames)

    def describe(self) -> dict:
        """What the results depend on, as plain JSON values."""
        return {"images": self.what, **_about_names(self.frames)}

    def thinned(self, count: int) -> PosedInput:
        """``count`` evenly spaced ones of the images, all for 0."""
        return PosedInput(thinned(list(self.frames.values()), count), self.what, self.notes)

    def queries(self) -> Iterator[Query]:
        """The images in their order."""
        for frame in self.frames.values():
            yield Query(frame.name, frame.stamp, frame.load)

    def find(self, names: set[str]) -> Iterator[tuple[str, np.ndarray, Camera]]:
        """Those images again, for pictures; what cannot be read is left out."""
        for name in sorted(names):
            try:
                yield name, *self.frames[name].load()
            except NreError:
                continue

    def poses(self, names: list[str]) -> np.ndarray:
        """[N, 4, 4] true poses, nan without."""
        nothing = np.full((4, 4), np.nan)
        known = (self.frames[name].T_map_cam for name in names)
        return np.array([nothing if T is None else T for T in known]).reshape(-1, 4, 4)


def thinned(items: list, count: int) -> list:
    """``count`` evenly spaced ones of the items, all for 0."""
    if not 0 < count < len(items):
        return items
    return [items[round(k)] for k in np.linspace(0, len(items) - 1, count)]


def _about_names(names) -> dict:
    """How many, and which: as many others are another run."""
    return {"names": len(names), "names_sha256": hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]}
