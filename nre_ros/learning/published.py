# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Trains the published networks (Germain et al., CVPR 2021) with the losses of the paper.

The coarse network is trained with the NRE over the whole map, from the query's side only; the fine network with the NRE
in windows of 16 cells around a prior. The losses are those that the published estimator minimises, not truncated. The
authors published no training code: data, learning rate and number of steps are the user's choice.

Batch normalisations keep their statistics, and their scale and shift are trained. A step works on one pair at a time,
which is two images of one place: their statistics are not those of other images. With fixed statistics the training
sees the very features that the backbone computes later, and a step that is skipped changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from nre_ros.errors import TrainingError, WeightsError
from nre_ros.features.base import FeatureMap, check_image
from nre_ros.features.checkpoint import checkpoint_bytes
from nre_ros.features.inception import InceptionNetwork
from nre_ros.features.nre_backbone import image_side, network_features, normalised_rgb
from nre_ros.features.weights import write_atomically
from nre_ros.learning.losses import CoarseNRELoss, FineNRELoss
from nre_ros.learning.objectives import Objective, checked_weight, coarse_pair_losses, fine_pair_losses
from nre_ros.learning.pairs import TrainingPair

_MAX_SIDE = 1600
_WINDOW_SIZE = 16
_MEASURED_CELLS = 500
_PRIOR_REACH = 4.0
"""Fine cells: half a coarse cell of the published networks."""


class PublishedObjective(Objective):
    """A published network, trained with its loss in both directions of a pair.

    Args:
        network: With its batch normalisations, on the device where it is to be trained: of ``Checkpoint.network``,
            ``random_network``, or any other weights.
        resize: Side of the coarse feature map, in cells. Larger images are reduced as ``NREBackbone`` does; None: to
            1600 pixels, as for the fine network. It is written to the checkpoint.
        outside_weight: Weight of the mean coarse loss of points that are not visible; 0: the paper's loss, which has
            visible points alone.
        prior_reach: Largest error of the fine windows' centres in x and in y, in cells.

    Attributes:
        network: The network.
        loss: Its loss.

    Raises:
        TrainingError: A setting is out of its range.
    """

    def __init__(
        self,
        network: InceptionNetwork,
        resize: int | None = None,
        outside_weight: float = 0.0,
        prior_reach: float = _PRIOR_REACH,
    ):
        super().__init__()
        if resize is not None and (resize < 2 or network.level != "coarse"):
            raise TrainingError(f"resize={resize} of the {network.level} network: at least 2, of the coarse one only")
        self.network = network.requires_grad_(True)
        self.loss: CoarseNRELoss | FineNRELoss
        if network.level == "coarse":
            self.loss = CoarseNRELoss(reciprocal=False, outside=checked_weight(outside_weight) > 0)
        else:
            self.loss = FineNRELoss(window_size=_WINDOW_SIZE, enlarge=1, subpixel_weight=0.0)
        self._device = next(network.parameters()).device
        self.loss.to(self._device)
        self._resize, self._outside_weight, self._prior_reach = resize, outside_weight, prior_reach
        self._max_side = _MAX_SIDE if resize is None else image_side(network, resize)
        built = network.level, network.extraction_layer, network.second_pool
        self.identity = f"published network {built}, {resize}, {outside_weight}, {prior_reach}"

    def train(self, mode: bool = True) -> PublishedObjective:
        """Switches to training or inference; batch normalisations keep their statistics in both.

        Args:
            mode: Whether to train.
        """
        super().train(mode)
        self.network.eval()
        return self

    def pair_losses(self, pair: TrainingPair, generator: torch.Generator) -> dict[str, torch.Tensor] | None:
        found = [
            network_features(self.network, normalised_rgb(image, self._device), self._max_side)
            for image in (pair.image_a, pair.image_b)
        ]
        maps = [FeatureMap(features.data.float(), features.grid) for features in found]  # of mixed precision
        if isinstance(self.loss, CoarseNRELoss):
            return coarse_pair_losses(self.loss, maps, pair, 1.0, self._outside_weight, generator, unit_length=False)
        return fine_pair_losses(self.loss, maps, pair, 1.0, self._prior_reach, generator, unit_length=False)

    def save(self, path: Path | str, step: int = 0) -> None:
        """Writes a checkpoint in the published layout; an earlier file stays until the new one is complete.

        ``nre_ros weights import --allow-unpublished`` makes it the network of the backbone ``nre``.

        Args:
            path: The file.
            step: Number of training steps.

        Raises:
            WeightsError: A weight is not finite, or the file cannot be written.
        """
        data = checkpoint_bytes(self.network, self._resize, step)
        try:
            write_atomically(Path(path), data)
        except OSError as error:
            raise WeightsError(f"cannot write {path}: {error.strerror}") from None


def random_network(
    level: str,
    extraction_layer: str,
    images: Sequence[npt.NDArray[np.uint8]],
    second_pool: bool = True,
    seed: int = 0,
    device: torch.device = torch.device("cpu"),
) -> InceptionNetwork:
    """Makes a network with random weights, from which training can begin.

    The statistics of the batch normalisations are measured on images, layer after layer. Then the last scale is chosen
    so that dot products of an image's features have a standard deviation of 1: they are the logits of a softmax.

    Args:
        level: ``coarse`` or ``fine``.
        extraction_layer: Where the trunk is cut.
        images: BGR ``[H, W, 3]`` or grey ``[H, W]``, uint8; a dozen that are like those of the training.
        second_pool: Whether there is max-pooling after Conv2d_4a (coarse only).
        seed: Of the weights.
        device: Where the network goes.

    Returns:
        The network, for inference.

    Raises:
        TrainingError: There is no image, or the level or the layer is unknown.
        ImageError: An image cannot be used.
    """
    if not images:
        raise TrainingError("a network with random weights needs images to measure its statistics on")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            network = InceptionNetwork(level, extraction_layer, second_pool)
        except ValueError as error:
            raise TrainingError(str(error)) from error
    network.to(device).train()
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    inputs = [normalised_rgb(check_image(image), device) for image in images]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = None  # the mean over all images
        for rgb in inputs:
            network(rgb)
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
        network.eval()
        products = [(cells := _few_cells(network(rgb))).T @ cells for rgb in inputs]
        spread = torch.cat([product.flatten() for product in products]).std()
        norms[-1].weight.div_(spread.clamp_min(1e-6).sqrt())
    return network


def _few_cells(features: torch.Tensor) -> torch.Tensor:
    """Some cells [C, N] of features [1, C, H, W], evenly distributed."""
    cells = features[0].flatten(1)
    return cells[:, :: 1 + cells.shape[1] // _MEASURED_CELLS]
