# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The inverted lists of the descriptor index as plain arrays, which are checked before faiss gets them.

faiss reads a serialized index without checking its content. A damaged or malicious one can make the process crash.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

_LISTS_OF_SCALARS, _FLAT_CENTROIDS, _LISTS = b"IwSq", b"IxF2", b"ilar"
"""faiss's names of the three parts of a serialized index: inverted lists with scalar quantisation, exact search in
their centroids, and the content of the lists."""
_L2, _EIGHT_BITS, _NO_DIRECT_MAP = 1, 0, 0
"""Values of faiss's enumerations MetricType, ScalarQuantizer::QuantizerType and DirectMap::Type."""


@dataclass(frozen=True, eq=False)
class InvertedLists:
    """Lists of quantised vectors, each list around a centroid.

    Attributes:
        centroids: [L, P] float32.
        ranges: [2, P] float32, lowest value and range of each component of what is quantised.
        sizes: [L] int64, number of vectors in each list.
        rows: [M] int64, numbers of the vectors (0 to M - 1) in the order of the lists.
        codes: [M, P] uint8, differences of the vectors from their list's centroid, in the same order.

    Raises:
        ValueError: The arrays do not fit together, or contain values that no index has.
    """

    centroids: npt.NDArray[np.float32]
    ranges: npt.NDArray[np.float32]
    sizes: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    codes: npt.NDArray[np.uint8]

    def __post_init__(self) -> None:
        types = {"centroids": "f4", "ranges": "f4", "sizes": "i8", "rows": "i8", "codes": "u1"}
        for name, dtype in types.items():
            array = getattr(self, name)
            if array.dtype != np.dtype(dtype):
                raise ValueError(f"its {name} have type {array.dtype}")
        shapes = [getattr(self, name).shape for name in types]
        lists, components = (*shapes[0], 0, 0)[:2]
        count = len(self.rows) if self.rows.ndim else -1
        expected = [(lists, components), (2, components), (lists,), (count,), (count, components)]
        if shapes != expected or not (lists and components and count > 0):
            raise ValueError(f"it has lists of shapes {shapes}")
        if not (np.isfinite(self.centroids).all() and np.isfinite(self.ranges).all()):
            raise ValueError("its centroids or ranges are not finite")
        # the largest first: the sum of huge sizes may overflow to the right number
        if self.sizes.min() < 0 or self.sizes.max() > count or self.sizes.sum() != count:
            raise ValueError(f"its lists do not have {count} entries")
        if not np.array_equal(np.sort(self.rows), np.arange(count)):
            raise ValueError("its lists do not contain each keyframe once")

    @property
    def components(self) -> int:
        """Number of components P of a vector."""
        return self.centroids.shape[1]

    def to_faiss(self, faiss: ModuleType) -> Any:
        """Makes the faiss index of the lists.

        Args:
            faiss: The package.

        Returns:
            A ``faiss.IndexIVFScalarQuantizer``.
        """
        lists, components = self.centroids.shape
        centroids = faiss.IndexFlatL2(components)
        centroids.add(np.ascontiguousarray(self.centroids))
        kind = faiss.ScalarQuantizer.QT_8bit
        index = faiss.IndexIVFScalarQuantizer(centroids, components, lists, kind, faiss.METRIC_L2, True)
        faiss.copy_array_to_vector(np.ascontiguousarray(self.ranges).ravel(), index.sq.trained)
        ends = np.cumsum(self.sizes)
        for number, (start, end) in enumerate(zip(ends - self.sizes, ends)):
            rows, codes = np.array(self.rows[start:end]), np.array(self.codes[start:end])
            if len(rows):
                index.invlists.add_entries(number, len(rows), faiss.swig_ptr(rows), faiss.swig_ptr(codes))
        index.ntotal, index.is_trained = len(self.rows), True
        return index

    @classmethod
    def from_faiss(cls, index: Any, faiss: ModuleType) -> InvertedLists:
        """Copies the content of a faiss index.

        Args:
            index: A ``faiss.IndexIVFScalarQuantizer``.
            faiss: The package.
        """
        lists = index.invlists
        sizes = np.array([lists.list_size(number) for number in range(index.nlist)], dtype=np.int64)
        rows, codes = [], []
        for number, size in enumerate(sizes.tolist()):
            if size:
                rows.append(faiss.rev_swig_ptr(lists.get_ids(number), size).copy())
                codes.append(faiss.rev_swig_ptr(lists.get_codes(number), size * index.code_size).copy())
        return cls(
            index.quantizer.reconstruct_n(0, index.nlist),
            faiss.vector_to_array(index.sq.trained).reshape(2, index.d),
            sizes,
            np.concatenate(rows).astype(np.int64),
            np.concatenate(codes).reshape(-1, index.d),
        )


