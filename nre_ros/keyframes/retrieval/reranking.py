# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A cheap look at local descriptors: do a few points of a keyframe have a place in the query?"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from nre_ros.errors import MapFormatError
from nre_ros.features.base import FeatureMap

if TYPE_CHECKING:
    from nre_ros.keyframes.storage.store import KeyframeStore

_LOG = logging.getLogger(__name__)
POINTS = 24
"""Points looked at in a keyframe: its first ones, which are its best and spread over its image."""
_KEPT = 4000
"""Keyframes whose points stay in memory, 6 kB each."""


class PointSamples:
    """The first points' coarse descriptors of the keyframes used last.  Not thread-safe."""

    def __init__(self, store: KeyframeStore):
        self._store = store
        self._kept: OrderedDict[int, torch.Tensor] = OrderedDict()

    def of(self, keyframe_ids: Iterable[int]) -> list[torch.Tensor]:
        """[<= POINTS, C] float32 of each keyframe, none of a damaged one."""
        found = []
        for keyframe_id in keyframe_ids:
            sample = self._kept.pop(keyframe_id, None)
            if sample is None:
                try:
                    sample = torch.from_numpy(self._store.coarse_descriptors(keyframe_id, POINTS))
                except MapFormatError as error:
                    _LOG.warning("left out: %s", error)
                    sample = torch.zeros(0)
            self._kept[keyframe_id] = sample
            found.append(sample)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return found

    def forget(self, keyframe_ids: Iterable[int]) -> None:
        """Keyframes that are not what they were."""
        for keyframe_id in keyframe_ids:
            self._kept.pop(keyframe_id, None)


@torch.inference_mode()
def peak_heights(samples: list[torch.Tensor], features: FeatureMap, temperature: float) -> torch.Tensor:
    """Mean height [K] in [0, 1] of the peaks of the keyframes' points in the query's coarse features.

    The height is the largest value of a point's correspondence map (a softmax over the cells, as in
    ``nre.maps``): near 1 where one place of the query stands out, near 0 where none or many do.
    """
    counts = [len(sample) for sample in samples]
    if not sum(counts):
        return torch.zeros(len(samples))
    logits = (torch.cat(samples).to(features.data) / temperature) @ features.data.flatten(1)
    heights = 1 / logits.sub_(logits.amax(dim=1, keepdim=True)).exp_().sum(dim=1)
    return torch.stack([part.mean() if len(part) else part.sum() for part in heights.split(counts)]).cpu()
