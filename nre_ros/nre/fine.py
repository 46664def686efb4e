# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The fine stage: refinement of one pose in windows of high-resolution loss maps (the paper's section 4.3).

Around each point's coarse projection, the correlation of the point's fine descriptor with the fine features becomes a
probability over the window alone. The coarse map gives the share of the point's probability that lies there at all.
Unlike the published windows, these windows are centred on the coarse projection.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F

from nre_ros.device_constants import device_constant
from nre_ros.features import FeatureBackbone, FeatureGrid, FeatureMap, ImageFeatures
from nre_ros.features.base import cubic_convolution
from nre_ros.keyframes.types import KeyframeStack
from nre_ros.nre.config import EstimatorConfig
from nre_ros.nre.gnc import LocalMaps, RefinedPose, newton_schedule, refine, sigma_schedule
from nre_ros.nre.maps import outlier_loss
from nre_ros.nre.operators import operator
from nre_ros.nre.problem import MIN_POINTS, PoseProblem

_CUBIC_REACH = 2
"""Cells that cubic interpolation needs on either side."""
_FETCHED_AT_ONCE = 2_000_000
"""Numbers of the feature map fetched at once; bounds the memory, not the result."""


class FineStage:
    """The fine stage for one query.

    Args:
        problem: Points and coarse maps.
        query: Features of the query.
        keyframes: The points' fine descriptors.
        backbone: The backbone of both.
        config: Window size and scales.

    Attributes:
        keyframes: The keyframes given.
        outlier_loss: ln|Omega| of the whole fine map, nats.
    """

    def __init__(
        self,
        problem: PoseProblem,
        query: ImageFeatures,
        keyframes: KeyframeStack,
        backbone: FeatureBackbone,
        config: EstimatorConfig,
    ):
        self._problem, self._query, self.keyframes = problem, query, keyframes
        self._backbone, self._config = backbone, config
        self.outlier_loss = outlier_loss(*(side * backbone.fine_enlarge for side in query.fine.data.shape[1:]))

    def refine(self, T: torch.Tensor) -> tuple[RefinedPose | None, int]:
        """Refines a pose in the fine maps.

        Args:
            T: ``[4, 4]`` coarse pose ``T_cam_map``.

        Returns:
            The refined pose, None with fewer than ``MIN_POINTS`` points, and the number of points that lie far enough
            inside the image to take part.
        """
        problem, config, backbone = self._problem, self._config, self._backbone
        windows, rows = fine_maps(
            problem,
            T,
            self._query.fine,
            self.keyframes.fine,
            backbone.fine_temperature,
            config.window_size,
            backbone.fine_enlarge,
        )
        if len(rows) < MIN_POINTS:
            return None, len(rows)
        points = problem.points[rows]
        sigmas = newton_schedule(config.fine_sigma_max, config.fine_sigma_min)
        refined = refine(T[None], points, problem.camera, windows, windows.grid, sigmas)
        final_sigma = sigma_schedule(config.fine_sigma_max, config.fine_sigma_min)[-1]
        return RefinedPose(refined.T[0], float(refined.cost[0]), points, windows, final_sigma, rows), len(rows)


def fine_maps(
    problem: PoseProblem,
    T: torch.Tensor,
    features: FeatureMap,
    descriptors: torch.Tensor,
    temperature: float,
    window_size: int = 16,
    enlarge: int = 1,
) -> tuple[LocalMaps, torch.Tensor]:
    """Computes fine loss maps in windows around the projections under one pose.

    A window has ``window_size + 1`` cells along a side: the cell of the projection and ``window_size / 2`` fine cells
    on either side. These must be whole cells of the feature map, too, so ``window_size`` is a multiple of
    ``2 * enlarge``.

    Args:
        problem: Points and coarse maps.
        T: ``[4, 4]`` coarse pose ``T_cam_map``.
        features: Fine features of the query.
        descriptors: ``[N, C]`` fine descriptors of the points.
        temperature: Of the softmax.
        window_size: In fine cells.
        enlarge: Fine cells per cell of the feature map.

    Returns:
        The windows of the M points that project at least half a window inside the image, and their indices ``[M]``.

    Raises:
        ValueError: ``window_size`` is no multiple of ``2 * enlarge``.
    """
    if window_size % (2 * enlarge):
        raise ValueError(f"window_size={window_size} must be a multiple of {2 * enlarge}, twice fine_enlarge={enlarge}")
    pixels, valid = problem.project(T)
    _, height, width = features.data.shape
    half = window_size // (2 * enlarge)
    centre = features.grid.to_cells(pixels).round()
    margin = device_constant((width - 1, height - 1), centre.dtype, centre.device) - centre
    rows = torch.nonzero(valid & (centre >= half).all(-1) & (margin >= half).all(-1))[:, 0]
    centre = centre[rows].long()
    mass = _coarse_mass(problem, rows, problem.maps.grid.to_cells(pixels[rows]))
    # The published code divides the probability by the window's size. The division moves no minimum, but it decides how
    # probable a cell must be to count: cells below chance level are cut off by the clamp.
    offset = outlier_loss(height * enlarge, width * enlarge) + mass.log() - math.log(window_size)
    cubic = _cubic_matrix(half, enlarge, features.data.dtype, features.data.device)
    values = window_values(descriptors[rows], features.data, centre, cubic, half, temperature, offset)
    # fine cell j of the window is centred at cell (centre - half) + j / enlarge of the feature map
    grid = FeatureGrid(features.grid.stride / enlarge, features.grid.offset)
    return LocalMaps(values[None], ((centre - half) * enlarge)[None], grid), rows


