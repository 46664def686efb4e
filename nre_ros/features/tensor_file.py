# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Reads and writes weights as plain numbers, in the safetensors format, without its package.

A file is 8 bytes with the length of a header, the header (JSON: name -> type, shape and place of each tensor, and a
dictionary of strings, ``__metadata__``), and the numbers. Nothing in a file can run code. Only float32 is read.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nre_ros.errors import WeightsError, one_line
from nre_ros.features.checkpoint import read_weights_file
from nre_ros.features.weights import write_atomically

_METADATA = "__metadata__"
_MAX_BYTES = 64 << 20
_MAX_HEADER = 1 << 20
_ALIGNMENT = 8


def write_tensors(path: Path | str, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Writes float32 tensors; an earlier file stays until the new one is complete.

    Args:
        path: The file.
        tensors: Name -> finite float32 tensor.
        metadata: What is to be known about the weights.

    Raises:
        WeightsError: A tensor has another type or is not finite, or the file cannot be written.
    """
    header: dict[str, object] = {_METADATA: dict(metadata)}
    blocks, at = [], 0
    for name, tensor in sorted(tensors.items()):
        array = tensor.detach().cpu().contiguous().numpy()
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise WeightsError(f"tensor {name!r} is {tensor.dtype} or not finite: only finite float32 is written")
        blocks.append(array.astype("<f4").tobytes())
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header, sort_keys=True).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    try:
        write_atomically(Path(path), b"".join([struct.pack("<Q", len(text)), text, *blocks]))
    except OSError as error:
        raise WeightsError(f"cannot write {path}: {error.strerror}") from None


def read_tensors(path: Path | str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Reads float32 tensors from a file that may be anything.

    Args:
        path: The file.

    Returns:
        Name -> float32 tensor, all finite, and the metadata.

    Raises:
        WeightsError: The file cannot be read, is damaged or too large, or holds another type or values not finite.
    """
    path = Path(path)
    return parse_tensors(read_weights_file(path, _MAX_BYTES, "holds no weights"), str(path))


def parse_tensors(data: bytes, name: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Reads float32 tensors from a file's content.

    Args:
        data: The content.
        name: The file's name, for errors.

    Returns:
        As ``read_tensors``.

    Raises:
        WeightsError: As of ``read_tensors``.
    """
    if len(data) < 8:
        raise WeightsError(f"{name} is no safetensors file: it has {len(data)} bytes")
    (length,) = struct.unpack("<Q", data[:8])
    if length > min(_MAX_HEADER, len(data) - 8):
        raise WeightsError(f"{name} is no safetensors file, or a truncated one: a header of {length} bytes")
    header = _header(data[8 : 8 + length], name)
    numbers = data[8 + length :]
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise WeightsError(f"{name}: its metadata is no dictionary of strings")
    tensors, at = {}, 0
    places = [(_place(entry, key, name), key) for key, entry in header.items()]
    for (start, stop, shape), key in sorted(places):
        if start != at or stop > len(numbers):
            raise WeightsError(f"{name}: tensor {key!r} does not lie where the tensor before ends, or beyond the end")
        array = np.frombuffer(numbers[start:stop], "<f4").astype(np.float32).reshape(shape)
        if not np.isfinite(array).all():
            raise WeightsError(f"{name}: tensor {key!r} is not finite")
        tensors[key], at = torch.from_numpy(array), stop
    if at != len(numbers):
        raise WeightsError(f"{name}: {len(numbers) - at} bytes behind the last tensor")
    return tensors, metadata


def _header(text: bytes, name: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name occurs twice")
        return found

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else one_line(error)
        raise WeightsError(f"{name} is no safetensors file: its header cannot be read ({reason})") from None
    if not isinstance(header, dict):
        raise WeightsError(f"{name} is no safetensors file: its header is a {type(header).__name__}")
    return header


def _place(entry: object, key: str, name: str) -> tuple[int, int, tuple[int, ...]]:
    """First and last byte and the shape of a tensor, checked against each other."""
    if not isinstance(entry, dict) or entry.get("dtype") != "F32":
        found = entry.get("dtype") if isinstance(entry, dict) else entry
        raise WeightsError(f"{name}: tensor {key!r} has type {str(found)[:40]!r}, expected 'F32'")
    shape, offsets = _whole_numbers(entry.get("shape")), _whole_numbers(entry.get("data_offsets"))
    if shape is None or offsets is None or len(offsets) != 2 or len(shape) > 8:
        raise WeightsError(f"{name}: tensor {key!r} has no valid shape and offsets")
    count = math.prod(shape)
    if offsets[1] - offsets[0] != 4 * count:
        raise WeightsError(f"{name}: tensor {key!r} of shape {shape} has {offsets[1] - offsets[0]} bytes")
    return offsets[0], offsets[1], tuple(shape)


def _whole_numbers(values: object) -> list[int] | None:
    """The values where they are a list of whole numbers that a file's size can hold."""
    if isinstance(values, list) and all(type(value) is int and 0 <= value <= _MAX_BYTES for value in values):
        return values
    return None
