# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Arguments for every operator of the operator layer, and how far two implementations may be apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import nre_ros.keyframes.retrieval.reranking
import nre_ros.nre.estimator  # noqa: F401 - both modules register their operators
from nre_ros.features import FeatureGrid
from nre_ros.geometry import EQUIDISTANT, RADIAL_TANGENTIAL, Camera, invert, left_update
from nre_ros.nre import fine, gnc, maps
from nre_ros.nre.gnc import LocalMaps

Arguments = dict[str, Any]
Rng = np.random.Generator

SIZE = (320, 240, 262.0, 258.0, 161.0, 118.0)
CAMERAS = {
    "pinhole": Camera(*SIZE),
    "radial 4": Camera(*SIZE, RADIAL_TANGENTIAL, (-0.12, 0.03, 1e-3, -5e-4)),
    "radial 5": Camera(*SIZE, RADIAL_TANGENTIAL, (-0.3, 0.12, -2e-3, 1e-3, -0.02)),
    "radial 8": Camera(*SIZE, RADIAL_TANGENTIAL, (0.3, -0.1, 1.1e-3, -7e-4, 0.02, 0.5, -0.05, 0.01)),
    "radial without distortion": Camera(*SIZE, RADIAL_TANGENTIAL, (0.0, 0.0, 0.0, 0.0)),
    "fisheye": Camera(*SIZE, EQUIDISTANT, (0.05, -0.02, 0.01, -0.003)),
    "fisheye without distortion": Camera(*SIZE, EQUIDISTANT, (0.0, 0.0, 0.0, 0.0)),
}


def scene(rng: Rng, camera: Camera, points: int, poses: int, spread: float = 0.02) -> tuple[torch.Tensor, torch.Tensor]:
    """Poses [B, 4, 4] around a common one, and points [N, 3] that it sees 1 to 5 m ahead; some lie behind or beside it."""
    T = left_update(torch.eye(4, dtype=torch.float64), torch.tensor(rng.normal(size=6)))
    pixels = torch.tensor(rng.uniform(size=(points, 2)) * [camera.width, camera.height])
    seen = camera.rays(pixels) * torch.tensor(rng.uniform(1, 5, size=(points, 1)))
    beside = torch.tensor(rng.uniform(size=(points, 1)) < 0.1)
    seen = torch.where(beside, torch.tensor(rng.normal(size=(points, 3))) * 3, seen)
    around = left_update(T.repeat(poses, 1, 1), torch.tensor(rng.normal(size=(poses, 6))) * spread)
    return around, seen @ T[:3, :3] + torch.tensor(invert(T.numpy()))[:3, 3]


def grid_of(camera: Camera, width: int) -> FeatureGrid:
    """Cells across the image's width."""
    stride = camera.width / max(width, 1)
    return FeatureGrid(stride, (stride - 1) / 2)


def loss_maps_with_dips(rng: Rng, cells: torch.Tensor, height: int, width: int, depth: float = 5.0) -> torch.Tensor:
    """Maps [N, H, W] like those of images: at chance level, with a valley near each cell [N, 2], and other valleys."""
    chance = math.log(height * width + 1)
    centre = cells.numpy() + rng.normal(size=cells.shape) * 0.3
    x, y = np.arange(width), np.arange(height)
    loss = np.full((len(cells), height, width), chance)
    for place, high in ((centre, 1.0), (rng.uniform(size=cells.shape) * [width, height], 0.6)):
        across = np.exp(-((x - place[:, :1]) ** 2) / 3)
        down = np.exp(-((y - place[:, 1:]) ** 2) / 3)
        loss -= depth * high * down[:, :, None] * across[:, None, :]
    loss += rng.normal(size=loss.shape) * 0.02
    return torch.tensor(np.minimum(loss, chance), dtype=torch.float32)


def descriptors(rng: Rng, *shape: int) -> torch.Tensor:
    """Unit vectors along the last axis, float32."""
    return F.normalize(torch.tensor(rng.normal(size=shape), dtype=torch.float32), dim=-1)


# --- arguments of the operators ---------------------------------------------------------------------------


