# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a trainer minimises: the losses of one training pair under a network."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch

from nre_ros.errors import TrainingError
from nre_ros.features import FeatureMap
from nre_ros.features.base import sample_descriptors
from nre_ros.features.coarse_head import CoarseHead
from nre_ros.features.fine_head import FineHead
from nre_ros.features.xfeat import XFeatBackbone
from nre_ros.learning.losses import PRIOR_REACH, CoarseNRELoss, FineLoss, FineNRELoss, draw_priors
from nre_ros.learning.pairs import TrainingPair

MIN_POINTS = 8
"""A pair with fewer points that take part is left out."""
_OUTSIDE_START = 0.85
"""Dot product of XFeat's coarse features of different places that are most alike in two images."""
_MAX_BACKGROUND = 1024
"""Cells of a keyframe that are drawn for the reverse direction of matching."""


class Objective(torch.nn.Module, ABC):
    """A network and its losses; the parameters of this module are what is trained.

    Attributes:
        identity: What a checkpoint must have been made with, besides the trainer's settings.
    """

    identity: str

    @abstractmethod
    def pair_losses(self, pair: TrainingPair, generator: torch.Generator) -> dict[str, torch.Tensor] | None:
        """Computes the losses of one pair.

        Args:
            pair: The pair.
            generator: Source of everything that is drawn at random.

        Returns:
            Name -> loss without dimensions; ``total`` is minimised, and the others are shown. ``total`` is NaN where
            the network's features are not finite. None where too few points take part.
        """


