# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Coarse pose by a sampling consensus over the loss maps (the paper's section 4.1).

There is no inlier threshold: every candidate pose is scored by the losses that all kept points
have at their projections, so a map with two peaks votes for both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from nre_ros.geometry import Camera, transform
from nre_ros.nre.gnc import ROUGH_GAIN, cut_windows, newton_schedule, refine
from nre_ros.nre.maps import NREMaps, sample_loss
from nre_ros.nre.p3p import solve_p3p
from nre_ros.nre.rivals import apart

_SAMPLES_AT_ONCE = 2_000_000
"""Pose-point pairs scored in one go; bounds the memory, not the result."""
_PRETEST_POINTS = 64
_PRETEST_SURVIVORS = 10
"""All poses are scored on so many points, and one in so many of them on all points."""
_ROUND = 1000
"""Triplets between two looks at whether they are enough."""
_AGREEING = 0.5
_MISSED = 1e-6
"""A point agrees below this share of ln|Omega|; rounds end at this chance that more would help."""

_OPTIMISED = 3
_OPTIMISATION_POINTS = 256
_OPTIMISATION = newton_schedule(1.0, 0.6)
"""So many of the best poses are optimised over so many points, at these scales (cells)."""

_RIVALS = 32
"""Poses elsewhere that are scored on all points, whatever the few say."""


@dataclass(frozen=True)
class Hypotheses:
    """Candidate poses, best first: T [B, 4, 4] float64 map to camera, cost [B] mean loss a point.

    kept: [M] indices of the points that voted.  rival: [4, 4] the best pose of those that put the camera
    somewhere else than the first, None without one.
    """

    T: torch.Tensor
    cost: torch.Tensor
    kept: torch.Tensor
    rival: torch.Tensor | None = None


def p3p_consensus(
    points: torch.Tensor,
    maps: NREMaps,
    camera: Camera,
    generator: torch.Generator,
    n_iter_p3p: int = 5000,
    top_n_p3p: float = 0.25,
    best: int = 1,
    prior: torch.Tensor | None = None,
) -> Hypotheses:
    """Poses of random triplets, scored over the loss maps, in rounds until more cannot help.

    points: [N, 3] float64, map frame; maps: their NRE maps in the query; camera: the query's.
    n_iter_p3p: triplets at most; top_n_p3p: share of the points that take part, those with the
    lowest losses; best: how many poses to return; prior: T_cam_map [4, 4] that is scored among
    the others.  Returns no pose (B = 0) where there is no prior and none of the triplets has a
    solution, or where fewer than four points are informative.
    """
    lowest = maps.loss.flatten(1).amin(1)
    kept = _keep(lowest, lowest < 0.99 * maps.chance, top_n_p3p)
    found = Hypotheses(points.new_zeros(0, 4, 4), points.new_zeros(0), kept)
    if len(kept) < 4:
        return found
    voters, voting = points[kept], maps[kept]
    loss = voting.loss
    several = max(best, _OPTIMISED)
    if prior is not None:
        found = _best_poses(found, prior[None].to(points), voters, loss, maps, camera, several)
    sampler = TripletSampler(voters, voting, camera)
    drawn = 0
    while drawn < n_iter_p3p and not _enough(found, drawn, voters, loss, maps, camera):
        count = min(_ROUND, n_iter_p3p - drawn)
        T, valid = solve_p3p(*sampler.draw(count, generator))
        found = _best_poses(found, T[valid], voters, loss, maps, camera, several)
        drawn += count
    if len(found.T):
        found = _optimise(found, voters, voting, camera)
    return Hypotheses(found.T[:best], found.cost[:best], kept, found.rival)


