"""An index over the keyframes' global descriptors, so that a large map need not be looked through.

faiss's inverted lists over descriptors of 8 bits a number (Sivic and Zisserman, "Video Google",
ICCV 2003; Johnson, Douze and Jegou, "Billion-scale similarity search with GPUs", 2019).  It is
kept in the map file, together with the position in the map's history that it was made at: what
has been added, changed or removed since is known from there (``catalogue``).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nre_ros.errors import MapFormatError, NreError
from nre_ros.keyframes.blobs import decode_array, dequantise, encode_array
from nre_ros.keyframes.prior import views_of

if TYPE_CHECKING:
    from nre_ros.keyframes.store import KeyframeStore

SMALL = 4000
"""Maps of fewer keyframes are looked through: that takes a millisecond and misses none."""
_MAGIC = b"nre-index-1\n"
_PROBES = 32
"""Lists that a query looks into (docs/maps.md has recall and time)."""
_TRAINING = 64
"""Descriptors a list that the lists are learnt from."""


@dataclass(frozen=True, eq=False)
class KeyframeIndex:
    """Keyframes as they were at a ``position`` of the map's history (``KeyframeStore.changes``).

    ids: [M] int64 ascending; views: [M, 6] float32 (``views_of``); lists: faiss's index of their
    descriptors, in the same order.
    """

    position: tuple[int, int]
    ids: np.ndarray
    views: np.ndarray
    lists: object

    def search(self, descriptor: np.ndarray, count: int, allowed: np.ndarray | None = None) -> np.ndarray:
        """Rows [K <= count] of the keyframes most similar to ``descriptor`` [D], best first.

        allowed: [M] bool, rows that may be returned.
        """
        faiss = _faiss()
        faiss.omp_set_num_threads(1)  # threads that spin afterwards would take the cores from torch's
        wanted = faiss.SearchParametersIVF(nprobe=_PROBES)
        if allowed is not None:
            share = np.count_nonzero(allowed) / len(allowed)
            # of few allowed rows each list has next to none: as many are looked at, in more lists
            wanted.nprobe = min(self.lists.nlist, int(_PROBES / max(share, 1e-3)))
            wanted.sel = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        rows = self.lists.search(descriptor[None], min(count, len(self.ids)), params=wanted)[1][0]
        return rows[rows >= 0]

    def to_bytes(self, descriptor_name: str) -> bytes:
        """What the map file keeps."""
        name = np.frombuffer(descriptor_name.encode(), np.int8)
        parts = [
            encode_array(name, "|i1"), encode_array(np.array(self.position), "<i8"), encode_array(self.ids, "<i8"),
            encode_array(self.views, "<f4"), encode_array(_faiss().serialize_index(self.lists).view(np.int8), "|i1"),
        ]
        return _MAGIC + b"".join(struct.pack("<Q", len(part)) + part for part in parts)

    @classmethod
    def from_bytes(cls, data: bytes, descriptor_name: str, channels: int) -> "KeyframeIndex":
        """The index that ``to_bytes`` gave; ``MapFormatError`` says why it cannot be used."""
        try:
            name, position, ids, views, lists = _parts(data)
            if name.tobytes().decode() != descriptor_name:
                raise ValueError(f"it is of {name.tobytes().decode()!r}, not of {descriptor_name!r}")
            lists = _faiss().deserialize_index(lists.view(np.uint8))
            shapes = {(lists.ntotal,), ids.shape, views.shape[:1]}
            if len(shapes) != 1 or views.shape[1:] != (6,) or position.shape != (2,) or lists.d != channels:
                raise ValueError(f"it has {lists.ntotal} descriptors of {lists.d} numbers for {len(ids)} keyframes")
        except (ValueError, RuntimeError, struct.error) as error:
            raise MapFormatError(f"its index does not fit: {str(error).splitlines()[0]}") from error
        return cls(tuple(position.tolist()), ids, views, lists)


def _parts(data: bytes) -> list[np.ndarray]:
    if not data.startswith(_MAGIC):
        raise ValueError("it is of another format")
    parts, start = [], len(_MAGIC)
    view = memoryview(data)
    while start < len(data):
        (length,) = struct.unpack_from("<Q", data, start)
        parts.append(decode_array(bytes(view[start + 8 : start + 8 + length])))
        start += 8 + length
    if len(parts) != 5:
        raise ValueError(f"it has {len(parts)} parts")
    return parts


def build_index(store: KeyframeStore, seed: int = 0) -> KeyframeIndex:
    """An index of all keyframes of a map; the lists are learnt from a sample drawn by ``seed``.

    The descriptors of 100,000 keyframes take 100 MB meanwhile.
    """
    faiss = _faiss()
    position = store.changes(store.changes().position).position
    scans = list(store.scan())
    values, scales = (np.concatenate([getattr(scan, name) for scan in scans]) for name in ("descriptors", "scales"))
    count, channels = values.shape
    wanted = max(1, round(2 * np.sqrt(count)))
    sample = np.random.default_rng(seed).choice(count, min(count, _TRAINING * wanted), replace=False)
    faiss.omp_set_num_threads(1)  # sums by several threads depend on who comes first
    lists = faiss.index_factory(channels, f"IVF{wanted},SQ8", faiss.METRIC_INNER_PRODUCT)
    lists.cp.seed = seed + 1
    lists.train(dequantise(values[sample], scales[sample]))
    for start in range(0, count, 4096):
        rows = slice(start, start + 4096)
        lists.add(dequantise(values[rows], scales[rows]))
    ids = np.concatenate([scan.ids for scan in scans])
    views = np.concatenate([views_of(scan.poses) for scan in scans])
    return KeyframeIndex(position, ids, views, lists)


def _faiss():
    try:
        import faiss
    except ImportError as error:
        raise NreError("an index of keyframes needs faiss, which is not installed: pip install faiss-cpu") from error
    return faiss
