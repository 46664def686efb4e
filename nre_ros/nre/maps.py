# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Correspondence maps and NRE maps (Germain et al., CVPR 2021, section 3).

A correspondence map is the probability, over all cells x of the query's feature map, that map point n is seen there:
C_n(x) = softmax_x(<d_n, F(x)> / temperature). The Neural Reprojection Error of a cell is
L_n(x) = min(-ln C_n(x), ln|Omega|). Omega holds every cell and one more category, 'not in the image'. ln|Omega| is
therefore the loss of an outlier: of a point that projects outside the image or lies behind the camera.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from nre_ros.features import FeatureGrid, FeatureMap
from nre_ros.keyframes.types import KeyframeStack
from nre_ros.nre.operators import operator

EPSILON = torch.finfo(torch.float32).eps
"""Keeps the logarithm of an empty cell finite (the published value)."""

_TINY = 1e-36
"""So small a number is nothing; its logarithm divided by it is finite in float32."""


INLIER_LOSS = 0.5
"""A point is an inlier of a pose when its loss there is below this fraction of ln|Omega|."""
_RATE_STRIDE = 3
"""A false-match rate is counted on every third row and column of a map."""


@dataclass(frozen=True)
class NREMaps:
    """Loss maps of N points over a grid of H x W cells.

    The maps of some of the points share their memory with those of all: ``rows`` says which they are.

    Attributes:
        stored: ``[M, H, W]`` float32, L_m(x), nats.
        rows: ``[N]`` int64, which of them are the points' maps.
        entropy: ``[N]`` of the correspondence maps, nats.
        lowest: ``[N]`` lowest loss of each map.
        best: ``[N]`` int64, the cell of the lowest loss, in ``[H W]``.
        false_match_rate: ``[N]`` the probability that a point is an inlier of a random pose: the share of its map's
            cells whose loss is below ``INLIER_LOSS``.
        grid: Where the cells lie in the query.
    """

    stored: torch.Tensor
    rows: torch.Tensor
    entropy: torch.Tensor
    lowest: torch.Tensor
    best: torch.Tensor
    false_match_rate: torch.Tensor
    grid: FeatureGrid

    @classmethod
    def of(cls, loss: torch.Tensor, entropy: torch.Tensor, grid: FeatureGrid) -> NREMaps:
        """Makes maps from their losses.

        Args:
            loss: ``[N, H, W]`` float32, nats.
            entropy: ``[N]`` of the correspondence maps, nats.
            grid: Where the cells lie in the query.
        """
        rows = torch.arange(len(loss), device=loss.device)
        return cls(loss, rows, entropy, *_summaries(loss, INLIER_LOSS * outlier_loss(*loss.shape[1:])), grid)

    @property
    def loss(self) -> torch.Tensor:
        """``[N, H, W]`` L_n(x), nats: a copy."""
        return self.stored[self.rows]

    @property
    def size(self) -> tuple[int, int]:
        """H and W."""
        height, width = self.stored.shape[1:]
        return height, width

    @property
    def outlier_loss(self) -> float:
        """ln|Omega|: the loss of a point outside the image, nats."""
        return outlier_loss(*self.size)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: torch.Tensor) -> NREMaps:
        """The maps of some of the points, by their indices ``[M]``."""
        return NREMaps(
            self.stored,
            self.rows[rows],
            self.entropy[rows],
            self.lowest[rows],
            self.best[rows],
            self.false_match_rate[rows],
            self.grid,
        )

    def minimum(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Finds the minimum of each map, refined below a cell.

        A parabola through the neighbours of the minimum, in each direction, moves the minimum by at most half a cell;
        at the border it stays.

        Returns:
            Lowest losses ``[N]`` of the cells, and the refined cells ``[N, 2]`` (x, y).
        """
        height, width = self.size
        lowest = self.lowest
        x, y = self.best % width, torch.div(self.best, width, rounding_mode="floor")

        def offset(dx: int, dy: int, inside: torch.Tensor) -> torch.Tensor:
            before = self.stored[self.rows, (y - dy).clamp_min(0), (x - dx).clamp_min(0)]
            after = self.stored[self.rows, (y + dy).clamp_max(height - 1), (x + dx).clamp_max(width - 1)]
            curvature = before + after - 2 * lowest
            shift = 0.5 * (before - after) / curvature.clamp_min(1e-6)
            return torch.where(inside, shift.clamp(-0.5, 0.5), torch.zeros_like(shift))

        cells = torch.stack(
            [x + offset(1, 0, (x > 0) & (x < width - 1)), y + offset(0, 1, (y > 0) & (y < height - 1))], dim=-1
        )
        return lowest, cells


def outlier_loss(height: int, width: int) -> float:
    """Computes ln|Omega|, where Omega has the cells of a map and the category 'not in the image'.

    Args:
        height: Of the map, in cells.
        width: Of the map, in cells.

    Returns:
        The loss in nats.
    """
    return math.log(height * width + 1)


def correspondence_logits(descriptors: torch.Tensor, features: torch.Tensor, temperature: float) -> torch.Tensor:
    """Computes <d_n, F(x)> / temperature for all points and cells.

    Args:
        descriptors: ``[N, C]`` descriptors d_n of the points.
        features: ``[C, H, W]`` features F of the query.
        temperature: Temperature of the softmax.

    Returns:
        ``[N, H W]`` logits.
    """
    return (descriptors / temperature) @ features.flatten(1)


def nre_maps(logits: torch.Tensor, height: int, width: int, grid: FeatureGrid) -> NREMaps:
    """Computes NRE maps: softmax over the cells, -ln, clamped at ln|Omega|.

    Args:
        logits: ``[N, H W]``.
        height: H.
        width: W.
        grid: Where the cells lie in the query.
    """
    loss = torch.empty_like(logits)
    entropy = _loss_and_entropy(logits, height * width, loss)
    return NREMaps.of(loss.reshape(-1, height, width), entropy, grid)


def _loss_and_entropy(logits: torch.Tensor, cells: int, loss: torch.Tensor) -> torch.Tensor:
    """Writes the losses [N, cells] of logits into ``loss`` and returns the entropies [N]."""
    probability = torch.softmax(logits, dim=1).add_(EPSILON)
    torch.log(probability, out=loss).neg_()
    entropy = torch.linalg.vecdot(probability, loss)
    loss.clamp_max_(math.log(cells + 1))
    return entropy


def keyframe_maps(
    stack: KeyframeStack,
    query: FeatureMap,
    temperature: float,
    reciprocal: bool = True,
    memory: torch.Tensor | None = None,
) -> NREMaps:
    """Computes the NRE maps of all points of a stack of keyframes in the query's coarse features.

    Args:
        stack: The keyframes, N points in all.
        query: Coarse features of the query.
        temperature: Of the softmax.
        reciprocal: Whether to match in both directions (see ``reciprocal_loss``).
        memory: ``[>= N H W]`` float32 where the losses are written; None: new memory, which takes time to get.
    """
    _, height, width = query.data.shape
    needed = len(stack) * height * width
    if memory is None:
        memory = query.data.new_empty(needed)
    loss = memory[:needed].reshape(len(stack), height, width)
    if not reciprocal:
        logits = correspondence_logits(stack.coarse, query.data, temperature)
        return NREMaps.of(loss, _loss_and_entropy(logits, height * width, loss.flatten(1)), query.grid)
    entropy, lowest, best, match_rate = loss_maps(
        stack.coarse,
        stack.counts,
        stack.background,
        stack.background_cells,
        query.data,
        temperature,
        loss,
        INLIER_LOSS * outlier_loss(height, width),
        _RATE_STRIDE,
    )
    rows = torch.arange(len(stack), device=loss.device)
    return NREMaps(loss, rows, entropy, lowest, best, match_rate, query.grid)


@operator
def loss_maps(
    descriptors: torch.Tensor,
    counts: Sequence[int],
    background: torch.Tensor,
    background_cells: Sequence[int],
    features: torch.Tensor,
    temperature: float,
    loss: torch.Tensor,
    match_limit: float,
    rate_stride: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Computes the NRE maps of the points of several keyframes by reciprocal matching (see ``reciprocal_loss``).

    Keyframe after keyframe, so that intermediate results fit into the caches and into memory that the allocator keeps.

    Args:
        descriptors: ``[N, C]`` float32 of the points, keyframe after keyframe.
        counts: ``[K]`` number of points of each keyframe.
        background: ``[K, M, C]`` float32 descriptors of cells of each keyframe.
        background_cells: ``[K]`` number of cells of each keyframe.
        features: ``[C, H, W]`` float32 of the query.
        temperature: Of the softmax.
        loss: ``[N, H, W]`` float32, where the losses are written.
        match_limit: Losses below are matches, nats.
        rate_stride: Rows and columns from one cell in which matches are counted to the next.

    Returns:
        ``[N]`` each: entropies of the correspondence maps, lowest losses, the cells of the lowest losses (int64, in
        ``[H W]``), and shares of the counted cells that are matches.

    Raises:
        ValueError: ``loss`` has another shape.
    """
    if loss.shape != (len(descriptors), *features.shape[1:]):  # torch would write into other memory
        raise ValueError(f"losses of shape {list(loss.shape)}, expected {[len(descriptors), *features.shape[1:]]}")
    flat = loss.view(len(loss), math.prod(loss.shape[1:]))  # never a copy: the caller reads what is written
    entropy = []
    starts = np.cumsum((0, *counts))
    for k, rows in enumerate(map(slice, starts[:-1].tolist(), starts[1:].tolist())):
        cells = background_cells[k]
        entropy.append(reciprocal_loss(descriptors[rows], background[k], cells, features, temperature, flat[rows]))
    return torch.cat(entropy), *_summaries(loss, match_limit, rate_stride)


def _summaries(
    loss: torch.Tensor, match_limit: float, rate_stride: int = _RATE_STRIDE
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The lowest losses, their cells, and the shares of matches of maps [N, H, W]."""
    lowest, best = loss.flatten(1).min(dim=1)
    matches = loss[:, ::rate_stride, ::rate_stride] < match_limit
    return lowest, best, matches.float().mean((1, 2))


def reciprocal_loss(
    descriptors: torch.Tensor,
    background: torch.Tensor,
    cells: int,
    features: torch.Tensor,
    temperature: float,
    loss: torch.Tensor,
) -> torch.Tensor:
    """Matches one keyframe's points in both directions.

    Besides the softmax over the query's cells there is one over the cells of the keyframe, for the query cell x at
    point n: a cell that matches everything in the keyframe matches nothing in particular. Its normaliser is the sum
    over the keyframe's points and over its background descriptors:

        ln C_n(x) = 2 z_n(x) - r(x) - ln s_n,   r(x) = ln(sum_m e^z_m(x) + cells / M sum_b e^z_b(x)),
        s_n = sum_x e^(2 z_n(x) - r(x)),        z = <d, F(x)> / temperature

    One exponential a cell serves both directions, and the sums over the cells are matrix products.

    Args:
        descriptors: ``[N, C]`` of the keyframe's points.
        background: ``[M, C]`` descriptors of cells of the keyframe.
        cells: Number of cells of the keyframe, for which the background stands.
        features: ``[C, H, W]`` of the query.
        temperature: Of the softmax.
        loss: ``[N, H W]``, where the losses are written.

    Returns:
        Entropies ``[N]`` of the correspondence maps, nats.
    """
    # An extra channel shifts z by its largest possible value (Cauchy-Schwarz): nothing overflows.
    bound = torch.cat([descriptors, background]).norm(dim=1).amax() * features.norm(dim=0).amax() / temperature
    shifted = torch.cat([features.flatten(1), (-bound).expand(1, features[0].numel())])
    z = torch.mm(F.pad(descriptors / temperature, (0, 1), value=1.0), shifted, out=loss)
    exponential = z.exp()
    normaliser = exponential.sum(0)
    if len(background):
        sampled = torch.mm(F.pad(background / temperature, (0, 1), value=1.0), shifted).exp_().sum(0)
        normaliser += sampled * (cells / len(background))
    normaliser = normaliser.clamp_min(_TINY)
    reverse, weight = normaliser.log(), 1 / normaliser
    exponential.square_()
    mass, reverse_moment = exponential @ weight, exponential @ (weight * reverse)
    moment = exponential.mul_(z) @ weight
    # a point whose matches all underflow says nothing
    log_mass = torch.where(mass > _TINY, mass.log(), math.inf)
    entropy = torch.where(mass > _TINY, log_mass - (2 * moment - reverse_moment) / mass, math.log(z.shape[1]))
    z.mul_(-2).add_(reverse).add_(log_mass[:, None]).clamp_max_(math.log(z.shape[1] + 1))
    return entropy


def reprojection_error_maps(maps: NREMaps, value: float = 1e-3) -> NREMaps:
    """Replaces NRE maps by the plain reprojection error (the paper's equation 11) for the same solvers.

    The loss is ln|Omega| everywhere but at each map's minimum, as if each point had been matched to its best cell and
    the rest of its map forgotten.

    Args:
        maps: NRE maps.
        value: Loss at the minimum, nats.
    """
    flat = maps.loss.flatten(1)
    plain = torch.full_like(flat, maps.outlier_loss)
    plain.scatter_(1, flat.argmin(dim=1, keepdim=True), value)
    return NREMaps.of(plain.reshape(maps.loss.shape), maps.entropy, maps.grid)


def sample_loss(
    loss: torch.Tensor,
    cells: torch.Tensor,
    valid: torch.Tensor,
    rows: torch.Tensor | None = None,
    outside: float | None = None,
) -> torch.Tensor:
    """Samples each point's own map at the point's own places, bilinearly.

    A border cell reaches half a cell beyond its centre, and has its own value there.

    Args:
        loss: ``[M, H, W]``.
        cells: ``[B, N, 2]`` (x, y).
        valid: ``[B, N]`` bool.
        rows: ``[N]`` int64 which of the maps are the points' own; None: all of them.
        outside: The loss of a place outside the image; None: ln|Omega|.

    Returns:
        ``[B, N]``; ``outside`` where not valid and where the place lies outside the image.
    """
    count, height, width = loss.shape
    x, y = cells[..., 0], cells[..., 1]
    inside = valid & (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    x0 = x.clamp(0, max(width - 2, 0)).floor()
    y0 = y.clamp(0, max(height - 2, 0)).floor()
    fx, fy = (x - x0).to(loss), (y - y0).to(loss)
    rows = torch.arange(count, device=loss.device) if rows is None else rows
    base = rows * (height * width)
    corner = base + y0.long() * width + x0.long()
    flat = loss.reshape(-1)
    right, down = int(width > 1), width * int(height > 1)
    top = torch.lerp(flat[corner], flat[corner + right], fx)
    bottom = torch.lerp(flat[corner + down], flat[corner + down + right], fx)
    elsewhere = torch.full(
        (), outlier_loss(height, width) if outside is None else outside, dtype=loss.dtype, device=loss.device
    )
    return torch.where(inside, torch.lerp(top, bottom, fy), elsewhere)
