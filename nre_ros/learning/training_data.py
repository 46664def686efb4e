# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a training is made of: named sources of pairs, their shares, and pairs that are held out for validation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from nre_ros.errors import NreError, TrainingError
from nre_ros.features.base import check_image
from nre_ros.geometry import Camera
from nre_ros.keyframes.importers.image_files import read_image
from nre_ros.keyframes.importers.text_files import check_folder, image_names
from nre_ros.learning.augmentation import Augmentation
from nre_ros.learning.pair_sources import GalleryPairs, PairSource, PhotographPairs, TrainingPairs

HELD_OUT_SEEDS = 1_000_000
"""The seed of the held-out pairs is that of the training plus this number: other rooms, other views."""
_FOCAL_LENGTHS = (0.65, 0.8, 1.0)
"""Of the cameras in the rendered rooms, as fractions of the images' width: 75, 64 and 53 degrees wide."""
_VALIDATION_ROOM_PAIRS = 8
"""Held-out pairs of one room: a room takes longer to build than a pair to render."""
_FOLDER = "folder"
"""Key of a folder in ``DataSource.about``: a folder that was moved is the same data."""
_LONGEST_SIDE = 1600
"""Larger photographs are reduced, so that hundreds of them fit into memory, pixels."""
_PHOTOGRAPHS_HELD_OUT = 10
"""One photograph in so many is held out, where there are as many."""


@dataclass(frozen=True)
class DataSource:
    """A source of training pairs.

    Attributes:
        name: What it is, for messages.
        pairs: The pairs that are trained on.
        held_out: Pairs of other rooms, photographs or places, for validation; None: the source has none.
        share: How often a pair comes from this source, any positive number.
        about: What the pairs depend on, as plain JSON values.
    """

    name: str
    pairs: PairSource
    held_out: PairSource | None
    share: float = 1.0
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingData:
    """The sources of a training.

    Attributes:
        sources: At least one.
        augmentation: Of all images.

    Raises:
        TrainingError: There is no source.
    """

    sources: Sequence[DataSource]
    augmentation: Augmentation = Augmentation()

    def __post_init__(self) -> None:
        if not self.sources:
            raise TrainingError("nothing to train on: rendered rooms are switched off, and no other source is named")

    def training_pairs(self, seed: int) -> TrainingPairs:
        """Returns the pairs to train on.

        Args:
            seed: Of the training.
        """
        shares = [source.share for source in self.sources]
        pairs = TrainingPairs([source.pairs for source in self.sources], shares, self.augmentation, seed)
        abouts = [{"share": source.share, **source.about} for source in self.sources]
        pairs.identity = json.dumps([{k: v for k, v in about.items() if k != _FOLDER} for about in abouts])
        return pairs

    def held_out_pairs(self, seed: int) -> TrainingPairs | None:
        """Returns pairs that are not trained on; None where no source has any.

        Args:
            seed: Of the training.
        """
        found = [(source.held_out, source.share) for source in self.sources if source.held_out is not None]
        if not found:
            return None
        sources, shares = zip(*found)
        return TrainingPairs(sources, shares, self.augmentation, seed + HELD_OUT_SEEDS)

    def describe(self) -> list[dict[str, Any]]:
        """Returns what the pairs depend on, as plain JSON values, one entry a source."""
        return [{"source": source.name, "share": source.share, **source.about} for source in self.sources]


def rendered_rooms(size: tuple[int, int], points: int = 400, share: float = 1.0) -> DataSource:
    """Makes the source of views of rendered rooms; every seed has rooms of its own, without end.

    Args:
        size: Width and height of the images, pixels.
        points: Largest number of points a pair.
        share: See ``DataSource``.
    """
    width, height = size
    middle = (width - 1) / 2, (height - 1) / 2
    cameras = [Camera(width, height, f * width, f * width, *middle) for f in _FOCAL_LENGTHS]
    held_out = GalleryPairs(cameras, points, pairs_per_room=_VALIDATION_ROOM_PAIRS)
    about = {"focal_lengths": list(_FOCAL_LENGTHS), "size": list(size), "points": points}
    return DataSource("rendered rooms", GalleryPairs(cameras, points), held_out, share, about)


def photograph_folder(
    folder: Path | str, size: tuple[int, int], points: int = 400, share: float = 1.0
) -> tuple[DataSource, list[str]]:
    """Makes the source of homographies of a folder's photographs, sub-folders included.

    One photograph in ten is held out. With fewer than ten, other views of all of them are used for validation.

    Args:
        folder: The folder.
        size: Width and height of the views, pixels.
        points: Largest number of points a pair.
        share: See ``DataSource``.

    Returns:
        The source, and a line for each photograph that cannot be read.

    Raises:
        NreError: The folder contains no photograph that can be read.
    """
    folder = check_folder(folder)
    photographs, notes = {}, []
    for name in image_names(folder, None):
        try:
            photographs[name] = _reduced(check_image(read_image(folder / name)))
        except NreError as error:
            notes.append(f"{name}: {error}")
    if not photographs:
        raise TrainingError(f"{folder} contains no photograph that can be read: {'; '.join(notes[:1]) or 'no image'}")
    names = sorted(photographs)
    held_out = set(names[::_PHOTOGRAPHS_HELD_OUT] if len(names) >= _PHOTOGRAPHS_HELD_OUT else ())
    training = {name: photographs[name] for name in names if name not in held_out}
    validation = {name: photographs[name] for name in (held_out or names)}
    listed = hashlib.sha256("\n".join(f"{name} {photographs[name].shape}" for name in names).encode()).hexdigest()
    about = {
        _FOLDER: str(folder.resolve()),
        "photographs": len(training),
        "held_out": len(held_out),
        "names_sha256": listed[:16],
        "size": list(size),
        "points": points,
    }
    pairs, others = (PhotographPairs(images, size, points) for images in (training, validation))
    return DataSource(f"photographs {folder}", pairs, others, share, about), notes


def _reduced(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    scale = _LONGEST_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
