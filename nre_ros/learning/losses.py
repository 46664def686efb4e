# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Training losses: the Neural Reprojection Error at the true places (Germain et al., CVPR 2021).

Features are good if the estimator's loss maps are low where the points truly are. The training loss of a point is
therefore its own NRE, sampled at its true place as the estimator samples it: L_n(p_n) = -ln C_n(p_n), interpolated
between the cells. The estimator truncates the loss at ln|Omega|. The training losses are not truncated, because a
truncated loss has no gradient where the features are worst.

All places are cells (x, y) of the feature map that the module gets, and all losses are in nats.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, TypeVar

import torch
import torch.nn.functional as F

from nre_ros.errors import TrainingError
from nre_ros.nre.fine import window_correlations
from nre_ros.nre.maps import correspondence_logits, sample_loss

PRIOR_REACH = 2.5
"""Largest error of a coarse pose for which the fine features are trained, in cells of the fine feature map."""


_Self = TypeVar("_Self", bound=torch.nn.Module)
_Rest = ParamSpec("_Rest")
_Result = TypeVar("_Result")
_Forward = Callable[Concatenate[_Self, torch.Tensor, torch.Tensor, _Rest], _Result]


def _in_full_precision(forward: _Forward[_Self, _Rest, _Result]) -> _Forward[_Self, _Rest, _Result]:
    """Computes a loss in float32 (or more) where the network computes in mixed precision.

    A correlation divided by a small temperature has an error of a tenth of a nat in bfloat16.
    """

    @functools.wraps(forward)
    def compute(
        self: _Self, descriptors: torch.Tensor, features: torch.Tensor, *args: _Rest.args, **settings: _Rest.kwargs
    ) -> _Result:
        with torch.autocast(features.device.type, enabled=False):
            half = (torch.float16, torch.bfloat16)
            descriptors, features = (x.float() if x.dtype in half else x for x in (descriptors, features))
            return forward(self, descriptors, features, *args, **settings)

    return compute


class CoarseNRELoss(torch.nn.Module):
    """The NRE over the whole map, for coarse features.

    With z_n(x) = <d_n, F(x)> / temperature, the correspondence map is C_n = softmax_x z_n(x). The reciprocal map also
    has the softmax in the other direction, as ``nre_ros.nre.maps.reciprocal_loss``: C_n = softmax_x (2 z_n(x) - r(x)).

    The category 'not in the image' acts as one more cell, whose dot product with every descriptor of the keyframe is
    one learned number. If it starts at 0, a map that knows nothing gives each of the H W + 1 categories the same
    probability, as the estimator's ln|Omega| does. A point that the query does not show is trained towards this
    category. The estimator does not use the learned number.

    Args:
        reciprocal: Whether to match in both directions.
        outside: Whether there is a category 'not in the image'. Without it, only visible points are accepted.
        outside_start: The learned number at the start. Features whose dot products are far from 0 everywhere need more
            than 0, or the category has no probability.

    Attributes:
        outside_correlation: The learned number; None without the category.
    """

    def __init__(self, reciprocal: bool = True, outside: bool = True, outside_start: float = 0.0):
        super().__init__()
        self.reciprocal = reciprocal
        self.outside_correlation = torch.nn.Parameter(torch.tensor(outside_start)) if outside else None

    @_in_full_precision
    def forward(
        self,
        descriptors: torch.Tensor,
        features: torch.Tensor,
        temperature: torch.Tensor | float,
        cells: torch.Tensor,
        visible: torch.Tensor,
        background: torch.Tensor | None = None,
        background_cells: int = 0,
    ) -> torch.Tensor:
        """Computes the loss of each point of one keyframe in one query.

        Args:
            descriptors: ``[N, C]`` of the keyframe's points.
            features: ``[C, H, W]`` of the query.
            temperature: Of the softmax, above 0; a tensor without dimensions where it is learned.
            cells: ``[N, 2]`` true places in the query (x, y), for visible points within half a cell of the map.
            visible: ``[N]`` bool, whether the query shows the point.
            background: ``[M, C]`` descriptors of other cells of the keyframe; used in the reciprocal map only.
            background_cells: Number of cells of the keyframe for which the background stands.

        Returns:
            ``[N]`` losses in nats: -ln C_n at the true place, or of 'not in the image' for a point that is not visible.

        Raises:
            TrainingError: There are no points, shapes do not fit, or a value is not finite or out of its range.
        """
        _check_points(descriptors, features, temperature, cells)
        _, height, width = features.shape
        if visible.shape != descriptors.shape[:1] or visible.dtype != torch.bool:
            raise TrainingError(f"visible is {visible.dtype} {list(visible.shape)}, expected bool [{len(descriptors)}]")
        if self.outside_correlation is None and not bool(visible.all()):
            raise TrainingError("a point is not visible, but the loss has no category 'not in the image'")
        limit = cells.new_tensor([width, height]) - 0.5
        if bool((visible & ((cells < -0.5) | (cells > limit)).any(-1)).any()):
            raise TrainingError(f"a visible point lies outside the map of {width}x{height} cells")
        logits = correspondence_logits(descriptors / temperature, features, 1.0)
        keyframe_cells = len(descriptors)
        if self.reciprocal:
            columns = [logits]
            if background is not None and len(background):
                if background.shape[1:] != descriptors.shape[1:] or background_cells < 1:
                    raise TrainingError(
                        f"background is {list(background.shape)} for {background_cells} cells, "
                        f"expected [M, {descriptors.shape[1]}] for at least 1 cell"
                    )
                _check_finite(background=background)
                sampled = correspondence_logits(background / temperature, features, 1.0)
                columns.append(sampled + math.log(background_cells / len(background)))
                keyframe_cells += background_cells
            logits = 2 * logits - torch.cat(columns).logsumexp(dim=0)
        if self.outside_correlation is not None:
            # as a cell with this correlation: 2 z - ln(cells e^z) in the reciprocal map
            outside = (self.outside_correlation / temperature).to(logits) - (
                math.log(keyframe_cells) if self.reciprocal else 0.0
            )
            logits = torch.cat([logits, outside.expand(len(logits), 1)], dim=1)
        loss = -F.log_softmax(logits, dim=1)
        at_truth = sample_loss(loss[:, : height * width].reshape(-1, height, width), cells[None], visible[None])[0]
        return at_truth if self.outside_correlation is None else torch.where(visible, at_truth, loss[:, -1])


