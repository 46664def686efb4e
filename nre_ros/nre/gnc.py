# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Refinement by graduated non-convexity of the smoothed truncated loss (the paper's section 4.2).

With a normalised Gaussian k_sigma over the cells around each projection p_n and
V_n(x) = ln|Omega| - L_n(x) >= 0, the loss of a pose is

    E_sigma(R, t) = - sum_n sum_x k_sigma(x - p_n) V_n(x)

Its gradient is - sum_n J_n' sum_x w_nx r_nx with r_nx = x - p_n, J_n = d p_n / d (omega, t) and
w_nx = k_sigma(r_nx) V_n(x) / sigma^2, and its curvature in p_n is

    A_n = sum_x w_nx (I - r_nx r_nx' / sigma^2)

The published IRLS puts sum_x w_nx I in the place of A_n: a majorant, whose steps always descend but converge slowly
(over a hundred to the minimum). Here the steps are Newton's, with the eigenvalues of A_n kept positive, and
Levenberg-Marquardt damping against the IRLS matrix, so that a refused step turns into a shorter IRLS step. Both have
the same minima.

Only a window of cells around each projection takes part: k_sigma is negligible beyond three sigma, so that the cost
does not depend on the size of the maps. The Gaussian is separable, so that the sums over a window are two small matrix
products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from nre_ros.features import FeatureGrid
from nre_ros.geometry import Camera, left_update, pose_jacobian, transform
from nre_ros.nre.operators import operator

SIGMAS = (
    *(1024.0 * k for k in range(11, 0, -1)),
    512.0,
    256.0,
    128.0,
    64.0,
    32.0,
    16.0,
    8.0,
    4.0,
    2.0,
    1.0,
    0.9,
    0.8,
    0.7,
    0.6,
    0.5,
    0.4,
    0.3,
    0.2,
)
"""The published schedule of scales, in cells."""

FINAL_GAIN, INTERMEDIATE_GAIN = 1e-6, 1e-4
"""A scale is done when a step gains less than this fraction of the loss; the second is for poses refined again later."""
_FLATTEST = 0.05
"""Smallest eigenvalue of A_n, as a share of the IRLS weight."""
_DAMPING_START, _DAMPING_MIN, _DAMPING_MAX = 1e-3, 1e-6, 1e2
_MAX_STEPS = 25
"""Steps at one sigma."""
_STEPS_BETWEEN_CHECKS = 4
"""On a GPU; a scale takes 3 to 8 steps."""


@dataclass(frozen=True)
class LocalMaps:
    """Windows of V = ln|Omega| - L around places in the query: what refinement works on.

    Attributes:
        values: ``[B, N, S, S]`` or ``[1, N, S, S]`` (rows y, columns x), >= 0, 0 outside the image.
        origin: ``[B, N, 2]`` or ``[1, N, 2]`` cell (x, y) of ``values[..., 0, 0]``.
        grid: Where the cells lie in the image.
    """

    values: torch.Tensor
    origin: torch.Tensor
    grid: FeatureGrid


@dataclass(frozen=True)
class Refined:
    """Refined poses.

    Attributes:
        T: ``[B, 4, 4]``.
        cost: ``[B]`` E_sigma at the smallest sigma.
        steps: ``[B]`` number of accepted steps.
    """

    T: torch.Tensor
    cost: torch.Tensor
    steps: torch.Tensor


@dataclass(frozen=True)
class RefinedPose:
    """One pose after its last stage, with what its covariance is computed from.

    Attributes:
        T: ``[4, 4]`` pose ``T_cam_map``.
        cost: Smoothed loss E_sigma, NaN where nothing was refined.
        points: ``[M, 3]`` the points that took part.
        windows: Their loss windows.
        sigma: Scale of the last refinement, in cells.
        rows: ``[M]`` indices of these points among all.
    """

    T: torch.Tensor
    cost: float
    points: torch.Tensor
    windows: LocalMaps
    sigma: float
    rows: torch.Tensor


def sigma_schedule(sigma_max: float, sigma_min: float) -> tuple[float, ...]:
    """Returns the published scales within a range, largest first.

    Args:
        sigma_max: Largest scale, in cells.
        sigma_min: Smallest scale, in cells.
    """
    return tuple(sigma for sigma in SIGMAS if sigma_min <= sigma <= sigma_max)


def newton_schedule(sigma_max: float, sigma_min: float) -> tuple[float, ...]:
    """Returns the published scales within a range that Newton's method needs, largest first.

    These are the scales down to 1 cell and the smallest one. Newton's steps need no scale between these two.

    Args:
        sigma_max: Largest scale, in cells.
        sigma_min: Smallest scale, in cells.
    """
    published = sigma_schedule(sigma_max, sigma_min)
    return tuple(sigma for sigma in published[:-1] if sigma >= 1.0) + published[-1:]


def cut_windows(
    loss: torch.Tensor,
    outlier_loss: float,
    grid: FeatureGrid,
    cells: torch.Tensor,
    radius: int,
    rows: torch.Tensor | None = None,
) -> LocalMaps:
    """Cuts windows of (2 radius + 1)^2 cells out of loss maps.

    Args:
        loss: ``[N, H, W]``.
        outlier_loss: ln|Omega| of the maps.
        grid: Where their cells lie in the image.
        cells: ``[B, M, 2]`` centres of the windows (x, y).
        radius: In cells.
        rows: ``[M]`` indices of the maps; None: all N of them.
    """
    count, height, width = loss.shape
    rows = torch.arange(count, device=loss.device) if rows is None else rows
    span = torch.arange(2 * radius + 1, device=loss.device)
    # far projections would overflow the integers; they have no cell in the image anyway
    centre = cells.round().clamp(-2.0 * radius - 2, max(height, width) + 2.0 * radius + 2).long()
    origin = centre - radius
    x = origin[..., 0, None] + span
    y = origin[..., 1, None] + span
    inside = ((y >= 0) & (y < height))[..., :, None] & ((x >= 0) & (x < width))[..., None, :]
    index = y.clamp(0, height - 1)[..., :, None] * width + x.clamp(0, width - 1)[..., None, :]
    base = rows[:, None, None] * (height * width)
    values = outlier_loss - loss.reshape(-1)[index + base]
    return LocalMaps(torch.where(inside, values, torch.zeros_like(values)), origin, grid)


@operator
def window_moments(
    T: torch.Tensor, points: torch.Tensor, camera: Camera, maps: LocalMaps, sigma: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sums the weighted residuals over each point's window.

    Args:
        T: ``[B, 4, 4]`` poses ``T_cam_map``.
        points: ``[N, 3]`` in the map.
        camera: Intrinsics of the query.
        maps: Windows of the points.
        sigma: Scale, in cells.

    Returns:
        Moments ``[B, N, 3, 3]``, element (j, i) = sum_x k_sigma(r) V(x) r_y^j r_x^i; the Jacobians ``[B, N, 2, 6]`` of
        the cells by the left increment; and the pixels ``[B, N, 2]``.
    """
    pixels, valid, d_project = camera.project(transform(T, points), jacobian=True)
    assert d_project is not None
    J = pose_jacobian(T, points, d_project) / maps.grid.stride
    rx, ry, gx, gy = _gaussians(pixels, valid, maps, sigma)
    x_powers = torch.stack([gx, gx * rx, gx * rx * rx], -1)
    y_powers = torch.stack([gy, gy * ry, gy * ry * ry], -2)
    return y_powers @ (maps.values @ x_powers), J, pixels


def _gaussians(
    pixels: torch.Tensor, valid: torch.Tensor, maps: LocalMaps, sigma: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Residuals and Gaussian weights along the columns and rows of each window, [B, N, S] each."""
    cells = maps.grid.to_cells(pixels)
    dtype = maps.values.dtype
    span = torch.arange(maps.values.shape[-1], device=cells.device, dtype=dtype)
    rx = (maps.origin[..., 0, None] - cells[..., 0, None]).to(dtype) + span
    ry = (maps.origin[..., 1, None] - cells[..., 1, None]).to(dtype) + span
    norm = 1 / (math.sqrt(2 * math.pi) * sigma)
    gx = norm * torch.exp(rx.square() / (-2 * sigma**2))
    gy = norm * torch.exp(ry.square() / (-2 * sigma**2)) * valid[..., None]
    return rx, ry, gx, gy


def smoothed_loss(T: torch.Tensor, points: torch.Tensor, camera: Camera, maps: LocalMaps, sigma: float) -> torch.Tensor:
    """Computes E_sigma per point.

    Args:
        T: ``[B, 4, 4]`` poses ``T_cam_map``.
        points: ``[N, 3]`` in the map.
        camera: Intrinsics of the query.
        maps: Windows of the points.
        sigma: Scale, in cells.

    Returns:
        ``[B, N]``, at most 0, in the dtype of the maps.
    """
    moments, _, _ = window_moments(T, points, camera, maps, sigma)
    return -moments[..., 0, 0]


_Model = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""Cost [B], gradient [B, 6], Newton and IRLS matrices [B, 6, 6]."""


def _expand(T: torch.Tensor, points: torch.Tensor, camera: Camera, maps: LocalMaps, sigma: float) -> _Model:
    """Second-order model of E_sigma at T."""
    moments, J, _ = window_moments(T, points, camera, maps, sigma)
    mass = moments[..., 0, 0]
    m = moments.to(points.dtype) / sigma**2
    pull = torch.stack([m[..., 0, 1], m[..., 1, 0]], -1)
    newton = curvature(moments, sigma, smallest=_FLATTEST).to(points.dtype)
    flat = J.flatten(1, 2)
    gradient = -(flat.mT @ pull.flatten(1, 2)[..., None])[..., 0]
    H = flat.mT @ (newton @ J).flatten(1, 2)
    majorant = flat.mT @ (m[..., 0, 0, None, None] * J).flatten(1, 2)
    return -mass.sum(-1, dtype=points.dtype), gradient, H, majorant


def curvature(moments: torch.Tensor, sigma: float, smallest: float | None = None) -> torch.Tensor:
    """Computes A_n from the moments.

    Args:
        moments: ``[..., 3, 3]`` from ``window_moments``.
        sigma: Scale, in cells.
        smallest: Lower bound of the eigenvalues, as a fraction of the IRLS weight; None: no bound.

    Returns:
        ``[..., 2, 2]``.
    """
    weight = moments[..., 0, 0] / sigma**2
    xx, xy, yy = (moments[..., j, i] / sigma**4 for j, i in ((0, 2), (1, 1), (2, 0)))
    mean = weight - (xx + yy) / 2
    difference = (yy - xx) / 2
    if smallest is not None:
        spread = (difference.square() + xy.square()).sqrt()
        high = (mean + spread).maximum(smallest * weight)
        low = (mean - spread).maximum(smallest * weight)
        mean = (high + low) / 2
        shrink = (high - low) / (2 * spread).clamp_min(1e-30)
        difference, xy = difference * shrink, xy * shrink
    return torch.stack([mean + difference, -xy, -xy, mean - difference], -1).reshape(*mean.shape, 2, 2)


def refine(
    T: torch.Tensor,
    points: torch.Tensor,
    camera: Camera,
    maps: LocalMaps | Callable[[torch.Tensor, float], LocalMaps],
    grid: FeatureGrid,
    sigmas: tuple[float, ...],
    gain: float = FINAL_GAIN,
) -> Refined:
    """Minimises E_sigma from several start poses, scale after scale.

    All starts move at once, each with its own damping. Starts that are done at a scale wait for the others.

    Args:
        T: ``[B, 4, 4]`` start poses ``T_cam_map``.
        points: ``[N, 3]`` float64, in the map.
        camera: Intrinsics of the query.
        maps: Windows of the points, or a function (cells ``[B, N, 2]``, sigma) that cuts the windows around the
            projections for a scale.
        grid: Where the windows' cells lie in the image.
        sigmas: Scales in cells, largest first.
        gain: A scale is done when a step gains less than this fraction of the loss.
    """
    if isinstance(maps, LocalMaps):
        return Refined(*refine_in_windows(T, points, camera, maps, sigmas, gain))
    return _refine_scale_by_scale(T, points, camera, maps, grid, sigmas, gain)


@operator
def refine_in_windows(
    T: torch.Tensor, points: torch.Tensor, camera: Camera, maps: LocalMaps, sigmas: Sequence[float], gain: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Minimises E_sigma in windows that stay where they are.

    Args:
        T: ``[B, 4, 4]`` float64 start poses ``T_cam_map``.
        points: ``[N, 3]`` float64, in the map.
        camera: Intrinsics of the query.
        maps: Windows of the points.
        sigmas: Scales in cells, largest first.
        gain: A scale is done when a step gains less than this fraction of the loss.

    Returns:
        Poses ``[B, 4, 4]``, costs ``[B]`` at the smallest scale, and numbers of accepted steps ``[B]``.
    """
    found = _refine_scale_by_scale(T, points, camera, lambda cells, sigma: maps, maps.grid, sigmas, gain)
    return found.T, found.cost, found.steps


@operator
def refine_in_maps(
    T: torch.Tensor,
    points: torch.Tensor,
    camera: Camera,
    loss: torch.Tensor,
    rows: torch.Tensor,
    outlier_loss: float,
    grid: FeatureGrid,
    sigmas: Sequence[float],
    gain: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Minimises E_sigma in windows that are cut out of loss maps, at each scale around the projections.

    Args:
        T: ``[B, 4, 4]`` float64 start poses ``T_cam_map``.
        points: ``[N, 3]`` float64, in the map.
        camera: Intrinsics of the query.
        loss: ``[M, H, W]`` loss maps.
        rows: ``[N]`` int64 which of the maps are those of the points.
        outlier_loss: ln|Omega| of the maps.
        grid: Where the maps' cells lie in the image.
        sigmas: Scales in cells, largest first. A window reaches ceil(3 sigma) + 1 cells.
        gain: A scale is done when a step gains less than this fraction of the loss.

    Returns:
        Poses ``[B, 4, 4]``, costs ``[B]`` at the smallest scale, and numbers of accepted steps ``[B]``.
    """

    def windows(cells: torch.Tensor, sigma: float) -> LocalMaps:
        return cut_windows(loss, outlier_loss, grid, cells, math.ceil(3 * sigma) + 1, rows)

    found = _refine_scale_by_scale(T, points, camera, windows, grid, sigmas, gain)
    return found.T, found.cost, found.steps


def _refine_scale_by_scale(
    T: torch.Tensor,
    points: torch.Tensor,
    camera: Camera,
    maps: Callable[[torch.Tensor, float], LocalMaps],
    grid: FeatureGrid,
    sigmas: Sequence[float],
    gain: float,
) -> Refined:
    """``refine`` in torch."""
    steps = torch.zeros(len(T), dtype=torch.long, device=T.device)
    cost = T.new_zeros(len(T))
    for sigma in sigmas:
        local = maps(project_cells(T, points, camera, grid), sigma)
        T, cost, accepted = _descend(T, *_with_values(points, local), sigma=sigma, camera=camera, gain=gain)
        steps = steps + accepted
    return Refined(T, cost, steps)


def _with_values(points: torch.Tensor, maps: LocalMaps) -> tuple[torch.Tensor, LocalMaps]:
    """The points whose windows are not all zero, and their windows; the others have no weight at any pose.

    On a GPU all points are kept: counting the others would make it wait, and all of them take the same time.
    """
    if maps.values.is_cuda:
        return points, maps
    held = torch.nonzero(maps.values.amax((0, 2, 3)) > 0)[:, 0]
    return points[held], LocalMaps(maps.values[:, held], maps.origin[:, held], maps.grid)


def project_cells(T: torch.Tensor, points: torch.Tensor, camera: Camera, grid: FeatureGrid) -> torch.Tensor:
    """Projects points into cells.

    Args:
        T: ``[B, 4, 4]`` poses ``T_cam_map``.
        points: ``[N, 3]`` in the map.
        camera: Intrinsics of the query.
        grid: Where the cells lie in the image.

    Returns:
        ``[B, N, 2]`` cells (x, y); a far one for points behind the camera.
    """
    pixels, valid = project_points(T, points, camera)
    return torch.where(valid[..., None], grid.to_cells(pixels), -1e6)


@operator
def project_points(T: torch.Tensor, points: torch.Tensor, camera: Camera) -> tuple[torch.Tensor, torch.Tensor]:
    """Projects points of the map.

    Args:
        T: ``[..., 4, 4]`` poses ``T_cam_map``.
        points: ``[N, 3]`` in the map.
        camera: Intrinsics of the image.

    Returns:
        Pixels ``[..., N, 2]``, and ``[..., N]`` whether the point lies in front of the camera and in its field of view
        (see ``Camera.project``).
    """
    pixels, valid, _ = camera.project(transform(T, points))
    return pixels, valid


def _descend(
    T: torch.Tensor, points: torch.Tensor, maps: LocalMaps, camera: Camera, sigma: float, gain: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Minimises E_sigma at one scale; poses, costs [B] and accepted steps [B]."""
    model = _expand(T, points, camera, maps, sigma)
    damping = T.new_full((len(T),), _DAMPING_START)
    active = torch.ones(len(T), dtype=torch.bool, device=T.device)
    steps = torch.zeros(len(T), dtype=torch.long, device=T.device)
    # asking a GPU whether all are done makes it wait: there, a few spare steps are cheaper
    asked_after = _STEPS_BETWEEN_CHECKS if active.is_cuda else 1
    for step in range(1, _MAX_STEPS + 1):
        T_new = left_update(T, _step(model, damping))
        new_model = _expand(T_new, points, camera, maps, sigma)
        gained = model[0] - new_model[0]
        accepted = active & (gained > 0)
        finished = gained.abs() <= gain * model[0].abs()
        damping = torch.where(accepted, (damping * 0.2).clamp_min(_DAMPING_MIN), damping * 10)
        T = torch.where(accepted[:, None, None], T_new, T)
        model = _where(accepted, new_model, model)
        steps = steps + accepted
        active = active & ~finished & (damping < _DAMPING_MAX)
        if step % asked_after == 0 and not bool(active.any()):
            break
    return T, model[0], steps


def _where(accepted: torch.Tensor, new: _Model, old: _Model) -> _Model:
    """The new model of the accepted poses [B], the old one of the others."""
    cost, gradient, newton, irls = (
        torch.where(accepted.reshape(-1, *[1] * (b.dim() - 1)), a, b) for a, b in zip(new, old)
    )
    return cost, gradient, newton, irls


def _step(model: _Model, damping: torch.Tensor) -> torch.Tensor:
    """The damped step [B, 6]; zero where the system cannot be solved (no point is in view)."""
    _, gradient, H, majorant = model
    damped = H + damping[:, None, None] * majorant
    # angles and lengths have scales of their own
    scale = damped.diagonal(dim1=-2, dim2=-1).clamp_min(1e-30).rsqrt()
    system = scale[:, :, None] * damped * scale[:, None, :] + 1e-12 * torch.eye(6, dtype=H.dtype, device=H.device)
    delta, failed = torch.linalg.solve_ex(system, -(scale * gradient)[..., None])
    delta = torch.nan_to_num(scale * delta[..., 0], nan=0.0, posinf=0.0, neginf=0.0)
    return torch.where((failed == 0)[:, None], delta, torch.zeros_like(delta))
