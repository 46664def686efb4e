# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Pairs of images with true correspondences: what features are trained on.

The correspondences come from geometry alone: from a homography between two views of a flat photograph, or from the
depth and the poses of two rendered or recorded views.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt
import torch

from nre_ros.errors import TrainingError
from nre_ros.geometry import Camera, invert, transform

DEPTH_TOLERANCE = 0.02
"""A point is visible if the exact depth of the other view agrees with the point's within this fraction."""
_CELL = 8
"""Pixels of the cells of which each proposes its strongest corner."""


@dataclass(frozen=True)
class TrainingPair:
    """Two images, points in the first and their true places in the second.

    Attributes:
        image_a: BGR ``[H, W, 3]``, uint8.
        image_b: BGR ``[H, W, 3]``, uint8.
        pixels_a: ``[N, 2]`` float64 points (x, y).
        pixels_b: ``[N, 2]`` float64 places of the same points in ``image_b``, finite but meaningless where not visible.
        visible: ``[N]`` bool, whether ``image_b`` shows the point.
        source: What the pair was made of, for messages.
        left_out: Recording and image -> why it cannot be read, for images that were found while the pair was made.

    Raises:
        TrainingError: Shapes or types do not fit, a value is not finite, or a visible place lies outside the image.
    """

    image_a: npt.NDArray[np.uint8]
    image_b: npt.NDArray[np.uint8]
    pixels_a: npt.NDArray[np.float64]
    pixels_b: npt.NDArray[np.float64]
    visible: npt.NDArray[np.bool_]
    source: str = ""
    left_out: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, image in (("image_a", self.image_a), ("image_b", self.image_b)):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise TrainingError(
                    f"pair {self.source}: {name} is {image.dtype} {image.shape}, expected uint8 [H, W, 3]"
                )
        count = len(self.pixels_a)
        if self.pixels_a.shape != (count, 2) or self.pixels_b.shape != (count, 2) or self.visible.shape != (count,):
            shapes = self.pixels_a.shape, self.pixels_b.shape, self.visible.shape
            raise TrainingError(f"pair {self.source}: points, places and visibility have shapes {shapes}")
        if not (np.isfinite(self.pixels_a).all() and np.isfinite(self.pixels_b).all()):
            raise TrainingError(f"pair {self.source}: a point or a place is not finite")
        places = ((self.pixels_a, self.image_a), (self.pixels_b[self.visible], self.image_b))
        if not all(inside_image(pixels, image.shape[1], image.shape[0]).all() for pixels, image in places):
            raise TrainingError(f"pair {self.source}: a point or a visible place lies outside its image")


def inside_image(pixels: npt.NDArray[np.float64], width: int, height: int) -> npt.NDArray[np.bool_]:
    """Returns whether places lie within an image, border pixels included to their outer edges.

    Args:
        pixels: ``[N, 2]`` (x, y).
        width: Of the image, pixels.
        height: Of the image, pixels.

    Returns:
        ``[N]`` bool.
    """
    x, y = pixels[:, 0], pixels[:, 1]
    inside: npt.NDArray[np.bool_] = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    return inside


