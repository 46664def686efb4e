# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A list of stamped poses, looked up between its stamps."""

from __future__ import annotations

from array import array

import numpy as np

from nre_ros.errors import ImportSourceError
from nre_ros.geometry import interpolate_poses, pose_matrix


class Trajectory:
    """Poses by stamp; added in any order, kept as plain numbers (64 bytes each).

    max_gap: seconds between two poses beyond which nothing is interpolated.
    """

    def __init__(self, max_gap: float):
        self._max_gap = max_gap
        self._stamps, self._values = array("q"), array("d")
        self._sorted: tuple[np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self._stamps)

    def add(self, stamp: int, position, quaternion) -> None:
        """Position [3] and quaternion x y z w of a pose at ``stamp`` nanoseconds."""
        self._stamps.append(stamp)
        self._values.extend([*position, *quaternion])
        self._sorted = None

    def at(self, stamp: int) -> np.ndarray:
        """T [4, 4]: linear in position, uniform in rotation.  ``ImportSourceError`` without poses on both sides."""
        stamps, values = self._arrays()
        i = int(np.searchsorted(stamps, stamp))
        if i < len(stamps) and stamps[i] == stamp:
            return pose_matrix(values[i, :3], values[i, 3:])
        if i == 0 or i == len(stamps) or stamps[i] - stamps[i - 1] > self._max_gap * 1e9:
            nearest = np.abs(stamps - stamp).min() / 1e9 if len(stamps) else np.inf
            raise ImportSourceError(f"no pose at this image's time: the nearest is {nearest:.3f} s away")
        ratio = float(stamp - stamps[i - 1]) / float(stamps[i] - stamps[i - 1])
        pose = interpolate_poses(values[i - 1], values[i], ratio)
        return pose_matrix(pose[:3], pose[3:])

    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        if self._sorted is None:
            stamps = np.array(self._stamps, dtype=np.int64)
            order = np.argsort(stamps, kind="stable")
            self._sorted = stamps[order], np.array(self._values).reshape(-1, 7)[order]
        return self._sorted