def read_serialized_lists(data: bytes) -> InvertedLists:
    """Reads lists that faiss has serialized, without faiss.

    Maps of older versions contain them. The layout is that of ``faiss/impl/index_write.cpp``.

    Args:
        data: What ``faiss.serialize_index`` returned for an ``IndexIVFScalarQuantizer`` of 8 bits.

    Returns:
        The lists.

    Raises:
        ValueError: The data is damaged, or is an index of another kind.
    """
    reader = _Reader(data)
    count, components = reader.header(_LISTS_OF_SCALARS)
    list_count, _ = reader.take("<QQ")
    if reader.header(_FLAT_CENTROIDS) != (list_count, components):
        raise ValueError("its centroids do not fit its lists")
    centroids = reader.vector("<f4").reshape(list_count, components)
    direct_map, direct_entries = reader.take("<bQ")
    kind, _, _, width, code_size = reader.take("<iifQQ")
    ranges = reader.vector("<f4").reshape(2, components)
    other_code_size, by_residual = reader.take("<QB")
    reader.name(_LISTS)
    described = (direct_map, direct_entries, kind, width, code_size, other_code_size, by_residual)
    expected = (_NO_DIRECT_MAP, 0, _EIGHT_BITS, components, components, components, 1)
    if described != expected or reader.take("<QQ") != (list_count, components):
        raise ValueError("it is of another kind")
    sizes = reader.list_sizes(list_count)
    if sizes.max() > count or sizes.sum() != count:
        raise ValueError(f"its lists do not have {count} entries")
    rows, codes = [], []
    for size in sizes.tolist():
        codes.append(reader.array("|u1", size * components).reshape(size, components))
        rows.append(reader.array("<i8", size))
    return InvertedLists(centroids, ranges, sizes, np.concatenate(rows), np.concatenate(codes))


class _Reader:
    """Takes numbers from the front of data; raises ``ValueError`` at its end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._position = data, 0

    def take(self, layout: str) -> tuple[Any, ...]:
        size = struct.calcsize(layout)
        return struct.unpack(layout, self._bytes(size))

    def name(self, name: bytes) -> None:
        found = self._bytes(len(name))
        if found != name:
            raise ValueError(f"it has a part {found!r}, expected {name!r}")

    def header(self, name: bytes) -> tuple[int, int]:
        """Takes what every faiss index begins with; returns the numbers of vectors and of their components."""
        self.name(name)
        components, count, _, _, trained, metric = self.take("<iqqqBi")
        if not (components > 0 and count > 0 and trained and metric == _L2):
            raise ValueError("it is of another kind")
        return count, components

    def array(self, dtype: str, count: int) -> npt.NDArray[Any]:
        return np.frombuffer(self._bytes(count * np.dtype(dtype).itemsize), dtype)

    def vector(self, dtype: str) -> npt.NDArray[Any]:
        """Takes an array behind its length."""
        return self.array(dtype, self.take("<Q")[0])

    def list_sizes(self, list_count: int) -> npt.NDArray[np.int64]:
        """Takes the sizes of all lists, or of those with an entry if the others are many."""
        layout = self._bytes(4)
        stored = self.vector("<u8")
        if layout == b"full" and len(stored) == list_count:
            sizes = stored
        elif layout == b"sprs" and len(stored) % 2 == 0 and (stored[::2] < list_count).all():
            sizes = np.zeros(list_count, np.uint64)
            sizes[stored[::2].astype(np.int64)] = stored[1::2]
        else:
            raise ValueError("its lists have no sizes")
        if not len(sizes) or sizes.max() > len(self._data):
            raise ValueError("its lists are longer than its data")
        return sizes.astype(np.int64)

    def _bytes(self, count: int) -> bytes:
        end = self._position + count
        if count < 0 or end > len(self._data):
            raise ValueError("it is truncated")
        taken = self._data[self._position : end]
        self._position = end
        return taken
