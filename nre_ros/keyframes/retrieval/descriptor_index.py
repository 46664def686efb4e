# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The descriptor index: approximate nearest-neighbour search among the global descriptors of a large map.

It consists of faiss's inverted lists (Sivic and Zisserman, "Video Google", ICCV 2003) of the descriptors' 256 principal
components with 8 bits each. It only finds a shortlist: how similar a keyframe is, and where it is, is read from the map.
The map file contains the index together with the position in the map's change log at which it was made.
``retrieval_index`` reads from there which keyframes were added, changed or removed since.
"""

from __future__ import annotations

import logging
import struct
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nre_ros.keyframes.global_descriptor import GLOBAL_DESCRIPTOR
from nre_ros.keyframes.retrieval.inverted_lists import InvertedLists, read_serialized_lists
from nre_ros.keyframes.retrieval.pose_prior import viewpoints_of
from nre_ros.keyframes.storage.blobs import decode_array, dequantise, encode_array
from nre_ros.keyframes.storage.change_log import Position
from nre_ros.keyframes.storage.store import KeyframeStore

_LOG = logging.getLogger(__name__)

SMALL_MAP = 4000
"""Maps of up to so many keyframes get no index: an exhaustive search takes a millisecond and misses none."""
_INDEX_MAGIC = b"nre-index-2\n"
_SERIALIZED_MAGIC = b"nre-index-1\n"
"""Indices of older versions, whose lists faiss has serialized."""
_COMPONENTS = 256
_PROBED_LISTS = 32
"""Lists that a query searches (docs/maps.md has recall and time)."""
_TRAINING_DESCRIPTORS = 40
"""Descriptors for each list, from which the lists and the components are learnt."""
_ADDED_AT_ONCE = 4096


class IndexUnavailableError(Exception):
    """Why a map's index cannot be made or used; the search is exhaustive then."""