def solve_p3p(rng: Rng, count: int = 40, camera: str = "pinhole") -> Arguments:
    """Triplets of points in view of one camera, the last ones with rays of other points: most of them have no solution."""
    T, points = scene(rng, CAMERAS[camera], 3 * count, 1)
    rays = F.normalize(points @ T[0, :3, :3].T + T[0, :3, 3], dim=-1)
    triplets = rays.reshape(count, 3, 3)
    triplets[count - count // 4 :] = triplets[: count // 4].flip(0)
    return dict(rays=triplets, points=points.reshape(count, 3, 3))


def draw_weighted_triplets(rng: Rng, points: int = 60, count: int = 50) -> Arguments:
    return dict(
        weight=torch.tensor(rng.uniform(size=points) ** 3 + 1e-3), uniform=torch.tensor(rng.uniform(size=(count, 3)))
    )


def project_points(rng: Rng, points: int = 50, poses: int = 4, camera: str = "radial 4") -> Arguments:
    T, points_ = scene(rng, CAMERAS[camera], points, poses)
    return dict(T=T, points=points_, camera=CAMERAS[camera])


def loss_maps(
    rng: Rng,
    counts: tuple[int, ...] = (20, 0, 13),
    channels: int = 24,
    height: int = 12,
    width: int = 17,
    backgrounds: int = 9,
    temperature: float = 0.07,
    rate_stride: int = 3,
) -> Arguments:
    points = sum(counts)
    features = descriptors(rng, height * width, channels)
    described = features[torch.tensor(rng.integers(0, height * width, size=points))]
    return dict(
        descriptors=F.normalize(described + 0.3 * descriptors(rng, points, channels), dim=1),
        counts=counts,
        background=descriptors(rng, len(counts), backgrounds, channels),
        background_cells=tuple(int(cells) for cells in rng.integers(1, 5000, size=len(counts))),
        features=features.T.reshape(channels, height, width).contiguous(),
        temperature=temperature,
        loss=torch.empty(points, height, width),
        match_limit=0.5 * math.log(height * width + 1),
        rate_stride=rate_stride,
    )


def peak_heights(
    rng: Rng, points: int = 40, channels: int = 24, height: int = 12, width: int = 17, temperature: float = 0.07
) -> Arguments:
    arguments = loss_maps(rng, (points,), channels, height, width, temperature=temperature)
    return {name: arguments[name] for name in ("descriptors", "features", "temperature")}


def mean_losses(
    rng: Rng, points: int = 50, poses: int = 9, height: int = 30, width: int = 40, camera: str = "radial 4"
) -> Arguments:
    view, grid = CAMERAS[camera], grid_of(CAMERAS[camera], width)
    T, points_ = scene(rng, view, points, poses, 0.1)
    cells = gnc.project_cells(T[:1], points_, view, grid)[0] if poses else torch.zeros(points, 2)
    rows = torch.tensor(rng.permutation(points))
    loss = torch.empty(points, height, width)
    loss[rows] = loss_maps_with_dips(rng, cells, height, width)
    return dict(
        T=T, points=points_, loss=loss, rows=rows, outlier_loss=maps.outlier_loss(height, width), grid=grid, camera=view
    )


def refine_in_maps(
    rng: Rng,
    points: int = 50,
    poses: int = 3,
    height: int = 30,
    width: int = 40,
    camera: str = "radial 4",
    sigmas: tuple[float, ...] = (3.0, 1.0),
) -> Arguments:
    arguments = mean_losses(rng, points, poses, height, width, camera)
    arguments["T"] = left_update(
        arguments["T"][:1].repeat(poses, 1, 1), torch.tensor(rng.normal(size=(poses, 6))) * 0.005
    )
    return dict(arguments, sigmas=sigmas, gain=1e-6)


def windows(
    rng: Rng, points: int = 50, poses: int = 2, side: int = 17, camera: str = "radial 4", shared: bool = True
) -> Arguments:
    """Windows around the projections of the points, either the same for all poses or each pose's own."""
    radius, (height, width) = side // 2, (60, 80)
    given = mean_losses(rng, points, max(poses, 1), height, width, camera)
    T = left_update(given["T"][:1].repeat(poses, 1, 1), torch.tensor(rng.normal(size=(poses, 6))) * 0.003)
    at = given["T"][:1] if shared else T
    cells = gnc.project_cells(at, given["points"], given["camera"], given["grid"])
    local = gnc.cut_windows(given["loss"], given["outlier_loss"], given["grid"], cells, radius, given["rows"])
    local = LocalMaps(local.values[..., :side, :side].contiguous(), local.origin, local.grid)
    return dict(T=T, points=given["points"], camera=given["camera"], maps=local)


def refine_in_windows(rng: Rng, *sizes: Any, sigmas: tuple[float, ...] = (2.0, 1.0, 0.7), **options: Any) -> Arguments:
    return dict(windows(rng, *sizes, **options), sigmas=sigmas, gain=1e-6)


def window_moments(rng: Rng, *sizes: Any, sigma: float = 1.3, **options: Any) -> Arguments:
    return dict(windows(rng, *sizes, **options), sigma=sigma)


def window_values(
    rng: Rng, points: int = 30, channels: int = 24, half: int = 4, enlarge: int = 2, height: int = 20, width: int = 23
) -> Arguments:
    features = descriptors(rng, height * width, channels).T.reshape(channels, height, width)
    centre = np.c_[rng.integers(half, width - half, size=points), rng.integers(half, height - half, size=points)]
    return dict(
        descriptors=descriptors(rng, points, channels),
        features=features,
        centre=torch.tensor(centre, dtype=torch.int64).reshape(points, 2),
        cubic=fine._cubic_matrix(half, enlarge, torch.float32, torch.device("cpu")),
        half=half,
        temperature=0.08,
        offset=torch.tensor(rng.uniform(2, 6, size=points), dtype=torch.float32),
    )


ARGUMENTS: dict[str, Callable[..., Arguments]] = {
    make.__name__: make
    for make in (
        solve_p3p,
        draw_weighted_triplets,
        project_points,
        loss_maps,
        peak_heights,
        mean_losses,
        refine_in_windows,
        refine_in_maps,
        window_moments,
        window_values,
    )
}
"""Operator's name -> a function that makes its arguments of a random generator and sizes."""
