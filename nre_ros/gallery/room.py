# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Builds rooms: four walls with photographs, floor, ceiling and furniture.

The frame of a room has its origin in the middle of the floor, x along the room's length and z up. ``T_map_room`` places
the room in the map, so that a world may have several rooms. The same seed at two places gives identical rooms, to test
perceptual aliasing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nre_ros.gallery.scene import Quad, Texture, box
from nre_ros.gallery.textures import (
    PHOTOGRAPHS,
    POSTERS,
    bricks,
    hang_picture,
    illuminate,
    photograph,
    plaster,
    tile_photograph,
    tint,
)

SIZE = (6.0, 5.0, 3.0)
"""Length, width and height of the standard room in metres."""

WALL_COLOURS = ((196, 205, 210), (170, 185, 150), (150, 190, 215), (190, 170, 160))  # BGR
_Colour = tuple[float, float, float]
FRAME_COLOURS = ((35, 30, 30), (60, 90, 130), (225, 230, 230), (50, 60, 40), (40, 45, 110))


def build_room(
    seed: int = 0,
    size: tuple[float, float, float] = SIZE,
    T_map_room: npt.NDArray[np.float64] | None = None,
    pixels_per_metre: int = 400,
    furniture: bool = True,
    pictures: Sequence[npt.NDArray[np.uint8]] | None = None,
) -> list[Quad]:
    """Builds the rectangles of one room, for ``Gallery(build_room(...))``; the lists of several rooms may be added.

    Args:
        seed: Decides order, places and frames of the pictures, and all surfaces.
        size: Length, width and height, at least 2 m each.
        T_map_room: Pose [4, 4] of the room in the map; the identity if None.
        pixels_per_metre: Resolution of the walls' textures; floor and ceiling are coarser.
        furniture: Whether a partition, crates and a pillar stand in the room.
        pictures: BGR [h, w, 3] of the pictures, in an order that the seed decides; None: photographs of scikit-image.

    Returns:
        The rectangles, in the map frame.

    Raises:
        ValueError: A side is shorter than 2 m, or there is no picture.
    """
    if min(size) < 2:
        raise ValueError(f"a room needs at least 2 m a side, got {size}")
    rng = np.random.default_rng(seed)
    length, width, height = size
    x, y = length / 2, width / 2
    X, Y, Z = np.eye(3)
    if pictures is None:
        order = rng.permutation(len(PHOTOGRAPHS))
        hung = [photograph(name) for name in (*(PHOTOGRAPHS[i] for i in order), *POSTERS)]
    elif not len(pictures):
        raise ValueError("a room needs at least one picture")
    else:
        hung = [pictures[i] for i in rng.permutation(len(pictures))]
    quads = []
    # the corner of a wall is the upper left one, seen from inside
    walls = {
        "east": ((x, y, height), -Y * width),
        "south": ((x, -y, height), -X * length),
        "west": ((-x, -y, height), Y * width),
        "north": ((-x, y, height), X * length),
    }
    for i, (name, (corner, along)) in enumerate(walls.items()):
        metres = float(np.linalg.norm(along))
        image = _wall(i, metres, height, hung, pixels_per_metre, rng)
        quads.append(Quad(np.array(corner), along, -Z * height, Texture(image), f"wall/{name}"))
    # coarser, because cameras see them at a slant or from far away
    floor = Texture(_floor(width, length, pixels_per_metre * 3 // 4, rng))
    ceiling = Texture(_ceiling(width, length, pixels_per_metre // 2, rng))
    quads.append(Quad(np.array([x, y, 0.0]), -Y * width, -X * length, floor, "floor"))
    quads.append(Quad(np.array([-x, y, height]), -Y * width, X * length, ceiling, "ceiling"))
    if furniture:
        quads += _furniture(size, hung, pixels_per_metre, rng)
    if T_map_room is None:
        return quads
    return [quad.moved(np.asarray(T_map_room, dtype=np.float64)) for quad in quads]


def _wall(
    index: int, metres: float, height: float, pictures: list[npt.NDArray[np.uint8]], ppm: int, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Draws a wall with pictures from the list; each is used once before any is used again."""
    shape = round(height * ppm), round(metres * ppm)
    colour = WALL_COLOURS[index % len(WALL_COLOURS)]
    if index % 2:
        surface = tint(bricks(shape, ppm, rng), colour)
    else:
        surface = plaster(shape, colour, rng)
    skirting = round(0.1 * ppm)
    surface[-skirting:] = plaster((skirting, shape[1]), (60, 75, 90), rng)
    surface = illuminate(surface, rng).astype(np.float32)
    left = rng.uniform(0.15, 0.4)
    while True:
        picture = pictures[0]
        aspect = picture.shape[1] / picture.shape[0]
        wide = min(rng.uniform(1.0, 1.4), 1.5 * aspect)
        if left + wide > metres - 0.12:
            break
        pictures.append(pictures.pop(0))
        middle = rng.uniform(1.35, 1.65)
        top = round((height - middle - wide / aspect / 2) * ppm)
        size = round(wide * ppm), round(wide / aspect * ppm)
        frame = FRAME_COLOURS[rng.integers(len(FRAME_COLOURS))]
        hang_picture(
            surface, picture, round(left * ppm), top, size, frame, max(1, round(rng.uniform(0.02, 0.05) * ppm))
        )
        left += wide + rng.uniform(0.2, 0.4)
    return np.clip(surface, 0, 255).astype(np.uint8)


def _floor(width: float, length: float, ppm: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draws gravel concrete with a woven rug in the middle."""
    shape = round(length * ppm), round(width * ppm)
    surface = tint(tile_photograph("gravel.png", shape, round(1.5 * ppm), rng), (105, 115, 125), 0.7)
    rug = round(0.45 * length * ppm), round(0.4 * width * ppm)
    top, left = (shape[0] - rug[0]) // 2, (shape[1] - rug[1]) // 2
    weave = tint(tile_photograph("grass.png", rug, round(1.2 * ppm), rng), (70, 60, 150), 0.8)
    surface[top : top + rug[0], left : left + rug[1]] = weave
    return illuminate(surface, rng)


def _ceiling(width: float, length: float, ppm: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draws plaster with beams across and lamps between them."""
    shape = round(length * ppm), round(width * ppm)
    surface = plaster(shape, (215, 218, 220), rng)
    beams = np.arange(0.5, length, 1.1) + rng.uniform(-0.15, 0.15, len(np.arange(0.5, length, 1.1)))
    for middle in beams:
        top, thick = round(middle * ppm), max(2, round(0.12 * ppm))
        rows = surface[top : top + thick]
        rows[:] = plaster(rows.shape[:2], (60, 85, 110), rng) if rows.shape[0] else rows
    for middle in beams[:-1] + 0.55:
        centre = rng.uniform(0.25, 0.75) * width
        left, top = round((centre - 0.4) * ppm), round((middle - 0.1) * ppm)
        surface[top : top + round(0.2 * ppm), left : left + round(0.8 * ppm)] = 250
    return illuminate(surface, rng, 0.05)


def _furniture(
    size: tuple[float, float, float], pictures: list[npt.NDArray[np.uint8]], ppm: int, rng: np.random.Generator
) -> list[Quad]:
    """Makes a partition with posters in the middle, crates by the walls and a pillar.

    The pictures that no wall used come first in the list, so that few pictures occur twice in a room.
    """
    length, width, height = size

    def plain(wide: float, tall: float, bgr: _Colour) -> npt.NDArray[np.float32]:
        shape = max(8, round(tall * ppm)), max(8, round(wide * ppm))
        name = ("grass.png", "gravel.png")[rng.integers(2)]
        return tint(tile_photograph(name, shape, round(0.9 * ppm), rng), bgr, 0.6)

    def poster(wide: float, tall: float, bgr: _Colour) -> npt.NDArray[np.float32]:
        surface = plain(wide, tall, bgr)
        border = round(0.06 * min(surface.shape[:2]))
        inner = surface.shape[1] - 2 * border, surface.shape[0] - 2 * border
        pictures.append(pictures.pop(0))
        picture = _crop(pictures[-1], inner[0] / inner[1], rng)
        hang_picture(surface, picture, border, border, inner, (40, 40, 40), 1)
        return surface

    def crate(x: float, y: float, size: tuple[float, float, float], yaw: float, bgr: _Colour, name: str) -> list[Quad]:
        faces = {}
        for side, inward in {"front": -x, "back": x, "left": -y, "right": y}.items():
            wide = size[1] if side in ("front", "back") else size[0]
            draw = poster if wide > 0.3 and inward >= 0 else plain
            faces[side] = Texture(illuminate(draw(wide, size[2], bgr), rng, 0.05))
        faces["top"] = Texture(illuminate(plain(size[1], size[0], bgr), rng, 0.05))
        return box((x * length, y * width, 0), size, yaw, faces, name)

    quads = crate(0, 0, (0.12, 1.0, 1.7), rng.uniform(0.3, 0.7), (120, 140, 90), "partition")
    quads += crate(-0.36, 0.33, (0.6, 0.8, 0.9), rng.uniform(-0.5, 0.1), (90, 130, 170), "crate/1")
    quads += crate(0.37, -0.34, (0.7, 0.5, 0.6), rng.uniform(0.1, 0.6), (150, 110, 100), "crate/2")
    quads += crate(-0.38, -0.37, (0.4, 0.4, 1.25), rng.uniform(-0.3, 0.3), (80, 90, 150), "plinth")
    shape = round(height * ppm), round(0.35 * ppm)
    pillar = {
        side: Texture(illuminate(tint(bricks(shape, ppm, rng), (110, 130, 180)), rng))
        for side in ("front", "left", "back", "right")
    }
    return quads + box((0.4 * length, 0.36 * width, 0), (0.35, 0.35, height), 0.0, pillar, "pillar")


def _crop(image: npt.NDArray[np.uint8], aspect: float, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Takes the largest part of an image with the given ratio of width to height, at a random place."""
    height, width = image.shape[:2]
    wide, tall = min(width, round(height * aspect)), min(height, round(width / aspect))
    left, top = rng.integers(width - wide + 1), rng.integers(height - tall + 1)
    return image[top : top + tall, left : left + wide]