@dataclass(frozen=True, eq=False)
class DescriptorIndex:
    """The keyframes of a map at a position of its change log.

    Attributes:
        position: See ``KeyframeStore.changes``.
        ids: [M] int64, ascending.
        viewpoints: [M, 6] float32 about the map's origin, see ``viewpoints_of``.
        mean: [D] float32, mean of the descriptors.
        components: [P, D] float32, principal components of the descriptors.
        lists: The faiss index of the projected descriptors, in the order of the ids.
    """

    position: Position
    ids: npt.NDArray[np.int64]
    viewpoints: npt.NDArray[np.float32]
    mean: npt.NDArray[np.float32]
    components: npt.NDArray[np.float32]
    lists: Any  # a faiss.IndexIVF, which has no types

    def search(
        self, descriptor: npt.NDArray[np.float32], count: int, allowed: npt.NDArray[np.bool_] | None = None
    ) -> npt.NDArray[np.int64]:
        """Searches the keyframes that are most similar to a descriptor.

        Args:
            descriptor: [D] of the query.
            count: Largest number of keyframes.
            allowed: [M] rows that may be returned; None for all.

        Returns:
            Rows [K <= count] of this index, best first.
        """
        faiss = _faiss()
        parameters = faiss.SearchParametersIVF(nprobe=_PROBED_LISTS)
        if allowed is not None:
            # each list contains few of the allowed rows: more lists are searched, for as many rows
            allowed_count = max(int(np.count_nonzero(allowed)), 1)
            parameters.nprobe = int(min(len(allowed), _PROBED_LISTS * len(allowed) / allowed_count))
            parameters.sel = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        query = _project(descriptor[None], self.mean, self.components)
        # for one query faiss starts no threads, which would keep spinning and take the cores from torch's
        rows: npt.NDArray[np.int64] = self.lists.search(query, min(count, len(self.ids)), params=parameters)[1][0]
        return rows[rows >= 0]

    def to_bytes(self, descriptor_name: str) -> bytes:
        """Serializes the index for the map file.

        Args:
            descriptor_name: Name of the global descriptor, checked by ``from_bytes``.

        Returns:
            The serialized index.
        """
        name = np.frombuffer(descriptor_name.encode(), np.int8)
        lists = InvertedLists.from_faiss(self.lists, _faiss())
        arrays = {
            "|i1": [name, lists.codes.view(np.int8)],
            "<i8": [np.array(self.position), self.ids, lists.sizes, lists.rows],
            "<f4": [self.viewpoints, self.mean, self.components, lists.centroids, lists.ranges],
        }
        parts = [encode_array(array, dtype) for dtype, group in arrays.items() for array in group]
        return _INDEX_MAGIC + b"".join(struct.pack("<Q", len(part)) + part for part in parts)

    @classmethod
    def from_bytes(cls, data: bytes, descriptor_name: str, channels: int) -> DescriptorIndex:
        """Reads what ``to_bytes`` wrote, in this or an older version.

        Args:
            data: The serialized index.
            descriptor_name: Name of the global descriptor in use.
            channels: Its length D.

        Raises:
            IndexUnavailableError: The index is damaged or does not fit.
        """
        faiss = _faiss()
        try:
            arrays, lists = _read(data)
            if (name := arrays["name"].tobytes().decode()) != descriptor_name:
                raise ValueError(f"it is of {name!r}, not of {descriptor_name!r}")
            count, kept = len(lists.rows), lists.components
            expected = {
                "position": ("<i8", (2,)),
                "ids": ("<i8", (count,)),
                "viewpoints": ("<f4", (count, 6)),
                "mean": ("<f4", (channels,)),
                "components": ("<f4", (kept, channels)),
            }
            found = {key: (arrays[key].dtype.str, arrays[key].shape) for key in expected}
            if found != expected:
                raise ValueError(f"it has arrays {found}, expected {expected}")
            if not all(np.isfinite(arrays[key]).all() for key in expected):
                raise ValueError("it has numbers that are not finite")
            if (np.diff(arrays["ids"]) <= 0).any():
                raise ValueError("its keyframes are not in order")
        except ValueError as error:
            raise IndexUnavailableError(f"its index does not fit: {str(error).splitlines()[0]}") from error
        revision, last_id = arrays["position"].tolist()
        # torch takes no read-only arrays
        mean, components = arrays["mean"].copy(), arrays["components"].copy()
        return cls((revision, last_id), arrays["ids"], arrays["viewpoints"], mean, components, lists.to_faiss(faiss))


def _read(data: bytes) -> tuple[dict[str, npt.NDArray[Any]], InvertedLists]:
    """Splits a serialized index into its arrays, by name, and its lists; raises ``ValueError`` for other data."""
    magic = data[: len(_INDEX_MAGIC)]
    keys: tuple[str, ...] = ("name", "codes", "position", "ids", "sizes", "rows")
    if magic == _INDEX_MAGIC:
        keys += ("viewpoints", "mean", "components", "centroids", "ranges")
    elif magic == _SERIALIZED_MAGIC:
        keys = ("name", "lists", "position", "ids", "viewpoints", "mean", "components")
    else:
        raise ValueError("it is of another format")
    parts, start = [], len(magic)
    while start < len(data):
        if start + 8 > len(data):
            raise ValueError("it is truncated")
        (length,) = struct.unpack_from("<Q", data, start)
        parts.append(decode_array(data[start + 8 : start + 8 + length]))
        start += 8 + length
    if len(parts) != len(keys):
        raise ValueError(f"it has {len(parts)} parts")
    arrays = dict(zip(keys, parts))
    if magic == _SERIALIZED_MAGIC:
        return arrays, read_serialized_lists(arrays["lists"].tobytes())
    codes = arrays["codes"]
    if codes.dtype != np.int8:
        raise ValueError(f"its codes have type {codes.dtype}")
    centroids, ranges, sizes, rows = (arrays[name] for name in ("centroids", "ranges", "sizes", "rows"))
    return arrays, InvertedLists(centroids, ranges, sizes, rows, codes.view(np.uint8))


