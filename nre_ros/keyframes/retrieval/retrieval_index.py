# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What retrieval knows of a map's keyframes, kept up with the map as it changes.

Keyframes of the index that the map file holds stay in it; those that were added or changed since,
and all keyframes of a map without one, are in memory and looked through.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from nre_ros.errors import MapFormatError
from nre_ros.keyframes.global_descriptor import GLOBAL_DESCRIPTOR
from nre_ros.keyframes.retrieval.descriptor_index import SMALL, KeyframeIndex, NoIndexError
from nre_ros.keyframes.retrieval.pose_prior import PosePrior, views_of
from nre_ros.keyframes.storage.blobs import dequantise

if TYPE_CHECKING:
    from nre_ros.keyframes.storage.change_log import MapChanges
    from nre_ros.keyframes.storage.rows import KeyframeScan
    from nre_ros.keyframes.storage.store import KeyframeStore

_LOG = logging.getLogger(__name__)

PRIOR_FLOOR = -4.5
"""Log weight below which a prior tells no more: three standard deviations off, and further."""
_SAMPLE = 32
"""Keyframes from which the typical distance of what a camera sees is learnt."""


@dataclass(frozen=True)
class Candidates:
    """Keyframes that may show what the query shows.

    ids: [K]; descriptors: [K, D] float32; similarity: [K] cosines with the query; fit: [K] log
    weights that the prior gives their views, ``PRIOR_FLOOR`` to 0 (0 without a prior).  views: [K, 6], see ``views_of``.
    """

    ids: np.ndarray
    descriptors: np.ndarray
    similarity: np.ndarray
    fit: np.ndarray
    views: np.ndarray