@dataclass(frozen=True)
class FineLoss:
    """The fine loss of the points whose windows lie in the image.

    Attributes:
        total: Mean NRE plus the weighted sub-pixel term; without dimensions.
        nre: ``[M]`` -ln C_n at the true place, nats.
        offset: ``[M, 2]`` expected place less true place, in fine cells.
        rows: ``[M]`` indices of these points.
    """

    total: torch.Tensor
    nre: torch.Tensor
    offset: torch.Tensor
    rows: torch.Tensor


class FineNRELoss(torch.nn.Module):
    """The NRE in windows around a prior, for fine features, and a term for what lies below a cell.

    The windows are those of ``nre_ros.nre.fine.fine_maps``: the softmax takes place over the window alone. The share of
    the probability that lies in the window comes from the coarse map and does not depend on the fine features.

    The sub-pixel term is the squared distance, in fine cells, of the expected place from the true place p_n. The
    expectation has the weights C_n(x) k_sigma(x - p_n), with the Gaussian of the estimator's refinement. It is zero
    where the smoothed map has no slope at the true place, so that the refinement ends there.

    Args:
        window_size: Fine cells from one side of a window to the other, a multiple of ``2 * enlarge``.
        enlarge: Fine cells per cell of the feature map.
        subpixel_weight: Weight of the sub-pixel term, nats per squared fine cell.
        sigma: Scale of its Gaussian, in fine cells.

    Raises:
        TrainingError: A setting is out of its range.
    """

    def __init__(
        self, window_size: int = 16, enlarge: int = 2, subpixel_weight: float = 0.5, sigma: float = 1.0
    ) -> None:
        super().__init__()
        if enlarge < 1 or window_size < 2 * enlarge or window_size % (2 * enlarge):
            raise TrainingError(f"window_size={window_size} must be a positive multiple of {2 * enlarge}")
        if not (math.isfinite(subpixel_weight) and subpixel_weight >= 0 and math.isfinite(sigma) and sigma > 0):
            raise TrainingError(f"subpixel_weight={subpixel_weight} must be at least 0, and sigma={sigma} above 0")
        self.window_size, self.enlarge = window_size, enlarge
        self.subpixel_weight, self.sigma = subpixel_weight, sigma

    @_in_full_precision
    def forward(
        self,
        descriptors: torch.Tensor,
        features: torch.Tensor,
        temperature: torch.Tensor | float,
        cells: torch.Tensor,
        prior: torch.Tensor,
    ) -> FineLoss:
        """Computes the loss of points that the query shows.

        Args:
            descriptors: ``[N, C]`` of the points.
            features: ``[C, H, W]`` fine features of the query.
            temperature: Of the softmax, above 0; a tensor without dimensions where it is learned.
            cells: ``[N, 2]`` true places in the query, in cells of ``features`` (x, y).
            prior: ``[N, 2]`` where the windows are centred, rounded to cells; see ``draw_priors``.

        Returns:
            The loss. Points whose window reaches out of the map or misses the true place do not take part.

        Raises:
            TrainingError: No point takes part, shapes do not fit, or a value is not finite or out of its range.
        """
        _check_points(descriptors, features, temperature, cells)
        if prior.shape != cells.shape:
            raise TrainingError(f"prior is {list(prior.shape)}, expected {list(cells.shape)}")
        _check_finite(prior=prior)
        _, height, width = features.shape
        half = self.window_size // (2 * self.enlarge)
        rows = torch.nonzero(self.has_window(cells, prior, height, width))[:, 0]
        if not len(rows):
            raise TrainingError(f"none of {len(cells)} points has its window inside the map of {width}x{height} cells")
        centre = prior[rows].detach().round().long()
        scores = window_correlations(descriptors[rows], features, centre, half, self.enlarge) / temperature
        truth = (cells[rows] - (centre - half)) * self.enlarge
        loss = -F.log_softmax(scores.flatten(1), dim=1).reshape(scores.shape)
        nre = sample_loss(loss, truth[None], torch.ones_like(truth[None, :, 0], dtype=torch.bool))[0]
        offset = self._expected_offset(scores, truth.to(scores))
        total = nre.mean() + self.subpixel_weight * offset.square().sum(-1).mean()
        return FineLoss(total, nre, offset, rows)

    def has_window(self, cells: torch.Tensor, prior: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Returns which points take part: their windows lie in the map and hold the true place.

        Args:
            cells: ``[N, 2]`` true places, in cells of the feature map (x, y).
            prior: ``[N, 2]`` where the windows are centred.
            height: Of the feature map, in cells.
            width: Of the feature map, in cells.

        Returns:
            ``[N]`` bool.
        """
        half = self.window_size // (2 * self.enlarge)
        centre = prior.detach().round()
        margin = centre.new_tensor([width - 1, height - 1]) - centre
        return ((centre >= half) & (margin >= half) & ((cells - centre).abs() <= half)).all(-1)

    def _expected_offset(self, scores: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Expected place less true place [M, 2] of windows [M, S, S], true places [M, 2] in the windows' cells."""
        span = torch.arange(scores.shape[-1], dtype=scores.dtype, device=scores.device)
        rx, ry = span - truth[:, 0, None], span - truth[:, 1, None]
        gaussian = (rx.square()[:, None, :] + ry.square()[:, :, None]) / (-2 * self.sigma**2)
        weight = F.softmax((scores + gaussian).flatten(1), dim=1).reshape(scores.shape)
        return torch.stack([(weight.sum(1) * rx).sum(1), (weight.sum(2) * ry).sum(1)], dim=-1)


def draw_priors(cells: torch.Tensor, reach: float, generator: torch.Generator) -> torch.Tensor:
    """Draws what a coarse pose would say about the places of points.

    Args:
        cells: ``[N, 2]`` true places (x, y), in cells.
        reach: Largest error in x and in y, in cells.
        generator: Source of the errors, on the CPU: all devices draw the same.

    Returns:
        ``[N, 2]``, errors uniformly distributed.

    Raises:
        TrainingError: ``reach`` is negative or not finite.
    """
    if not (math.isfinite(reach) and reach >= 0):
        raise TrainingError(f"reach={reach} of the priors must be at least 0")
    error = (2 * torch.rand(cells.shape, generator=generator, dtype=torch.float64) - 1) * reach
    return cells + error.to(cells)


def _check_points(
    descriptors: torch.Tensor, features: torch.Tensor, temperature: torch.Tensor | float, cells: torch.Tensor
) -> None:
    """Refuses what both losses cannot work with."""
    if descriptors.dim() != 2 or not len(descriptors):
        raise TrainingError(f"descriptors are {list(descriptors.shape)}, expected [N, C] of at least one point")
    if features.dim() != 3 or len(features) != descriptors.shape[1] or not features.numel():
        raise TrainingError(f"features are {list(features.shape)}, expected [{descriptors.shape[1]}, H, W]")
    if cells.shape != (len(descriptors), 2):
        raise TrainingError(f"cells are {list(cells.shape)}, expected [{len(descriptors)}, 2]")
    _check_finite(descriptors=descriptors, features=features, cells=cells)
    if isinstance(temperature, torch.Tensor) and temperature.numel() != 1:
        raise TrainingError(f"temperature has {temperature.numel()} values, expected 1")
    value = float(temperature.detach() if isinstance(temperature, torch.Tensor) else temperature)
    if not (math.isfinite(value) and value > 0):
        raise TrainingError(f"temperature {value} is not above 0")


def _check_finite(**tensors: torch.Tensor) -> None:
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise TrainingError(f"{name} of {list(tensor.shape)} are not finite")
