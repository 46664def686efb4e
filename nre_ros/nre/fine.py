"""Fine loss maps: a window of the high-resolution feature map around each coarse projection.

The correlation of a point's fine descriptor with the cells around its prior is turned into a
probability over the window alone; the coarse map says how much of the point's probability lies
there at all (the paper's section 4.3).  Windows lie centred on the prior.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F

from nre_ros.features import FeatureGrid, FeatureMap
from nre_ros.features.base import cubic_convolution
from nre_ros.geometry import Camera, transform
from nre_ros.nre.gnc import LocalMaps, cut_windows
from nre_ros.nre.maps import NREMaps, chance_loss

_CUBIC_REACH = 2
"""Cells that cubic interpolation looks at on either side."""
_MAGNIFIED = 1.7
"""A point that the query sees so many times larger than its keyframe did is looked for at half the size."""
_FETCHED_AT_ONCE = 2_000_000
"""Numbers of the feature map fetched at once; bounds the memory, not the result."""


def fine_maps(
    T: torch.Tensor,
    points: torch.Tensor,
    descriptors: torch.Tensor,
    levels: tuple[FeatureMap, ...],
    coarse: NREMaps,
    camera: Camera,
    temperature: float,
    window_size: int = 16,
    enlarge: int = 1,
    coarse_weight: float = 0.0,
    footprints: torch.Tensor | None = None,
) -> tuple[LocalMaps, torch.Tensor]:
    """Local fine maps around the projections under one coarse pose.

    T: [4, 4] coarse pose, map to camera; points: [N, 3]; descriptors: [N, C] fine descriptors;
    levels: the query's fine features, and those of the query at half its size if the backbone has
    them.  coarse: NRE maps of the same points; window_size: in fine cells, ``enlarge`` of which
    make one cell of the first level.  coarse_weight: power to which the coarse correspondence map
    joins the fine one within the window: it knows which of several like edges is the point's own
    (0, as published: only how much of it lies in the window counts).  footprints: [N] metres of
    the scene that a pixel of the keyframe covers at each point; where the query sees a point much
    larger, it is looked for at the second level.  Returns the windows of the M points that project
    at least half a window inside the image, and their indices [M].
    """
    fine = levels[0]
    in_camera = transform(T, points)
    pixels, valid, _ = camera.project(in_camera)
    _, height, width = fine.data.shape
    half = window_size // (2 * enlarge)
    centre = fine.grid.to_cells(pixels).round()
    margin = centre.new_tensor([width - 1, height - 1]) - centre
    kept = torch.nonzero(valid & (centre >= half).all(-1) & (margin >= half).all(-1))[:, 0]
    grid = FeatureGrid(fine.grid.stride / enlarge, fine.grid.offset)
    chosen = torch.zeros_like(kept)
    if len(levels) > 1 and footprints is not None:
        magnification = footprints[kept] * math.sqrt(camera.fx * camera.fy) / in_camera[kept, 2]
        chosen = (magnification > _MAGNIFIED).long()
    scores, origin = _scores_of_levels(descriptors[kept], pixels[kept], levels, chosen, grid, window_size, enlarge)
    scores /= temperature
    if coarse_weight:
        scores += coarse_weight * _coarse_values(coarse, kept, grid, origin, scores.shape[-1])
    mass = _coarse_mass(coarse, kept, coarse.grid.to_cells(pixels[kept]))
    chance = chance_loss(height * enlarge, width * enlarge)
    log_probability = F.log_softmax(scores.flatten(1), dim=1).reshape(scores.shape)
    values = chance + log_probability + (mass.log() - math.log(window_size))[:, None, None]
    return LocalMaps(values.clamp_min_(0)[None], origin[None], grid), kept


def _scores_of_levels(descriptors, pixels, levels, chosen, grid, window_size, enlarge):
    """Correlations [M, S, S] of descriptors [M, C] around pixels [M, 2], each at its chosen level [M].

    All windows have fine cells of the same size: the second level, of cells twice as large, is
    enlarged twice as much.  Second result: the windows' corners [M, 2] in cells of ``grid``.
    """
    scores = descriptors.new_empty(len(descriptors), window_size + 1, window_size + 1)
    origin = torch.empty_like(pixels)
    for level, features in enumerate(levels):
        rows = torch.nonzero(chosen == level)[:, 0]
        half = window_size // (2 * enlarge << level)
        last = pixels.new_tensor([features.data.shape[2] - 1, features.data.shape[1] - 1])
        # of the second level the last cells may lie nearer to the border than half a window
        centre = features.grid.to_cells(pixels[rows]).round().clamp_min(half).minimum(last - half)
        scores[rows] = _window_scores(descriptors[rows], features.data, centre.long(), half, enlarge << level)
        origin[rows] = grid.to_cells(features.grid.to_pixels(centre - half))
    return scores, origin


def _coarse_values(coarse: NREMaps, kept: torch.Tensor, grid: FeatureGrid, origin: torch.Tensor, size: int):
    """ln|Omega| - L of the coarse maps at the fine cells of windows, [M, size, size], bilinear.

    origin: [M, 2] fine cell (x, y) of each window's corner.
    """
    span = torch.arange(size, device=origin.device)
    # [M, size, 2]: the columns' and the rows' places in coarse cells
    places = coarse.grid.to_cells(grid.to_pixels((origin[:, None] + span[:, None]).double()))
    radius = math.ceil(size * grid.stride / coarse.grid.stride / 2) + 1
    blocks = cut_windows(coarse.loss[kept], coarse.chance, coarse.grid, places[:, size // 2][None], radius)
    cells = blocks.origin[0, :, None] + torch.arange(2 * radius + 1, device=origin.device)[:, None]
    weights = (1 - (places[:, :, None] - cells[:, None]).abs()).clamp_min(0).to(coarse.loss)
    return weights[..., 1] @ blocks.values[0] @ weights[..., 0].mT


def _coarse_mass(coarse: NREMaps, kept: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Correspondence probability in the 3 x 3 coarse cells around the projections, [M]."""
    block = cut_windows(coarse.loss[kept], coarse.chance, coarse.grid, cells[None], 1).values[0]
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
