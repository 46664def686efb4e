# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Draws the textures of a gallery: walls, floors, and the photographs that come with scikit-image.

All random draws come from a generator that the caller passes: the same seed gives the same room.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImageError

PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "camera.png",
    "hubble_deep_field.jpg",
    "retina.jpg",
    "coins.png",
    "ihc.png",
    "moon.png",
    "cell.png",
    "text.png",
    "logo.png",
)
"""Files of scikit-image's data folder that its wheel contains (others would be downloaded)."""

_Number = TypeVar("_Number", int, float)

POSTERS = ("horse.png", "phantom.png", "brick.png", "color.png")
"""More such files, with less texture, for the furniture."""


@cache
def photograph(name: str) -> npt.NDArray[np.uint8]:
    """Reads a file of scikit-image's data folder.

    Args:
        name: Name of the file.

    Returns:
        BGR [H, W, 3], uint8, read-only.

    Raises:
        ImageError: The package scikit-image is not installed, or does not contain the file.
    """
    spec = find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise ImageError("photographs of the gallery: scikit-image is not installed (pip install scikit-image)")
    path = Path(spec.submodule_search_locations[0]) / "data" / name
    read = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if read is None:
        raise ImageError(f"photograph {path}: missing or unreadable (install another version of scikit-image)")
    image = read.astype(np.uint8, copy=False)
    image.setflags(write=False)
    return image


