# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Coarse poses by a sampling consensus over the loss maps (the paper's section 4.1).

There is no inlier threshold: a pose is scored by the losses of all points used for hypothesis generation at their
projections, so that a map with two minima supports a pose at either of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from nre_ros.device_constants import device_constant
from nre_ros.nre.alternatives import are_distinct_poses
from nre_ros.nre.coarse import refine_in_coarse_maps
from nre_ros.nre.gnc import newton_schedule
from nre_ros.nre.inliers import INLIER_LOSS
from nre_ros.nre.operators import operator
from nre_ros.nre.p3p import solve_p3p
from nre_ros.nre.problem import MIN_POINTS, PoseProblem

_ROUND = 1000
"""Triplets that are drawn before the stopping rule is checked again."""
_SHARE_WITHIN_KEYFRAMES = 0.5
"""Share of the triplets whose three points belong to one keyframe."""
_FEWEST_OF_KEYFRAME = 20
"""Keyframes with fewer points used for hypothesis generation have no triplets of their own."""
_MISS_PROBABILITY = 1e-6
"""Drawing ends when all triplets drawn so far contain an outlier with less than this probability."""
_INFORMATIVE = 0.99
"""A map whose lowest relative loss is above this value says nothing."""
_FEWEST_USED = 50
"""Points used for hypothesis generation, whatever their share, where there are as many."""

_PRETEST_POINTS = 64
_PRETEST_SURVIVORS = 10
"""All poses are scored on so many points, and one in so many of them on all points."""
_DISTINCT_SURVIVORS = 32
"""Poses distinct from the best one that are scored on all points besides."""

_OPTIMISED = 3
_OPTIMISATION_POINTS = 256
_OPTIMISATION = newton_schedule(1.0, 0.6)
"""So many of the best poses are optimised over so many points, at these scales (cells)."""


@dataclass(frozen=True)
class Hypotheses:
    """Candidate poses, best first.

    Attributes:
        T: ``[B, 4, 4]`` float64, map to camera.
        cost: ``[B]`` mean loss per point used for hypothesis generation, nats.
        rows: ``[M]`` indices of the points used for hypothesis generation.
        alternative: ``[4, 4]`` the best pose that is distinct from the first; None without one.
        search_cut: Whether drawing ended at the largest number of triplets, before the stopping rule was satisfied: a
            better pose may exist.
    """

    T: torch.Tensor
    cost: torch.Tensor
    rows: torch.Tensor
    alternative: torch.Tensor | None = None
    search_cut: bool = False


def p3p_consensus(
    problem: PoseProblem,
    generator: torch.Generator,
    n_iter_p3p: int = 5000,
    top_n_p3p: float = 0.25,
    best: int = 1,
    prior: torch.Tensor | None = None,
    counts: Sequence[int] = (),
) -> Hypotheses:
    """Scores the poses of random triplets over the loss maps, in rounds, until more triplets cannot help.

    Args:
        problem: Points and maps.
        generator: Draws the triplets; on the CPU.
        n_iter_p3p: Largest number of triplets.
        top_n_p3p: Share of the points used for hypothesis generation, those with the lowest losses.
        best: Number of poses to return.
        prior: ``[4, 4]`` pose ``T_cam_map`` that is scored among the others.
        counts: Number of points of each keyframe, in the order of the points; empty: all points are of one keyframe.

    Returns:
        The hypotheses. There is no pose (B = 0) where fewer than ``MIN_POINTS`` points are informative, or where no
        triplet has a solution and there is no prior.
    """
    rows = _most_informative(problem, top_n_p3p)
    found = Hypotheses(problem.points.new_zeros(0, 4, 4), problem.points.new_zeros(0), rows, search_cut=True)
    if len(rows) < MIN_POINTS:
        return found
    used = problem[rows]
    several = max(best, _OPTIMISED)
    if prior is not None:
        found = _best_poses(found, prior[None].to(used.points), used, several)
    sampler = TripletSampler(used, _sets_of_keyframes(rows, counts))
    drawn, enough = 0, False
    while drawn < n_iter_p3p and not enough:
        count = min(_ROUND, n_iter_p3p - drawn)
        T, valid = solve_p3p(*sampler.draw(count, generator))
        found = _best_poses(found, T[valid], used, several)
        drawn += count
        enough = _enough(found, sampler.draws(drawn), used)
    if len(found.T):
        found = _optimise(found, used)
    return Hypotheses(found.T[:best], found.cost[:best], rows, found.alternative, not enough)