def choose_pixels(
    image: npt.NDArray[np.uint8], count: int, rng: np.random.Generator, usable: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.int64]:
    """Chooses points of an image: half of them anywhere, half on corners, where map points lie.

    Args:
        image: BGR ``[H, W, 3]``, uint8.
        count: Largest number of points.
        rng: Source of the choice.
        usable: ``[H, W]`` pixels that may be chosen; None: all.

    Returns:
        ``[N, 2]`` pixels (x, y), none twice.
    """
    height, width = image.shape[:2]
    usable = np.ones((height, width), np.bool_) if usable is None else usable
    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (0, 0), 1.0)
    response = np.where(usable, cv2.cornerMinEigenVal(grey, 5), -1.0)
    rows, columns = height // _CELL, width // _CELL
    blocks = response[: rows * _CELL, : columns * _CELL].reshape(rows, _CELL, columns, _CELL)
    cells = blocks.swapaxes(1, 2).reshape(rows * columns, _CELL * _CELL)
    best = cells.argmax(1)
    strength = cells[np.arange(len(cells)), best]
    strongest = np.argsort(-strength, kind="stable")[:count]
    strongest = strongest[strength[strongest] > 0]
    corners = rng.permutation(strongest)[: count // 2]
    y = corners // columns * _CELL + best[corners] // _CELL
    x = corners % columns * _CELL + best[corners] % _CELL
    anywhere = np.flatnonzero(usable)
    anywhere = rng.choice(anywhere, min(count - len(corners), len(anywhere)), replace=False)
    chosen = np.unique(np.concatenate([y * width + x, anywhere]))
    return np.stack([chosen % width, chosen // width], axis=-1)


def apply_homography(H: npt.NDArray[np.float64], pixels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Maps places by a homography.

    Args:
        H: ``[3, 3]``.
        pixels: ``[N, 2]`` (x, y) in front of the homography's horizon.

    Returns:
        ``[N, 2]``.
    """
    mapped = np.c_[pixels, np.ones(len(pixels))] @ H.T
    places: npt.NDArray[np.float64] = mapped[:, :2] / mapped[:, 2:]
    return places


def warp_photograph(
    photograph: npt.NDArray[np.uint8], H_photo_view: npt.NDArray[np.float64], size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """Draws a view of a flat photograph; beyond its border the photograph is mirrored.

    Where a pixel of the view covers several of the photograph, it is the average of several samples.

    Args:
        photograph: BGR ``[h, w, 3]``, uint8.
        H_photo_view: ``[3, 3]`` homography from pixels of the view to those of the photograph.
        size: Width and height of the view, pixels.

    Returns:
        BGR ``[H, W, 3]``, uint8.
    """
    width, height = size
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64) - 0.5
    sides = np.linalg.norm(np.roll(mapped := apply_homography(H_photo_view, corners), -1, 0) - mapped, axis=1)
    samples = int(np.clip(np.ceil((sides / (width, height, width, height)).max()), 1, 8))
    # sample j lies at pixel (j + 0.5) / samples - 0.5
    shift = 0.5 / samples - 0.5
    from_samples = np.array([[1 / samples, 0, shift], [0, 1 / samples, shift], [0, 0, 1]])
    view = cv2.warpPerspective(
        photograph,
        H_photo_view @ from_samples,
        (width * samples, height * samples),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    if samples > 1:
        view = cv2.resize(view, size, interpolation=cv2.INTER_AREA)
    return np.asarray(view, dtype=np.uint8)


def homography_pair(
    photograph: npt.NDArray[np.uint8],
    H_photo_a: npt.NDArray[np.float64],
    H_photo_b: npt.NDArray[np.float64],
    size: tuple[int, int],
    points: int,
    rng: np.random.Generator,
    source: str = "photograph",
) -> TrainingPair:
    """Makes a pair of two views of a flat photograph.

    Args:
        photograph: BGR ``[h, w, 3]``, uint8.
        H_photo_a: ``[3, 3]`` homography from pixels of the first view to those of the photograph.
        H_photo_b: ``[3, 3]`` that of the second view.
        size: Width and height of the views, pixels.
        points: Largest number of points.
        rng: Source of the points.
        source: Name of the photograph, for messages.

    Returns:
        The pair; its points lie within the photograph, also between pixels.

    Raises:
        TrainingError: A homography cannot be inverted or is not finite.
    """
    for name, H in (("H_photo_a", H_photo_a), ("H_photo_b", H_photo_b)):
        if H.shape != (3, 3) or not np.isfinite(H).all() or abs(np.linalg.det(H / np.linalg.norm(H))) < 1e-12:
            raise TrainingError(f"pair {source}: {name} is no homography: {H.tolist()}")
    width, height = size
    image_a, image_b = (warp_photograph(photograph, H, size) for H in (H_photo_a, H_photo_b))
    pixels_a = choose_pixels(image_a, points, rng).astype(np.float64)
    pixels_a += rng.uniform(-0.5, 0.5, pixels_a.shape)
    on_photograph = apply_homography(H_photo_a, pixels_a)
    pixels_a = pixels_a[inside_image(on_photograph, photograph.shape[1], photograph.shape[0])]
    mapped = np.c_[pixels_a, np.ones(len(pixels_a))] @ (np.linalg.inv(H_photo_b) @ H_photo_a).T
    # a homography of a surface seen from its front has the sign of its determinant in its third coordinates
    before = mapped[:, 2] * np.sign(np.linalg.det(H_photo_a) * np.linalg.det(H_photo_b)) > 1e-9
    pixels_b = mapped[:, :2] / np.where(before, mapped[:, 2], 1.0)[:, None]
    pixels_b = np.where(before[:, None], pixels_b, 0.0)
    visible = before & inside_image(pixels_b, width, height)
    return TrainingPair(image_a, image_b, pixels_a, pixels_b, visible, source)


@dataclass(frozen=True)
class PosedView:
    """An image with its depth, camera and pose, rendered or recorded.

    Attributes:
        image: BGR ``[H, W, 3]``, uint8.
        depth: ``[H, W]`` metres along the optical axis, 0 where unknown.
        camera: The camera.
        T_map_cam: ``[4, 4]`` pose, optical frame to map.

    Raises:
        TrainingError: Image or depth have another size than the camera's, a depth is negative or not finite, or the
            pose is not finite.
    """

    image: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]
    camera: Camera
    T_map_cam: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        size = self.camera.height, self.camera.width
        if self.image.shape != (*size, 3) or self.depth.shape != size:
            raise TrainingError(
                f"view: image {self.image.shape} and depth {self.depth.shape} are not of the camera's {size}"
            )
        if not (np.isfinite(self.depth).all() and (self.depth >= 0).all()):
            raise TrainingError("view: a depth is negative or not finite (unknown depth is 0)")
        if self.T_map_cam.shape != (4, 4) or not np.isfinite(self.T_map_cam).all():
            raise TrainingError(f"view: the pose is not a finite 4x4 matrix: {self.T_map_cam.tolist()}")


def depth_correspondences(
    a: PosedView, b: PosedView, pixels: npt.NDArray[np.int64], tolerance: float = DEPTH_TOLERANCE
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Finds the places of points of one view in another by depth and poses.

    Args:
        a: The view of the points.
        b: The other view.
        pixels: ``[N, 2]`` pixels of ``a`` (x, y).
        tolerance: Largest difference of the two views' depths of a visible point, as a fraction.

    Returns:
        Places ``[N, 2]`` in ``b``, finite everywhere, and ``[N]`` whether ``b`` shows the point: the depth is known,
        the place lies in the image, and one of the four pixels around it has the point's depth.
    """
    depth = a.depth[pixels[:, 1], pixels[:, 0]].astype(np.float64)
    rays = a.camera.rays(torch.from_numpy(pixels.astype(np.float64)))
    points = rays / rays[:, 2:] * torch.from_numpy(depth)[:, None]
    in_b = transform(torch.from_numpy(invert(b.T_map_cam) @ a.T_map_cam), points)
    projected, front, _ = b.camera.project(in_b)
    places, z = projected.numpy(), in_b[:, 2].numpy()
    width, height = b.camera.width, b.camera.height
    known = (depth > 0) & front.numpy() & np.isfinite(places).all(-1)
    visible = known & inside_image(places, width, height)
    places = np.where(known[:, None], places, 0.0)
    corner = np.floor(np.where(visible[:, None], places, 0.0)).astype(np.int64)
    agrees = np.zeros(len(pixels), np.bool_)
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        x, y = (corner[:, 0] + dx).clip(0, width - 1), (corner[:, 1] + dy).clip(0, height - 1)
        found = b.depth[y, x]
        agrees |= (found > 0) & (np.abs(found - z) <= tolerance * np.abs(z))
    return places, visible & agrees


def posed_pair(
    a: PosedView, b: PosedView, points: int, rng: np.random.Generator, source: str = "views"
) -> TrainingPair:
    """Makes a pair of two views with depth and poses.

    Args:
        a: The view of the points.
        b: The other view.
        points: Largest number of points.
        rng: Source of the points.
        source: Name of the views, for messages.

    Returns:
        The pair; its points lie where the depth is known.
    """
    pixels = choose_pixels(a.image, points, rng, a.depth > 0)
    places, visible = depth_correspondences(a, b, pixels)
    return TrainingPair(a.image, b.image, pixels.astype(np.float64), places, visible, source)
