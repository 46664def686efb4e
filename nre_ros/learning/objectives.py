# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a trainer minimises: the losses of one training pair under a network."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from nre_ros.features.base import sample_descriptors
from nre_ros.features.fine_head import FineHead
from nre_ros.features.xfeat import XFeatBackbone
from nre_ros.learning.losses import PRIOR_REACH, FineLoss, FineNRELoss, draw_priors
from nre_ros.learning.pairs import TrainingPair

MIN_POINTS = 8
"""A pair with fewer points that take part is left out."""


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
        if not all(bool(torch.isfinite(features.data).all()) for features in maps):
            return {"total": torch.tensor(torch.nan)}
        places = [
            torch.from_numpy(pixels[pair.visible]).to(self._backbone.device)
            for pixels in (pair.pixels_a, pair.pixels_b)
        ]
        found: list[FineLoss] = []
        for source, target in ((0, 1), (1, 0)):
            features = maps[target]
            cells = features.grid.to_cells(places[target])
            prior = draw_priors(cells, self._prior_reach, generator)
            _, height, width = features.data.shape
            rows = torch.nonzero(self.loss.has_window(cells, prior, height, width))[:, 0]
            if len(rows) < MIN_POINTS:
                return None
            descriptors = sample_descriptors(maps[source], places[source][rows], unit_length=True)
            found.append(self.loss(descriptors, features.data, self.head.temperature, cells[rows], prior[rows]))
        with torch.no_grad():
            nre = torch.stack([loss.nre.mean() for loss in found]).mean()
            offset = torch.cat([loss.offset for loss in found]).square().sum(-1).mean().sqrt()
        total = torch.stack([loss.total for loss in found]).mean()
        return {"total": total, "nre": nre, "offset": offset, "temperature": self.head.temperature.detach()}
