# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Retrieval: which keyframes may show what the query image shows.

A shortlist by the similarity of global descriptors, and by how well a view fits a pose prior where there is one. Then
local re-ranking, and from the best keyframes those that differ from each other. ``docs/retrieval.md`` has the effect of
each step.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nre_ros.errors import FeatureMismatchError
from nre_ros.features.base import FeatureMap
from nre_ros.keyframes.global_descriptor import GLOBAL_DESCRIPTOR
from nre_ros.keyframes.retrieval.pose_prior import PosePrior
from nre_ros.keyframes.retrieval.reranking import LocalReranker
from nre_ros.keyframes.retrieval.retrieval_index import RetrievalIndex, Shortlist, cosines
from nre_ros.keyframes.storage.store import KeyframeStore

_DISTINCT_PLACE_DISTANCE = 2.0
"""Two views show different places when their centre points are this far apart, in units of the viewing distance."""


@dataclass(frozen=True)
class RetrievalConfig:
    """How keyframes are chosen; all weights are in units of the descriptors' similarity.

    Attributes:
        shortlist: Keyframes to re-rank, at least four for each that is asked for.
        diversity: What a keyframe loses when it is identical to one that is chosen already.
        local: What a keyframe gains when all its points have a clear place in the query.
        prior: What a keyframe loses for each unit of log weight of the pose prior.
        aliasing_margin: A keyframe of another place within this margin of the best score counts as equally good.
    """

    shortlist: int = 20
    diversity: float = 0.2
    local: float = 0.2
    prior: float = 0.03
    aliasing_margin: float = 0.05


class Retriever:
    """Finds the keyframes of a map for a query, and follows the map as it changes. Not thread-safe."""

    def __init__(self, store: KeyframeStore, config: RetrievalConfig = RetrievalConfig()):
        """Reads the map's descriptors.

        Args:
            store: The map.
            config: How keyframes are chosen.

        Raises:
            FeatureMismatchError: The map was made with another global descriptor.
        """
        made_with = store.metadata().get("retrieval", "")
        if made_with != GLOBAL_DESCRIPTOR:
            raise FeatureMismatchError(
                f"map {store.path} was made for retrieval by {made_with or 'another descriptor'!r}, "
                f"not by {GLOBAL_DESCRIPTOR!r}: build it again"
            )
        self.store = store
        self.config = config
        self._index = RetrievalIndex(store)
        self._reranker = LocalReranker(store)

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """Ids [M] of the map's keyframes as of the last query, ascending."""
        return self._index.ids

    def query(
        self,
        descriptor: npt.NDArray[np.float32],
        count: int = 5,
        prior: PosePrior | None = None,
        features: FeatureMap | None = None,
        temperature: float = 1.0,
        exclude: Collection[int] = (),
    ) -> tuple[list[int], npt.NDArray[np.float32]]:
        """Finds keyframes for a query.

        The first keyframe is the best. Each further one is the best after a loss of ``diversity`` times its similarity
        to those chosen already (maximal marginal relevance, Carbonell and Goldstein 1998): five neighbours of one video
        show the same part of the scene five times. If another place resembles the query as much, one of its keyframes
        comes last, so that the estimator can notice the perceptual aliasing.

        Args:
            descriptor: [D] of the query, from ``global_descriptor``.
            count: Largest number of keyframes.
            prior: Where the camera may be. Keyframes whose view can overlap with the view from there are preferred; the
                others are not ruled out.
            features: The query's coarse features for local re-ranking; without them there is none.
            temperature: The backbone's ``coarse_temperature``.
            exclude: Ids of keyframes that are not to be found, as if the map did not have them.

        Returns:
            Ids, best first, and their similarities [K] in [-1, 1]. Both are empty for an empty map.

        Raises:
            FeatureMismatchError: The descriptor has another length than those of the map or is not finite.
        """
        with self.store.snapshot():
            self._reranker.drop(self._index.refresh())
            count = min(count, len(self._index) - len(exclude))
            if count <= 0:
                return [], np.zeros(0, np.float32)
            descriptor = self._checked(descriptor)
            shortlist_size = max(self.config.shortlist, 4 * count)
            found = self._index.shortlist(descriptor, shortlist_size + len(exclude), prior).without(exclude)
            rows, score = self._ranked(found, shortlist_size, features, temperature)
        chosen = _diverse(score, found.descriptors[rows], min(count, len(rows)), self.config.diversity)
        self._include_aliased_place(chosen, score, found.viewpoints[rows])
        best_first = rows[sorted(chosen, key=lambda k: -score[k])]
        return found.ids[best_first].tolist(), found.similarity[best_first]

    def _include_aliased_place(
        self, chosen: list[int], score: npt.NDArray[np.float64], viewpoints: npt.NDArray[np.float32]
    ) -> None:
        """Replaces the last chosen keyframe by the best one of another place, if that is as good as the first."""
        as_good = score >= score[chosen[0]] - self.config.aliasing_margin
        if len(chosen) < 2 or np.count_nonzero(as_good) < 2:
            return
        distance = self._index.typical_distance()
        centres = viewpoints[:, :3] + distance * viewpoints[:, 3:]
        away = np.linalg.norm(centres[:, None] - centres[chosen], axis=-1).min(axis=1)
        elsewhere = np.flatnonzero(as_good & (away > _DISTINCT_PLACE_DISTANCE * distance))
        if len(elsewhere):
            chosen[-1] = int(elsewhere[score[elsewhere].argmax()])

    def _checked(self, descriptor: npt.ArrayLike) -> npt.NDArray[np.float32]:
        descriptor = np.asarray(descriptor, dtype=np.float32)
        if descriptor.shape != (self._index.channels,):
            raise FeatureMismatchError(
                f"query descriptor has shape {descriptor.shape}, those of map {self.store.path} "
                f"have {(self._index.channels,)}"
            )
        if not np.isfinite(descriptor).all():
            raise FeatureMismatchError(
                f"query descriptor is not finite: {np.count_nonzero(~np.isfinite(descriptor))} of its "
                f"{descriptor.size} numbers"
            )
        return descriptor

    def _ranked(
        self, found: Shortlist, count: int, features: FeatureMap | None, temperature: float
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Returns the rows of the ``count`` best keyframes, in the order of their ids, and their scores."""
        score = found.similarity + self.config.prior * found.prior_weights
        # a stable sort: equal scores go by id, so the same image gives the same keyframes
        rows = np.sort(np.argsort(-score, kind="stable")[:count])
        score = score[rows]
        if features is not None:
            local = self._reranker.scores(found.ids[rows].tolist(), features, temperature)
            score = score + self.config.local * local.numpy()
        return rows, score


def _diverse(
    score: npt.NDArray[np.float64], descriptors: npt.NDArray[np.float32], count: int, diversity: float
) -> list[int]:
    """Chooses ``count`` rows: the best by score, then always the best that differs from those chosen."""
    chosen = [int(score.argmax())]
    nearest = cosines(descriptors, descriptors[chosen[0]])
    while len(chosen) < count:
        gain = score - diversity * nearest
        gain[chosen] = -np.inf
        chosen.append(int(gain.argmax()))
        nearest = np.maximum(nearest, cosines(descriptors, descriptors[chosen[-1]]))
    return chosen
