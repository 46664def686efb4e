# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The coarse stage: refinement of poses in windows of the coarse NRE maps."""

from __future__ import annotations

import math

import torch

from nre_ros.device_constants import device_constant
from nre_ros.nre.config import EstimatorConfig
from nre_ros.nre.gnc import INTERMEDIATE_GAIN, Refined, RefinedPose, newton_schedule, refine_in_maps
from nre_ros.nre.problem import PoseProblem

_UNREFINED_RADIUS, _UNREFINED_SIGMA = 4, 1.0
"""Window and scale, in cells, at which a pose that skips refinement gets its covariance."""


def refine_in_coarse_maps(
    problem: PoseProblem, T: torch.Tensor, rows: torch.Tensor, sigmas: tuple[float, ...]
) -> Refined:
    """Refines poses in the coarse maps of some of the points.

    Args:
        problem: Points and maps.
        T: ``[B, 4, 4]`` start poses ``T_cam_map``.
        rows: ``[M]`` indices of the points that take part.
        sigmas: Scales in cells, largest first.
    """
    maps = problem.maps
    found = refine_in_maps(
        T,
        problem.points[rows],
        problem.camera,
        maps.stored,
        maps.rows[rows],
        maps.outlier_loss,
        maps.grid,
        sigmas,
        INTERMEDIATE_GAIN,
    )
    return Refined(*found)


def refine_coarse(problem: PoseProblem, T: torch.Tensor, config: EstimatorConfig) -> tuple[torch.Tensor, float]:
    """Runs the coarse stage.

    Args:
        problem: Points and maps.
        T: ``[B, 4, 4]`` start poses ``T_cam_map``.
        config: Gives the scales.

    Returns:
        The best of the refined poses, ``[4, 4]``, and its cost.
    """
    sigmas = newton_schedule(config.coarse_sigma_max, config.coarse_sigma_min)
    refined = refine_in_coarse_maps(problem, T, _near_image(problem, T, 4 * sigmas[0]), sigmas)
    best = refined.cost.argmin()
    return refined.T[best], float(refined.cost[best])


def unrefined(problem: PoseProblem, T: torch.Tensor) -> RefinedPose:
    """Wraps a pose that skips refinement, with the coarse windows from which its covariance is computed.

    Args:
        problem: Points and maps.
        T: ``[4, 4]`` pose ``T_cam_map``.

    Returns:
        The same pose, with the cost NaN.
    """
    windows = problem.windows(problem.cells(T[None]), _UNREFINED_RADIUS)
    rows = torch.arange(len(problem), device=T.device)
    return RefinedPose(T, math.nan, problem.points, windows, _UNREFINED_SIGMA, rows)


def _near_image(problem: PoseProblem, T: torch.Tensor, margin: float) -> torch.Tensor:
    """Indices of the points that at least one of the poses [B, 4, 4] puts within ``margin`` cells of the image.

    The others, often half of a stack of keyframes, have no weight in the refinement from these poses.
    """
    cells = problem.cells(T)
    height, width = problem.maps.size
    size = device_constant((width, height), cells.dtype, cells.device)
    near = ((cells > -margin) & (cells < size + margin)).all(-1).any(0)
    return torch.nonzero(near)[:, 0]
