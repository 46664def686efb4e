# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Renders exact images and depths of textured rectangles, for any camera model.

A rectangle ``corner + a right + b down`` and the ray (x, y, 1) of the camera frame meet where

    (a, b, 1) / z = M^-1 (x, y, 1),   M = [right down corner] in the camera frame,

so inverse depth, and texture coordinates times inverse depth, are linear in the normalised coordinates (x, y) (Blinn,
"Hyperbolic interpolation", 1992). The rays come from ``Camera.rays``, hence the image is exact under lens distortion
too. A pixel is the average of supersample^2 rays, each a trilinear mipmap sample (Williams 1983); depth is that of the
ray through the pixel's centre. Interval bounds exclude rectangles from whole tiles of rays (hierarchical visibility),
which changes nothing but speed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
import torch

from nre_ros.errors import PoseError
from nre_ros.gallery.scene import Quad, Texture
from nre_ros.geometry import MIN_DEPTH, Camera, invert

TILE = 64
"""Side of the square tiles, in rays, for which visibility is bounded first."""

RAY_TOLERANCE = 0.01
"""Pixels: a ray that does not project back to its pixel within this lies beyond the lens model."""


@dataclass(frozen=True)
class Rendering:
    """One rendered view with its ground truth.

    Attributes:
        image: BGR [H, W, 3], uint8.
        depth: [H, W] float32, metres along the optical axis, 0 where there is nothing.
        labels: [H, W] int16, index of the rectangle at the pixel's centre, -1 where there is none.
        camera: The camera.
        T_map_cam: Pose [4, 4], optical frame to map.
    """

    image: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int16]
    camera: Camera
    T_map_cam: npt.NDArray[np.float64]


