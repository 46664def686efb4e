# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Images of other places, which travel with the package: what no map shows.

``other_places.zip`` has photographs under free licences and views of rendered rooms with these photographs on their
walls. ``credits.json`` inside it names author and licence of each (``docs/confidence.md`` lists them).
``benchmarks/other_places_file.py`` makes the file. A map localizes pieces of these images to learn how its wrong poses
look like (``map_calibration``).
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImageError, one_line
from nre_ros.geometry import Camera

FILE = Path(__file__).with_name("other_places.zip")
CREDITS = "credits.json"
_CURE = "install nre_ros again"
_WIDTH = 480
"""Of the images, pixels."""
_FOCAL_LENGTH = 525.0 / 640.0
"""Over the width: that of a usual camera."""
_MIN_PIECE = 0.5
"""Smallest side of a piece, as a fraction of the image's side."""
_WITHOUT_CONTENT = 8
"""Every eighth image is noise, a plain surface or strong blur: a covered lens, a wall, fast motion."""


@dataclass(frozen=True)
class OtherPlace:
    """One image that shows nothing of any map.

    Attributes:
        name: Of the file it was taken from, or of its kind.
        image: uint8 BGR ``[H, W, 3]``.
        camera: Intrinsics of the image.
    """

    name: str
    image: npt.NDArray[np.uint8]
    camera: Camera


def negative_images(count: int, seed: int = 0) -> Iterator[OtherPlace]:
    """Yields images of other places: pieces of the travelling images, each with other brightness, some mirrored.

    The files take turns, so that few images already differ. An image depends on its index and the seed alone: the
    first images of a larger count are those of a smaller one.

    Args:
        count: Number of images.
        seed: Of the pieces.

    Raises:
        ImageError: The package's file of images is absent or damaged.
    """
    files = _files()
    order = np.random.default_rng(seed).permutation(len(files))
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        if index % _WITHOUT_CONTENT == _WITHOUT_CONTENT - 1:
            name, image = _without_content(rng)
        else:
            name, data = files[order[(index - index // _WITHOUT_CONTENT) % len(files)]]
            image = _piece(_decode(name, data), rng)
        height, width = image.shape[:2]
        f = _FOCAL_LENGTH * max(width, height)
        yield OtherPlace(name, image, Camera(width, height, f, f, (width - 1) / 2, (height - 1) / 2))


def credits() -> list[dict[str, str]]:
    """Returns file, author, licence and package of each travelling image."""
    with zipfile.ZipFile(FILE) as archive:
        read: list[dict[str, str]] = json.loads(archive.read(CREDITS))
    return read


@cache
def _files() -> tuple[tuple[str, bytes], ...]:
    """Names and JPEG data."""
    try:
        with zipfile.ZipFile(FILE) as archive:
            files = tuple((name, archive.read(name)) for name in sorted(archive.namelist()) if name != CREDITS)
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise ImageError(f"{FILE} cannot be read ({one_line(error)}): {_CURE}") from error
    if not files:
        raise ImageError(f"{FILE} has no images: {_CURE}")
    return files


def _decode(name: str, data: bytes) -> npt.NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise ImageError(f"{name} in {FILE} cannot be decoded: {_CURE}")
    return np.asarray(image, dtype=np.uint8)


def _piece(image: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A random piece of an image, perhaps mirrored, with another gamma."""
    height, width = image.shape[:2]
    share = rng.uniform(_MIN_PIECE, 1.0)
    h, w = int(height * share), int(width * share)
    y, x = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    piece = image[y : y + h, x : x + w]
    piece = piece[:, ::-1] if rng.random() < 0.5 else piece
    piece = np.asarray(cv2.resize(piece, (_WIDTH, round(_WIDTH * h / w)), interpolation=cv2.INTER_AREA))
    return np.rint(255 * (piece / 255.0) ** rng.uniform(0.6, 1.6)).astype(np.uint8)


def _without_content(rng: np.random.Generator) -> tuple[str, npt.NDArray[np.uint8]]:
    """Noise, soft clouds of colour, or a ramp of brightness with some noise of the sensor."""
    shape = (_WIDTH * 3 // 4, _WIDTH, 3)
    kind = int(rng.integers(3))
    if kind == 0:
        return "noise", rng.integers(0, 256, shape).astype(np.uint8)
    if kind == 1:
        cloud = cv2.GaussianBlur(rng.normal(size=shape), (0, 0), float(rng.uniform(1, 12)))
        return "clouds", np.clip(128 + 50 * cloud / cloud.std(), 0, 255).astype(np.uint8)
    slopes = rng.uniform(-0.3, 0.3, 2)
    ramp = np.add.outer(slopes[0] * np.arange(shape[0]), slopes[1] * np.arange(shape[1]))[:, :, None]
    return "ramp", np.clip(128 + ramp + rng.normal(0, 2, shape), 0, 255).astype(np.uint8)
