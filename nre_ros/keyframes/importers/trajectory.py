# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Stamped poses, interpolated between their stamps."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImportSourceError, PoseError
from nre_ros.geometry import interpolate_poses, pose_matrix


class Trajectory:
    """Poses by stamp, added in any order and kept as plain numbers (64 bytes each).

    Args:
        max_gap: Seconds between two poses beyond which nothing is interpolated.
    """

    def __init__(self, max_gap: float) -> None:
        self._max_gap = max_gap
        self._stamps, self._values = array("q"), array("d")
        self._sorted: tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]] | None = None

    def __len__(self) -> int:
        return len(self._stamps)

    def add(self, stamp: int, position: Iterable[float], quaternion: Iterable[float]) -> None:
        """Adds a pose.

        Args:
            stamp: Nanoseconds.
            position: [3].
            quaternion: [4] x y z w.

        Raises:
            PoseError: The stamp does not fit into 64 bits.
        """
        _check_stamp(stamp)
        self._stamps.append(stamp)
        self._values.extend([*position, *quaternion])
        self._sorted = None

    def at(self, stamp: int) -> npt.NDArray[np.float64]:
        """Interpolates the pose at a stamp, linearly in position and uniformly in rotation.

        Args:
            stamp: Nanoseconds.

        Returns:
            [4, 4].

        Raises:
            ImportSourceError: There is no pose at the stamp and none on both sides within the largest gap.
            PoseError: The stamp does not fit into 64 bits.
        """
        _check_stamp(stamp)
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

    def _arrays(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        if self._sorted is None:
            stamps = np.array(self._stamps, dtype=np.int64)
            order = np.argsort(stamps, kind="stable")
            self._sorted = stamps[order], np.array(self._values).reshape(-1, 7)[order]
        return self._sorted


def _check_stamp(stamp: int) -> None:
    if not -(2**63) <= stamp < 2**63:
        raise PoseError(f"time stamp is out of range: {str(stamp)[:40]}")
