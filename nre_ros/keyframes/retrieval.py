"""Which keyframes may show what the query shows.

The global descriptor comes from the query's own coarse features, without a second network and
without trained data: second-order pooling with the matrix square root (Li et al., "Is
Second-order Information Helpful for Large-scale Visual Recognition?", ICCV 2017; signed square
root as in Lin et al., "Bilinear CNN Models", ICCV 2015).  ``docs/maps.md`` has the comparison
with mean, GeM, pyramid and VLAD pooling.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from nre_ros.errors import FeatureMismatchError
from nre_ros.features.base import FeatureMap

if TYPE_CHECKING:
    from nre_ros.keyframes.store import KeyframeStore

GLOBAL_DESCRIPTOR = "covariance-sqrt-1"
"""Name of the descriptor below; a map remembers it, and another one cannot be compared with it."""

_MAX_CHANNELS = 64
"""1280 channels (a published network) would make 820,000 numbers a keyframe."""
_DIVERSITY = 0.2
_SHORTLIST = 4


def global_descriptor(features: FeatureMap) -> np.ndarray:
    """[C (C + 1) / 2] float32 unit-length descriptor of a dense map: its channels' covariance.

    The mean is left out (it follows the light more than the place); the square root of the
    matrix keeps one strong direction, a large textureless wall say, from ruling the rest.
    Features of more than 64 channels are projected to 64 first.
    """
    # Not with numpy: its BLAS has threads of its own, which go on spinning after the call and take
    # the cores from torch's (measured on two cores: the correspondence maps then take 2.5 times as long).
    values, vectors = torch.linalg.eigh(torch.cov(_compact(features.data.flatten(1)).double()))
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    rows, columns = torch.triu_indices(*root.shape, device=root.device)
    pooled = root[rows, columns] * torch.where(rows == columns, 1.0, math.sqrt(2.0))
    pooled = pooled.sign() * pooled.abs().sqrt()
    return (pooled / pooled.norm().clamp_min(1e-12)).float().cpu().numpy()


def _compact(features: torch.Tensor) -> torch.Tensor:
    """Features [C, N] as [min(C, 64), N], which approximates their inner products."""
    channels = len(features)
    return features if channels <= _MAX_CHANNELS else _signs(channels).to(features) @ features


@lru_cache(maxsize=4)
def _signs(channels: int) -> torch.Tensor:
    """[64, C] random signs (Achlioptas, "Database-friendly random projections", JCSS 2003).

    The same for every map: NumPy keeps the numbers of this old generator as they are for good.
    """
    bits = np.random.RandomState(0).randint(2, size=(_MAX_CHANNELS, channels), dtype=np.int64)
    return torch.from_numpy(2.0 * bits - 1) / math.sqrt(_MAX_CHANNELS)


class Retriever:
    """Finds keyframes by cosine similarity of the global descriptors; follows a growing map."""

    def __init__(self, store: KeyframeStore):
        made_with = store.metadata().get("retrieval", "")
        if made_with != GLOBAL_DESCRIPTOR:
            raise FeatureMismatchError(
                f"map {store.path} was made for retrieval by {made_with or 'another descriptor'!r}, "
                f"not by {GLOBAL_DESCRIPTOR!r}: build it again"
            )
        self.store = store
        self._revision = None
        self._refresh()

    def query(self, descriptor: np.ndarray, count: int = 5) -> tuple[list[int], np.ndarray]:
        """Ids of up to ``count`` keyframes, best first, and their similarities [K] in [-1, 1].

        descriptor: [D] from ``global_descriptor``.  The first is the most similar; each further
        one is the best in similarity less ``_DIVERSITY`` times that to the ones already taken
        (maximal marginal relevance, Carbonell and Goldstein 1998): five neighbours of one video
        show the same part of the scene five times.  An empty map gives an empty list.
        """
        self._refresh()
        count = min(count, len(self.ids))
        if count <= 0:
            return [], np.zeros(0, np.float32)
        if descriptor.shape != self.descriptors.shape[1:]:
            raise FeatureMismatchError(
                f"query descriptor has shape {descriptor.shape}, those of map {self.store.path} "
                f"have {self.descriptors.shape[1:]}"
            )
        similarity = _similarity(self.descriptors, descriptor.astype(np.float32))
        # a stable sort: equal similarities go by id, so the same image gives the same keyframes
        shortlist = np.argsort(-similarity, kind="stable")[: _SHORTLIST * count]
        chosen = shortlist[_diverse(similarity[shortlist], self.descriptors[shortlist], count)]
        chosen = chosen[np.argsort(-similarity[chosen], kind="stable")]
        return self.ids[chosen].tolist(), similarity[chosen]

    def _refresh(self) -> None:
        revision = self.store.revision
        if revision != self._revision:
            self.ids, self.poses, self.descriptors = self.store.global_descriptors()
            self._revision = revision


def _diverse(similarity: np.ndarray, descriptors: np.ndarray, count: int) -> list[int]:
    chosen = [0]
    nearest = _similarity(descriptors, descriptors[0])
    while len(chosen) < count:
        gain = similarity - _DIVERSITY * nearest
        gain[chosen] = -np.inf
        chosen.append(int(gain.argmax()))
        nearest = np.maximum(nearest, _similarity(descriptors, descriptors[chosen[-1]]))
    return chosen


def _similarity(descriptors: np.ndarray, descriptor: np.ndarray) -> np.ndarray:
    """Cosines [M] of unit-length descriptors [M, D] with one [D]; by torch, for the reason above."""
    return torch.mv(torch.from_numpy(descriptors), torch.from_numpy(descriptor)).numpy()
