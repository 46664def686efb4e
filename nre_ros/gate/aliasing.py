# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Places that look like where the robot is, known by fixes there that were refuted."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from nre_ros.gate.motion import Prediction, Waypoint, gap_between
from nre_ros.geometry import invert

_PLACES = 8
_DOUBLINGS = 3
"""Places that are remembered, and how often being refuted doubles the evidence that one needs."""


@dataclass
class _Place:
    """T: [4, 4] moves the robot's pose to the one there, both in the map; times it has been refuted."""

    T: np.ndarray
    times: int = 1


class LookAlikes:
    """Remembers the motion between the robot's pose and a false one, which is the same all over two equal rooms."""

    def __init__(self):
        self._places: deque[_Place] = deque(maxlen=_PLACES)

    def clear(self) -> None:
        """Forgets all places."""
        self._places.clear()

    def refute(self, expected: Prediction, other: Prediction, seen: Waypoint, threshold: float) -> None:
        """The robot was ``seen`` where it was ``expected``, though fixes had pointed to ``other``."""
        if gap_between(other, seen.T_map_base, seen.covariance).mahalanobis <= threshold:
            return  # it is no other place
        place = self._find(expected, other.T_map_base, other.covariance, threshold)
        if place:
            place.times += 1
        else:
            self._places.append(_Place(other.T_map_base @ invert(seen.T_map_base)))

    def doublings(self, expected: Prediction, fix: Waypoint, threshold: float) -> int:
        """How often the evidence that ``fix`` needs has doubled: 0 in a place that was never refuted."""
        place = self._find(expected, fix.T_map_base, fix.covariance, threshold)
        return min(place.times, _DOUBLINGS) if place else 0

    def _find(self, expected: Prediction, T_map_base, covariance, threshold) -> _Place | None:
        for place in self._places:
            J = np.kron(np.eye(2), place.T[:3, :3])
            alike = Prediction(place.T @ expected.T_map_base, J @ expected.covariance @ J.T, expected.followed)
            if gap_between(alike, T_map_base, covariance).mahalanobis <= threshold:
                return place
        return None