class TripletSampler:
    """Draws triplets of points, with the rays on which the points' maps have their minima.

    Half of the triplets take their points from one keyframe each, every keyframe in turn. Where only one of the
    retrieved keyframes shows what the query shows, three of its points are right far more often than three points of
    all keyframes.

    Args:
        problem: Points and maps.
        sets: Indices of the points of each keyframe that has enough of them.
    """

    def __init__(self, problem: PoseProblem, sets: Sequence[torch.Tensor] = ()):
        _, cells = problem.maps.minimum()
        self.points, self.entropy = problem.points, problem.maps.entropy
        self.rays = problem.camera.rays(problem.maps.grid.to_pixels(cells.to(problem.points)))
        self._sets = sets if len(sets) > 1 else ()

    def draw(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draws triplets of points, sharper maps more often.

        Args:
            count: Number of triplets.
            generator: Source of the random numbers.

        Returns:
            Rays in the camera frame and points in the map frame, ``[count, 3, 3]`` each, as ``solve_p3p`` takes them.
        """
        triplets = self.triplets(count, generator)
        return self.rays[triplets], self.points[triplets]

    def triplets(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Draws triplets as ``draw`` does.

        Args:
            count: Number of triplets.
            generator: Source of the random numbers.

        Returns:
            Indices ``[count, 3]`` of the points.
        """
        draws = self.draws(count)
        uniform = torch.rand(count, 3, generator=generator, device=generator.device, dtype=torch.float64)
        parts = uniform.to(self.entropy.device).split([n for _, n in draws])
        drawn = (rows[_draw_triplets(self.entropy[rows], part)] for (rows, _), part in zip(draws, parts))
        return torch.cat(list(drawn))

    def draws(self, count: int) -> list[tuple[torch.Tensor, int]]:
        """Says which points the triplets are drawn from.

        Args:
            count: Number of triplets.

        Returns:
            Indices of points, and how many of the triplets are drawn from them: all points first, then each keyframe's.
        """
        each = int(_SHARE_WITHIN_KEYFRAMES * count) // len(self._sets) if self._sets else 0
        every = torch.arange(len(self.points), device=self.points.device)
        return [(every, count - each * len(self._sets)), *((rows, each) for rows in self._sets)]


def _sets_of_keyframes(rows: torch.Tensor, counts: Sequence[int]) -> list[torch.Tensor]:
    """Places among the rows [M] of the points of each keyframe with at least ``_FEWEST_OF_KEYFRAME`` of them."""
    if not counts:
        return []
    ends = device_constant(tuple(accumulate(counts)), torch.long, rows.device)
    keyframes = torch.searchsorted(ends, rows, right=True)
    # sorted by keyframe, in their order within each: one question for the number of each keyframe's, not one a keyframe
    sizes = (keyframes == torch.arange(len(counts), device=rows.device)[:, None]).sum(1).tolist()
    sets = torch.argsort(keyframes, stable=True).split(sizes)
    return [found for found in sets if len(found) >= _FEWEST_OF_KEYFRAME]


def _most_informative(problem: PoseProblem, share: float) -> torch.Tensor:
    """Indices of the share of points with the lowest losses, without those whose maps say nothing."""
    lowest = problem.maps.lowest
    informative = lowest < _INFORMATIVE * problem.maps.outlier_loss
    count = max(int(share * len(lowest)), min(len(lowest), _FEWEST_USED))
    order = torch.argsort(lowest, stable=True)[:count]
    return order[informative[order]]


def _optimise(found: Hypotheses, used: PoseProblem) -> Hypotheses:
    """Local optimisation of the poses found (Chum, Matas and Kittler, "Locally Optimized RANSAC", DAGM 2003).

    A pose stays as it was where the optimisation does not lower its cost.
    """
    few = _evenly(len(used), _OPTIMISATION_POINTS, used.points.device)
    T = refine_in_coarse_maps(used, found.T, few, _OPTIMISATION).T
    return _best_poses(found, T, used, len(found.T))


def _evenly(count: int, wanted: int, device: torch.device) -> torch.Tensor:
    """Indices of ``wanted`` evenly spaced ones of ``count`` points, of all where there are fewer.

    The points are sorted by their losses, so that these are a fair sample.
    """
    return torch.linspace(0, count - 1, min(count, wanted), device=device).long()


def _enough(found: Hypotheses, draws: Sequence[tuple[torch.Tensor, int]], used: PoseProblem) -> bool:
    """Whether a triplet of inliers of the best pose has almost surely been drawn.

    The stopping rule of RANSAC (Fischler and Bolles, 1981): with a share w of inliers among the points that n triplets
    were drawn from, all of these contain an outlier with probability (1 - w^3)^n. Three inliers do not count: they may be
    those that the pose was computed from.
    """
    if not len(found.T):
        return False
    inliers = used.losses_at(*used.project(found.T[:1]))[0] < INLIER_LOSS * used.maps.outlier_loss
    found_in = torch.stack([inliers[rows].sum() for rows, _ in draws]).tolist()
    shares = [(max(found - 3, 0) / len(rows), count) for found, (rows, count) in zip(found_in, draws)]
    return sum(count * math.log(1 - share**3) for share, count in shares) < math.log(_MISS_PROBABILITY)


def _draw_triplets(entropy: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """[B, 3] indices, distinct within a triplet, sharper maps more often, from random numbers [B, 3]."""
    weight = ((entropy.max() - entropy) / (entropy.max() - entropy.min() + 1e-6) + 1e-3).double()
    return draw_weighted_triplets(weight, uniform)


@operator
def draw_weighted_triplets(weight: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Draws triplets without replacement, each point with a probability in proportion to its weight.

    Drawn one after the other: the points lie on a line, each as long as its weight, and a draw is a place on the part of the
    line that the earlier draws leave.

    Args:
        weight: ``[N]`` float64, positive, N at least 3.
        uniform: ``[B, 3]`` float64 random numbers in [0, 1).

    Returns:
        ``[B, 3]`` int64 indices of points, distinct within a row.
    """
    ends = weight.cumsum(0)
    drawn = torch.empty(len(uniform), 0, dtype=torch.long, device=ends.device)
    for k in range(3):
        place = uniform[:, k] * (ends[-1] - weight[drawn].sum(1))
        # skip the drawn points, from left to right: each gap that begins before the place moves it on
        for gone in drawn.sort(dim=1).values.unbind(1):
            place = place + torch.where(place >= ends[gone] - weight[gone], weight[gone], 0.0)
        found = torch.searchsorted(ends, place, right=True).clamp_max(len(ends) - 1)
        drawn = torch.cat([drawn, found[:, None]], 1)
    return drawn


def _best_poses(found: Hypotheses, T: torch.Tensor, used: PoseProblem, best: int) -> Hypotheses:
    """The poses of lowest cost among those found and T [B, 4, 4].

    Preemptive: most poses of random triplets are far off, which a few points show (in the spirit of Nister, "Preemptive
    RANSAC", ICCV 2003).
    """
    survivors = -(-len(T) // _PRETEST_SURVIVORS)
    if len(used) > 2 * _PRETEST_POINTS and survivors > best:
        few = _evenly(len(used), _PRETEST_POINTS, used.points.device)
        T = T[torch.argsort(used[few].mean_losses(T), stable=True)]
        rest = T[survivors:]  # where most triplets are of one place, all survivors are
        T = torch.cat([T[:survivors], rest[are_distinct_poses(rest, T[0], used.points)][:_DISTINCT_SURVIVORS]])
    known = found.T if found.alternative is None else torch.cat([found.T, found.alternative[None]])
    T = torch.cat([known, T])
    cost = used.mean_losses(T)
    order = torch.argsort(cost, stable=True)
    T, cost = T[order], cost[order]
    distinct = T[are_distinct_poses(T, T[0], used.points)] if len(T) else T
    return Hypotheses(T[:best], cost[:best], found.rows, distinct[0] if len(distinct) else None)
