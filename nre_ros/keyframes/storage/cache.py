# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Keyframes kept in memory, bounded by their bytes whatever the size of the map."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterable

import numpy as np

from nre_ros.keyframes.types import Keyframe

_ARRAYS = ("T_map_cam", "points", "point_ids", "coarse", "fine", "background", "global_descriptor")


class KeyframeCache:
    """The keyframes used last, by id; those unused for longest make room.  Not thread-safe by itself."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.bytes = 0
        self._kept: OrderedDict[int, Keyframe] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, keyframe_id: int) -> Keyframe | None:
        """The keyframe, if it is there."""
        keyframe = self._kept.get(keyframe_id)
        if keyframe is not None:
            self._kept.move_to_end(keyframe_id)
        return keyframe

    def put(self, keyframe: Keyframe) -> None:
        """Keeps the keyframe unless it is larger than the whole cache."""
        self.drop([keyframe.id])
        size = keyframe_bytes(keyframe)
        if size > self.capacity:
            return
        while self.bytes + size > self.capacity:
            self.bytes -= keyframe_bytes(self._kept.popitem(last=False)[1])
        self._kept[keyframe.id] = keyframe
        self.bytes += size

    def drop(self, keyframe_ids: Iterable[int]) -> None:
        """Forgets these keyframes."""
        for keyframe_id in keyframe_ids:
            keyframe = self._kept.pop(keyframe_id, None)
            if keyframe is not None:
                self.bytes -= keyframe_bytes(keyframe)

    def clear(self) -> None:
        """Forgets all."""
        self._kept.clear()
        self.bytes = 0


def keyframe_bytes(keyframe: Keyframe) -> int:
    """Memory of a keyframe's arrays, name and thumbnail."""
    arrays = (getattr(keyframe, name) for name in _ARRAYS)
    held = sum(np.asarray(array).nbytes for array in arrays if array is not None)
    return held + len(keyframe.thumbnail) + sys.getsizeof(keyframe.name)