def pair_generator(seed: int, index: int) -> torch.Generator:
    """Returns the random numbers of one pair of one training.

    Args:
        seed: Of the training.
        index: Number of the pair.
    """
    state = np.random.SeedSequence([seed, index, 4]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


class FineHeadObjective(Objective):
    """A fine head on XFeat, trained with the fine loss in both directions of a pair.

    Args:
        head: The head, on the backbone's device.
        backbone: The network below it, which is not trained.
        loss: The fine loss.
        prior_reach: Largest error of the windows' centres in x and in y, in cells of the head's features.
    """

    def __init__(
        self, head: FineHead, backbone: XFeatBackbone, loss: FineNRELoss | None = None, prior_reach: float = PRIOR_REACH
    ):
        super().__init__()
        self.head = head
        self.loss = FineNRELoss(enlarge=head.enlarge) if loss is None else loss
        self._backbone, self._prior_reach = backbone, prior_reach
        settings = self.loss.window_size, self.loss.enlarge, self.loss.subpixel_weight, self.loss.sigma, prior_reach
        self.identity = f"fine head {head.channels} {head.width} on {backbone.network_hash}, loss {settings}"

    def pair_losses(self, pair: TrainingPair, generator: torch.Generator) -> dict[str, torch.Tensor] | None:
        maps = [self.head.feature_map(self._backbone.first_pass(image)) for image in (pair.image_a, pair.image_b)]
        return fine_pair_losses(self.loss, maps, pair, self.head.temperature, self._prior_reach, generator)


class CoarseHeadObjective(Objective):
    """A coarse head on XFeat, trained with the coarse loss in both directions of a pair.

    Args:
        head: The head, on the backbone's device.
        backbone: The network below it, which is not trained.
        loss: The coarse loss, on the same device.
        outside_weight: Weight of the mean loss of the points that the other image does not show, where the mean loss of
            the visible points has weight 1.

    Raises:
        TrainingError: The weight is negative or not finite.
    """

    def __init__(
        self,
        head: CoarseHead,
        backbone: XFeatBackbone,
        loss: CoarseNRELoss | None = None,
        outside_weight: float = 0.25,
    ):
        super().__init__()
        self.head = head
        self.loss = (CoarseNRELoss(outside_start=_OUTSIDE_START) if loss is None else loss).to(backbone.device)
        self._backbone, self._outside_weight = backbone, checked_weight(outside_weight)
        settings = self.loss.reciprocal, self.loss.outside_correlation is not None, outside_weight
        self.identity = f"coarse head {head.width} on {backbone.network_hash}, loss {settings}"

    def pair_losses(self, pair: TrainingPair, generator: torch.Generator) -> dict[str, torch.Tensor] | None:
        maps = [self.head.feature_map(self._backbone.first_pass(image)) for image in (pair.image_a, pair.image_b)]
        return coarse_pair_losses(self.loss, maps, pair, self.head.temperature, self._outside_weight, generator)


def checked_weight(weight: float) -> float:
    """Checks the weight of the points that are not visible.

    Args:
        weight: Of their mean loss.

    Returns:
        The weight.

    Raises:
        TrainingError: The weight is negative or not finite.
    """
    if not (math.isfinite(weight) and weight >= 0):
        raise TrainingError(f"outside_weight={weight} must be at least 0")
    return weight


def coarse_pair_losses(
    loss: CoarseNRELoss,
    maps: Sequence[FeatureMap],
    pair: TrainingPair,
    temperature: torch.Tensor | float,
    outside_weight: float,
    generator: torch.Generator,
    unit_length: bool = True,
) -> dict[str, torch.Tensor] | None:
    """Computes the coarse loss in both directions of a pair.

    Only the points of the first image have an unknown place in the second one: the other direction has visible points
    alone. A visible point whose place lies beyond the outermost cells of the map takes no part.

    Args:
        loss: The coarse loss.
        maps: Coarse features of both images.
        pair: The pair.
        temperature: Of the softmax.
        outside_weight: Weight of the mean loss of points that are not visible.
        generator: Source of the background descriptors.
        unit_length: Whether descriptors have unit length.

    Returns:
        As ``Objective.pair_losses``, with ``nre`` and, with the category, ``outside``: mean losses of visible points
        and of the others.
    """
    if not _all_finite(maps):
        return {"total": torch.tensor(torch.nan)}
    device = maps[0].data.device
    a, b, visible = (torch.from_numpy(array).to(device) for array in (pair.pixels_a, pair.pixels_b, pair.visible))
    if loss.outside_correlation is None:
        a, b, visible = a[visible], b[visible], visible[visible]
    nre: list[torch.Tensor] = []
    outside: list[torch.Tensor] = []
    first, second = maps
    seen = visible[visible]
    for source, target, at_source, at_target, shown in (
        (first, second, a, b, visible),
        (second, first, b[visible], a[visible], seen),
    ):
        _, height, width = target.data.shape
        cells = target.grid.to_cells(at_target)
        limit = cells.new_tensor([width, height]) - 0.5
        kept = ~shown | ((cells >= -0.5) & (cells <= limit)).all(-1)
        cells, shown = cells[kept], shown[kept]
        if int(shown.sum()) < MIN_POINTS:
            return None
        descriptors = sample_descriptors(source, at_source[kept], unit_length)
        background, count = _background(source, generator) if loss.reciprocal else (None, 0)
        found = loss(descriptors, target.data, temperature, cells, shown, background, count)
        nre.append(found[shown].mean())
        if not bool(shown.all()):
            outside.append(found[~shown].mean())
    total = torch.stack(nre).mean()
    losses = {"total": total, "nre": total.detach()}
    if outside:
        beyond = torch.stack(outside).mean()
        losses["outside"] = beyond.detach()
        losses["total"] = total + outside_weight * beyond
    return _with_temperature(losses, temperature)


def fine_pair_losses(
    loss: FineNRELoss,
    maps: Sequence[FeatureMap],
    pair: TrainingPair,
    temperature: torch.Tensor | float,
    prior_reach: float,
    generator: torch.Generator,
    unit_length: bool = True,
) -> dict[str, torch.Tensor] | None:
    """Computes the fine loss in both directions of a pair.

    Args:
        loss: The fine loss.
        maps: Fine features of both images.
        pair: The pair.
        temperature: Of the softmax.
        prior_reach: Largest error of the windows' centres in x and in y, in cells of the maps.
        generator: Source of these errors.
        unit_length: Whether descriptors have unit length.

    Returns:
        As ``Objective.pair_losses``, with ``nre``, the mean loss in nats, and ``offset``, the root mean square distance
        of the expected places from the true ones in fine cells.
    """
    if not _all_finite(maps):
        return {"total": torch.tensor(torch.nan)}
    places = [
        torch.from_numpy(pixels[pair.visible]).to(maps[0].data.device) for pixels in (pair.pixels_a, pair.pixels_b)
    ]
    found: list[FineLoss] = []
    for source, target in ((0, 1), (1, 0)):
        features = maps[target]
        cells = features.grid.to_cells(places[target])
        prior = draw_priors(cells, prior_reach, generator)
        _, height, width = features.data.shape
        rows = torch.nonzero(loss.has_window(cells, prior, height, width))[:, 0]
        if len(rows) < MIN_POINTS:
            return None
        descriptors = sample_descriptors(maps[source], places[source][rows], unit_length)
        found.append(loss(descriptors, features.data, temperature, cells[rows], prior[rows]))
    with torch.no_grad():
        nre = torch.stack([part.nre.mean() for part in found]).mean()
        offset = torch.cat([part.offset for part in found]).square().sum(-1).mean().sqrt()
    total = torch.stack([part.total for part in found]).mean()
    return _with_temperature({"total": total, "nre": nre, "offset": offset}, temperature)


def _with_temperature(losses: dict[str, torch.Tensor], temperature: torch.Tensor | float) -> dict[str, torch.Tensor]:
    """The losses and, where it is learned, the temperature."""
    return {**losses, "temperature": temperature.detach()} if isinstance(temperature, torch.Tensor) else losses


def _all_finite(maps: Sequence[FeatureMap]) -> bool:
    return all(bool(torch.isfinite(features.data).all()) for features in maps)


def _background(features: FeatureMap, generator: torch.Generator) -> tuple[torch.Tensor, int]:
    """Descriptors [M, C] of cells drawn evenly, as a keyframe stores them, and the number of all cells."""
    cells = features.data[0].numel()
    drawn = torch.randperm(cells, generator=generator)[:_MAX_BACKGROUND]
    return features.data.flatten(1)[:, drawn.to(features.data.device)].T, cells
