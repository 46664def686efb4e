# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a gallery is made of: textures with mipmaps on rectangles in the map frame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from nre_ros.errors import ImageError


class Texture:
    """An image uint8 BGR [H, W, 3] and its mipmaps (each half the size of the one before).

    Texel i of a row of n is centred at the fraction (i + 0.5) / n of the rectangle's side, at
    every level.  Grey images become BGR.  Raises ``ImageError`` for other shapes or types.
    """

    def __init__(self, image: np.ndarray):
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.size == 0:
            raise ImageError(f"texture must be a uint8 image, got {getattr(image, 'dtype', type(image).__name__)}")
        if image.ndim == 2:
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        if image.ndim != 3 or image.shape[2] != 3:
            raise ImageError(f"texture has shape {image.shape}, expected [H, W] or [H, W, 3]")
        if max(image.shape[:2]) >= 32767:  # cv2.remap addresses its source with 16-bit integers
            raise ImageError(f"texture of {image.shape[1]}x{image.shape[0]} texels is too large (at most 32766 a side)")
        self.image = np.ascontiguousarray(image)

    @cached_property
    def levels(self) -> list[np.ndarray]:
        levels = [self.image]
        while min(levels[-1].shape[:2]) > 2:
            height, width = levels[-1].shape[:2]
            levels.append(cv2.resize(levels[-1], ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA))
        return levels


@dataclass(frozen=True, eq=False)
class Quad:
    """A textured rectangle, seen from its front only.

    corner: [3] map coordinates of the texture's top left corner.
    right, down: [3] the texture's whole width and height as vectors, perpendicular; right x down
        points away from whoever looks at the front (as z does in an optical frame).
    """

    corner: np.ndarray
    right: np.ndarray
    down: np.ndarray
    texture: Texture
    name: str = ""

    def __post_init__(self):
        for field in ("corner", "right", "down"):
            vector = np.asarray(getattr(self, field), dtype=np.float64)
            if vector.shape != (3,) or not np.isfinite(vector).all():
                raise ValueError(f"quad {self.name!r}: {field} is not a finite vector of 3: {vector.tolist()}")
            object.__setattr__(self, field, vector)
        area = np.linalg.norm(np.cross(self.right, self.down))
        if area < 1e-9:
            raise ValueError(f"quad {self.name!r} has no area: right {self.right.tolist()}, down {self.down.tolist()}")

    def point(self, a: float, b: float) -> np.ndarray:
        """Map coordinates [3] of the point at fraction a of the width and b of the height."""
        return self.corner + a * self.right + b * self.down

    def moved(self, T: np.ndarray) -> Quad:
        """The same rectangle after the motion T [4, 4]; it shares the texture."""
        R, t = T[:3, :3], T[:3, 3]
        return Quad(R @ self.corner + t, R @ self.right, R @ self.down, self.texture, self.name)


def box(centre, size, yaw: float, textures: dict[str, Texture], name: str = "box") -> list[Quad]:
    """The faces of an upright box, seen from outside.

    centre: [3] of the bottom face; size: [3] along the box's x, y and up; yaw about z (radians).
    textures: of ``front`` (+x), ``left`` (+y), ``back`` (-x), ``right`` (-y) and ``top``; a face
    without texture is left out.
    """
    x, y = np.array([np.cos(yaw), np.sin(yaw), 0.0]), np.array([-np.sin(yaw), np.cos(yaw), 0.0])
    up = np.array([0.0, 0.0, 1.0])
    centre, (sx, sy, sz) = np.asarray(centre, dtype=np.float64), size
    sides = {"front": (x, y, sx, sy), "left": (y, -x, sy, sx), "back": (-x, -y, sx, sy), "right": (-y, x, sy, sx)}
    quads = []
    for side, (outward, along, depth, width) in sides.items():
        if side in textures:
            # someone who looks against ``outward`` has ``along`` on the right
            corner = centre + outward * depth / 2 - along * width / 2 + up * sz
            quads.append(Quad(corner, along * width, -up * sz, textures[side], f"{name}/{side}"))
    if "top" in textures:
        corner = centre + x * sx / 2 + y * sy / 2 + up * sz
        quads.append(Quad(corner, -y * sy, -x * sx, textures["top"], f"{name}/top"))
    return quads
