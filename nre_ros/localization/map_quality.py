# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What ``nre_ros map check`` found out about a map, as the map file has it and the localizer uses it."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from nre_ros.keyframes.storage.change_log import Position
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.localization.confidence import VERSION as EVIDENCE_VERSION
from nre_ros.localization.map_calibration import ConfidenceCalibration
from nre_ros.localization.map_noise import MapNoise

_LOG = logging.getLogger(__name__)

VERSION = 1
"""Of the entry in the map. Entries of other versions are ignored, with a warning."""


@dataclass(frozen=True)
class Expected:
    """What images of the mapped place can expect.

    Attributes:
        recall: Share of the images that get a pose.
        right: Share of the images whose pose is right.
        position: Median error of the position, metres.
        rotation: Median error of the rotation, radians.
    """

    recall: float
    right: float
    position: float
    rotation: float

    def text(self) -> str:
        """Returns recall and median error in words, for the terminal."""
        return (
            f"a pose in {self.recall:.0%}; median error {100 * self.position:.2g} cm, "
            f"{math.degrees(self.rotation):.2g} degrees"
        )


@dataclass(frozen=True, eq=False)
class MapQuality:
    """The outcome of a check of a map.

    Attributes:
        views: Number of views that were localized.
        keyframes: Number of keyframes that the map had.
        position: Of the map's changes at the time of the check.
        noise: Errors of the keyframes.
        confidence: What the map changes in the general fit of the confidence.
        expected: What images can expect; None where too few views were localized.
        suspicious: Names of keyframes that do not fit the rest.
    """

    views: int
    keyframes: int
    position: Position
    noise: MapNoise
    confidence: ConfidenceCalibration = ConfidenceCalibration()
    expected: Expected | None = None
    suspicious: tuple[str, ...] = field(default=())

    def to_json(self) -> str:
        """Returns the entry of the map file; ``load_quality`` reads it."""
        expected = None if self.expected is None else self.expected.__dict__
        return json.dumps(
            {
                "version": VERSION,
                "views": self.views,
                "keyframes": self.keyframes,
                "position": list(self.position),
                "noise": self.noise.to_json(),
                "confidence": asdict(self.confidence),
                "expected": expected,
                "suspicious": list(self.suspicious),
            }
        )


def load_quality(store: KeyframeStore) -> MapQuality | None:
    """Reads what a check stored in a map.

    Args:
        store: The map.

    Returns:
        The quality; None if the map was not checked, or if the entry cannot be used, which is logged. Keyframes that were
        changed since have independent errors of the usual size in it.
    """
    text = store.metadata().get("quality")
    if not text:
        return None
    try:
        quality = _parsed(text)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        _LOG.warning(
            "map %s: the result of its check is not used (%s): run `nre_ros map check` again", store.path, error
        )
        return None
    changed = store.changes(quality.position).changed
    kept = ~np.isin(quality.noise.ids, changed)
    if kept.all():
        return quality
    noise = replace(quality.noise, ids=quality.noise.ids[kept], factors=quality.noise.factors[kept])
    return replace(quality, noise=noise)


def _parsed(text: str) -> MapQuality:
    values = json.loads(text)
    if not isinstance(values, dict) or values.get("version") != VERSION:
        found = values.get("version") if isinstance(values, dict) else type(values).__name__
        raise ValueError(f"it is of version {found!r}, known here: {VERSION}")
    expected = values["expected"]
    suspicious = values["suspicious"]
    if not isinstance(suspicious, list) or not all(isinstance(name, str) for name in suspicious):
        raise ValueError("the suspicious keyframes are no list of names")
    revision, last = (int(number) for number in values["position"])
    if not (0 <= revision < 2**63 and 0 <= last < 2**63):
        raise ValueError(f"the position of the check is {revision}, {last}")
    return MapQuality(
        views=int(values["views"]),
        keyframes=int(values["keyframes"]),
        position=(revision, last),
        noise=MapNoise.from_json(values["noise"]),
        confidence=_calibration(values["confidence"]),
        expected=None if expected is None else _expected(expected),
        suspicious=tuple(suspicious),
    )


def _calibration(values: Any) -> ConfidenceCalibration:
    calibration = ConfidenceCalibration.from_json(json.dumps(values))
    if calibration.version != EVIDENCE_VERSION:
        raise ValueError(f"it was fitted to version {calibration.version} of the evidence, not to {EVIDENCE_VERSION}")
    return calibration


def _expected(values: Any) -> Expected:
    numbers = {name: float(values[name]) for name in ("recall", "right", "position", "rotation")}
    if not all(math.isfinite(number) and number >= 0 for number in numbers.values()):
        raise ValueError("what images can expect is not finite")
    if numbers["recall"] > 1 or numbers["right"] > 1:
        raise ValueError("a share of the images is above 1")
    return Expected(**numbers)
