# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The origin of a map that lies far from the origin of its frame, as in UTM coordinates.

Poses and points of such a map are stored about an origin near them, because single precision rounds UTM coordinates to
half a metre. Everything that a ``KeyframeStore`` takes and returns is in the map's frame.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from nre_ros.geometry import distant_origin, move_origin
from nre_ros.keyframes.storage.blobs import decode_array, encode_array
from nre_ros.keyframes.types import compact_points

ORIGIN_KEY = "origin"
"""Key of the map's metadata: JSON list of x, y and z in the map's frame, metres. A map at its frame's origin has none."""
NO_ORIGIN: npt.NDArray[np.float64] = np.zeros(3)
"""Origin of a map that is stored in the coordinates of its frame."""
_SPACING = 1000.0
"""Origins are whole kilometres, so that most maps of one site have the same origin."""


def choose_origin(position: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Chooses the origin of a new map.

    Args:
        position: [3] of the first keyframe's camera in the map's frame, metres.

    Returns:
        [3] whole kilometres; ``NO_ORIGIN`` where the frame's own origin is near.
    """
    origin = distant_origin(position, _SPACING)
    return NO_ORIGIN if origin is None else origin


def origin_text(origin: npt.NDArray[np.float64]) -> str:
    """Returns the value of ``ORIGIN_KEY``.

    Args:
        origin: [3] in the map's frame, metres.
    """
    return json.dumps(origin.tolist())


def parse_origin(text: str) -> npt.NDArray[np.float64]:
    """Reads the value of ``ORIGIN_KEY``.

    Args:
        text: As ``origin_text`` returns it.

    Returns:
        [3] float64.

    Raises:
        ValueError: The text is no origin.
    """
    values: Any = json.loads(text)
    if not (isinstance(values, list) and len(values) == 3 and all(type(value) in (int, float) for value in values)):
        raise ValueError(f"its origin is {text[:60]!r}, expected three numbers")
    if not all(math.isfinite(value) for value in values):
        raise ValueError(f"its origin {text[:60]!r} is not finite")
    return np.array(values, dtype=np.float64)


def encode_pose(T_map_cam: npt.ArrayLike, origin: npt.NDArray[np.float64]) -> bytes:
    """Encodes a pose about a map's origin.

    Args:
        T_map_cam: [4, 4] in the map's frame.
        origin: [3] of the map.
    """
    return encode_array(move_origin(np.asarray(T_map_cam), origin) if origin.any() else T_map_cam, "<f8")


def encode_points(points: npt.NDArray[np.floating], origin: npt.NDArray[np.float64]) -> bytes:
    """Encodes points about a map's origin, in double precision where they lie far from that, too.

    Args:
        points: [N, 3] in the map's frame.
        origin: [3] of the map.
    """
    local = compact_points(points - origin if origin.any() else points)
    return encode_array(local, "<f4" if local.dtype == np.float32 else "<f8")


def decode_points(blob: bytes, origin: npt.NDArray[np.float64]) -> npt.NDArray[np.floating]:
    """Decodes points.

    Args:
        blob: As ``encode_points`` returns it.
        origin: [3] of the map.

    Returns:
        [N, 3] in the map's frame; float32 as stored in a map without an origin, else float64.

    Raises:
        ValueError: The blob does not decode.
    """
    local = decode_array(blob)
    return local.astype(np.float64) + origin if origin.any() else local
