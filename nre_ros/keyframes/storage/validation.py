# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a keyframe must satisfy to be stored in a map."""

from __future__ import annotations

import numpy as np

from nre_ros.errors import MapError
from nre_ros.keyframes.types import Keyframe
from nre_ros.pose_faults import pose_fault

DIMENSIONS = ("coarse_channels", "fine_channels", "background", "global_channels")
"""The lengths that all keyframes of a map share, by their keys in the map's metadata."""


def check_keyframe(keyframe: Keyframe) -> dict[str, int]:
    """Checks a keyframe's name, stamp, pose, shapes and values.

    Args:
        keyframe: The keyframe to store.

    Returns:
        Its ``DIMENSIONS``.

    Raises:
        MapError: The keyframe cannot be stored.
    """
    name = keyframe.name
    check_name(name)
    _check_shapes(keyframe)
    for what in ("T_map_cam", "points", "coarse", "fine", "background", "global_descriptor"):
        if not np.isfinite(getattr(keyframe, what)).all():
            raise MapError(f"keyframe {name!r}: {what} is not finite")
    if pose_fault("", keyframe.T_map_cam):
        raise MapError(f"keyframe {name!r}: its pose is not a rigid motion")
    if not -(2**63) <= keyframe.stamp < 2**63:
        raise MapError(f"keyframe {name!r}: its stamp {keyframe.stamp} is no number of nanoseconds of 64 bits")
    return {
        "coarse_channels": keyframe.coarse.shape[1],
        "fine_channels": keyframe.fine.shape[1],
        "background": len(keyframe.background),
        "global_channels": keyframe.global_descriptor.size,
    }


def is_metadata(key: str, value: object) -> bool:
    """Returns whether a value of a map's metadata is a text, and a whole number where one is expected.

    Args:
        key: Its key.
        value: The value.
    """
    if key in (*DIMENSIONS, "keyframes"):
        return isinstance(value, str) and len(value) < 19 and value.isascii() and value.isdecimal()
    return isinstance(value, str)


def check_name(name: str) -> None:
    """Checks that a keyframe's name is a text and not empty.

    Args:
        name: The name.

    Raises:
        MapError: The name cannot be used.
    """
    if not name or not isinstance(name, str):
        raise MapError(f"a keyframe needs a name, got {name!r}")


def _check_shapes(keyframe: Keyframe) -> None:
    n = len(keyframe.points)
    ids = keyframe.point_ids
    shapes = {
        "pose": (np.shape(keyframe.T_map_cam), (4, 4)),
        "points": (np.shape(keyframe.points), (n, 3)),
        "point ids": (np.shape(keyframe.points)[:1] if ids is None else np.shape(ids), (n,)),
        "coarse descriptors": (np.shape(keyframe.coarse), (n, *np.shape(keyframe.coarse)[1:2])),
        "fine descriptors": (np.shape(keyframe.fine), (n, *np.shape(keyframe.fine)[1:2])),
        "background": (np.shape(keyframe.background)[1:], np.shape(keyframe.coarse)[1:]),
        "global descriptor": (np.shape(keyframe.global_descriptor), (np.size(keyframe.global_descriptor),)),
    }
    for what, (shape, expected) in shapes.items():
        if shape != expected:
            raise MapError(f"keyframe {keyframe.name!r}: {what} have shape {shape}, expected {expected}")