class Catalogue:
    """The keyframes of ``store``.  ``refresh`` brings it up to date; not thread-safe."""

    def __init__(self, store: KeyframeStore):
        self.store = store
        self._channels = 0
        self._index: KeyframeIndex | None = None
        self._position = (0, 0)
        self._forget_fresh()
        self._revision = None
        self._distance: float | None = None
        self._distance_of = 0  # keyframes, when it was taken
        self.refresh()

    def __len__(self) -> int:
        return len(self._ids) + (np.count_nonzero(self._valid) if self._index else 0)

    @property
    def channels(self) -> int:
        """Length of the descriptors, 0 of an empty map."""
        return self._channels

    @property
    def ids(self) -> np.ndarray:
        """Ids [M] of all keyframes, ascending."""
        indexed = self._index.ids[self._valid] if self._index else self._ids[:0]
        return np.sort(np.concatenate([indexed, self._ids]))

    def refresh(self) -> tuple[int, ...]:
        """Takes in what this or another process has done to the map since; ids of what is not as it was."""
        revision = self.store.revision
        # what is being written may be taken back, and its ids given again
        if revision == self._revision or (self.store.database.writing and self._revision is not None):
            return ()
        with self.store.snapshot():
            if self._revision is None:
                self._open_index()
            changes = self._take_in_changes()
            if self._index is not None and len(self) != len(self.store):
                _LOG.warning("map %s: its index is of other keyframes; all are looked through", self.store.path)
                self._index, self._position = None, (0, 0)
                self._forget_fresh()
                changes = self._take_in_changes()
            if len(self) != len(self.store):
                raise MapFormatError(
                    f"map {self.store.path} is damaged: {len(self)} keyframes where {len(self.store)} should be"
                )
        self._revision = revision
        return changes.changed + changes.removed

    def candidates(self, descriptor: np.ndarray, count: int, prior: PosePrior | None = None) -> Candidates:
        """The keyframes [K >= min(count, M)] most similar to ``descriptor`` [D], those that fit the prior among them.

        In the order of their ids.
        """
        found = [self._from_memory(descriptor, count, prior)]
        if self._index is not None:
            found.append(self._from_index(descriptor, count, prior))
        ids, descriptors, views = (np.concatenate(parts) for parts in zip(*found))
        order = np.argsort(ids)
        ids, descriptors, views = ids[order], descriptors[order], views[order]
        return Candidates(ids, descriptors, cosines(descriptors, descriptor), self._fit(prior, views), views)

    def _from_memory(self, descriptor, count, prior):
        """Ids, descriptors and views of candidates among the keyframes in memory."""
        if not len(self._ids):
            return self._ids, self._descriptors.reshape(0, len(descriptor)), self._views
        similarity = cosines(self._descriptors, descriptor)
        # a stable sort: equal similarities go by id, so the same image gives the same keyframes
        rows = np.argsort(-similarity, kind="stable")[:count]
        if prior is not None:
            fits = np.flatnonzero(self._fit(prior, self._views) > PRIOR_FLOOR)
            rows = np.union1d(rows, fits[np.argsort(-similarity[fits], kind="stable")[:count]])
        return self._ids[rows], self._descriptors[rows], self._views[rows]

    def _from_index(self, descriptor, count, prior):
        """The same of the index; what is said of a keyframe is read from the map anew."""
        allowed = None if self._valid.all() else self._valid
        rows = self._index.search(descriptor, count, allowed)
        if prior is not None:
            fits = self._valid & (self._fit(prior, self._index.views) > PRIOR_FLOOR)
            if fits.any() and not fits.all():
                rows = np.union1d(rows, self._index.search(descriptor, count, fits))
        scans = list(self.store.scan_ids(self._index.ids[rows]))
        if not scans:
            return self._ids[:0], self._descriptors[:0].reshape(0, len(descriptor)), self._views[:0]
        return tuple(np.concatenate(parts) for parts in zip(*map(_columns, scans)))

    def _fit(self, prior: PosePrior | None, views: np.ndarray) -> np.ndarray:
        if prior is None or not len(views):
            return np.zeros(len(views))
        return prior.log_weights(views, self.typical_distance()).clip(PRIOR_FLOOR, 0)

    def typical_distance(self) -> float:
        """Median of the distances, along the axis, of the points of a few keyframes; anew when the map is twice as large."""
        count = len(self)
        if self._distance is None or count > 2 * self._distance_of:
            ids = self.ids
            chosen = ids[np.unique(np.linspace(0, len(ids) - 1, _SAMPLE).round().astype(int))]
            depths = np.concatenate(
                [
                    (keyframe.points - keyframe.T_map_cam[:3, 3]) @ keyframe.T_map_cam[:3, 2]
                    for keyframe in self.store.load_readable(chosen)
                ]
                or [np.zeros(0)]
            )
            depths = depths[depths > 0]
            self._distance, self._distance_of = float(np.median(depths)) if len(depths) else 1.0, count
        return self._distance

    def _take_in_changes(self) -> MapChanges:
        changes = self.store.changes(self._position)
        scans = [*self.store.scan_ids(changes.changed), *self.store.scan(after=self._position[1])]
        self._drop(np.array([*changes.changed, *changes.removed, *changes.added], np.int64))
        self._take(scans)
        self._position = changes.position
        return changes

    def _open_index(self) -> None:
        """Takes the map's index if it has one that fits; a map is not refused for one that does not."""
        channels = int(self.store.metadata().get("global_channels", 0))
        try:
            data = self.store.read_index()
            if data is None and len(self.store) > SMALL:
                raise NoIndexError(f"it has no index of its {len(self.store)} keyframes")
            if data is None:
                return
            index = KeyframeIndex.from_bytes(data, GLOBAL_DESCRIPTOR, channels)
        except (NoIndexError, MapFormatError) as error:
            _LOG.warning("map %s: %s; all keyframes are looked through", self.store.path, error)
            return
        self._index, self._position, self._channels = index, index.position, channels
        self._valid = np.ones(len(index.ids), bool)

    def _forget_fresh(self) -> None:
        self._ids, self._views = np.zeros(0, np.int64), np.zeros((0, 6), np.float32)
        self._descriptors = np.zeros((0, 0), np.float32)

    def _drop(self, ids: np.ndarray) -> None:
        if self._index is not None:
            self._valid &= ~np.isin(self._index.ids, ids)
        keep = ~np.isin(self._ids, ids)
        self._ids, self._views, self._descriptors = self._ids[keep], self._views[keep], self._descriptors[keep]

    def _take(self, scans: list[KeyframeScan]) -> None:
        if not scans:
            return
        ids, descriptors, views = (np.concatenate(parts) for parts in zip(*map(_columns, scans)))
        self._channels = descriptors.shape[1]
        ids, views = np.concatenate([self._ids, ids]), np.concatenate([self._views, views])
        descriptors = np.concatenate([self._descriptors.reshape(-1, self._channels), descriptors])
        order = np.argsort(ids)
        self._ids, self._views, self._descriptors = ids[order], views[order], descriptors[order]


def _columns(scan: KeyframeScan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, descriptors [M, D] float32 and views [M, 6]."""
    return scan.ids, dequantise(scan.descriptors, scan.scales), views_of(scan.poses)


def cosines(descriptors: np.ndarray, descriptor: np.ndarray) -> np.ndarray:
    """Cosines [M] of unit-length descriptors [M, D] with one [D].

    By torch: numpy's BLAS has threads of its own that go on spinning and take the cores from torch's.
    """
    return torch.mv(torch.from_numpy(descriptors), torch.from_numpy(descriptor)).numpy()
