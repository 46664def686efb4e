# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Arrays as blobs of the database, quantised descriptors, and the checksum of a row.

Layout of a blob: dtype (4 ASCII characters, numpy's little-endian name, padded with spaces), number of dimensions and
the dimensions (uint32 each), values in C order. The checksum of a row covers its blobs.

The dtype ``|i7`` is not numpy's: whole numbers from -63 to 63, eight in seven bytes. A byte has a number plus 64 in its
lower seven bits. The highest bits of the seven bytes are the eighth number plus 64, its lowest bit first.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

PACKED = "|i7"
"""The dtype of packed numbers."""
PACKED_LIMIT = 63
"""Largest packed number."""
_PACKED_TAG = b"|i7 "
_DTYPES = {b"|i1 ": "|i1", b"<i4 ": "<i4", b"<i8 ": "<i8", b"<f2 ": "<f2", b"<f4 ": "<f4", b"<f8 ": "<f8"}


def encode_array(array: npt.ArrayLike, dtype: str) -> bytes:
    """Encodes an array as a blob.

    Args:
        array: The array, of any shape.
        dtype: Type of the stored values, one of ``|i1 <i4 <i8 <f2 <f4 <f8`` or ``PACKED``.

    Returns:
        Header and values.

    Raises:
        ValueError: The type is another one, or a number is too large to be packed.
    """
    if dtype == PACKED:
        numbers = np.asarray(array)
        return struct.pack(f"<4sI{numbers.ndim}I", _PACKED_TAG, numbers.ndim, *numbers.shape) + _pack(numbers)
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
    if is_packed(blob):
        return _unpack(blob)
    dtype, shape, start = _header(blob)
    return np.frombuffer(blob, dtype=dtype, offset=start).reshape(shape)


def is_packed(blob: object) -> bool:
    """Returns whether a blob holds packed numbers.

    Args:
        blob: What may be a blob.
    """
    return isinstance(blob, bytes) and blob.startswith(_PACKED_TAG)


def _pack(numbers: npt.NDArray[Any]) -> bytes:
    if numbers.size and np.abs(numbers).max() > PACKED_LIMIT:
        raise ValueError(f"numbers up to {np.abs(numbers).max()} cannot be packed, the largest is {PACKED_LIMIT}")
    eights = np.zeros((-(-numbers.size // 8), 8), np.uint8)
    eights.reshape(-1)[: numbers.size] = numbers.reshape(-1) + PACKED_LIMIT + 1
    highest = (eights[:, 7:] >> np.arange(7, dtype=np.uint8)) & 1
    return (eights[:, :7] | (highest << 7)).tobytes()


def _unpack(blob: bytes) -> npt.NDArray[np.int8]:
    (ndim,) = struct.unpack_from("<I", blob, 4) if len(blob) >= 8 else (0,)
    start = 8 + 4 * ndim
    if len(blob) < start:
        raise ValueError(f"array with an unknown header {blob[:8]!r}")
    shape = struct.unpack_from(f"<{ndim}I", blob, 8)
    count = int(np.prod(shape, dtype=np.int64))
    if len(blob) - start != -(-count // 8) * 7:
        raise ValueError(f"packed array of shape {shape} has {len(blob) - start} bytes")
    sevens = np.frombuffer(blob, np.uint8, offset=start).reshape(-1, 7)
    eights = np.empty((len(sevens), 8), np.uint8)
    np.bitwise_and(sevens, 127, out=eights[:, :7])
    eights[:, 7] = np.bitwise_or.reduce((sevens >> 7) << np.arange(7, dtype=np.uint8), axis=1)
    numbers: npt.NDArray[np.int8] = (eights.reshape(-1)[:count].view(np.int8) - (PACKED_LIMIT + 1)).reshape(shape)
    return numbers


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


def quantise(rows: npt.ArrayLike, limit: int = 127) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Quantises descriptors to whole numbers with a scale for each row.

    Each row uses the full range up to ``limit``. The scale preserves the row's length rather than its largest value, so that
    unit-length descriptors have unit length after ``dequantise``.

    Args:
        rows: [N, C].
        limit: Largest value, at most 127.

    Returns:
        Values [N, C] int8 and scales [N], with ``rows ~ scales[:, None] * int8``.
    """
    rows = np.asarray(rows, dtype=np.float32)
    step = np.abs(rows).max(axis=1, initial=0.0) / limit
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