def _coarse_mass(problem: PoseProblem, rows: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Correspondence probability in the 3 x 3 coarse cells around the projections, [M]."""
    block = problem.windows(cells[None], 1, rows).values[0]
    # cells at chance level are clamped in the loss and hold no probability worth counting
    probability = torch.where(block > 0, torch.exp(block - problem.maps.outlier_loss), torch.zeros_like(block))
    return probability.sum((-1, -2)).clamp(1e-12, 1.0)


@operator
def window_values(
    descriptors: torch.Tensor,
    features: torch.Tensor,
    centre: torch.Tensor,
    cubic: torch.Tensor,
    half: int,
    temperature: float,
    offset: torch.Tensor,
) -> torch.Tensor:
    """Computes V = max(0, offset + ln softmax(correlations / temperature)) in windows around cells.

    Args:
        descriptors: ``[M, C]`` float32.
        features: ``[C, H, W]`` float32.
        centre: ``[M, 2]`` int64 cells (x, y), at least ``half`` cells inside the map.
        cubic: ``[S, 2 (half + 2) + 1]`` weights from cells to fine cells.
        half: Cells of the map from the centre of a window to its sides.
        temperature: Of the softmax over a window.
        offset: ``[M]``, nats.

    Returns:
        ``[M, S, S]``, rows y and columns x.
    """
    scores = _correlations(descriptors, features, centre, cubic, half) * (1 / temperature)
    log_probability = F.log_softmax(scores.flatten(1), dim=1).reshape(scores.shape)
    return (log_probability + offset[:, None, None]).clamp_min_(0)


def window_correlations(
    descriptors: torch.Tensor, features: torch.Tensor, centre: torch.Tensor, half: int, enlarge: int
) -> torch.Tensor:
    """Computes dot products of descriptors with the enlarged features around cells.

    Enlarging is linear, so the correlations are enlarged instead of the features: 1 channel instead of C.

    Args:
        descriptors: ``[M, C]``.
        features: ``[C, H, W]``.
        centre: ``[M, 2]`` integer cells (x, y), at least ``half`` cells inside the map.
        half: Cells of the map from the centre of a window to its sides.
        enlarge: Fine cells per cell of the map.

    Returns:
        ``[M, S, S]`` with S = 2 half enlarge + 1, rows y and columns x.
    """
    cubic = _cubic_matrix(half, enlarge, features.dtype, features.device)
    return _correlations(descriptors, features, centre, cubic, half)


def _correlations(
    descriptors: torch.Tensor, features: torch.Tensor, centre: torch.Tensor, cubic: torch.Tensor, half: int
) -> torch.Tensor:
    """``window_correlations`` with given weights [S, 2 (half + 2) + 1]."""
    reach = half + _CUBIC_REACH
    padded = F.pad(features[None], (_CUBIC_REACH,) * 4, mode="replicate")[0]
    channels, _, width = padded.shape
    rows = padded.flatten(1).T.contiguous()  # a cell's channels side by side: one piece of memory to fetch
    span = torch.arange(2 * reach + 1, device=features.device)
    offsets = (span[:, None] * width + span).flatten()
    step = max(1, _FETCHED_AT_ONCE // (channels * len(offsets)))
    blocks = [features.new_zeros(0, len(cubic), len(cubic))]
    for start in range(0, len(centre), step):
        corner = centre[start : start + step] - half  # in padded coordinates, that of the window's reach
        patches = rows[(corner[:, 1] * width + corner[:, 0])[:, None] + offsets]
        window = (patches @ descriptors[start : start + step, :, None]).reshape(-1, len(span), len(span))
        blocks.append(cubic @ window @ cubic.T)
    return torch.cat(blocks)


@lru_cache
@torch.inference_mode(False)  # the result is kept, and training needs it too
def _cubic_matrix(half: int, enlarge: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Catmull-Rom weights [2 half enlarge + 1, 2 (half + reach) + 1] from cells to fine cells."""
    places = torch.arange(-half * enlarge, half * enlarge + 1, dtype=torch.float64) / enlarge
    cells = torch.arange(-half - _CUBIC_REACH, half + _CUBIC_REACH + 1, dtype=torch.float64)
    return cubic_convolution(places[:, None] - cells).to(device, dtype)
