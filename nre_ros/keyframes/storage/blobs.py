# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Arrays as bytes for the database: explicit little-endian dtype, shape, then the values.

Layout: dtype (4 ASCII characters, numpy's name, padded with spaces), number of dimensions and
the dimensions (uint32 each), values in C order.  The checksum of a row covers its blobs, see
``store``.  Descriptors are kept as int8 with one scale a row.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

_DTYPES = {b"|i1 ": "|i1", b"<i4 ": "<i4", b"<i8 ": "<i8", b"<f2 ": "<f2", b"<f4 ": "<f4", b"<f8 ": "<f8"}


def encode_array(array: np.ndarray, dtype: str) -> bytes:
    """``array`` as a blob of ``dtype`` (one of ``|i1 <i4 <i8 <f2 <f4 <f8``)."""
    array = np.ascontiguousarray(array, dtype=dtype)
    tag = dtype.ljust(4).encode()
    if tag not in _DTYPES:
        raise ValueError(f"arrays of type {dtype} are not stored, known: {sorted(_DTYPES.values())}")
    return struct.pack(f"<4sI{array.ndim}I", tag, array.ndim, *array.shape) + array.tobytes()


def decode_array(blob: bytes) -> np.ndarray:
    """The array of a blob (read-only); ``ValueError`` when its header and length disagree."""
    dtype, shape, start = _header(blob)
    return np.frombuffer(blob, dtype=dtype, offset=start).reshape(shape)


def decode_stack(blobs: list[bytes]) -> np.ndarray:
    """The arrays of many blobs of one dtype and shape as one array [len(blobs), ...]."""
    dtype, shape, start = _header(blobs[0])
    head = blobs[0][:start]
    if any(len(blob) != len(blobs[0]) or not blob.startswith(head) for blob in blobs):
        raise ValueError("arrays of different types or shapes where all must be alike")
    joined = np.frombuffer(b"".join(blobs), dtype=np.uint8).reshape(len(blobs), -1)
    return np.ascontiguousarray(joined[:, start:]).view(dtype).reshape(len(blobs), *shape)


def _header(blob: bytes) -> tuple[np.dtype, tuple[int, ...], int]:
    if not isinstance(blob, bytes) or len(blob) < 8:
        raise ValueError("array without a header")
    tag, ndim = struct.unpack_from("<4sI", blob)
    start = 8 + 4 * ndim
    if tag not in _DTYPES or len(blob) < start:
        raise ValueError(f"array with an unknown header {blob[:8]!r}")
    dtype, shape = np.dtype(_DTYPES[tag]), struct.unpack_from(f"<{ndim}I", blob, 8)
    if len(blob) - start != int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
        raise ValueError(f"array of shape {shape} and type {dtype} has {len(blob) - start} bytes")
    return dtype, shape, start


def quantise(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows [N, C] as int8 [N, C] and scales [N] float32, so that ``rows ~ scale * int8``.

    Each row uses the full range of int8; the scale keeps the row's length (rather than its
    largest value) exact, so unit-length descriptors come back with unit length.
    """
    rows = np.asarray(rows, dtype=np.float32)
    step = np.abs(rows).max(axis=1, initial=0.0) / 127.0
    values = np.rint(rows / np.maximum(step, 1e-30)[:, None]).astype(np.int8)
    length = np.linalg.norm(values.astype(np.float32), axis=1)
    return values, (np.linalg.norm(rows, axis=1) / np.maximum(length, 1.0)).astype(np.float32)


def dequantise(values: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Rows [N, C] float32 of int8 [N, C] and scales [N]."""
    if values.ndim != 2 or scales.shape != values.shape[:1]:
        raise ValueError(f"descriptors of shape {values.shape} with scales of shape {scales.shape}")
    return values.astype(np.float32) * scales[:, None]


def row_checksum(*columns) -> int:
    """CRC-32 of a database row: its integers and texts, and its blobs byte for byte."""
    scalars = [len(column) if isinstance(column, bytes) else column for column in columns]
    checksum = zlib.crc32(repr(scalars).encode())
    for column in columns:
        if isinstance(column, bytes):
            checksum = zlib.crc32(column, checksum)
    return checksum
