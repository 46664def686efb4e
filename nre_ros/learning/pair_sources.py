# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Endless seeded training pairs: what a source of pairs is, homographies of photographs, and the mixture of sources.

Pair i of a source depends on the source's settings, the seed and i alone. Training can therefore be resumed at any
pair, and the number of processes that make pairs changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch

from nre_ros.errors import ImageError, TrainingError
from nre_ros.features.base import check_image
from nre_ros.learning.augmentation import Augmentation
from nre_ros.learning.pairs import TrainingPair, homography_pair


class PairSource(Protocol):
    """Something that makes training pairs."""

    def pair(self, seed: int, index: int) -> TrainingPair:
        """Makes one pair.

        Args:
            seed: Of all pairs.
            index: Number of the pair.

        Returns:
            The pair: for the same arguments, always the same.
        """


class PhotographPairs:
    """Two views of one photograph, as of a poster that is seen at a slant, from nearer or farther, and rotated.

    Args:
        photographs: Name -> BGR ``[h, w, 3]`` or grey ``[h, w]``, uint8.
        size: Width and height of the views, pixels.
        points: Largest number of points a pair.
        max_zoom: Largest ratio of the two views' scales.
        max_rotation: Largest rotation of the second view, radians.
        max_slant: Largest shift of a corner by perspective, as a fraction of the view.

    Raises:
        TrainingError: There is no photograph, or one cannot be used.
    """

    def __init__(
        self,
        photographs: Mapping[str, npt.NDArray[np.uint8]],
        size: tuple[int, int] = (320, 240),
        points: int = 400,
        max_zoom: float = 1.4,
        max_rotation: float = math.radians(25.0),
        max_slant: float = 0.12,
    ):
        if not photographs:
            raise TrainingError("no photographs to make training pairs of")
        self._photographs = {}
        for name, image in sorted(photographs.items()):
            try:
                image = check_image(image)
            except ImageError as error:
                raise TrainingError(f"photograph {name}: {error}") from error
            self._photographs[name] = image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
        self._size, self._points = size, points
        self._max_zoom, self._max_rotation, self._max_slant = max_zoom, max_rotation, max_slant

    def pair(self, seed: int, index: int) -> TrainingPair:
        """Makes one pair (see ``PairSource``).

        Args:
            seed: Of all pairs.
            index: Number of the pair.
        """
        rng = np.random.default_rng([seed, index, 1])
        names = list(self._photographs)
        name = names[int(rng.integers(len(names)))]
        photograph = self._photographs[name]
        height, width = photograph.shape[:2]
        # a view is a part of the photograph with the view's shape; the part is 0.5 to 0.9 of the largest
        largest = min(width / self._size[0], height / self._size[1])
        scale = largest * rng.uniform(0.5, 0.9)
        part = np.array(self._size) * scale
        centre = part / 2 + rng.uniform(size=2) * (np.array([width, height]) - part)
        first = self._view(centre, scale, rng.uniform(-0.2, 0.2) * self._max_rotation, rng)
        zoom = math.exp(rng.uniform(-1, 1) * math.log(self._max_zoom))
        shift = rng.uniform(-0.2, 0.2, size=2) * part
        second = self._view(centre + shift, scale * zoom, rng.uniform(-1, 1) * self._max_rotation, rng)
        return homography_pair(photograph, first, second, self._size, self._points, rng, f"photograph {name}")

    def _view(
        self, centre: npt.NDArray[np.float64], scale: float, rotation: float, rng: np.random.Generator
    ) -> npt.NDArray[np.float64]:
        """Homography [3, 3] from a view to the photograph, whose corners are shifted at random."""
        sides = np.array(self._size, dtype=np.float64)
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * sides / 2
        moved = corners + rng.uniform(-1, 1, size=(4, 2)) * self._max_slant * sides
        c, s = math.cos(rotation), math.sin(rotation)
        on_photograph = centre + scale * moved @ np.array([[c, s], [-s, c]])
        H = cv2.getPerspectiveTransform(
            (corners + (sides - 1) / 2).astype(np.float32), on_photograph.astype(np.float32)
        )
        return np.asarray(H, dtype=np.float64)


class TrainingPairs(torch.utils.data.IterableDataset[TrainingPair]):
    """Augmented pairs of several sources, without end.

    With several workers of a ``DataLoader``, worker w of n makes the pairs w, w + n, ...; a ``DataLoader`` returns them
    in their order.

    Args:
        sources: Each pair draws one of them.
        shares: How often each source is drawn, any positive numbers; None: all alike.
        augmentation: Of both images.
        seed: Of all pairs.
        first: Number of the first pair of an iteration.

    Attributes:
        identity: What the pairs depend on besides the seed; a resumed training must have the same.

    Raises:
        TrainingError: There is no source, or a share is not positive.
    """

    identity: str = ""

    def __init__(
        self,
        sources: Sequence[PairSource],
        shares: Sequence[float] | None = None,
        augmentation: Augmentation = Augmentation(),
        seed: int = 0,
        first: int = 0,
    ):
        shares = [1.0] * len(sources) if shares is None else list(shares)
        if not sources or len(shares) != len(sources) or not all(math.isfinite(s) and s > 0 for s in shares):
            raise TrainingError(f"{len(sources)} sources of pairs with shares {shares}")
        if seed < 0 or first < 0:
            raise TrainingError(f"seed={seed} and first={first} must be at least 0")
        self._sources = list(sources)
        self._limits = np.cumsum(shares) / sum(shares)
        self._augmentation = augmentation
        self.seed, self.first = seed, first

    def starting_at(self, first: int) -> TrainingPairs:
        """Returns the same pairs from another number on.

        Args:
            first: Number of the first pair.
        """
        pairs = copy(self)
        pairs.first = first
        return pairs

    def pair(self, index: int) -> TrainingPair:
        """Makes one pair.

        Args:
            index: Number of the pair.

        Raises:
            TrainingError: The source cannot make the pair.
        """
        rng = np.random.default_rng([self.seed, index, 0])
        chosen = min(int(np.searchsorted(self._limits, rng.uniform(), side="right")), len(self._sources) - 1)
        return self._augmentation.change_pair(self._sources[chosen].pair(self.seed, index), rng)

    def __iter__(self) -> Iterator[TrainingPair]:
        worker = torch.utils.data.get_worker_info()
        index, step = (self.first, 1) if worker is None else (self.first + worker.id, worker.num_workers)
        while True:
            yield self.pair(index)
            index += step
