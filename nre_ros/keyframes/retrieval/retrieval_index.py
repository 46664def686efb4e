# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The retrieval index: global descriptors and viewpoints of a map's keyframes, kept up to date with the map.

Keyframes in the descriptor index of the map file stay there. Keyframes that were added or changed since, and all
keyframes of a map without a descriptor index, are held in memory and searched exhaustively.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch

from nre_ros.errors import MapFormatError
from nre_ros.keyframes.global_descriptor import GLOBAL_DESCRIPTOR
from nre_ros.keyframes.retrieval.descriptor_index import DescriptorIndex, IndexUnavailableError, needs_index
from nre_ros.keyframes.retrieval.pose_prior import PosePrior, viewpoints_of
from nre_ros.keyframes.storage.change_log import START, MapChanges
from nre_ros.keyframes.storage.rows import KeyframeScan
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.sampling import evenly_spaced_indices

_LOG = logging.getLogger(__name__)

PRIOR_FLOOR = -4.5
"""Lowest log weight of a pose prior: three standard deviations off, and all that is farther off."""
_DISTANCE_SAMPLE = 32
"""Keyframes from which the typical viewing distance is computed."""

_Rows = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""Ids [K], descriptors [K, D] and viewpoints [K, 6] of keyframes."""


@dataclass(frozen=True)
class Shortlist:
    """Keyframes that may show what the query shows, in the order of their ids.

    Attributes:
        ids: [K] int64.
        descriptors: [K, D] float32 global descriptors.
        similarity: [K] float32, cosines with the query's descriptor.
        prior_weights: [K] log weights of the viewpoints under the pose prior, ``PRIOR_FLOOR`` to 0 (0 without a prior).
        viewpoints: [K, 6] float32 about the map's origin, see ``viewpoints_of``.
    """

    ids: npt.NDArray[np.int64]
    descriptors: npt.NDArray[np.float32]
    similarity: npt.NDArray[np.float32]
    prior_weights: npt.NDArray[np.float64]
    viewpoints: npt.NDArray[np.float32]

    def without(self, exclude: Collection[int]) -> Shortlist:
        """Returns the same without some keyframes.

        Args:
            exclude: Ids of keyframes.
        """
        if not exclude:
            return self
        keep = ~np.isin(self.ids, list(exclude))
        return Shortlist(*(getattr(self, field.name)[keep] for field in fields(self)))


class RetrievalIndex:
    """The keyframes of a map; ``refresh`` brings them up to date. Not thread-safe."""

    def __init__(self, store: KeyframeStore):
        self.store = store
        self._channels = 0
        self._index: DescriptorIndex | None = None
        self._valid = np.zeros(0, bool)  # rows of the index that are as they were
        self._position = START
        self._revision: tuple[int, int] | None = None
        self._distance: float | None = None
        self._distance_count = 0  # number of keyframes when the distance was computed
        self._clear_memory()
        self.refresh()

    def __len__(self) -> int:
        return len(self._ids) + int(np.count_nonzero(self._valid))

    @property
    def channels(self) -> int:
        """Length of the descriptors, 0 for an empty map."""
        return self._channels

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """Ids [M] of all keyframes, ascending."""
        indexed = self._index.ids[self._valid] if self._index else self._ids[:0]
        return np.sort(np.concatenate([indexed, self._ids]))

    def refresh(self) -> tuple[int, ...]:
        """Takes over the changes that this and other processes made to the map.

        Returns:
            Ids of the keyframes that were changed or removed.

        Raises:
            MapFormatError: The map is damaged.
        """
        revision = self.store.revision
        # what is written at present may be rolled back, and its ids given again
        if revision == self._revision or (self.store.writing and self._revision is not None):
            return ()
        with self.store.snapshot():
            if self._revision is None:
                self._open_index()
            changes = self._apply_changes()
            if self._index is not None and len(self) != len(self.store):
                _LOG.warning(
                    "map %s: its retrieval index is of other keyframes; the search is exhaustive", self.store.path
                )
                self._index, self._valid, self._position = None, np.zeros(0, bool), START
                self._clear_memory()
                changes = self._apply_changes()
            if len(self) != len(self.store):
                raise MapFormatError(
                    f"map {self.store.path} is damaged: {len(self)} keyframes where {len(self.store)} should be"
                )
        self._revision = revision
        return changes.changed + changes.removed

    def shortlist(self, descriptor: npt.NDArray[np.float32], count: int, prior: PosePrior | None = None) -> Shortlist:
        """Finds the keyframes that are most similar to a query.

        Args:
            descriptor: [D] of the query.
            count: Number of keyframes.
            prior: Where the camera may be; the most similar keyframes under the prior are added.

        Returns:
            At least ``count`` keyframes, or all of a smaller map.
        """
        found = [self._search_memory(descriptor, count, prior)]
        if self._index is not None:
            found.append(self._search_index(self._index, descriptor, count, prior))
        ids, descriptors, viewpoints = (np.concatenate(parts) for parts in zip(*found))
        order = np.argsort(ids)
        ids, descriptors, viewpoints = ids[order], descriptors[order], viewpoints[order]
        similarity = cosines(descriptors, descriptor)
        return Shortlist(ids, descriptors, similarity, self._prior_weights(prior, viewpoints), viewpoints)

    def typical_distance(self) -> float:
        """Returns the median distance of points along the optical axis, in metres, from a sample of the keyframes.

        The distance is computed again when the map has become twice as large.
        """
        count = len(self)
        if self._distance is None or count > 2 * self._distance_count:
            ids = self.ids
            sample = ids[evenly_spaced_indices(len(ids), _DISTANCE_SAMPLE)]
            depths = np.concatenate(
                [
                    (keyframe.points - keyframe.T_map_cam[:3, 3]) @ keyframe.T_map_cam[:3, 2]
                    for keyframe in self.store.load_readable(sample.tolist())
                ]
                or [np.zeros(0)]
            )
            depths = depths[depths > 0]
            self._distance, self._distance_count = float(np.median(depths)) if len(depths) else 1.0, count
        return self._distance

    def _search_memory(self, descriptor: npt.NDArray[np.float32], count: int, prior: PosePrior | None) -> _Rows:
        """Searches the keyframes in memory exhaustively."""
        if not len(self._ids):
            return self._ids, self._descriptors.reshape(0, len(descriptor)), self._viewpoints
        similarity = cosines(self._descriptors, descriptor)
        # a stable sort: equal similarities go by id, so the same image gives the same keyframes
        rows = np.argsort(-similarity, kind="stable")[:count]
        if prior is not None:
            fits = np.flatnonzero(self._prior_weights(prior, self._viewpoints) > PRIOR_FLOOR)
            rows = np.union1d(rows, fits[np.argsort(-similarity[fits], kind="stable")[:count]])
        return self._ids[rows], self._descriptors[rows], self._viewpoints[rows]

    def _search_index(
        self, index: DescriptorIndex, descriptor: npt.NDArray[np.float32], count: int, prior: PosePrior | None
    ) -> _Rows:
        """Searches the descriptor index, and reads the keyframes that were found from the map."""
        rows = index.search(descriptor, count, None if self._valid.all() else self._valid)
        if prior is not None:
            fits = self._valid & (self._prior_weights(prior, index.viewpoints) > PRIOR_FLOOR)
            if fits.any() and not fits.all():
                rows = np.union1d(rows, index.search(descriptor, count, fits))
        scans = list(self.store.scan_ids(index.ids[rows].tolist()))
        if not scans:
            return self._ids[:0], self._descriptors[:0].reshape(0, len(descriptor)), self._viewpoints[:0]
        return self._concatenated(scans)

    def _prior_weights(self, prior: PosePrior | None, viewpoints: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        if prior is None or not len(viewpoints):
            return np.zeros(len(viewpoints))
        return prior.log_weights(viewpoints, self.typical_distance(), self.store.origin).clip(PRIOR_FLOOR, 0)

    def _open_index(self) -> None:
        """Reads the map's descriptor index if there is one that fits; a map without one works too."""
        channels = int(self.store.metadata().get("global_channels", 0))
        try:
            data = self.store.read_index()
            if data is None and needs_index(len(self.store)):
                raise IndexUnavailableError(f"it has no retrieval index of its {len(self.store)} keyframes")
            if data is None:
                return
            index = DescriptorIndex.from_bytes(data, GLOBAL_DESCRIPTOR, channels)
        except (IndexUnavailableError, MapFormatError) as error:
            _LOG.warning("map %s: %s; the search is exhaustive", self.store.path, error)
            return
        self._index, self._position, self._channels = index, index.position, channels
        self._valid = np.ones(len(index.ids), bool)

    def _apply_changes(self) -> MapChanges:
        changes = self.store.changes(self._position)
        scans = [*self.store.scan_ids(changes.changed), *self.store.scan(after=self._position[1])]
        self._drop(np.array([*changes.changed, *changes.removed, *changes.added], np.int64))
        self._add(scans)
        self._position = changes.position
        return changes

    def _clear_memory(self) -> None:
        self._ids, self._viewpoints = np.zeros(0, np.int64), np.zeros((0, 6), np.float32)
        self._descriptors = np.zeros((0, 0), np.float32)

    def _drop(self, ids: npt.NDArray[np.int64]) -> None:
        if self._index is not None:
            self._valid &= ~np.isin(self._index.ids, ids)
        keep = ~np.isin(self._ids, ids)
        self._ids, self._descriptors = self._ids[keep], self._descriptors[keep]
        self._viewpoints = self._viewpoints[keep]

    def _add(self, scans: Sequence[KeyframeScan]) -> None:
        """Adds keyframes to those in memory, in the order of the ids."""
        if not scans:
            return
        ids, descriptors, viewpoints = self._concatenated(scans)
        self._channels = descriptors.shape[1]
        ids, viewpoints = np.concatenate([self._ids, ids]), np.concatenate([self._viewpoints, viewpoints])
        descriptors = np.concatenate([self._descriptors.reshape(-1, self._channels), descriptors])
        order = np.argsort(ids)
        self._ids, self._descriptors, self._viewpoints = ids[order], descriptors[order], viewpoints[order]

    def _concatenated(self, scans: Sequence[KeyframeScan]) -> _Rows:
        origin = self.store.origin
        return (
            np.concatenate([scan.ids for scan in scans]),
            np.concatenate([scan.global_descriptors() for scan in scans]),
            np.concatenate([viewpoints_of(scan.poses, origin) for scan in scans]),
        )


def cosines(descriptors: npt.NDArray[np.float32], descriptor: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Computes the cosines of descriptors with a descriptor.

    torch computes them: numpy's BLAS has threads of its own that keep spinning and take the cores from torch's.

    Args:
        descriptors: [M, D] of unit length.
        descriptor: [D] of unit length.

    Returns:
        [M].
    """
    similarities: npt.NDArray[np.float32] = torch.mv(
        torch.from_numpy(descriptors), torch.from_numpy(descriptor)
    ).numpy()
    return similarities
