# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Local re-ranking: whether a few points of a keyframe have a clear place in the query image."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import torch

from nre_ros.errors import MapFormatError
from nre_ros.features.base import FeatureMap
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.nre.operators import operator

_LOG = logging.getLogger(__name__)

POINTS_PER_KEYFRAME = 24
"""The first points of a keyframe, which are its best ones and spread over its image."""
_CACHED_DESCRIPTOR_SETS = 4000
"""Keyframes whose descriptors stay in memory, 6 kB each."""


class LocalReranker:
    """Scores keyframes by their local descriptors; keeps the descriptors of recent keyframes. Not thread-safe."""

    def __init__(self, store: KeyframeStore):
        self._store = store
        self._cache: OrderedDict[int, torch.Tensor] = OrderedDict()

    def scores(self, keyframe_ids: Sequence[int], features: FeatureMap, temperature: float) -> torch.Tensor:
        """Scores keyframes against a query.

        Args:
            keyframe_ids: K ids.
            features: The query's coarse features.
            temperature: The backbone's ``coarse_temperature``.

        Returns:
            [K] in [0, 1], see ``mean_peak_heights``; 0 for a damaged keyframe, which is logged.
        """
        return mean_peak_heights(self._descriptors(keyframe_ids), features, temperature)

    def drop(self, keyframe_ids: Iterable[int]) -> None:
        """Removes the descriptors of keyframes that were changed or removed.

        Args:
            keyframe_ids: Ids of the keyframes.
        """
        for keyframe_id in keyframe_ids:
            self._cache.pop(keyframe_id, None)

    def _descriptors(self, keyframe_ids: Sequence[int]) -> list[torch.Tensor]:
        """Returns coarse descriptors [<= POINTS_PER_KEYFRAME, C] of each keyframe, none of a damaged one."""
        found = []
        for keyframe_id in keyframe_ids:
            descriptors = self._cache.pop(keyframe_id, None)
            if descriptors is None:
                try:
                    descriptors = torch.from_numpy(self._store.coarse_descriptors(keyframe_id, POINTS_PER_KEYFRAME))
                except MapFormatError as error:
                    _LOG.warning("keyframe %d is left out: %s", keyframe_id, error)
                    descriptors = torch.zeros(0)
            self._cache[keyframe_id] = descriptors
            found.append(descriptors)
        while len(self._cache) > _CACHED_DESCRIPTOR_SETS:
            self._cache.popitem(last=False)
        return found


@torch.inference_mode()
def mean_peak_heights(descriptors: Sequence[torch.Tensor], features: FeatureMap, temperature: float) -> torch.Tensor:
    """Returns the mean height of the peaks of correspondence maps, for each keyframe.

    Args:
        descriptors: K tensors [N_k, C], the coarse descriptors of points of each keyframe.
        features: The query's coarse features.
        temperature: Of the softmax.

    Returns:
        [K] in [0, 1], on the CPU; 0 for a keyframe without points.
    """
    counts = [len(rows) for rows in descriptors]
    if not sum(counts):
        return torch.zeros(len(counts))
    heights = peak_heights(torch.cat(list(descriptors)).to(features.data), features.data, temperature)
    return torch.stack([part.mean() if len(part) else part.sum() for part in heights.split(counts)]).cpu()


@operator
def peak_heights(descriptors: torch.Tensor, features: torch.Tensor, temperature: float) -> torch.Tensor:
    """Computes the heights of the peaks of correspondence maps.

    The height of a point's peak is the largest value of its correspondence map, a softmax over the cells as in
    ``nre.maps``. It is near 1 where one place of the query stands out, and near 0 where none or many do.

    Args:
        descriptors: [N, C] float32 of points.
        features: [C, H, W] float32 of the query.
        temperature: Of the softmax.

    Returns:
        [N] in [0, 1].
    """
    logits = (descriptors / temperature) @ features.flatten(1)
    return 1 / logits.sub_(logits.amax(dim=1, keepdim=True)).exp_().sum(dim=1)