class TripletSampler:
    """Draws triplets of points with the rays on which their maps have their peaks.

    points: [M, 3]; maps: theirs; camera: the query's.
    """

    def __init__(self, points: torch.Tensor, maps: NREMaps, camera: Camera):
        _, cells = maps.minimum()
        self.points, self.entropy = points, maps.entropy
        self.rays = camera.rays(maps.grid.to_pixels(cells.to(points)))

    def draw(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Rays and points [count, 3, 3], as ``solve_p3p`` takes them."""
        triplets = _draw_triplets(self.entropy, count, generator)
        return self.rays[triplets], self.points[triplets]


def _optimise(found: Hypotheses, points, maps: NREMaps, camera) -> Hypotheses:
    """Local optimisation of the poses found (Chum, Matas and Kittler, "Locally Optimized RANSAC", DAGM 2003).

    Each is refined over the points that voted; it stays as it was where that does not lower its cost.
    """
    few = _evenly(len(points), _OPTIMISATION_POINTS, points.device)

    def windows(cells, sigma):
        return cut_windows(maps.loss, maps.chance, maps.grid, cells, math.ceil(3 * sigma) + 1, few)

    T = refine(found.T, points[few], camera, windows, maps.grid, _OPTIMISATION, ROUGH_GAIN).T
    return _best_poses(found, T, points, maps.loss, maps, camera, len(found.T))


def _evenly(count: int, wanted: int, device) -> torch.Tensor:
    """Indices of ``wanted`` evenly spaced ones of ``count`` points, of all where there are fewer.

    The points come sorted by their losses, so that these are a fair sample.
    """
    return torch.linspace(0, count - 1, min(count, wanted), device=device).long()


def _enough(found: Hypotheses, drawn: int, points, loss, maps, camera) -> bool:
    """Whether a triplet of points that all agree with the best pose has surely been drawn.

    The stopping rule of RANSAC (Fischler and Bolles, 1981): with a share w of agreeing points,
    all of ``drawn`` triplets hold one that disagrees with probability (1 - w^3)^drawn.
    """
    if not drawn or not len(found.T):
        return False
    pixels, valid, _ = camera.project(transform(found.T[:1], points))
    agreeing = sample_loss(loss, maps.grid.to_cells(pixels), valid) < _AGREEING * maps.chance
    share = min(float(agreeing.double().mean()), 1 - 1e-9)
    return drawn * math.log(1 - share**3) < math.log(_MISSED)


def _keep(lowest: torch.Tensor, informative: torch.Tensor, share: float) -> torch.Tensor:
    """Indices of the share of points with the lowest losses, informative ones only."""
    count = max(int(share * len(lowest)), min(len(lowest), 50))
    order = torch.argsort(lowest, stable=True)[:count]
    return order[informative[order]]


def _draw_triplets(entropy: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """[count, 3] indices, distinct within a triplet, sharper maps more often.

    Drawn one after the other without replacement: the points lie on a line, each as long as its
    weight, and a draw is a place on what the earlier ones leave of it.
    """
    weight = ((entropy.max() - entropy) / (entropy.max() - entropy.min() + 1e-6) + 1e-3).double()
    ends = weight.cumsum(0)
    uniform = torch.rand(count, 3, generator=generator, device=generator.device, dtype=torch.float64).to(ends.device)
    drawn = torch.empty(count, 0, dtype=torch.long, device=ends.device)
    for k in range(3):
        place = uniform[:, k] * (ends[-1] - weight[drawn].sum(1))
        # what is gone is skipped, from left to right: each gap that begins before the place moves it on
        for gone in drawn.sort(dim=1).values.unbind(1):
            place = place + torch.where(place >= ends[gone] - weight[gone], weight[gone], 0.0)
        found = torch.searchsorted(ends, place, right=True).clamp_max(len(ends) - 1)
        drawn = torch.cat([drawn, found[:, None]], 1)
    return drawn


def _best_poses(found: Hypotheses, T, points, loss, maps, camera, best) -> Hypotheses:
    """The poses of lowest cost among those found and T [B, 4, 4].

    Preemptive: most poses of random triplets are far off, which a few points tell (in the spirit
    of Nister, "Preemptive RANSAC", ICCV 2003).
    """
    survivors = -(-len(T) // _PRETEST_SURVIVORS)
    if len(points) > 2 * _PRETEST_POINTS and survivors > best:
        few = _evenly(len(points), _PRETEST_POINTS, points.device)
        T = T[torch.argsort(score_poses(T, points[few], loss[few], maps, camera), stable=True)]
        rest = T[survivors:]  # where most triplets are of one place, all survivors are
        T = torch.cat([T[:survivors], rest[apart(rest, T[0], points)][:_RIVALS]])
    known = found.T if found.rival is None else torch.cat([found.T, found.rival[None]])
    T = torch.cat([known, T])
    cost = score_poses(T, points, loss, maps, camera)
    order = torch.argsort(cost, stable=True)
    T, cost = T[order], cost[order]
    elsewhere = T[apart(T, T[0], points)] if len(T) else T
    return Hypotheses(T[:best], cost[:best], found.kept, elsewhere[0] if len(elsewhere) else None)


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
