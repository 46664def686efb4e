# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The parts of a gallery: textures with mipmaps on rectangles in the map frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImageError


class Texture:
    """An image and its mipmaps.

    Texel i of a row of n is centred at the fraction (i + 0.5) / n of the rectangle's side, at every level.

    Args:
        image: BGR [H, W, 3] or grey [H, W], uint8.

    Raises:
        ImageError: The image has another shape or type, or more than 32766 texels a side.
    """

    def __init__(self, image: npt.NDArray[np.uint8]):
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.size == 0:
            raise ImageError(f"texture must be a uint8 image, got {getattr(image, 'dtype', type(image).__name__)}")
        if image.ndim == 2:
            image = np.repeat(image[:, :, None], 3, axis=2)
        if image.ndim != 3 or image.shape[2] != 3:
            raise ImageError(f"texture has shape {image.shape}, expected [H, W] or [H, W, 3]")
        if max(image.shape[:2]) >= 32767:  # cv2.remap addresses its source with 16-bit integers
            raise ImageError(f"texture of {image.shape[1]}x{image.shape[0]} texels is too large (at most 32766 a side)")
        self.image = np.ascontiguousarray(image)

    @cached_property
    def levels(self) -> list[npt.NDArray[np.uint8]]:
        """The image and its mipmaps, each half the size of the one before."""
        levels = [self.image]
        while min(levels[-1].shape[:2]) > 2:
            height, width = levels[-1].shape[:2]
            size = (width + 1) // 2, (height + 1) // 2
            levels.append(np.asarray(cv2.resize(levels[-1], size, interpolation=cv2.INTER_AREA), dtype=np.uint8))
        return levels


@dataclass(frozen=True, eq=False)
class Quad:
    """A textured rectangle that is visible from its front only.

    Attributes:
        corner: Map coordinates [3] of the texture's top left corner, metres.
        right: The texture's whole width as a vector [3], metres.
        down: The texture's whole height as a vector [3], perpendicular to ``right``, metres. The cross product
            right x down points away from a camera that sees the front, as z does in an optical frame.
        texture: What is on it.
        name: For messages and tests.

    Raises:
        ValueError: A vector is not finite, or the rectangle has no area.
    """

    corner: npt.NDArray[np.float64]
    right: npt.NDArray[np.float64]
    down: npt.NDArray[np.float64]
    texture: Texture
    name: str = ""

    def __post_init__(self) -> None:
        for field in ("corner", "right", "down"):
            vector = np.asarray(getattr(self, field), dtype=np.float64)
            if vector.shape != (3,) or not np.isfinite(vector).all():
                raise ValueError(f"quad {self.name!r}: {field} is not a finite vector of 3: {vector.tolist()}")
            object.__setattr__(self, field, vector)
        area = np.linalg.norm(np.cross(self.right, self.down))
        if area < 1e-9:
            raise ValueError(f"quad {self.name!r} has no area: right {self.right.tolist()}, down {self.down.tolist()}")

    def point(self, a: float, b: float) -> npt.NDArray[np.float64]:
        """Computes the map coordinates of a point of the rectangle.

        Args:
            a: Fraction of the width, from the left.
            b: Fraction of the height, from above.

        Returns:
            [3], metres.
        """
        return self.corner + a * self.right + b * self.down

    def moved(self, T: npt.NDArray[np.float64]) -> Quad:
        """Returns the rectangle after a rigid motion; the texture is shared.

        Args:
            T: [4, 4] motion, in the map frame.
        """
        R, t = T[:3, :3], T[:3, 3]
        return Quad(R @ self.corner + t, R @ self.right, R @ self.down, self.texture, self.name)


def box(
    centre: npt.ArrayLike,
    size: tuple[float, float, float],
    yaw: float,
    textures: Mapping[str, Texture],
    name: str = "box",
) -> list[Quad]:
    """Makes the faces of an upright box, visible from outside.

    Args:
        centre: Centre of the bottom face [3], map frame, metres.
        size: Lengths along the box's x, y and z, metres.
        yaw: Rotation about z, radians.
        textures: Textures of ``front`` (+x), ``left`` (+y), ``back`` (-x), ``right`` (-y) and ``top``. A face without
            texture is left out.
        name: Prefix of the faces' names.

    Returns:
        The faces.
    """
    x, y = np.array([np.cos(yaw), np.sin(yaw), 0.0]), np.array([-np.sin(yaw), np.cos(yaw), 0.0])
    up = np.array([0.0, 0.0, 1.0])
    middle, (sx, sy, sz) = np.asarray(centre, dtype=np.float64), size
    sides = {"front": (x, y, sx, sy), "left": (y, -x, sy, sx), "back": (-x, -y, sx, sy), "right": (-y, x, sy, sx)}
    quads = []
    for side, (outward, along, depth, width) in sides.items():
        if side in textures:
            # a camera that looks against ``outward`` has ``along`` on its right
            corner = middle + outward * depth / 2 - along * width / 2 + up * sz
            quads.append(Quad(corner, along * width, -up * sz, textures[side], f"{name}/{side}"))
    if "top" in textures:
        corner = middle + x * sx / 2 + y * sy / 2 + up * sz
        quads.append(Quad(corner, -y * sy, -x * sx, textures["top"], f"{name}/top"))
    return quads
