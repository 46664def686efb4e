# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Losses on fixed pairs that are never trained on: they show when more steps stop helping."""

from __future__ import annotations

import numpy as np
import torch

from nre_ros.errors import TrainingError
from nre_ros.learning.objectives import Objective, pair_generator
from nre_ros.learning.pair_sources import TrainingPairs
from nre_ros.learning.pairs import TrainingPair


class Validation:
    """The losses on the first pairs of a data set. The pairs are made at the first call and kept.

    Args:
        pairs: Where the pairs come from. They must not be trained on.
        count: Number of pairs.
        every: Steps from one validation to the next; another takes place after the last step.

    Attributes:
        every: As given.
        identity: What two validations have in common whose losses may be compared.
        left_out: Recording and image -> why it cannot be read, for images that the pairs had to leave out.

    Raises:
        TrainingError: A number is not positive.
    """

    def __init__(self, pairs: TrainingPairs, count: int = 32, every: int = 200):
        if count < 1 or every < 1:
            raise TrainingError(f"validation: count={count} and every={every} must be at least 1")
        self.every = every
        self.identity = f"{count} pairs of seed {pairs.seed}, every {every} steps"
        self._source, self._count = pairs, count
        self._pairs: list[TrainingPair] = []
        self.left_out: dict[str, str] = {}

    @torch.no_grad()
    def losses(self, objective: Objective) -> dict[str, float]:
        """Computes the mean losses, in float32. The objective is in training mode afterwards.

        Args:
            objective: What is trained.

        Returns:
            Name -> mean over the pairs with enough points, as of ``Objective.pair_losses``.

        Raises:
            TrainingError: No pair has enough points, or a pair cannot be made.
        """
        while len(self._pairs) < self._count:
            self._pairs.append(self._source.pair(len(self._pairs)))
            self.left_out |= self._pairs[-1].left_out
        objective.eval()
        try:
            found = [
                objective.pair_losses(pair, pair_generator(self._source.seed, index))
                for index, pair in enumerate(self._pairs)
            ]
        finally:
            objective.train()
        losses = [{name: float(value) for name, value in pair.items()} for pair in found if pair is not None]
        if not losses:
            raise TrainingError(f"validation: none of {self._count} pairs has enough points in common")
        names = [name for name in losses[0] if all(name in pair for pair in losses)]
        return {name: float(np.mean([pair[name] for pair in losses])) for name in names}
