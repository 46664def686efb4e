# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The probability that a pose is right, and its covariance as it holds, from an estimate's evidence.

Right means within ``POSITION_BOUND`` of the scene's distance (10 cm at 2 m) and ``ROTATION_BOUND``. A logistic
regression weighs the evidence. ``benchmarks/run.py confidence_fit`` fits its weights, and the inflation of the covariance,
on images and scenes that the figures of ``docs/confidence.md`` do not use. ``confidence.json`` holds them as plain
numbers.
"""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nre_ros.localization.evidence import NUMBERS

POSITION_BOUND = 0.05
"""Largest position error of a right pose, as a fraction of the scene's distance."""
ROTATION_BOUND = math.radians(5.0)
"""Largest rotation error of a right pose, radians."""
VERSION = 3
"""Of the evidence: the weights of another version belong to other numbers."""
MODEL_FILE = Path(__file__).with_name("confidence.json")
_INLIER_RATIO, _ALTERNATIVE_SCORE = NUMBERS.index("inlier_ratio"), NUMBERS.index("alternative_score")


@dataclass(frozen=True)
class ConfidenceModel:
    """Fitted numbers of one backbone.

    Attributes:
        backbone: Name of the features whose estimates they were fitted to.
        mean: ``[F]`` of the evidence's numbers.
        scale: ``[F]`` of the evidence's numbers.
        weights: ``[F]`` of the normalised numbers.
        bias: Of the logistic function.
        alternative_exponent: Of the alternative's relative score (see ``share``).
        inflation: Factor of the estimator's standard deviations.
        outlier_inflation: The factor grows by exp(outlier_inflation (1 - inlier ratio)), for a pose with few inliers is
            less certain than their scatter shows.
        position_floor: Standard deviation of the position that is always added, as a fraction of the scene's distance:
            what cameras, depth and ground truth leave open however many points agree.
        rotation_floor: Standard deviation of the rotation that is always added, radians.
    """

    backbone: str
    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    bias: float
    alternative_exponent: float
    inflation: float
    outlier_inflation: float
    position_floor: float
    rotation_floor: float

    def probability(self, numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Computes the probability that poses are right.

        Args:
            numbers: ``[..., F]`` evidence.

        Returns:
            ``[...]`` in [0, 1].
        """
        alone = 1 / (1 + np.exp(-self.logit(numbers).clip(-40.0, 40.0)))
        return alone * self.share(numbers[..., _ALTERNATIVE_SCORE])

    def logit(self, numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Computes the logarithm of the odds that poses are right, as if they had no alternatives.

        Args:
            numbers: ``[..., F]`` evidence.

        Returns:
            ``[...]``.
        """
        logit: npt.NDArray[np.float64] = (numbers - self.mean) / self.scale @ self.weights + self.bias
        return logit

    def share(self, alternative_score: npt.NDArray[np.float64] | float) -> npt.NDArray[np.float64] | float:
        """Computes the probability of a pose beside its alternative, 1/2 if both have the same inlier score.

        Args:
            alternative_score: Relative inlier score of the alternative, any shape.
        """
        return 1 / (1 + alternative_score**self.alternative_exponent)

    def covariance(
        self, reported: npt.NDArray[np.float64], numbers: npt.NDArray[np.float64], distance: npt.ArrayLike
    ) -> npt.NDArray[np.float64]:
        """Inflates covariances so that their ellipsoids contain the truth as often as they should.

        Args:
            reported: ``[..., 6, 6]`` from the estimator.
            numbers: ``[..., F]`` evidence.
            distance: ``[...]`` of the scene, metres.

        Returns:
            ``[..., 6, 6]``.
        """
        factor = self.inflation * np.exp(self.outlier_inflation * (1 - numbers[..., _INLIER_RATIO]))
        position = (self.position_floor * np.asarray(distance, dtype=np.float64))[..., None] * np.ones(3)
        floor = np.concatenate([position, np.full_like(position, self.rotation_floor)], axis=-1) ** 2
        inflated: npt.NDArray[np.float64] = factor[..., None, None] ** 2 * reported + floor[..., None] * np.eye(6)
        return inflated

    def to_json(self) -> dict[str, object]:
        """Returns the model as ``read_model`` reads it."""
        lists = {name: getattr(self, name).tolist() for name in ("mean", "scale", "weights")}
        others = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in lists}
        return {"version": VERSION, "numbers": list(NUMBERS), **lists, **others}


@cache
def load_model(backbone: str) -> ConfidenceModel:
    """Loads the package's fitted model for the estimates of a backbone.

    A backbone that it was not fitted to gets it all the same, with a warning: the confidence then ranks poses, but is
    no calibrated probability.

    Args:
        backbone: Name of the features.
    """
    model = read_model(MODEL_FILE)
    if model.backbone != backbone:
        warnings.warn(
            f"the confidence was fitted to the features {model.backbone}, not to {backbone}: it ranks poses, but is no "
            "calibrated probability (fit it with `benchmarks/run.py confidence_fit`)",
            stacklevel=2,
        )
    return model


def read_model(path: Path) -> ConfidenceModel:
    """Reads a fitted model.

    Args:
        path: A JSON file as ``confidence.json``.

    Raises:
        ValueError: The file was fitted to other evidence.
    """
    stored = json.loads(path.read_text(encoding="utf-8"))
    if stored.pop("version") != VERSION or tuple(stored.pop("numbers")) != NUMBERS:
        raise ValueError(f"{path} was fitted to other evidence than version {VERSION}: {', '.join(NUMBERS)}")
    lists: dict[str, Any] = {
        name: np.array(stored.pop(name), dtype=np.float64) for name in ("mean", "scale", "weights")
    }
    return ConfidenceModel(**lists, **stored)
