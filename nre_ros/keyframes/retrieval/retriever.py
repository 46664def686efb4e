# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which keyframes may show what the query shows.

A shortlist by the similarity of the global descriptors (and by how well a view fits a prior of
the pose, where there is one), re-ranked by a look at local descriptors, and from it the best that
differ from each other.  ``docs/maps.md`` says what each of these steps brings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nre_ros.errors import FeatureMismatchError
from nre_ros.features.base import FeatureMap
from nre_ros.keyframes.global_descriptor import GLOBAL_DESCRIPTOR, global_descriptor
from nre_ros.keyframes.retrieval.pose_prior import PosePrior
from nre_ros.keyframes.retrieval.reranking import PointSamples, peak_heights
from nre_ros.keyframes.retrieval.retrieval_index import Candidates, Catalogue, cosines

if TYPE_CHECKING:
    from nre_ros.keyframes.storage.store import KeyframeStore

__all__ = ["GLOBAL_DESCRIPTOR", "PosePrior", "RetrievalConfig", "Retriever", "global_descriptor"]

_ELSEWHERE = 2.0
"""Two views are of different places when the middles of what they show lie so far apart, in distances to it."""


@dataclass(frozen=True)
class RetrievalConfig:
    """How keyframes are chosen; all weights are in units of the descriptors' similarity.

    shortlist: keyframes looked at closely (at least four for each that is asked for).
    diversity: what a keyframe loses for being the same as one already taken.
    local: what it gains when all its points have a clear place in the query.
    prior: what it loses for a view that is one unit of log weight less likely.
    alike: a keyframe of another place that is worse by less than this is as good as the best.
    """

    shortlist: int = 20
    diversity: float = 0.2
    local: float = 0.2
    prior: float = 0.03
    alike: float = 0.05


class Retriever:
    """Finds a map's keyframes; follows the map as it changes.  Not thread-safe."""

    def __init__(self, store: KeyframeStore, config: RetrievalConfig = RetrievalConfig()):
        made_with = store.metadata().get("retrieval", "")
        if made_with != GLOBAL_DESCRIPTOR:
            raise FeatureMismatchError(
                f"map {store.path} was made for retrieval by {made_with or 'another descriptor'!r}, "
                f"not by {GLOBAL_DESCRIPTOR!r}: build it again"
            )
        self.store = store
        self.config = config
        self._catalogue = Catalogue(store)
        self._samples = PointSamples(store)

    @property
    def ids(self) -> np.ndarray:
        """Ids [M] of the map's keyframes as of the last query, ascending."""
        return self._catalogue.ids

    def query(
        self,
        descriptor: np.ndarray,
        count: int = 5,
        prior: PosePrior | None = None,
        features: FeatureMap | None = None,
        temperature: float = 1.0,
    ) -> tuple[list[int], np.ndarray]:
        """Ids of up to ``count`` keyframes, best first, and their similarities [K] in [-1, 1].

        descriptor: [D] from ``global_descriptor``.  prior: where the camera may be; keyframes whose
        view can overlap with the view from there are preferred, and the others not ruled out.
        features, temperature: the query's coarse features and the backbone's ``coarse_temperature``,
        for the look at local descriptors (without features there is none).

        The first keyframe is the best; each further one is the best less ``diversity`` times its
        similarity to the ones already taken (maximal marginal relevance, Carbonell and Goldstein
        1998): five neighbours of one video show the same part of the scene five times.  Where another
        place looks as much like the query, one of its keyframes is the last: nobody could tell otherwise
        that there are two.  An empty map gives an empty list.  Raises ``FeatureMismatchError`` for a
        descriptor of another length than the map's and for one that is not finite.
        """
        with self.store.snapshot():
            self._samples.forget(self._catalogue.refresh())
            count = min(count, len(self._catalogue))
            if count <= 0:
                return [], np.zeros(0, np.float32)
            descriptor = self._checked(descriptor)
            shortlist = max(self.config.shortlist, 4 * count)
            found = self._catalogue.candidates(descriptor, shortlist, prior)
            rows, score = self._ranked(found, shortlist, features, temperature)
        chosen = _diverse(score, found.descriptors[rows], min(count, len(rows)), self.config.diversity)
        self._add_look_alike(chosen, score, found.views[rows])
        chosen = rows[sorted(chosen, key=lambda k: -score[k])]
        return found.ids[chosen].tolist(), found.similarity[chosen]

    def _add_look_alike(self, chosen: list[int], score: np.ndarray, views: np.ndarray) -> None:
        """Puts the best keyframe of another place last among those chosen, if it is as good as the first."""
        as_good = score >= score[chosen[0]] - self.config.alike
        if len(chosen) < 2 or np.count_nonzero(as_good) < 2:
            return
        distance = self._catalogue.typical_distance()
        middles = views[:, :3] + distance * views[:, 3:]
        away = np.linalg.norm(middles[:, None] - middles[chosen], axis=-1).min(axis=1)
        rivals = np.flatnonzero(as_good & (away > _ELSEWHERE * distance))
        if len(rivals):
            chosen[-1] = int(rivals[score[rivals].argmax()])

    def _checked(self, descriptor: np.ndarray) -> np.ndarray:
        descriptor = np.asarray(descriptor, dtype=np.float32)
        if descriptor.shape != (self._catalogue.channels,):
            raise FeatureMismatchError(
                f"query descriptor has shape {descriptor.shape}, those of map {self.store.path} "
                f"have {(self._catalogue.channels,)}"
            )
        if not np.isfinite(descriptor).all():
            raise FeatureMismatchError(
                f"query descriptor is not finite: {np.count_nonzero(~np.isfinite(descriptor))} of its "
                f"{descriptor.size} numbers"
            )
        return descriptor

    def _ranked(self, found: Candidates, count: int, features, temperature) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the ``count`` best candidates, in the order of their ids, and their scores."""
        score = found.similarity + self.config.prior * found.fit
        # a stable sort: equal scores go by id, so the same image gives the same keyframes
        rows = np.sort(np.argsort(-score, kind="stable")[:count])
        score = score[rows]
        if features is not None:
            samples = self._samples.of(found.ids[rows].tolist())
            score = score + self.config.local * peak_heights(samples, features, temperature).numpy()
        return rows, score


def _diverse(score: np.ndarray, descriptors: np.ndarray, count: int, diversity: float) -> list[int]:
    """``count`` of the rows: the best by score, then always the best that differs from those taken."""
    chosen = [int(score.argmax())]
    nearest = cosines(descriptors, descriptors[chosen[0]])
    while len(chosen) < count:
        gain = score - diversity * nearest
        gain[chosen] = -np.inf
        chosen.append(int(gain.argmax()))
        nearest = np.maximum(nearest, cosines(descriptors, descriptors[chosen[-1]]))
    return chosen
