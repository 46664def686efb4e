# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The published consensus and refinement, written from their description.

These are the steps of the published code of Germain, Lepetit and Bourmaud (CVPR 2021): one P3P call after the other,
one scoring call for each solution, and IRLS over every cell of every map that is below ln|Omega|. The package does not
use them; it is compared with them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F

LAMBDA_START, LAMBDA_MIN, LAMBDA_MAX, ETA, SMALLEST_GAIN = 1e-5, 1e-8, 1e7, 0.1, 1e-5


@dataclass(frozen=True)
class Problem:
    """loss [N, H, W], entropy [N], points [N, 3] float64, K [3, 3] float64 of the feature grid, ln|Omega|."""

    loss: torch.Tensor
    entropy: torch.Tensor
    points: torch.Tensor
    K: torch.Tensor
    chance: float

    def best(self, share: float = 0.25) -> torch.Tensor:
        """Indices of the share of points with the lowest losses."""
        return torch.argsort(self.loss.flatten(1).amin(1))[: int(share * len(self.loss))]


def total_loss(loss, points, R, t, K, chance) -> torch.Tensor:
    """Sum of the bilinear losses [M, H, W] at the projections; the nearest cell where they lie outside.

    Points in front of the camera are picked with a mask, and their maps with it: a copy of all
    maps a call, which is what the published code spends most of its time on.
    """
    cells, front = _project(points, R, t, K)
    costs = cells.new_full((len(points),), chance)
    costs[front] = _interpolate(loss[front], cells[front])
    return costs.sum()


def total_loss_without_copy(loss, points, R, t, K, chance) -> torch.Tensor:
    """The same sum, the maps left where they are: the published algorithm at its best."""
    cells, front = _project(points, R, t, K)
    return torch.where(front, _interpolate(loss, cells), cells.new_tensor(chance)).sum()


def _project(points, R, t, K):
    seen = points @ R.T + t
    cells = (seen / seen[:, 2:].clamp_min(1e-4)) @ K.T
    return cells[:, :2], seen[:, 2] >= 1e-4


def _interpolate(loss, cells):
    size = cells.new_tensor([loss.shape[2] - 1, loss.shape[1] - 1])
    places = (cells / size * 2 - 1).clamp(-2, 2)[:, None, None].to(loss)
    sampled = F.grid_sample(loss[:, None], places, mode="bilinear", padding_mode="border", align_corners=True)
    return sampled[:, 0, 0, 0].to(cells)


