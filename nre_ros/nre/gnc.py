"""Refinement by graduated non-convexity and iteratively reweighted least squares.

The smoothed truncated loss of a pose (the paper's section 4.2), with a normalised Gaussian
k_sigma over the cells around each projection p_n and V_n(x) = ln|Omega| - L_n(x) >= 0:

    E_sigma(R, t) = - sum_n sum_x k_sigma(x - p_n) V_n(x)

One step solves (sum_n W_n J_n' J_n + lambda I) delta = sum_n J_n' sum_x w_nx (x - p_n) with
w_nx = k_sigma(x - p_n) V_n(x) / sigma^2, W_n = sum_x w_nx and J_n = d p_n / d (omega, t).

Only a window of cells around each projection takes part: k_sigma is negligible beyond three
sigma, so the cost does not depend on the size of the maps.  The Gaussian is separable, so the
sums over a window are two small matrix products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from nre_ros.features import FeatureGrid
from nre_ros.geometry import Camera, left_update, pose_jacobian, transform

SIGMAS = (
    *(1024.0 * k for k in range(11, 0, -1)), 512.0, 256.0, 128.0, 64.0, 32.0, 16.0, 8.0, 4.0, 2.0,
    1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2,
)
"""The published schedule of scales, in cells."""

_GAIN_RATIO = 0.1
_SMALLEST_GAIN = 1e-5
_LAMBDA_MIN, _LAMBDA_MAX = 1e-8, 1e7
_MAX_STEPS = 30
"""Steps at one sigma; the published loop has no bound, and has not been seen to need more."""


@dataclass(frozen=True)
class LocalMaps:
    """Windows of V = ln|Omega| - L around places in the query: what refinement works on.

    values: [B, N, S, S] or [1, N, S, S] (rows y, columns x), >= 0, 0 outside the image.
    origin: [B, N, 2] or [1, N, 2] cell (x, y) of values[..., 0, 0].
    grid: where the cells lie in the image.
    """

    values: torch.Tensor
    origin: torch.Tensor
    grid: FeatureGrid


@dataclass(frozen=True)
class Refined:
    """T [B, 4, 4] refined poses, cost [B] final E_sigma at the smallest sigma, steps [B] accepted."""

    T: torch.Tensor
    cost: torch.Tensor
    steps: torch.Tensor


def sigma_schedule(sigma_max: float, sigma_min: float) -> tuple[float, ...]:
    """The published scales within [sigma_min, sigma_max], largest first."""
    return tuple(sigma for sigma in SIGMAS if sigma_min <= sigma <= sigma_max)


def cut_windows(loss: torch.Tensor, chance: float, grid: FeatureGrid, cells: torch.Tensor, radius: int) -> LocalMaps:
    """Windows of (2 radius + 1)^2 cells of loss maps [N, H, W] around cells [B, N, 2]."""
    count, height, width = loss.shape
    span = torch.arange(2 * radius + 1, device=loss.device)
    # far projections would overflow the integers; they have no cell in the image anyway
    centre = cells.round().clamp(-2.0 * radius - 2, max(height, width) + 2.0 * radius + 2).long()
    origin = centre - radius
    x = origin[..., 0, None] + span
    y = origin[..., 1, None] + span
    inside = ((y >= 0) & (y < height))[..., :, None] & ((x >= 0) & (x < width))[..., None, :]
    index = y.clamp(0, height - 1)[..., :, None] * width + x.clamp(0, width - 1)[..., None, :]
    base = torch.arange(count, device=loss.device)[:, None, None] * (height * width)
    values = chance - loss.reshape(-1)[index + base]
    return LocalMaps(torch.where(inside, values, torch.zeros_like(values)), origin, grid)


def smoothed_loss(T, points, camera: Camera, maps: LocalMaps, sigma: float, system: bool = True):
    """E_sigma of poses T [B, 4, 4] and, if asked for, the normal equations at them.

    Returns cost [B, N] per point (<= 0); and H [B, 6, 6], g [B, 6] of the step H delta = g.
    """
    pixels, valid, d_project = camera.project(transform(T, points), jacobian=system)
    cells = maps.grid.to_cells(pixels)
    values = maps.values
    span = torch.arange(values.shape[-1], device=values.device, dtype=values.dtype)
    rx = (maps.origin[..., 0, None] - cells[..., 0, None]).to(values.dtype) + span
    ry = (maps.origin[..., 1, None] - cells[..., 1, None]).to(values.dtype) + span
    norm = 1 / (math.sqrt(2 * math.pi) * sigma)
    gx = norm * torch.exp(-rx.square() / (2 * sigma**2))
    gy = norm * torch.exp(-ry.square() / (2 * sigma**2)) * valid[..., None]
    values = values.expand(len(T), -1, -1, -1)
    if not system:
        return -(gy * (values @ gx[..., None])[..., 0]).sum(-1), None, None
    sums = values @ torch.stack([gx, gx * rx], -1)  # [B, N, S, 2]
    mass = (gy * sums[..., 0]).sum(-1)
    pull = torch.stack([(gy * sums[..., 1]).sum(-1), (gy * ry * sums[..., 0]).sum(-1)], -1)
    J = (pose_jacobian(T, points, d_project) / maps.grid.stride).to(points.dtype)
    weight = (mass / sigma**2).to(points.dtype)
    JW = (J * weight[..., None, None]).flatten(1, 2)
    H = JW.mT @ J.flatten(1, 2)
    g = (J.flatten(1, 2).mT @ (pull.to(points.dtype) / sigma**2).flatten(1, 2)[..., None])[..., 0]
    return -mass, H, g


def refine(T, points, camera: Camera, maps, grid: FeatureGrid, sigmas: tuple[float, ...]) -> Refined:
    """Minimises E_sigma from the start poses T [B, 4, 4] for every sigma, largest first.

    points: [N, 3] float64.  maps: ``LocalMaps``, or a function (cells [B, N, 2], sigma) that
    gives those around the projections for a scale; grid: their cells.  All starts move at once, each with its own
    damping; those that are done at a scale wait for the others.
    """
    T = T.clone()
    damping = T.new_full((len(T),), 1.0)
    steps = torch.zeros(len(T), dtype=torch.long, device=T.device)
    cost = T.new_zeros(len(T))
    for sigma in sigmas:
        local = maps if isinstance(maps, LocalMaps) else maps(project_cells(T, points, camera, grid), sigma)
        T, damping, steps, cost = _descend(T, points, camera, local, sigma, damping, steps)
    return Refined(T, cost, steps)


def project_cells(T, points, camera: Camera, grid: FeatureGrid) -> torch.Tensor:
    """Cells [B, N, 2] of the projections; far away for points without one."""
    pixels, valid, _ = camera.project(transform(T, points))
    return torch.where(valid[..., None], grid.to_cells(pixels), pixels.new_tensor(-1e6))


def _descend(T, points, camera, local, sigma, damping, steps):
    """Levenberg-Marquardt at one scale until every start's gain is small."""
    per_point, H, g = smoothed_loss(T, points, camera, local, sigma)
    cost = per_point.sum(-1, dtype=T.dtype)
    active = torch.ones(len(T), dtype=torch.bool, device=T.device)
    eye = torch.eye(6, dtype=T.dtype, device=T.device)
    for _ in range(_MAX_STEPS):
        delta, failed = torch.linalg.solve_ex(H + damping[:, None, None] * eye, g)
        delta = torch.where((failed == 0)[:, None], torch.nan_to_num(delta, 0.0, 0.0, 0.0), torch.zeros_like(delta))
        T_new = left_update(T, delta)
        new_per_point, H_new, g_new = smoothed_loss(T_new, points, camera, local, sigma)
        new_cost = new_per_point.sum(-1, dtype=T.dtype)
        gain = cost - new_cost
        accepted = active & (gain > 0)
        # share of the points' gains that is not eaten up by other points' losses
        change = (per_point - new_per_point).abs().sum(-1, dtype=T.dtype)
        finished = accepted & ((gain <= _GAIN_RATIO * change) | (gain < _SMALLEST_GAIN))
        damping = torch.where(accepted, (damping / 2).clamp_min(_LAMBDA_MIN), torch.where(active, damping * 2, damping))
        steps = steps + accepted
        keep = accepted[:, None]
        T = torch.where(keep[..., None], T_new, T)
        H = torch.where(keep[..., None], H_new, H)
        g = torch.where(keep, g_new, g)
        per_point = torch.where(keep, new_per_point, per_point)
        cost = torch.where(accepted, new_cost, cost)
        active = active & ~finished & (damping < _LAMBDA_MAX)
        if not active.any():
            break
    return T, damping.clamp_max(1.0), steps, cost
