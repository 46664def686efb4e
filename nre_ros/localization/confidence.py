# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The probability that a pose is right, and the covariance that holds, from an estimate's evidence.

Right means within ``POSITION_BOUND`` of the scene's distance (10 cm at 2 m) and ``ROTATION_BOUND``.  A logistic
regression weighs the evidence; its weights, and what the covariance lacks, are fitted by
``benchmarks/run.py confidence_fit`` on images and scenes that the figures of ``docs/confidence.md`` do not use, and lie in
``confidence.json`` as plain numbers.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np

from nre_ros.localization.evidence import NUMBERS

POSITION_BOUND = 0.05
"""Largest error of the position of a right pose, as a fraction of the scene's distance."""
ROTATION_BOUND = math.radians(5.0)
VERSION = 1
"""Of the evidence: a file of another version holds weights of other numbers."""
_SHARE, _RIVAL = NUMBERS.index("share"), NUMBERS.index("rival")
MODEL_FILE = Path(__file__).with_name("confidence.json")


@dataclass(frozen=True)
class ConfidenceModel:
    """Fitted numbers.

    mean, scale: [F] of the evidence's numbers; weights: [F]; bias.  rivalry: exponent of the rival's share.
    inflation, doubt: the estimator's standard deviations are multiplied by inflation x exp(doubt (1 - share)), for what
    few points agree with is less certain than their scatter says.
    """

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    bias: float
    rivalry: float
    inflation: float
    doubt: float

    def probability(self, numbers: np.ndarray) -> np.ndarray:
        """That poses with this evidence [..., F] are right, [...]."""
        score = (numbers - self.mean) / self.scale @ self.weights + self.bias
        alone = 1 / (1 + np.exp(-score.clip(-40.0, 40.0)))
        return alone * self.share(numbers[..., _RIVAL])

    def share(self, rival):
        """Of the first of two poses, when the second has ``rival`` of its evidence: 1/2 if they are alike."""
        return 1 / (1 + rival**self.rivalry)

    def covariance(self, told: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """[..., 6, 6] that contain the truth as often as they say, from what the estimator tells [..., 6, 6].

        numbers: [..., F] the evidence.
        """
        factor = self.inflation * np.exp(self.doubt * (1 - numbers[..., _SHARE]))
        return factor[..., None, None] ** 2 * told

    def to_json(self) -> dict:
        """The model as ``load_model`` reads it."""
        lists = {name: getattr(self, name).tolist() for name in ("mean", "scale", "weights")}
        others = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in lists}
        return {"version": VERSION, "numbers": list(NUMBERS), **lists, **others}


@cache
def load_model(path: Path = MODEL_FILE) -> ConfidenceModel:
    """The fitted model.  Raises ``ValueError`` for one of other evidence."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    if stored.pop("version") != VERSION or tuple(stored.pop("numbers")) != NUMBERS:
        raise ValueError(f"{path} was fitted to other evidence than {VERSION}: {', '.join(NUMBERS)}")
    lists = {name: np.array(stored.pop(name), dtype=np.float64) for name in ("mean", "scale", "weights")}
    return ConfidenceModel(**lists, **stored)
