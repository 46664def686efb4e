# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The confidence of one map: the general fit, scaled and shifted to the map's own right and wrong poses.

Right poses are those of keyframes that were localized without themselves. Wrong ones are those of images of other places
(``other_places``), and of keyframes that were localized at a wrong pose. Few examples change the general fit little.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from nre_ros.localization.confidence import VERSION, ConfidenceModel

RIGHT_SHARE = 0.6
"""Share of right poses among the examples of the general fit. The rarer kind of a map's examples counts fully, the other
kind less, so that the share is the same: how many images of other places were tried must not change the confidence."""
SCALE_DEVIATION, OFFSET_DEVIATION = 0.3, 1.0
"""How far the scale and the offset (logits) of a map are expected to lie from 1 and 0: standard deviations."""
_SCALES, _OFFSETS = (0.2, 5.0), (-10.0, 10.0)
"""What a stored calibration may have."""
_MAX_LOGIT = 40.0


@dataclass(frozen=True)
class ConfidenceCalibration:
    """What a map changes in the general fit: its logit z becomes ``scale`` z + ``offset``.

    Attributes:
        scale: Between 0.2 and 5.
        offset: Between -10 and 10.
        positives: Number of right poses that it was fitted to.
        negatives: Number of wrong poses that it was fitted to.
        version: Of the evidence (``confidence.VERSION``).
    """

    scale: float = 1.0
    offset: float = 0.0
    positives: int = 0
    negatives: int = 0
    version: int = VERSION

    def __post_init__(self) -> None:
        for name, (low, high) in (("scale", _SCALES), ("offset", _OFFSETS)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                raise ValueError(
                    f"calibration of the confidence: {name} {value!r} is no number from {low:g} to {high:g}"
                )
        for name in ("positives", "negatives", "version"):
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value < 2**53:
                raise ValueError(f"calibration of the confidence: {name} {value!r} is no count")

    def of_model(self, model: ConfidenceModel) -> ConfidenceModel:
        """Returns a model whose confidence has this calibration; its covariance is that of the given model.

        Args:
            model: The general fit.

        Raises:
            ValueError: The calibration was fitted to another version of the evidence.
        """
        if self.version != VERSION:
            raise ValueError(
                f"calibration of the confidence: fitted to version {self.version} of the evidence, not to {VERSION}"
            )
        return replace(model, weights=self.scale * model.weights, bias=self.scale * model.bias + self.offset)

    def to_json(self) -> str:
        """Returns the calibration as ``from_json`` reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> ConfidenceCalibration:
        """Reads a calibration from a file that anybody may have written.

        Args:
            text: What ``to_json`` returned.

        Raises:
            ValueError: The text is no such calibration: no JSON, other fields, or a value out of its range.
        """
        try:
            stored = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"calibration of the confidence: no JSON ({error})") from error
        known = set(cls.__dataclass_fields__)
        if not isinstance(stored, dict) or set(stored) != known:
            raise ValueError(f"calibration of the confidence: the fields are not {', '.join(sorted(known))}")
        return cls(**stored)


def fit_confidence(
    logits: npt.ArrayLike, right: npt.ArrayLike, shares: npt.ArrayLike | None = None
) -> ConfidenceCalibration:
    """Fits the calibration of a map to poses of which it is known whether they are right.

    Maximum of the likelihood of scale and offset with normal priors around 1 and 0. Without right poses, or without wrong
    ones, the general fit stays. Images without a pose are no examples.

    Args:
        logits: ``[Q]`` of the general fit (``ConfidenceModel.logit``).
        right: ``[Q]`` bool.
        shares: ``[Q]`` of each pose beside its alternative (``ConfidenceModel.share``), in (0, 1]; None: 1.

    Raises:
        ValueError: The arrays have different lengths, or a number is not finite or out of its range.
    """
    z, is_right = np.asarray(logits, dtype=np.float64), np.asarray(right, dtype=bool)
    beside = np.ones(len(z)) if shares is None else np.asarray(shares, dtype=np.float64)
    if z.ndim != 1 or z.shape != is_right.shape or z.shape != beside.shape:
        raise ValueError(
            f"logits, right and shares of shapes {z.shape}, {is_right.shape}, {beside.shape}: not [Q] each"
        )
    if not np.isfinite(z).all() or not ((beside > 0) & (beside <= 1)).all():
        raise ValueError("logits must be finite, and shares in (0, 1]")
    positives, negatives = int(is_right.sum()), int((~is_right).sum())
    if not positives or not negatives:
        return ConfidenceCalibration(positives=positives, negatives=negatives)
    z = z.clip(-_MAX_LOGIT, _MAX_LOGIT)
    weights = _weights(is_right)

    def objective(parameters: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        scale, offset = parameters
        alone = 1 / (1 + np.exp(-(scale * z + offset).clip(-_MAX_LOGIT, _MAX_LOGIT)))
        p = (alone * beside).clip(1e-12, 1 - 1e-12)
        prior = (scale - 1) / SCALE_DEVIATION**2, offset / OFFSET_DEVIATION**2
        value = -float(weights @ np.where(is_right, np.log(p), np.log1p(-p)))
        value += 0.5 * ((scale - 1) * prior[0] + offset * prior[1])
        slope = weights * np.where(is_right, alone - 1, beside * alone * (1 - alone) / (1 - p))
        return value, np.array([slope @ z + prior[0], slope.sum() + prior[1]])

    found = minimize(objective, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=(_SCALES, _OFFSETS)).x
    scale, offset = (float(each) for each in found)
    if not math.isfinite(scale) or not math.isfinite(offset):
        return ConfidenceCalibration(positives=positives, negatives=negatives)
    return ConfidenceCalibration(scale, offset, positives, negatives)


def _weights(right: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """1 for the rarer kind of examples, less for the other, so that ``RIGHT_SHARE`` of the sum are right."""
    odds, count = RIGHT_SHARE / (1 - RIGHT_SHARE), float(right.sum()) / float((~right).sum())
    return np.where(right, min(1.0, odds / count), min(1.0, count / odds))
