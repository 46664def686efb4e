# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Arrays as blobs of the database, quantised descriptors, and the checksum of a row.

Layout of a blob: dtype (4 ASCII characters, numpy's little-endian name, padded with spaces), number of dimensions and
the dimensions (uint32 each), values in C order. The checksum of a row covers its blobs.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

_DTYPES = {b"|i1 ": "|i1", b"<i4 ": "<i4", b"<i8 ": "<i8", b"<f2 ": "<f2", b"<f4 ": "<f4", b"<f8 ": "<f8"}


def encode_array(array: npt.ArrayLike, dtype: str) -> bytes:
    """Encodes an array as a blob.

    Args:
        array: The array, of any shape.
        dtype: Type of the stored values, one of ``|i1 <i4 <i8 <f2 <f4 <f8``.

    Returns:
        Header and values.

    Raises:
        ValueError: The type is another one.
    """
    array = np.ascontiguousarray(array, dtype=dtype)
    tag = dtype.ljust(4).encode()
    if tag not in _DTYPES:
        raise ValueError(f"arrays of type {dtype} are not stored, known: {sorted(_DTYPES.values())}")
    return struct.pack(f"<4sI{array.ndim}I", tag, array.ndim, *array.shape) + array.tobytes()


def decode_array(blob: bytes) -> npt.NDArray[Any]:
    """Decodes a blob as a read-only array.

    Args:
        blob: As ``encode_array`` returns it.

    Returns:
        The array.

    Raises:
        ValueError: The header is missing or unknown, or disagrees with the length.
    """
    dtype, shape, start = _header(blob)
    return np.frombuffer(blob, dtype=dtype, offset=start).reshape(shape)


def decode_stack(blobs: list[bytes]) -> npt.NDArray[Any]:
    """Decodes blobs of one type and shape as one array.

    Args:
        blobs: As ``encode_array`` returns them, at least one.

    Returns:
        [len(blobs), ...].

    Raises:
        ValueError: A blob does not decode, or the blobs differ in type or shape.
    """
    dtype, shape, start = _header(blobs[0])
    head = blobs[0][:start]
    if any(len(blob) != len(blobs[0]) or not blob.startswith(head) for blob in blobs):
        raise ValueError("arrays of different types or shapes where all must be alike")
    joined = np.frombuffer(b"".join(blobs), dtype=np.uint8).reshape(len(blobs), -1)
    return np.ascontiguousarray(joined[:, start:]).view(dtype).reshape(len(blobs), *shape)


def _header(blob: bytes) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Returns dtype, shape and where the values start."""
    if not isinstance(blob, bytes) or len(blob) < 8:
        raise ValueError("array without a header")
    tag, ndim = struct.unpack_from("<4sI", blob)
    start = 8 + 4 * ndim
    if tag not in _DTYPES or len(blob) < start:
        raise ValueError(f"array with an unknown header {blob[:8]!r}")
    dtype: np.dtype[Any] = np.dtype(_DTYPES[tag])
    shape = struct.unpack_from(f"<{ndim}I", blob, 8)
    if len(blob) - start != int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
        raise ValueError(f"array of shape {shape} and type {dtype} has {len(blob) - start} bytes")
    return dtype, shape, start


def quantise(rows: npt.ArrayLike) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Quantises descriptors to eight bits with a scale for each row.

    Each row uses the full range of int8. The scale preserves the row's length rather than its largest value, so that
    unit-length descriptors have unit length after ``dequantise``.

    Args:
        rows: [N, C].

    Returns:
        Values [N, C] int8 and scales [N], with ``rows ~ scales[:, None] * int8``.
    """
    rows = np.asarray(rows, dtype=np.float32)
    step = np.abs(rows).max(axis=1, initial=0.0) / 127.0
    values = np.rint(rows / np.maximum(step, 1e-30)[:, None]).astype(np.int8)
    length = np.linalg.norm(values.astype(np.float32), axis=1)
    return values, (np.linalg.norm(rows, axis=1) / np.maximum(length, 1.0)).astype(np.float32)


def dequantise(values: npt.NDArray[Any], scales: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Computes descriptors of quantised values.

    Args:
        values: [N, C] int8.
        scales: [N].

    Returns:
        [N, C] float32.

    Raises:
        ValueError: The shapes are others.
    """
    if values.ndim != 2 or scales.shape != values.shape[:1]:
        raise ValueError(f"descriptors of shape {values.shape} with scales of shape {scales.shape}")
    return values.astype(np.float32) * scales[:, None]


def row_checksum(*columns: Any) -> int:
    """Computes the CRC-32 of a database row: its numbers and texts, and its blobs byte for byte.

    Args:
        *columns: The values of the row, without the checksum.

    Returns:
        The checksum, 32 bits.
    """
    scalars = [len(column) if isinstance(column, bytes) else column for column in columns]
    checksum = zlib.crc32(repr(scalars).encode())
    for column in columns:
        if isinstance(column, bytes):
            checksum = zlib.crc32(column, checksum)
    return checksum
