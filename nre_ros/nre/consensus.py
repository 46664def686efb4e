"""Coarse pose by a sampling consensus over the loss maps (the paper's section 4.1).

There is no inlier threshold: every candidate pose is scored by the losses that all kept points
have at their projections, so a map with two peaks votes for both.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nre_ros.geometry import Camera, transform
from nre_ros.nre.maps import NREMaps, sample_loss
from nre_ros.nre.p3p import solve_p3p

_SAMPLES_AT_ONCE = 2_000_000
"""Pose-point pairs scored in one go; bounds the memory, not the result."""
_PRETEST_POINTS = 64
_PRETEST_SURVIVORS = 10
"""All poses are scored on so many points, and one in so many of them on all points."""


@dataclass(frozen=True)
class Hypotheses:
    """Candidate poses, best first: T [B, 4, 4] float64 map to camera, cost [B] mean loss a point.

    kept: [M] indices of the points that voted.
    """

    T: torch.Tensor
    cost: torch.Tensor
    kept: torch.Tensor


def p3p_consensus(
    points: torch.Tensor,
    maps: NREMaps,
    camera: Camera,
    generator: torch.Generator,
    n_iter_p3p: int = 3000,
    top_n_p3p: float = 0.25,
    best: int = 1,
) -> Hypotheses:
    """Poses of random triplets, scored over the loss maps.

    points: [N, 3] float64, map frame; maps: their NRE maps in the query; camera: the query's.
    n_iter_p3p: triplets; top_n_p3p: share of the points that take part, those with the lowest
    losses; best: how many poses to return.  Returns no pose (B = 0) where none of the triplets
    has a solution or fewer than four points are informative.
    """
    lowest, cells = maps.minimum()
    informative = lowest < 0.99 * maps.chance
    kept = _keep(lowest, informative, top_n_p3p)
    if len(kept) < 4:
        return Hypotheses(points.new_zeros(0, 4, 4), points.new_zeros(0), kept)
    triplets = _draw_triplets(maps.entropy[kept], n_iter_p3p, generator)
    rays = camera.rays(maps.grid.to_pixels(cells[kept].to(points)))
    T, valid = solve_p3p(rays[triplets], points[kept][triplets])
    T, cost = _best_poses(T[valid], points[kept], maps.loss[kept], maps, camera, best)
    return Hypotheses(T, cost, kept)


def _keep(lowest: torch.Tensor, informative: torch.Tensor, share: float) -> torch.Tensor:
    """Indices of the share of points with the lowest losses, informative ones only."""
    count = max(int(share * len(lowest)), min(len(lowest), 50))
    order = torch.argsort(lowest, stable=True)[:count]
    return order[informative[order]]


def _draw_triplets(entropy: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """[count, 3] indices, distinct within a triplet, sharper maps more often."""
    weight = (entropy.max() - entropy) / (entropy.max() - entropy.min() + 1e-6) + 1e-3
    # the k largest of log w + Gumbel noise are a draw of k without replacement
    uniform = torch.rand(count, len(weight), generator=generator, device=generator.device).to(weight)
    gumbel = -torch.log(-torch.log(uniform.clamp(1e-12, 1 - 1e-7)))
    return (weight.log() + gumbel).topk(3, dim=1).indices


def _best_poses(T, points, loss, maps, camera, best):
    """The poses of lowest cost among T [B, 4, 4], best first, and their costs.

    Preemptive: most poses of random triplets are far off, which a few points tell (in the spirit
    of Nister, "Preemptive RANSAC", ICCV 2003).  The points come sorted by their losses, so that
    evenly spaced ones are a fair sample.
    """
    if len(points) > 2 * _PRETEST_POINTS:
        few = torch.linspace(0, len(points) - 1, _PRETEST_POINTS, device=points.device).long()
        survivors = max(best, -(-len(T) // _PRETEST_SURVIVORS))
        order = torch.argsort(score_poses(T, points[few], loss[few], maps, camera), stable=True)
        T = T[order[:survivors]]
    cost = score_poses(T, points, loss, maps, camera)
    order = torch.argsort(cost, stable=True)[:best]
    return T[order], cost[order]


def score_poses(
    T: torch.Tensor, points: torch.Tensor, loss: torch.Tensor, maps: NREMaps, camera: Camera
) -> torch.Tensor:
    """Mean loss [B] of points [M, 3] with loss maps [M, H, W] under the poses T [B, 4, 4].

    In the dtype of the maps: a single-precision projection is good to a hundredth of a cell.
    """
    step = max(1, _SAMPLES_AT_ONCE // max(1, len(points)))
    costs = [T.new_zeros(0)]
    T, points = T.to(loss.dtype), points.to(loss.dtype)
    for start in range(0, len(T), step):
        pixels, valid, _ = camera.project(transform(T[start : start + step], points))
        cells = maps.grid.to_cells(pixels)
        costs.append(sample_loss(loss, cells, valid).mean(dim=1, dtype=torch.float64))
    return torch.cat(costs)
