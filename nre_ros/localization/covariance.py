# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The covariance of a pose: the part that the image explains, the part of the map, and what the keyframes contradict.

The image's part is the estimator's covariance, inflated by the general fit (``confidence``). The map's part is what the
errors of its keyframes add (``map_noise``), as far as a check has measured them. Where the keyframes of one image pull
its pose apart by more than both parts explain, both are too small there, whether the map was checked or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nre_ros.localization.confidence import ConfidenceModel
from nre_ros.localization.map_noise import MapNoise

_PRIOR_KEYFRAMES = 2.0
"""The ratio of disagreement counts as if so many more keyframes had agreed as expected."""


@dataclass(frozen=True)
class PoseEvidence:
    """What the covariance of a pose is computed from.

    Attributes:
        reported: [6, 6] covariance as the estimator computes it.
        influence: [K, 6, 6] see ``PoseUncertainty``.
        disagreement: [6, 6] see ``PoseUncertainty``.
        keyframes: [K] ids of the keyframes.
        numbers: [F] evidence of the confidence.
        distance: Distance of the scene, metres.
    """

    reported: npt.NDArray[np.float64]
    influence: npt.NDArray[np.float64]
    disagreement: npt.NDArray[np.float64]
    keyframes: Sequence[int]
    numbers: npt.NDArray[np.float64]
    distance: float


def combined_covariance(
    evidence: PoseEvidence, model: ConfidenceModel, noise: MapNoise
) -> tuple[npt.NDArray[np.float64], float]:
    """Computes the covariance of a pose.

    Args:
        evidence: Of the pose.
        model: The general fit.
        noise: Errors of the map's keyframes.

    Returns:
        [6, 6] as of ``LocalizationResult``, and the share of the position's variance that the image alone does not
        explain, in [0, 1].
    """
    inflated = model.covariance(evidence.reported, evidence.numbers, evidence.distance)
    image = noise.scale**2 * inflated
    total = image + noise.covariance(evidence.influence, evidence.keyframes)
    total = total * _disagreement_factor(evidence, inflated, total)
    share = 1.0 - float(np.trace(image[:3, :3]) / np.trace(total[:3, :3]))
    return total, min(max(share, 0.0), 1.0)  # rounding may bring it below 0


def _disagreement_factor(
    evidence: PoseEvidence, inflated: npt.NDArray[np.float64], total: npt.NDArray[np.float64]
) -> float:
    """How many times larger the variances are than explained, at least 1."""
    units = np.repeat([evidence.distance, 1.0], 3) ** -2.0  # metres as angles, to weigh positions and rotations alike
    reported, observed, expected = (
        float(units @ np.diag(each)) for each in (evidence.reported, evidence.disagreement, total)
    )
    inflation = float(units @ np.diag(inflated)) / max(reported, 1e-30)
    freedom = len(evidence.keyframes) - 1
    ratio = inflation * observed / max(expected, 1e-30)
    return max(1.0, (_PRIOR_KEYFRAMES + freedom * ratio) / (_PRIOR_KEYFRAMES + freedom))
