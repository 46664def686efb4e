# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A cache of keyframes that is bounded by their bytes, whatever the size of the map."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterable

import numpy as np

from nre_ros.keyframes.types import Keyframe

_ARRAYS = ("T_map_cam", "points", "point_ids", "coarse", "fine", "background", "global_descriptor")


class KeyframeCache:
    """The most recently used keyframes by id. Not thread-safe.

    Attributes:
        capacity: Bytes that the keyframes may take.
        bytes: Bytes that they take now.
    """

    def __init__(self, capacity: int):
        """Makes an empty cache of this many bytes."""
        self.capacity = capacity
        self.bytes = 0
        self._keyframes: OrderedDict[int, Keyframe] = OrderedDict()

    def __len__(self) -> int:
        return len(self._keyframes)

    def get(self, keyframe_id: int) -> Keyframe | None:
        """Returns a keyframe, None if it is not in the cache.

        Args:
            keyframe_id: Id of the keyframe.
        """
        keyframe = self._keyframes.get(keyframe_id)
        if keyframe is not None:
            self._keyframes.move_to_end(keyframe_id)
        return keyframe

    def put(self, keyframe: Keyframe) -> None:
        """Adds a keyframe unless it is larger than the whole cache; the least recently used ones are removed for it.

        Args:
            keyframe: The keyframe, with its id.
        """
        self.drop([keyframe.id])
        size = keyframe_bytes(keyframe)
        if size > self.capacity:
            return
        while self.bytes + size > self.capacity:
            self.bytes -= keyframe_bytes(self._keyframes.popitem(last=False)[1])
        self._keyframes[keyframe.id] = keyframe
        self.bytes += size

    def drop(self, keyframe_ids: Iterable[int]) -> None:
        """Removes keyframes; ids that are not in the cache are ignored.

        Args:
            keyframe_ids: Ids of the keyframes.
        """
        for keyframe_id in keyframe_ids:
            keyframe = self._keyframes.pop(keyframe_id, None)
            if keyframe is not None:
                self.bytes -= keyframe_bytes(keyframe)

    def clear(self) -> None:
        """Removes all keyframes."""
        self._keyframes.clear()
        self.bytes = 0


def keyframe_bytes(keyframe: Keyframe) -> int:
    """Returns the memory of a keyframe's arrays, name and thumbnail, in bytes.

    Args:
        keyframe: The keyframe.
    """
    arrays = (getattr(keyframe, name) for name in _ARRAYS)
    held = sum(np.asarray(array).nbytes for array in arrays if array is not None)
    return held + len(keyframe.thumbnail) + sys.getsizeof(keyframe.name)
