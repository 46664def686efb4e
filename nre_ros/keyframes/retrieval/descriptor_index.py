# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""An index over the keyframes' global descriptors, so that a large map need not be looked through.

faiss's inverted lists (Sivic and Zisserman, "Video Google", ICCV 2003) of the descriptors' 256
principal components with 8 bits each.  It only finds a shortlist: how similar a keyframe is, and
where, is read from the map.  The index is kept in the map file, with the position in the map's
history that it was made at: what has been added, changed or removed since is known from there
(``catalogue``).
"""

from __future__ import annotations

import logging
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from nre_ros.keyframes.global_descriptor import GLOBAL_DESCRIPTOR
from nre_ros.keyframes.retrieval.pose_prior import views_of
from nre_ros.keyframes.storage.blobs import decode_array, dequantise, encode_array

if TYPE_CHECKING:
    from nre_ros.keyframes.storage.store import KeyframeStore

_LOG = logging.getLogger(__name__)

SMALL = 4000
"""Maps of fewer keyframes are looked through: that takes a millisecond and misses none."""
_MAGIC = b"nre-index-1\n"
_COMPONENTS = 256
_PROBES = 32
"""Lists that a query looks into (docs/maps.md has recall and time)."""
_TRAINING = 40
"""Descriptors a list that the lists and the components are learnt from."""
_BATCH = 4096


class NoIndexError(Exception):
    """Why a map's index cannot be made or used; its keyframes are then looked through."""


@dataclass(frozen=True, eq=False)
class KeyframeIndex:
    """Keyframes as they were at a ``position`` of the map's history (``KeyframeStore.changes``).

    ids: [M] int64 ascending; views: [M, 6] float32 (``views_of``); mean, components: [D], [P, D]
    float32 of the descriptors; lists: faiss's index of the components, in the order of the ids.
    """

    position: tuple[int, int]
    ids: np.ndarray
    views: np.ndarray
    mean: np.ndarray
    components: np.ndarray
    lists: object

    def search(self, descriptor: np.ndarray, count: int, allowed: np.ndarray | None = None) -> np.ndarray:
        """Rows [K <= count] of the keyframes most similar to ``descriptor`` [D], best first.

        allowed: [M] bool, rows that may be returned.
        """
        faiss = _faiss()
        wanted = faiss.SearchParametersIVF(nprobe=_PROBES)
        if allowed is not None:
            # of few allowed rows each list has next to none: as many are looked at, in more lists
            wanted.nprobe = int(min(len(allowed), _PROBES * len(allowed) / max(np.count_nonzero(allowed), 1)))
            wanted.sel = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        query = _project(descriptor[None], self.mean, self.components)
        # of one query faiss makes no threads, which would go on spinning and take the cores from torch's
        rows = self.lists.search(query, min(count, len(self.ids)), params=wanted)[1][0]
        return rows[rows >= 0]

    def to_bytes(self, descriptor_name: str) -> bytes:
        """What the map file keeps."""
        name = np.frombuffer(descriptor_name.encode(), np.int8)
        lists = _faiss().serialize_index(self.lists).view(np.int8)
        arrays = {
            "|i1": [name, lists],
            "<i8": [np.array(self.position), self.ids],
            "<f4": [self.views, self.mean, self.components],
        }
        parts = [encode_array(array, dtype) for dtype, group in arrays.items() for array in group]
        return _MAGIC + b"".join(struct.pack("<Q", len(part)) + part for part in parts)

    @classmethod
    def from_bytes(cls, data: bytes, descriptor_name: str, channels: int) -> KeyframeIndex:
        """The index that ``to_bytes`` gave; ``NoIndexError`` says why it cannot be used."""
        try:
            name, lists, position, ids, views, mean, components = _parts(data)
            if name.tobytes().decode() != descriptor_name:
                raise ValueError(f"it is of {name.tobytes().decode()!r}, not of {descriptor_name!r}")
            lists = _faiss().deserialize_index(lists.view(np.uint8))
            shapes = (ids.shape, views.shape, position.shape, mean.shape, components.shape)
            expected = ((lists.ntotal,), (lists.ntotal, 6), (2,), (channels,), (lists.d, channels))
            if shapes != expected:
                raise ValueError(f"it has arrays of shapes {shapes}, expected {expected}")
        except (ValueError, RuntimeError, struct.error) as error:
            raise NoIndexError(f"its index does not fit: {str(error).splitlines()[0]}") from error
        # torch takes no arrays that cannot be written to
        return cls(tuple(position.tolist()), ids, views, mean.copy(), components.copy(), lists)


