# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The errors of the keyframes' poses in a map, and what they add to the covariance of a pose.

The camera of keyframe k stands at its stored pose moved by an unknown error xi_k: position and rotation vector in the
map's axes. The errors of keyframes a and b are correlated,

    E[xi_a xi_b'] = m_a m_b rho_ab diag(position^2, ..., rotation^2, ...)
    rho_ab = (1 - drift) [a = b] + drift exp(-(|a - b| / length)^power)

where a and b count the keyframes in the order of the recording: a part that is independent in every keyframe, and one
that changes slowly, as the drift of SLAM does. The factors m make some areas better than others. A pose follows the
keyframes that it was estimated from by their influence G_k (``PoseUncertainty``), so that its covariance grows by

    sum_ab G_a E[xi_a xi_b'] G_b'

The frame of a map is that of its keyframes on average: an error that all of them share moves the frame, and is none. The
mean over all keyframes is therefore taken out of rho.

``nre_ros map check`` measures the numbers of this model (``map_check/noise.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

_NUMBERS = {
    "position": (0.0, 1e4),
    "rotation": (0.0, np.pi),
    "drift": (0.0, 1.0),
    "length": (1e-3, 1e9),
    "power": (1.0, 2.0),
    "scale": (0.1, 10.0),
}
"""Numbers of the model, and the ranges in which they are accepted from a file."""

_SEEN_POSITION, _SEEN_ROTATION = 3e-4, np.radians(0.01)
"""Smaller errors of the keyframes are not reported."""


@dataclass(frozen=True, eq=False)
class MapNoise:
    """The errors of a map's keyframes; without arguments a map without errors.

    Attributes:
        position: Standard deviation of the position along each axis, metres.
        rotation: Standard deviation of the rotation about each axis, radians.
        drift: Share of the variance that changes slowly along the recording, in [0, 1].
        length: Number of keyframes along which the slow part changes.
        power: 1 for a slow part that changes like a random walk, 2 for one that changes smoothly.
        scale: Factor of the standard deviations that the image alone explains, 1 where the general fit holds.
        ids: [M] ids of the keyframes in the order of the recording, int64.
        factors: [M] factors m of the standard deviations of each keyframe.
    """

    position: float = 0.0
    rotation: float = 0.0
    drift: float = 0.0
    length: float = 1.0
    power: float = 1.0
    scale: float = 1.0
    ids: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64), repr=False)
    factors: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0), repr=False)

    def covariance(self, influence: npt.NDArray[np.float64], keyframes: Sequence[int]) -> npt.NDArray[np.float64]:
        """Computes what the errors of the keyframes add to the covariance of a pose.

        Args:
            influence: [K, 6, 6] influence of the keyframes on the pose.
            keyframes: [K] ids of the keyframes. Those that the map did not have when it was checked have independent
                errors of the usual size.

        Returns:
            [6, 6].
        """
        order, factors = self._places(keyframes)
        shared = self._shared(order)
        rho = self.correlation(order) - shared[:, None] - shared + self._mean
        rho = rho * factors[:, None] * factors
        weighted = influence * np.repeat([self.position, self.rotation], 3)
        added = np.einsum("aij,ab,bkj->ik", weighted, rho, weighted)
        symmetric: npt.NDArray[np.float64] = (added + added.T) / 2
        return symmetric

    def correlation(self, order: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Computes rho between keyframes.

        Args:
            order: [K] their places in the recording; NaN for one whose errors are independent of all others.

        Returns:
            [K, K].
        """
        return mixed_correlation(order, self.drift, self.length, self.power)

    @cached_property
    def _shares(self) -> npt.NDArray[np.float64]:
        """Mean rho of each keyframe with all keyframes ``[M]``, with a place for keyframes of unknown place at the end."""
        count = len(self.ids)
        kernel = np.cumsum(np.exp(-((np.arange(count) / self.length) ** self.power)))
        slow = kernel + kernel[::-1] - 1 if count else kernel
        return np.append(((1 - self.drift) + self.drift * slow) / max(count, 1), 0.0)

    @property
    def _mean(self) -> float:
        """Mean rho of all pairs of keyframes."""
        return float(self._shares[:-1].mean()) if len(self.ids) else 0.0

    def _shared(self, order: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Mean rho of keyframes with all keyframes, from their places."""
        places = np.where(np.isnan(order), len(self.ids), np.nan_to_num(order)).astype(int)
        shares: npt.NDArray[np.float64] = self._shares[places]
        return shares

    def _places(self, keyframes: Sequence[int]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Places of keyframes in the recording, and their factors."""
        wanted = np.asarray(keyframes, np.int64)
        if not len(self.ids):
            return np.full(len(wanted), np.nan), np.ones(len(wanted))
        sorter = np.argsort(self.ids, kind="stable")
        found = sorter[np.searchsorted(self.ids, wanted, sorter=sorter).clip(0, len(self.ids) - 1)]
        known = self.ids[found] == wanted
        return np.where(known, found, np.nan), np.where(known, self.factors[found], 1.0)

    def text(self) -> str:
        """Returns the size of the errors in words, for the terminal."""
        if self.position < _SEEN_POSITION and self.rotation < _SEEN_ROTATION:
            return "none seen beyond what the images explain"
        slow = f", {self.drift:.0%} of it slowly drifting" if self.drift > 0.2 else ""
        position, rotation = 3**0.5 * self.position, np.degrees(3**0.5 * self.rotation)
        return f"{100 * position:.2g} cm and {rotation:.2g} degrees{slow}"

    def to_json(self) -> dict[str, Any]:
        """Returns the model as plain values; ``from_json`` reads them."""
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        return {**numbers, "ids": self.ids.tolist(), "factors": [round(float(m), 3) for m in self.factors]}

    @classmethod
    def from_json(cls, values: Any) -> MapNoise:
        """Reads what ``to_json`` returned.

        Args:
            values: Plain values, maybe of a damaged file.

        Raises:
            ValueError: A value is missing, has the wrong type or lies outside its range.
        """
        if not isinstance(values, dict):
            raise ValueError("the noise of the map is no object")
        numbers = {}
        for name, (low, high) in _NUMBERS.items():
            value = values.get(name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise ValueError(
                    f"the noise of the map has {name} {value!r}, expected a number from {low:g} to {high:g}"
                )
            numbers[name] = float(value)
        try:
            ids = np.array(values.get("ids"), dtype=np.int64)
            factors = np.array(values.get("factors"), dtype=np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"the noise of the map names no keyframes: {error}") from error
        if ids.ndim != 1 or ids.shape != factors.shape or not ((factors >= 0.1) & (factors <= 10.0)).all():
            raise ValueError("the noise of the map has no factor from 0.1 to 10 for each keyframe")
        if len(np.unique(ids)) != len(ids):
            raise ValueError("the noise of the map names a keyframe twice")
        return cls(**numbers, ids=ids, factors=factors)


def mixed_correlation(
    order: npt.NDArray[np.float64], drift: float, length: float, power: float
) -> npt.NDArray[np.float64]:
    """Computes rho between keyframes.

    Args:
        order: [..., K] their places in the recording; NaN for one whose errors are independent of all others.
        drift: See ``MapNoise``.
        length: See ``MapNoise``.
        power: See ``MapNoise``.

    Returns:
        [..., K, K].
    """
    apart = np.abs(order[..., :, None] - order[..., None, :])
    slow = np.where(np.isnan(apart), 0.0, np.exp(-((np.nan_to_num(apart) / length) ** power)))
    same = np.eye(order.shape[-1])
    rho: npt.NDArray[np.float64] = (1 - drift) * same + drift * np.maximum(slow, same)
    return rho