def consensus(problem: Problem, iterations: int, seed: int, score=total_loss) -> tuple[torch.Tensor, float]:
    """The pose [4, 4] of lowest loss over the kept points, among the P3P solutions of drawn triplets."""
    kept = problem.best()
    loss, points, K = problem.loss[kept], problem.points[kept].float(), problem.K.float()
    argmax = loss.flatten(1).argmin(1)
    cells = torch.stack([argmax % loss.shape[2], argmax // loss.shape[2]], 1).numpy().astype(np.float32)
    triplets = _draw(problem.entropy[kept], iterations, seed)
    objects, intrinsics = points.numpy(), K.numpy()
    best, best_cost = None, math.inf
    for triplet in triplets.numpy():
        for R, t in _solve(objects[triplet], cells[triplet], intrinsics):
            cost = float(score(loss, points, R, t, K, problem.chance))
            if cost < best_cost:
                best, best_cost = (R, t), cost
    T = torch.eye(4, dtype=torch.float64)
    T[:3, :3], T[:3, 3] = best
    return T, best_cost


def _draw(entropy: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """[count, 3] indices: three independent weighted draws, so a triplet may hold a point twice."""
    weight = (-entropy + entropy.max()) / (entropy.max() - entropy.min() + 1e-6)
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.multinomial(weight, count, True, generator=generator) for _ in range(3)], 1)


def _solve(objects, cells, K):
    """Rotations and translations of one triplet."""
    try:
        found, rotations, translations = cv2.solveP3P(objects, cells, K, None, flags=cv2.SOLVEPNP_P3P)
    except cv2.error:  # a triplet with one point twice, depending on OpenCV's version
        return []
    poses = [(cv2.Rodrigues(r)[0], t.reshape(3)) for r, t in zip(rotations, translations)] if found else []
    return [tuple(torch.from_numpy(np.float32(part)) for part in pose) for pose in poses if np.isfinite(pose[1]).all()]


class SparseRefinement:
    """GNC-IRLS over all cells below ln|Omega|, from one start pose at a time."""

    def __init__(self, problem: Problem, dtype: torch.dtype = torch.float64):
        self.point, y, x = torch.nonzero(problem.loss < problem.chance, as_tuple=True)
        self.cells = torch.stack([x, y], 1).to(dtype)
        self.value = (problem.chance - problem.loss[self.point, y, x].double()).to(dtype)
        self.points, self.K = problem.points.to(dtype), problem.K.to(dtype)

    def refine(self, T: torch.Tensor, sigmas) -> tuple[torch.Tensor, float, tuple[int, int]]:
        """Refined T [4, 4], its cost at the last sigma, and how many steps were tried and accepted."""
        R, t = T[:3, :3].to(self.points), T[:3, 3].to(self.points)
        index, damping, tried, accepted = 0, LAMBDA_START, 0, 0
        cost = self.costs(R, t, sigmas[0])
        while damping < LAMBDA_MAX:
            sigma = sigmas[index]
            R_new, t_new = _moved(R, t, self._step(R, t, sigma, damping))
            cost_new = self.costs(R_new, t_new, sigma)
            gain = cost - cost_new
            tried += 1
            if gain.sum() <= 0:
                damping *= 2
                continue
            accepted += 1
            R, t, cost = R_new, t_new, cost_new
            if gain.sum() / gain.abs().sum() <= ETA or gain.sum() < SMALLEST_GAIN:
                index = min(index + 1, len(sigmas) - 1)
            else:
                damping = max(damping / 2, LAMBDA_MIN)
        refined = torch.eye(4, dtype=torch.float64)
        refined[:3, :3], refined[:3, 3] = R, t
        return refined, float(self.costs(R, t, sigmas[-1]).sum()), (tried, accepted)

    def costs(self, R, t, sigma: float) -> torch.Tensor:
        """E_sigma [N] of every point."""
        weight, _, front = self._weights(R, t, sigma)
        return -torch.zeros_like(self.points[:, 0]).index_add_(0, self.point, weight) * front

    def _weights(self, R, t, sigma):
        """k_sigma V and the residuals of every cell, and which points are in front."""
        seen = self.points @ R.T + t
        projected = (seen @ self.K.T)[:, :2] / seen[:, 2:]
        residual = self.cells - projected[self.point]
        kernel = torch.exp(residual.square().sum(1) / (-2 * sigma**2)) / (2 * math.pi * sigma**2)
        return kernel * self.value, residual, seen[:, 2] >= 1e-4

    def _step(self, R, t, sigma, damping) -> torch.Tensor:
        """The IRLS step [6] (rotation, translation)."""
        weight, residual, front = self._weights(R, t, sigma)
        weight = weight * front[self.point] / sigma**2
        J = self._jacobians(R, t)
        mass = torch.zeros_like(self.points[:, 0]).index_add_(0, self.point, weight)
        pull = torch.zeros_like(self.points[:, :2]).index_add_(0, self.point, weight[:, None] * residual)
        H = torch.einsum("n,nij,nik->jk", mass, J, J) + damping * torch.eye(6, dtype=J.dtype)
        return torch.linalg.solve(H, torch.einsum("nij,ni->j", J, pull))

    def _jacobians(self, R, t):
        """d cell / d (omega, t), [N, 2, 6]."""
        rotated = self.points @ R.T
        x, y, z = (rotated + t).unbind(1)
        o = torch.zeros_like(x)
        fx, fy = self.K[0, 0], self.K[1, 1]
        d_point = torch.stack([fx / z, o, -fx * x / z**2, o, fy / z, -fy * y / z**2], 1).reshape(-1, 2, 3)
        return torch.cat([-d_point @ _skew(rotated), d_point], 2)


def _moved(R, t, delta):
    return torch.linalg.matrix_exp(_skew(delta[None, :3])[0]) @ R, t + delta[3:]


def _skew(v):
    x, y, z = v.unbind(1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], 1).reshape(-1, 3, 3)
