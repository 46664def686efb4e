# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Perceptual aliasing: places that look like the present one, known from poses there that were refuted."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nre_ros.gate.motion import BodyPose, Prediction, difference
from nre_ros.geometry import invert

_MAX_PLACES = 8
"""Places that are remembered."""
_MAX_DOUBLINGS = 3
"""How often a refutation doubles the evidence that a place needs."""


@dataclass
class _AliasedPlace:
    """A false place: ``T`` [4, 4] moves the robot's pose to the one there, both in the map; ``refuted``: how often."""

    T: npt.NDArray[np.float64]
    refuted: int = 1


class AliasedPlaces:
    """Remembers the motion from the robot's pose to a false one.

    Between two rooms that look the same this motion is the same wherever the robot is.
    """

    def __init__(self) -> None:
        self._places: deque[_AliasedPlace] = deque(maxlen=_MAX_PLACES)

    def clear(self) -> None:
        """Forgets all places."""
        self._places.clear()

    def refute(self, expected: Prediction, other: Prediction, measured: BodyPose, threshold: float) -> None:
        """Remembers a false place after the robot was found where it was expected.

        Args:
            expected: Predicted pose of the robot.
            other: Pose that the refuted images suggested, predicted to the same time.
            measured: Pose that agrees with ``expected``.
            threshold: Mahalanobis distance up to which poses agree.
        """
        if difference(other, measured.T_map_base, measured.covariance).mahalanobis <= threshold:
            return  # both are the same place
        place = self._find(expected, other.T_map_base, other.covariance, threshold)
        if place:
            place.refuted += 1
        else:
            self._places.append(_AliasedPlace(other.T_map_base @ invert(measured.T_map_base)))

    def doublings(self, expected: Prediction, measured: BodyPose, threshold: float) -> int:
        """Returns how often the evidence that a pose needs has doubled.

        Args:
            expected: Predicted pose of the robot.
            measured: Pose that is to be accepted.
            threshold: Mahalanobis distance up to which poses agree.

        Returns:
            The number of doublings, 0 in a place that was never refuted.
        """
        place = self._find(expected, measured.T_map_base, measured.covariance, threshold)
        return min(place.refuted, _MAX_DOUBLINGS) if place else 0

    def _find(
        self,
        expected: Prediction,
        T_map_base: npt.NDArray[np.float64],
        covariance: npt.NDArray[np.float64],
        threshold: float,
    ) -> _AliasedPlace | None:
        for place in self._places:
            J = np.kron(np.eye(2), place.T[:3, :3])
            there = Prediction(place.T @ expected.T_map_base, J @ expected.covariance @ J.T, expected.by_odometry)
            if difference(there, T_map_base, covariance).mahalanobis <= threshold:
                return place
        return None
