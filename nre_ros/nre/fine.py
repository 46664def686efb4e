# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Fine loss maps: a window of the high-resolution feature map around each coarse projection.

The correlation of a point's fine descriptor with the cells around its prior is turned into a
probability over the window alone; the coarse map says how much of the point's probability lies
there at all (the paper's section 4.3).  Windows lie centred on the prior.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F

from nre_ros.features import FeatureGrid, FeatureMap
from nre_ros.features.base import cubic_convolution, focal_length_seen
from nre_ros.geometry import Camera, invert, transform
from nre_ros.nre.gnc import LocalMaps, cut_windows
from nre_ros.nre.maps import NREMaps, chance_loss

_CUBIC_REACH = 2
"""Cells that cubic interpolation looks at on either side."""
_LIKE_SIZE, _LIKE_COSINE = 1.5, math.cos(math.radians(25.0))
"""Views of a point are alike within this ratio of its sizes and this angle between the rays to it."""
_FETCHED_AT_ONCE = 2_000_000
"""Numbers of the feature map fetched at once; bounds the memory, not the result."""


@dataclass(frozen=True)
class FineMatch:
    """Fine features of the query, and what is looked for in them.

    descriptors: [N, C] of the points; sharpness: [N] inverse temperature of each point's softmax, 0
    for those that are not looked for.
    """

    features: FeatureMap
    descriptors: torch.Tensor
    sharpness: torch.Tensor


def fine_maps(
    T: torch.Tensor,
    points: torch.Tensor,
    matches: list[FineMatch],
    coarse: NREMaps,
    camera: Camera,
    window_size: int = 16,
    enlarge: int = 1,
) -> tuple[LocalMaps, torch.Tensor]:
    """Local fine maps around the projections under one coarse pose.

    T: [4, 4] coarse pose, map to camera; points: [N, 3]; matches: one, or several whose
    probabilities are multiplied, in feature maps of one size (the first one's grid counts).
    coarse: NRE maps of the same points; window_size: in fine cells, ``enlarge`` of which make one
    cell of the fine feature maps.  Returns the windows of the M points that project at least half
    a window inside the image, and their indices [M].
    """
    pixels, valid, _ = camera.project(transform(T, points))
    fine = matches[0].features
    _, height, width = fine.data.shape
    half = window_size // (2 * enlarge)
    centre = fine.grid.to_cells(pixels).round()
    margin = centre.new_tensor([width - 1, height - 1]) - centre
    kept = torch.nonzero(valid & (centre >= half).all(-1) & (margin >= half).all(-1))[:, 0]
    centre = centre[kept].long()
    scores = fine.data.new_zeros(len(kept), window_size + 1, window_size + 1)
    for match in matches:
        sharpness = match.sharpness[kept].to(scores)
        rows = torch.nonzero(sharpness > 0)[:, 0]
        found = _window_scores(match.descriptors[kept[rows]], match.features.data, centre[rows], half, enlarge)
        scores.index_add_(0, rows, found * sharpness[rows, None, None])
    mass = _coarse_mass(coarse, kept, coarse.grid.to_cells(pixels[kept]))
    chance = chance_loss(height * enlarge, width * enlarge)
    log_probability = F.log_softmax(scores.flatten(1), dim=1).reshape(scores.shape)
    values = chance + log_probability + (mass.log() - math.log(window_size))[:, None, None]
    # fine cell j of the window is centred at cell (centre - half) + j / enlarge of the feature map
    grid = FeatureGrid(fine.grid.stride / enlarge, fine.grid.offset)
    return LocalMaps(values.clamp_min_(0)[None], ((centre - half) * enlarge)[None], grid), kept


def like_views(
    T: torch.Tensor,
    points: torch.Tensor,
    directions: torch.Tensor,
    camera: Camera,
    size: float = _LIKE_SIZE,
    cosine: float = _LIKE_COSINE,
) -> torch.Tensor:
    """Which points [N] the query at T [4, 4] sees from about where their keyframe did, and as large.

    points: [N, 3]; directions: [N, 3] as ``KeyframeStack`` has them; size, cosine: the largest ratio of a point's
    sizes and the least cosine of the angle between the rays to it (as given: within which features that know
    little of their surroundings are alike).
    """
    ours = (points - invert(T)[:3, 3]).to(directions) / focal_length_seen(camera)
    here, there = ours.norm(dim=1).clamp_min(1e-12), directions.norm(dim=1).clamp_min(1e-12)
    turned = (ours * directions).sum(1) / (here * there)
    return (turned > cosine) & (here < size * there) & (there < size * here)


def _coarse_mass(coarse: NREMaps, kept: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Correspondence probability in the 3 x 3 coarse cells around the projections, [M]."""
    block = cut_windows(coarse.loss, coarse.chance, coarse.grid, cells[None], 1, kept).values[0]
    # cells at chance level are clamped in the loss and hold no probability worth counting
    probability = torch.where(block > 0, torch.exp(block - coarse.chance), torch.zeros_like(block))
    return probability.sum((-1, -2)).clamp(1e-12, 1.0)


def _window_scores(descriptors, features, centre, half, enlarge):
    """Cosine of descriptors [M, C] with the enlarged features [C, H, W] around cells [M, 2].

    Returns [M, S, S] with S = 2 half enlarge + 1.  Enlarging is linear, so the correlations are
    enlarged instead of the features: 1 channel instead of C.
    """
    reach = half + _CUBIC_REACH
    padded = F.pad(features[None], (_CUBIC_REACH,) * 4, mode="replicate")[0]
    channels, _, width = padded.shape
    rows = padded.flatten(1).T.contiguous()  # a cell's channels side by side: one piece of memory to fetch
    span = torch.arange(2 * reach + 1, device=features.device)
    offsets = (span[:, None] * width + span).flatten()
    cubic = _cubic_matrix(half, enlarge, features.dtype).to(features.device)
    step = max(1, _FETCHED_AT_ONCE // (channels * len(offsets)))
    blocks = [features.new_zeros(0, len(cubic), len(cubic))]
    for start in range(0, len(centre), step):
        corner = centre[start : start + step] - half  # in padded coordinates, that of the window's reach
        patches = rows[(corner[:, 1] * width + corner[:, 0])[:, None] + offsets]
        window = (patches @ descriptors[start : start + step, :, None]).reshape(-1, len(span), len(span))
        blocks.append(cubic @ window @ cubic.T)
    return torch.cat(blocks)


@lru_cache
def _cubic_matrix(half: int, enlarge: int, dtype: torch.dtype) -> torch.Tensor:
    """Catmull-Rom weights [2 half enlarge + 1, 2 (half + reach) + 1] from cells to fine cells."""
    places = torch.arange(-half * enlarge, half * enlarge + 1, dtype=torch.float64) / enlarge
    cells = torch.arange(-half - _CUBIC_REACH, half + _CUBIC_REACH + 1, dtype=torch.float64)
    return cubic_convolution(places[:, None] - cells).to(dtype)