def smooth_noise(
    shape: tuple[int, int], rng: np.random.Generator, coarse: int = 4, fine: int = 64
) -> npt.NDArray[np.float32]:
    """Draws smooth noise of several wavelengths.

    Args:
        shape: Height and width, pixels.
        rng: Source of the noise.
        coarse: Cells a side of the longest wavelength.
        fine: Cells a side of the shortest wavelength.

    Returns:
        [H, W] float32 with mean 0 and standard deviation 1.
    """
    height, width = shape
    total = np.zeros(shape, np.float32)
    cells, weight = coarse, 1.0
    while cells <= fine:
        grid = rng.standard_normal((cells, max(2, cells * width // height))).astype(np.float32)
        total += weight * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        cells, weight = cells * 2, weight * 0.7
    noise: npt.NDArray[np.float32] = (total - total.mean()) / (total.std() + 1e-6)
    return noise


def tile_photograph(
    name: str, shape: tuple[int, int], texels: int, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Covers a surface with a texture photograph (gravel or grass) without a visible period.

    Pieces of half the photograph's side, taken at random places and mirrored at random, are blended at their borders.

    Args:
        name: Name of the photograph.
        shape: Height and width of the surface, pixels.
        texels: Side of the whole photograph on the surface, pixels.
        rng: Source of the random draws.

    Returns:
        Grey float32 [H, W].
    """
    grey = cv2.cvtColor(photograph(name), cv2.COLOR_BGR2GRAY)
    shrink = cv2.INTER_AREA if texels < grey.shape[0] else cv2.INTER_CUBIC
    source = cv2.resize(grey, (texels, texels), interpolation=shrink).astype(np.float32)
    side = max(2, texels // 2)
    step = max(1, side * 3 // 4)
    ramp = np.minimum(np.arange(side) + 1, side - np.arange(side)) / max(1, side - step)
    window = np.outer(np.minimum(ramp, 1), np.minimum(ramp, 1)).astype(np.float32)
    height, width = shape
    total = np.zeros((height + 2 * side, width + 2 * side), np.float32)
    weight = np.zeros_like(total)
    for top in range(0, height + side, step):
        for left in range(0, width + side, step):
            y, x = rng.integers(texels - side + 1, size=2)
            piece = source[y : y + side, x : x + side][:: _one_of((-1, 1), rng), :: _one_of((-1, 1), rng)]
            total[top : top + side, left : left + side] += piece * window
            weight[top : top + side, left : left + side] += window
    centre = slice(side, side + height), slice(side, side + width)
    surface: npt.NDArray[np.float32] = total[centre] / weight[centre]
    return surface


def _one_of(values: tuple[_Number, ...], rng: np.random.Generator) -> _Number:
    """Draws a value as ``rng.choice`` does, in a third of the time."""
    return values[int(rng.integers(len(values)))]


def bricks(shape: tuple[int, int], ppm: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Draws a brick wall: courses of 9 cm, bricks of random length and shade.

    Args:
        shape: Height and width, pixels.
        ppm: Pixels per metre.
        rng: Source of the random draws.

    Returns:
        Grey float32 [H, W] about 1.
    """
    height, width = shape
    wall = np.full(shape, 1.25, np.float32)
    course, mortar = 0.09 * ppm, max(1, round(0.012 * ppm))
    for row in range(int(np.ceil(height / course))):
        top, bottom = round(row * course), max(round((row + 1) * course) - mortar, round(row * course) + 1)
        left = -rng.uniform(0, 0.24) * ppm
        while left < width:
            right = left + _one_of((0.24, 0.24, 0.115), rng) * ppm * rng.uniform(0.96, 1.04)
            wall[top:bottom, max(0, round(left)) : max(0, round(right) - mortar)] = rng.normal(0.95, 0.1)
            left = right
    grain = tile_photograph("gravel.png", shape, round(0.5 * ppm), rng)
    textured: npt.NDArray[np.float32] = wall * (0.8 + 0.2 * grain / grain.mean())
    return textured


def tint(
    grey: npt.NDArray[np.float32], bgr: tuple[float, float, float], contrast: float = 1.0
) -> npt.NDArray[np.float32]:
    """Colours a grey surface.

    Args:
        grey: [H, W] float32.
        bgr: Mean colour of the result.
        contrast: Factor on the variation about the mean.

    Returns:
        BGR [H, W, 3], float32.
    """
    relative = 1 + contrast * (grey / max(grey.mean(), 1e-6) - 1)
    coloured: npt.NDArray[np.float32] = relative[..., None] * np.asarray(bgr, np.float32)
    return coloured


def plaster(
    shape: tuple[int, int], bgr: tuple[float, float, float], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Draws painted plaster with patches, brush strokes, grain, and a few cracks and stains.

    Args:
        shape: Height and width, pixels.
        bgr: Colour of the paint.
        rng: Source of the random draws.

    Returns:
        BGR [H, W, 3], float32.
    """
    height, width = shape
    relief = 0.035 * smooth_noise(shape, rng, 3, 24) + 0.025 * smooth_noise(shape, rng, 32, max(64, height // 3))
    strokes = cv2.GaussianBlur(rng.standard_normal(shape).astype(np.float32), (0, 0), sigmaX=9, sigmaY=0.8)
    wall: npt.NDArray[np.float32] = (1 + relief + 0.08 * strokes)[..., None] * np.asarray(bgr, np.float32)
    for _ in range(6 * width // height):
        steps = rng.normal(scale=height / 60, size=(int(rng.integers(8, 30)), 2))
        steps[:, 1] += rng.choice((-1, 1)) * height / 60
        crack = (rng.uniform((0, 0), (width, height)) + np.cumsum(steps, axis=0)).astype(np.int32)
        colour = (np.asarray(bgr) * rng.uniform(0.45, 0.7)).tolist()
        cv2.polylines(wall, [crack[:, None]], False, colour, max(1, height // 500), cv2.LINE_AA)
    return wall


def illuminate(
    surface: npt.NDArray[np.float32], rng: np.random.Generator, strength: float = 0.08
) -> npt.NDArray[np.uint8]:
    """Puts uneven light on a surface and darkens its edges.

    Args:
        surface: BGR [H, W, 3], float32.
        rng: Source of the random draws.
        strength: Standard deviation of the light, as a share of its mean.

    Returns:
        BGR [H, W, 3], uint8.
    """
    height, width = surface.shape[:2]
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    edge = (1 - 0.15 * x**8)[None, :] * (1 - 0.15 * y**8)[:, None]
    light = edge * (1 + strength * smooth_noise((height, width), rng, 2, 4))
    return np.clip(surface * light[..., None], 0, 255).astype(np.uint8)


def hang_picture(
    wall: npt.NDArray[np.float32],
    picture: npt.NDArray[np.uint8],
    left: int,
    top: int,
    size: tuple[int, int],
    frame_bgr: tuple[float, float, float],
    border: int,
) -> None:
    """Draws a picture with its frame and shadow on a wall, in place.

    Args:
        wall: BGR [H, W, 3], float32, changed.
        picture: BGR [h, w, 3], uint8.
        left: Left edge of the picture on the wall, pixels.
        top: Upper edge of the picture on the wall, pixels.
        size: Width and height of the picture on the wall, pixels.
        frame_bgr: Colour of the frame.
        border: Width of the frame, pixels.
    """
    width, height = size
    shrink = cv2.INTER_AREA if width < picture.shape[1] else cv2.INTER_CUBIC
    corners = (left - border, top - border), (left + width + border - 1, top + height + border - 1)
    shift = max(1, border // 2)
    shadow = wall[corners[0][1] + shift : corners[1][1] + 1 + shift, corners[0][0] + shift : corners[1][0] + 1 + shift]
    shadow *= 0.6
    cv2.rectangle(wall, *corners, tuple(float(c) for c in frame_bgr), cv2.FILLED)
    wall[top : top + height, left : left + width] = cv2.resize(picture, (width, height), interpolation=shrink)