class Gallery:
    """A world of textured rectangles in the map frame.

    Args:
        quads: The rectangles, from ``room.build_room``.
        background: BGR where there is no rectangle.
    """

    def __init__(self, quads: list[Quad], background: tuple[int, int, int] = (0, 0, 0)):
        self.quads = list(quads)
        self.background = background

    def render(self, camera: Camera, T_map_cam: npt.NDArray[np.float64], supersample: int = 2) -> Rendering:
        """Renders the view of a camera.

        Args:
            camera: The camera.
            T_map_cam: Its pose [4, 4], optical frame to map.
            supersample: Rays a pixel in each direction.

        Returns:
            Image and depth.

        Raises:
            PoseError: The pose is no rigid motion.
            ValueError: ``supersample`` is below 1.
        """
        T_map_cam = _checked_pose(T_map_cam)
        if supersample < 1:
            raise ValueError(f"supersample must be at least 1, got {supersample}")
        planes, index = self._planes(invert(T_map_cam))
        depth, labels = _depth(planes, index, _ray_grid(camera, 1))
        textures = [self.quads[i].texture for i in index]
        image = _paint(planes, textures, _ray_grid(camera, supersample), self.background)
        if supersample > 1:
            reduced = cv2.resize(image, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
            image = reduced.astype(np.uint8, copy=False)
        return Rendering(image, depth, labels, camera, T_map_cam)

    def render_depth(self, camera: Camera, T_map_cam: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Renders the depth of a view, without its image.

        Args:
            camera: The camera.
            T_map_cam: Its pose [4, 4], optical frame to map.

        Returns:
            [H, W] metres along the optical axis, 0 where there is nothing.

        Raises:
            PoseError: The pose is no rigid motion.
        """
        planes, index = self._planes(invert(_checked_pose(T_map_cam)))
        return _depth(planes, index, _ray_grid(camera, 1))[0]

    def _planes(self, T_cam_map: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]:
        """Computes M^-1 [Q, 3, 3] (float32) of the rectangles that face the camera, and their indices [Q]."""
        if not self.quads:
            return np.zeros((0, 3, 3), np.float32), np.zeros(0, np.int16)
        columns = np.array([[quad.right, quad.down, quad.corner] for quad in self.quads])
        M = np.swapaxes(columns @ T_cam_map[:3, :3].T, -1, -2)
        M[:, :, 2] += T_cam_map[:3, 3]
        # corner . (right x down): positive in front of the rectangle, 0 in its plane
        area = np.linalg.norm(np.cross(columns[:, 0], columns[:, 1]), axis=-1)
        index = np.flatnonzero(np.linalg.det(M) > MIN_DEPTH * area)
        return np.linalg.inv(M[index]).astype(np.float32), index.astype(np.int16)


def _checked_pose(matrix: npt.ArrayLike) -> npt.NDArray[np.float64]:
    T = np.asarray(matrix, dtype=np.float64)
    if T.shape != (4, 4) or not np.isfinite(T).all():
        raise PoseError(f"camera pose: not a finite 4x4 matrix: {T.tolist()}")
    if not np.allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-6) or np.linalg.det(T[:3, :3]) < 0:
        raise PoseError(f"camera pose: not a rotation matrix: {T[:3, :3].tolist()}")
    return T


@dataclass(frozen=True)
class _RayGrid:
    """Rays (x, y, 1) of an image.

    Attributes:
        x: [H, W] float32.
        y: [H, W] float32.
        valid: [H, W] bool, or None when all rays exist.
        half_log_area: [H, W] float32, half the binary logarithm of the area of (x, y) that belongs to one ray.
        bounds: [4, rows, columns] float32, centre x, centre y, half extent x and half extent y of every tile.
    """

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_] | None
    half_log_area: npt.NDArray[np.float32]
    bounds: npt.NDArray[np.float32]


@lru_cache(maxsize=12)
def _ray_grid(camera: Camera, supersample: int) -> _RayGrid:
    def positions(size: int) -> torch.Tensor:
        return (torch.arange(size * supersample, dtype=torch.float64) + 0.5) / supersample - 0.5

    u, v = positions(camera.width), positions(camera.height)
    rows = []
    for part in v.split(TILE):  # in bands, since the Jacobians are large
        pixels = torch.stack(torch.meshgrid(u, part, indexing="xy"), dim=-1)
        rays = camera.rays(pixels, iterations=6)  # those that have not converged are not valid
        rays = rays / rays[..., 2:]
        back, front, jacobian = camera.project(rays, jacobian=True)
        assert jacobian is not None
        valid = front & ((back - pixels).norm(dim=-1) < RAY_TOLERANCE)
        area = torch.linalg.det(jacobian[..., :2]).abs().clamp_min(1e-12).reciprocal() / supersample**2
        rows.append([rays[..., 0] * valid, rays[..., 1] * valid, valid, 0.5 * torch.log2(area)])
    x, y, valid, half_log_area = (torch.cat(parts).numpy() for parts in zip(*rows))
    tiles = [_tile_extremes(array) for array in (x, y)]
    centres = [(high + low) / 2 for low, high in tiles]
    # slightly too large: float32 must not make a tile lose a rectangle
    extents = [(high - low) / 2 + 1e-5 * (1 + np.abs(high) + np.abs(low)) for low, high in tiles]
    return _RayGrid(
        x.astype(np.float32),
        y.astype(np.float32),
        None if valid.all() else valid,
        half_log_area.astype(np.float32),
        np.stack([*centres, *extents]).astype(np.float32),
    )


def _tile_extremes(array: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Computes minimum and maximum of every tile."""
    starts = [np.arange(0, size, TILE) for size in array.shape]
    low = np.minimum.reduceat(np.minimum.reduceat(array, starts[0], 0), starts[1], 1)
    high = np.maximum.reduceat(np.maximum.reduceat(array, starts[0], 0), starts[1], 1)
    return low, high


def _candidates(planes: npt.NDArray[np.float32], grid: _RayGrid) -> npt.NDArray[np.bool_]:
    """Bounds visibility: [Q, rows, columns] whether a rectangle may be visible in a tile."""
    a, b, w = planes[:, 0], planes[:, 1], planes[:, 2]
    functions = np.stack([a, w - a, b, w - b, w], axis=1)  # all are >= 0 on the rectangle
    x, y, half_x, half_y = grid.bounds
    c = functions[..., None, None]
    centre = c[:, :, 0] * x + c[:, :, 1] * y + c[:, :, 2]
    extent = np.abs(c[:, :, 0]) * half_x + np.abs(c[:, :, 1]) * half_y
    touched = (centre + extent >= 0).all(axis=1)
    covered = (centre - extent >= 0).all(axis=1)
    nearest, farthest = (centre + extent)[:, 4], (centre - extent)[:, 4]
    shadow = np.where(covered, farthest, 0).max(axis=0, initial=0)
    visible: npt.NDArray[np.bool_] = touched & (nearest >= shadow)
    return visible


@dataclass
class _Patch:
    """The part of a rectangle in one band of rays: its columns, and a / z, b / z, w = 1 / z there."""

    quad: int
    columns: slice
    a: npt.NDArray[np.float32]
    b: npt.NDArray[np.float32]
    w: npt.NDArray[np.float32]

    def narrowed(self, start: int, stop: int) -> _Patch:
        """Returns the part between two columns of the patch."""
        first = self.columns.start
        cut = (np.ascontiguousarray(array[:, start:stop]) for array in (self.a, self.b, self.w))
        return _Patch(self.quad, slice(first + start, first + stop), *cut)


def _bands(
    planes: npt.NDArray[np.float32], grid: _RayGrid
) -> Iterator[tuple[slice, npt.NDArray[np.int16], npt.NDArray[np.float32], list[_Patch]]]:
    """Finds the nearest rectangle of every ray, in bands of TILE rows.

    Yields:
        The rows of the band, the index [h, W] of the nearest rectangle (-1: none), its inverse depth [h, W], and the
        patches of all rectangles in the band.
    """
    candidates = _candidates(planes, grid)
    height, width = grid.x.shape
    for band in range(candidates.shape[1]):
        rows = slice(band * TILE, min((band + 1) * TILE, height))
        seen = np.full((rows.stop - rows.start, width), -1, np.int16)
        nearest = np.full(seen.shape, 1e-9, np.float32)
        patches = []
        for quad in np.flatnonzero(candidates[:, band].any(axis=-1)):
            tiles = np.flatnonzero(candidates[quad, band])
            columns = slice(tiles[0] * TILE, min((tiles[-1] + 1) * TILE, width))
            x, y = grid.x[rows, columns], grid.y[rows, columns]
            a, b, w = (_linear(coefficients, x, y) for coefficients in planes[quad])
            inside = np.minimum(np.minimum(a, w - a), np.minimum(b, w - b)) >= 0
            inside &= w > nearest[:, columns]
            np.copyto(nearest[:, columns], w, where=inside)
            np.copyto(seen[:, columns], quad, where=inside)
            patches.append(_Patch(int(quad), columns, a, b, w))
        if grid.valid is not None:
            seen[~grid.valid[rows]] = -1
        yield rows, seen, nearest, patches


def _linear(
    coefficients: npt.NDArray[np.float32], x: npt.NDArray[np.float32], y: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    result = x * coefficients[0]
    result += y * coefficients[1]
    result += coefficients[2]
    return result


def _depth(
    planes: npt.NDArray[np.float32], index: npt.NDArray[np.int16], grid: _RayGrid
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]:
    """Computes depth float32 [H, W] and the rectangles' indices int16 [H, W] at the rays."""
    depth = np.zeros(grid.x.shape, np.float32)
    labels = np.full(grid.x.shape, -1, np.int16)
    for rows, seen, w, _ in _bands(planes, grid):
        found = seen >= 0
        np.divide(1, w, out=depth[rows], where=found)
        labels[rows][found] = index[seen[found]]
    return depth, labels


def _paint(
    planes: npt.NDArray[np.float32], textures: list[Texture], grid: _RayGrid, background: tuple[int, int, int]
) -> npt.NDArray[np.uint8]:
    """Computes colours uint8 [H, W, 3] at the rays."""
    image = np.zeros((*grid.x.shape, 3), np.uint8)
    areas = np.abs(np.linalg.det(planes.astype(np.float64)))
    for rows, seen, _, patches in _bands(planes, grid):
        for patch in patches:
            shown = np.flatnonzero((seen[:, patch.columns] == patch.quad).any(axis=0))
            if shown.size:
                patch = patch.narrowed(shown[0], shown[-1] + 1)
                mask = (seen[:, patch.columns] == patch.quad).view(np.uint8)
                half_log_area = grid.half_log_area[rows, patch.columns]
                colours = _sample(patch, areas[patch.quad], textures[patch.quad], mask, half_log_area)
                cv2.copyTo(colours, mask, image[rows, patch.columns])
        if any(background) and (seen < 0).any():
            image[rows][seen < 0] = background
    return image


def _sample(
    patch: _Patch, area: float, texture: Texture, mask: npt.NDArray[np.uint8], half_log_area: npt.NDArray[np.float32]
) -> npt.NDArray[np.uint8]:
    """Takes trilinear mipmap samples uint8 [h, w, 3]; meaningless where the mask is 0.

    The level is half the binary logarithm of the texels that a ray covers: the Jacobian of (a, b) with respect to
    (x, y) has the determinant ``area`` z^3.
    """
    z = (1 / np.where(mask, patch.w, np.float32(1))).astype(np.float32, copy=False)
    height, width = texture.image.shape[:2]
    level: npt.NDArray[np.float32] = cv2.log(z).astype(np.float32, copy=False)
    level *= np.float32(1.5 / np.log(2))
    level += half_log_area
    level += np.float32(0.5 * np.log2(area * width * height))
    low, high, _, _ = cv2.minMaxLoc(level, mask)
    last = len(texture.levels) - 1
    first, final = (int(np.clip(bound, 0, last)) for bound in (np.floor(low), np.ceil(high)))
    a, b = patch.a * z, patch.b * z
    colours = _remap(texture.levels[first], a, b)
    for i in range(first + 1, final + 1):
        weight = np.clip(level - (i - 1), 0, 1)
        blended = cv2.blendLinear(colours, _remap(texture.levels[i], a, b), 1 - weight, weight)
        colours = blended.astype(np.uint8, copy=False)
    return colours


def _remap(
    image: npt.NDArray[np.uint8], a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]
) -> npt.NDArray[np.uint8]:
    height, width = image.shape[:2]
    # fixed-point maps (1/32 texel) take half the time of float ones
    whole, fraction = cv2.convertMaps(a * width - 0.5, b * height - 0.5, cv2.CV_16SC2)
    sampled = cv2.remap(image, whole, fraction, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return sampled.astype(np.uint8, copy=False)