def needs_index(count: int) -> bool:
    """Returns whether a map is large enough for an index.

    Args:
        count: Number of keyframes of the map.
    """
    return count > SMALL_MAP


def update_index(store: KeyframeStore) -> str:
    """Writes a new index into a map, or removes the index of a map that is too small to need one.

    A map without an index works too; its retrieval searches all keyframes. Without faiss no index can be made.

    Args:
        store: The map, open for writing.

    Returns:
        What was done, in one line.
    """
    count = len(store)
    if not needs_index(count):
        store.write_index(None)
        return f"{count} keyframes need no index"
    try:
        data = build_index(store).to_bytes(GLOBAL_DESCRIPTOR)
    except IndexUnavailableError as error:
        _LOG.warning("map %s gets no index of its %d keyframes: %s", store.path, count, error)
        return f"no index of {count} keyframes: {error}"
    store.write_index(data)
    return f"index of {count} keyframes: {len(data) / 1e6:.0f} MB"


def build_index(store: KeyframeStore, seed: int = 0) -> DescriptorIndex:
    """Makes an index of all keyframes of a map, in about a minute and 0.6 GB for 100,000 keyframes.

    Args:
        store: The map.
        seed: Of the sample that lists and components are learnt from.

    Raises:
        IndexUnavailableError: The package faiss is not installed.
    """
    faiss = _faiss()
    with store.snapshot():
        position = store.changes().position
        scans = list(store.scan())
    values, scales = (np.concatenate([getattr(scan, name) for scan in scans]) for name in ("descriptors", "scales"))
    ids = np.concatenate([scan.ids for scan in scans])
    viewpoints = np.concatenate([viewpoints_of(scan.poses, store.origin) for scan in scans])
    del scans
    count = len(values)
    list_count = max(1, min(round(1.5 * np.sqrt(count)), count // _TRAINING_DESCRIPTORS))
    sampled = min(count, _TRAINING_DESCRIPTORS * list_count)
    sample_rows = np.random.default_rng(seed).choice(count, sampled, replace=False)
    sample = dequantise(values[sample_rows], scales[sample_rows])
    mean, components = _principal_components(sample)
    # the nearest of unit-length descriptors is the most similar, and the projection preserves distances
    lists = faiss.index_factory(len(components), f"IVF{list_count},SQ8", faiss.METRIC_L2)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # the sums of several threads depend on their order
    try:
        lists.train(_project(sample, mean, components))
        for start in range(0, count, _ADDED_AT_ONCE):
            rows = slice(start, start + _ADDED_AT_ONCE)
            lists.add(_project(dequantise(values[rows], scales[rows]), mean, components))
    finally:
        faiss.omp_set_num_threads(threads)
    return DescriptorIndex(position, ids, viewpoints, mean, components, lists)


def _principal_components(
    descriptors: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Returns the mean [D] and the strongest components [P <= 256, D] of descriptors [N, D], of unit length."""
    rows = torch.from_numpy(descriptors)
    mean = rows.mean(0)
    rows = rows - mean
    _, vectors = torch.linalg.eigh((rows.T @ rows).double())  # eigenvalues ascend
    components = vectors.flip(1)[:, :_COMPONENTS].T.float().contiguous()
    return mean.numpy(), components.numpy()


def _project(
    descriptors: npt.NDArray[np.float32], mean: npt.NDArray[np.float32], components: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Returns the components [N, P] of descriptors [N, D]."""
    centred = torch.from_numpy(descriptors) - torch.from_numpy(mean)
    projected: npt.NDArray[np.float32] = (centred @ torch.from_numpy(components).T).contiguous().numpy()
    return projected


def _faiss() -> ModuleType:
    """Imports faiss, which is optional."""
    try:
        import faiss
    except ImportError as error:
        raise IndexUnavailableError("it needs faiss, which is not installed (pip install faiss-cpu)") from error
    return faiss
