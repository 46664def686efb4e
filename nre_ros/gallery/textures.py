# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Pictures and surfaces of the gallery: photographs that ship inside scikit-image, and walls to hang them on.

All of it is drawn from a generator that is passed in: same seed, same room.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

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
"""Files of scikit-image's data folder that lie in its wheel (the rest would be downloaded)."""

POSTERS = ("horse.png", "phantom.png", "brick.png", "color.png")
"""More of them, plainer, for the furniture."""


@cache
def photograph(name: str) -> np.ndarray:
    """A file of scikit-image's data folder as uint8 BGR [H, W, 3] (do not write into it)."""
    spec = find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise ImageError("the gallery's photographs come with scikit-image, which is not installed")
    path = Path(spec.submodule_search_locations[0]) / "data" / name
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ImageError(f"photograph {path} is missing or unreadable (another scikit-image?)")
    image.setflags(write=False)
    return image


def cloud(shape: tuple[int, int], rng: np.random.Generator, coarse: int = 4, fine: int = 64) -> np.ndarray:
    """Smooth noise float32 [H, W] about 0 with unit deviation, ``coarse`` to ``fine`` cells a side."""
    height, width = shape
    total = np.zeros(shape, np.float32)
    cells, weight = coarse, 1.0
    while cells <= fine:
        grid = rng.standard_normal((cells, max(2, cells * width // height))).astype(np.float32)
        total += weight * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        cells, weight = cells * 2, weight * 0.7
    return (total - total.mean()) / (total.std() + 1e-6)


def tiled(name: str, shape: tuple[int, int], texels: int, rng: np.random.Generator) -> np.ndarray:
    """A texture photograph of gravel or grass spread over grey float32 [H, W] without a period.

    The whole photograph would cover ``texels``; pieces of half its side, taken at random places
    and mirrored at random, are blended across their borders.
    """
    source = cv2.cvtColor(photograph(name), cv2.COLOR_BGR2GRAY)
    shrink = cv2.INTER_AREA if texels < source.shape[0] else cv2.INTER_CUBIC
    source = cv2.resize(source, (texels, texels), interpolation=shrink).astype(np.float32)
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
            piece = source[y : y + side, x : x + side][:: rng.choice((-1, 1)), :: rng.choice((-1, 1))]
            total[top : top + side, left : left + side] += piece * window
            weight[top : top + side, left : left + side] += window
    centre = slice(side, side + height), slice(side, side + width)
    return total[centre] / weight[centre]


def bricks(shape: tuple[int, int], ppm: float, rng: np.random.Generator) -> np.ndarray:
    """A brick wall, grey float32 [H, W] about 1: courses of 9 cm, bricks of their own length and shade.

    ppm: pixels per metre.
    """
    height, width = shape
    wall = np.full(shape, 1.25, np.float32)
    course, mortar = 0.09 * ppm, max(1, round(0.012 * ppm))
    for row in range(int(np.ceil(height / course))):
        top, bottom = round(row * course), max(round((row + 1) * course) - mortar, round(row * course) + 1)
        left = -rng.uniform(0, 0.24) * ppm
        while left < width:
            right = left + rng.choice((0.24, 0.24, 0.115)) * ppm * rng.uniform(0.96, 1.04)
            wall[top:bottom, max(0, round(left)) : max(0, round(right) - mortar)] = rng.normal(0.95, 0.1)
            left = right
    grain = tiled("gravel.png", shape, round(0.5 * ppm), rng)
    return wall * (0.8 + 0.2 * grain / grain.mean())


def coloured(grey: np.ndarray, bgr, contrast: float = 1.0) -> np.ndarray:
    """Grey float32 [H, W] as float32 [H, W, 3] of mean colour ``bgr``."""
    relative = 1 + contrast * (grey / max(grey.mean(), 1e-6) - 1)
    return relative[..., None] * np.asarray(bgr, np.float32)


def plaster(shape: tuple[int, int], bgr, rng: np.random.Generator) -> np.ndarray:
    """Painted plaster, float32 [H, W, 3]: patches, brush strokes, grain and a few cracks and stains."""
    height, width = shape
    relief = 0.035 * cloud(shape, rng, 3, 24) + 0.025 * cloud(shape, rng, 32, max(64, height // 3))
    strokes = cv2.GaussianBlur(rng.standard_normal(shape).astype(np.float32), (0, 0), sigmaX=9, sigmaY=0.8)
    wall = (1 + relief + 0.08 * strokes)[..., None] * np.asarray(bgr, np.float32)
    for _ in range(6 * width // height):
        steps = rng.normal(scale=height / 60, size=(int(rng.integers(8, 30)), 2))
        steps[:, 1] += rng.choice((-1, 1)) * height / 60
        crack = (rng.uniform((0, 0), (width, height)) + np.cumsum(steps, axis=0)).astype(np.int32)
        colour = (np.asarray(bgr) * rng.uniform(0.45, 0.7)).tolist()
        cv2.polylines(wall, [crack[:, None]], False, colour, max(1, height // 500), cv2.LINE_AA)
    return wall


def lit(surface: np.ndarray, rng: np.random.Generator, strength: float = 0.08) -> np.ndarray:
    """Uneven light on a surface and darker edges: uint8 [H, W, 3]."""
    height, width = surface.shape[:2]
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    edge = (1 - 0.15 * x**8)[None, :] * (1 - 0.15 * y**8)[:, None]
    light = edge * (1 + strength * cloud((height, width), rng, 2, 4))
    return np.clip(surface * light[..., None], 0, 255).astype(np.uint8)


def hang(wall: np.ndarray, picture: np.ndarray, left: int, top: int, size: tuple[int, int], frame_bgr, border: int):
    """Puts a picture of ``size`` (width, height) with its frame and shadow on a wall, in place."""
    width, height = size
    shrink = cv2.INTER_AREA if width < picture.shape[1] else cv2.INTER_CUBIC
    corners = (left - border, top - border), (left + width + border - 1, top + height + border - 1)
    shift = max(1, border // 2)
    shadow = wall[corners[0][1] + shift : corners[1][1] + 1 + shift, corners[0][0] + shift : corners[1][0] + 1 + shift]
    shadow *= 0.6
    cv2.rectangle(wall, *corners, tuple(float(c) for c in frame_bgr), cv2.FILLED)
    wall[top : top + height, left : left + width] = cv2.resize(picture, (width, height), interpolation=shrink)