def _parts(data: bytes) -> list[np.ndarray]:
    if not data.startswith(_MAGIC):
        raise ValueError("it is of another format")
    parts, start = [], len(_MAGIC)
    view = memoryview(data)
    while start < len(data):
        (length,) = struct.unpack_from("<Q", data, start)
        parts.append(decode_array(bytes(view[start + 8 : start + 8 + length])))
        start += 8 + length
    if len(parts) != 7:
        raise ValueError(f"it has {len(parts)} parts")
    return parts


def update_index(store: KeyframeStore) -> str:
    """Writes a new index into a map that is large enough for one; says in a line what was done.

    A map that is not keeps none, and neither does one on a machine without faiss: its keyframes
    are looked through.
    """
    count = len(store)
    if count <= SMALL:
        store.write_index(None)
        return f"{count} keyframes need no index"
    try:
        data = build_index(store).to_bytes(GLOBAL_DESCRIPTOR)
    except NoIndexError as error:
        _LOG.warning("map %s gets no index of its %d keyframes: %s", store.path, count, error)
        return f"no index of {count} keyframes: {error}"
    store.write_index(data)
    return f"index of {count} keyframes: {len(data) / 1e6:.0f} MB"


def build_index(store: KeyframeStore, seed: int = 0) -> KeyframeIndex:
    """An index of all keyframes of a map; what it learns is from a sample drawn by ``seed``.

    Takes about a minute and 0.6 GB for 100,000 keyframes.
    """
    faiss = _faiss()
    with store.snapshot():
        position = store.changes().position
        scans = list(store.scan())
    values, scales = (np.concatenate([getattr(scan, name) for scan in scans]) for name in ("descriptors", "scales"))
    ids = np.concatenate([scan.ids for scan in scans])
    views = np.concatenate([views_of(scan.poses) for scan in scans])
    del scans
    count = len(values)
    wanted = max(1, min(round(1.5 * np.sqrt(count)), count // _TRAINING))
    sample = np.random.default_rng(seed).choice(count, min(count, _TRAINING * wanted), replace=False)
    sample = dequantise(values[sample], scales[sample])
    mean, components = _principal_components(sample)
    # of unit-length descriptors the nearest is the most similar, and the components keep distances
    lists = faiss.index_factory(len(components), f"IVF{wanted},SQ8", faiss.METRIC_L2)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # sums by several threads depend on who comes first
    try:
        lists.train(_project(sample, mean, components))
        for start in range(0, count, _BATCH):
            rows = slice(start, start + _BATCH)
            lists.add(_project(dequantise(values[rows], scales[rows]), mean, components))
    finally:
        faiss.omp_set_num_threads(threads)
    return KeyframeIndex(position, ids, views, mean, components, lists)


def _principal_components(descriptors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [D] and the strongest components [P <= 256, D] of descriptors [N, D]; float32, unit length."""
    rows = torch.from_numpy(descriptors)
    mean = rows.mean(0)
    rows = rows - mean
    _, vectors = torch.linalg.eigh((rows.T @ rows).double())  # eigenvalues ascend
    components = vectors.flip(1)[:, :_COMPONENTS].T.float().contiguous()
    return mean.numpy(), components.numpy()


def _project(descriptors: np.ndarray, mean: np.ndarray, components: np.ndarray) -> np.ndarray:
    """Components [N, P] of descriptors [N, D]."""
    rows, mean, components = map(torch.from_numpy, (descriptors, mean, components))
    return ((rows - mean) @ components.T).contiguous().numpy()


def _faiss():
    try:
        import faiss
    except ImportError as error:
        raise NoIndexError("it needs faiss, which is not installed (pip install faiss-cpu)") from error
    return faiss
