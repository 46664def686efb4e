# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One image with a known pose, localized in a map: the error of the pose, and what the error may depend on."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from nre_ros.geometry import Camera, invert
from nre_ros.keyframes.retrieval.pose_prior import PosePrior
from nre_ros.localization.confidence import POSITION_BOUND, ROTATION_BOUND, load_model
from nre_ros.localization.evidence import NUMBERS, gather
from nre_ros.localization.localizer import Localizer
from nre_ros.nre.estimate import Estimate
from nre_ros.nre.inliers import INLIER_LOSS, OUTLIER_LOSS
from nre_ros.nre.viewpoints import compatible_views

_ARRAYS = {
    "T_map_cam": (4, 4),
    "estimated": (4, 4),
    "covariance": (6, 6),
    "disagreement": (6, 6),
    "alternative": (4, 4),
}
"""Fields with an array of a fixed shape."""
_WITH_A_POSE = ("estimated", "covariance", "influence", "disagreement", "evidence", "inlier_ratios")
"""Fields that a result has together: those of the pose."""
_LARGEST = 1e12
"""No number of a result is larger, whatever its unit."""
_ROUNDING, _SLOPPY_ROTATION = 1e-6, 1e-4
"""How far a stored covariance may be off, as a share of its largest number; and the product of a rotation with its inverse."""
_ANY = (-100.0, 100.0)
_RANGES = {
    "inlier_ratio": (0.0, 1.0),
    "log_inlier_blocks": (0.0, 100.0),
    "compatible_inlier_ratio": (0.0, 1.0),
    "confirmed_regions": (0.0, 1.0),
    "inlier_loss": (0.0, 1.0),
    "effective_keyframes": (0.0, 1e6),
    "log_refinement_shift": (0.0, 100.0),
    "few_inlier_blocks": (0.0, 100.0),
    "few_keyframes": (0.0, 100.0),
    "alternative_score": (0.0, 2.0),
}
"""What the evidence may be; other numbers: ``_ANY``."""
_MAX_SCALE_RATIO, _MIN_COSINE, _FEWEST_POINTS = 1.5, math.cos(math.radians(25.0)), 60
"""A view should show a point again within this ratio of scales and this angle; so many such points tell something."""


@dataclass(frozen=True)
class ViewResult:
    """What the localizer found for an image whose pose is known.

    Attributes:
        name: Name of the image.
        keyframe: Id of the image's own keyframe, which was left out; -1 if it has none.
        T_map_cam: [4, 4] its pose as the map has it.
        keyframes: [K] ids of the retrieved keyframes.
        reason: Why there is no pose; empty with one.
        estimated: [4, 4] the estimated ``T_map_cam``; None without a pose.
        covariance: [6, 6] as the estimator computes it; None without a pose.
        influence: [K, 6, 6] see ``PoseUncertainty``; None without a pose.
        disagreement: [6, 6] see ``PoseUncertainty``; None without a pose.
        evidence: [F] the confidence's numbers; None without a pose.
        distance: Distance of the scene in metres.
        inliers: Number of inliers.
        gap: How far the view is from the nearest keyframe that was not left out (``view_gap``).
        seconds: Time of the query.
        alternative: [4, 4] ``T_map_cam`` of the best distinct pose; None without one.
        inlier_ratios: [K] inliers of each keyframe beyond the expected false matches, as a share of its points in view;
            -1 where the view is not one that should show them, from another side or too few.
        confidence: As the general fit gives it, 0 without a pose; in a ``CheckResult`` as the map's calibration gives it.
    """

    name: str
    keyframe: int
    T_map_cam: npt.NDArray[np.float64]
    keyframes: tuple[int, ...] = ()
    reason: str = ""
    estimated: npt.NDArray[np.float64] | None = None
    covariance: npt.NDArray[np.float64] | None = None
    influence: npt.NDArray[np.float64] | None = None
    disagreement: npt.NDArray[np.float64] | None = None
    evidence: npt.NDArray[np.float64] | None = None
    distance: float = 1.0
    inliers: int = 0
    gap: float = 0.0
    seconds: float = 0.0
    alternative: npt.NDArray[np.float64] | None = None
    inlier_ratios: npt.NDArray[np.float64] | None = None
    confidence: float = 0.0

    @property
    def posed(self) -> bool:
        """Whether the estimator found a pose with a covariance."""
        return self.estimated is not None

    def error(self) -> npt.NDArray[np.float64]:
        """Returns the error [6] of the pose: position and rotation vector in the map's axes, metres and radians."""
        assert self.estimated is not None
        rotation = Rotation.from_matrix(self.estimated[:3, :3] @ self.T_map_cam[:3, :3].T).as_rotvec()
        return np.concatenate([self.estimated[:3, 3] - self.T_map_cam[:3, 3], rotation])

    @property
    def position_error(self) -> float:
        """Metres between the estimated and the stored position; infinite without a pose."""
        return float(np.linalg.norm(self.error()[:3])) if self.posed else float("inf")

    @property
    def rotation_error(self) -> float:
        """Radians between the estimated and the stored orientation; infinite without a pose."""
        return float(np.linalg.norm(self.error()[3:])) if self.posed else float("inf")

    @property
    def right(self) -> bool:
        """Whether the pose is right as ``confidence`` defines it."""
        return self.position_error <= POSITION_BOUND * self.distance and self.rotation_error <= ROTATION_BOUND

    def to_json(self) -> dict[str, Any]:
        """Returns the result as plain values; ``from_json`` reads them."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ViewResult:
        """Reads what ``to_json`` returned.

        Args:
            values: Plain values, maybe from a file that anybody wrote.

        Raises:
            ValueError: A value is missing, has the wrong type or shape, or is one that no localizer reports.
        """
        try:
            keyframes = tuple(checked_count(number) for number in values["keyframes"])
            count = len(keyframes)
            shapes = {**_ARRAYS, "influence": (count, 6, 6), "inlier_ratios": (count,)}
            arrays = {name: _array(values[name], shape) for name, shape in shapes.items()}
            T_map_cam, evidence = arrays.pop("T_map_cam"), values["evidence"]
            if T_map_cam is None:
                raise ValueError("no result of a view: it has no pose in the map")
            result = cls(
                T_map_cam=T_map_cam,
                name=_text(values["name"]),
                keyframe=checked_count(values["keyframe"], -1),
                keyframes=keyframes,
                reason=_text(values["reason"]),
                distance=_number(values["distance"], 0.0),
                inliers=checked_count(values["inliers"]),
                gap=_number(values["gap"], 0.0, math.pi),
                seconds=_number(values["seconds"], 0.0),
                confidence=_number(values["confidence"], 0.0, 1.0),
                evidence=None if evidence is None else evidence_from_json(evidence),
                **arrays,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no result of a view: {error!r}") from error
        result._check()
        return result

    def _check(self) -> None:
        """Raises ``ValueError`` if the values do not fit together."""
        found = [getattr(self, name) is not None for name in _WITH_A_POSE]
        if any(found) != all(found):
            raise ValueError("no result of a view: parts of the pose are missing")
        if len(set(self.keyframes)) < len(self.keyframes):
            raise ValueError("no result of a view: a keyframe was retrieved twice")
        for pose in (self.T_map_cam, self.estimated, self.alternative):
            if pose is not None and not _is_rigid(pose):
                raise ValueError("no result of a view: a pose is no rigid motion")
        for matrix in (self.covariance, self.disagreement):
            if matrix is not None and not _is_covariance(matrix):
                raise ValueError("no result of a view: a covariance is not symmetric or has a negative variance")
        if self.posed and self.distance <= 0:
            raise ValueError("no result of a view: the scene has no distance")
        if self.inlier_ratios is not None and (np.abs(self.inlier_ratios) > 1).any():
            raise ValueError("no result of a view: an inlier ratio is above 1")


def localize_view(
    localizer: Localizer,
    name: str,
    image: npt.NDArray[np.uint8],
    camera: Camera,
    T_map_cam: npt.NDArray[np.float64],
    keyframe: int = -1,
    exclude: Collection[int] = (),
    gap: float = 0.0,
    search_further: bool = True,
    prior: PosePrior | None = None,
) -> ViewResult:
    """Localizes an image whose pose is known.

    Args:
        localizer: The map.
        name: Name of the image.
        image: uint8, BGR [H, W, 3] or grey [H, W].
        camera: Its intrinsics.
        T_map_cam: [4, 4] its pose.
        keyframe: Id of its own keyframe; -1 if it has none.
        exclude: Ids of the keyframes that are left out.
        gap: Its ``ViewResult.gap``.
        search_further: See ``Localizer.estimate``.
        prior: See ``Localizer.estimate``.
    """
    estimate = localizer.estimate(image, camera, prior, exclude=exclude, search_further=search_further)
    seconds = sum(estimate.milliseconds.values()) / 1e3
    ids = () if estimate.keyframes is None else estimate.keyframes.ids
    result = ViewResult(name, keyframe, T_map_cam, ids, estimate.reason, gap=gap, seconds=seconds)
    if estimate.T_cam_map is None or estimate.uncertainty is None:
        return result if estimate.reason else replace(result, reason="the loss has no clear minimum at the pose")
    evidence, uncertainty = gather(estimate, localizer.retrieve), estimate.uncertainty
    return replace(
        result,
        estimated=invert(estimate.T_cam_map).cpu().numpy(),
        covariance=uncertainty.covariance.cpu().numpy(),
        influence=uncertainty.influence.cpu().numpy(),
        disagreement=uncertainty.disagreement.cpu().numpy(),
        evidence=evidence.numbers(),
        distance=evidence.distance,
        inliers=evidence.inliers,
        alternative=None if estimate.alternative is None else invert(estimate.alternative.T_cam_map).cpu().numpy(),
        inlier_ratios=_inlier_ratios(estimate),
        confidence=float(load_model(localizer.backbone.name).probability(evidence.numbers())),
    )


def _inlier_ratios(estimate: Estimate) -> npt.NDArray[np.float64]:
    """``ViewResult.inlier_ratios`` of an estimate with a pose."""
    keyframes, losses, rate = estimate.keyframes, estimate.losses, estimate.false_match_rate
    assert keyframes is not None and losses is not None and rate is not None
    assert estimate.T_cam_map is not None and estimate.camera is not None
    expected = (losses < OUTLIER_LOSS) & compatible_views(
        estimate.T_cam_map, keyframes.points, keyframes.directions, estimate.camera, _MAX_SCALE_RATIO, _MIN_COSINE
    )
    beyond = ((losses < INLIER_LOSS).double() - rate) * expected
    ratios = [
        float(inliers.sum()) / int(among.sum()) if int(among.sum()) >= _FEWEST_POINTS else -1.0
        for inliers, among in zip(beyond.split(list(keyframes.counts)), expected.split(list(keyframes.counts)))
    ]
    return np.array(ratios).clip(-1.0)


def evidence_from_json(values: Any) -> npt.NDArray[np.float64]:
    """Reads the evidence of a pose.

    Args:
        values: Plain values, maybe from a file that anybody wrote.

    Returns:
        ``[F]`` in the order of ``NUMBERS``.

    Raises:
        ValueError: They are no evidence: another number of values, or a value out of its range.
    """
    evidence = _array(values, (len(NUMBERS),))
    if evidence is None:
        raise ValueError("no evidence of a pose: it is null")
    for name, value in zip(NUMBERS, evidence.tolist()):
        low, high = _RANGES.get(name, _ANY)
        if not low <= value <= high:
            raise ValueError(f"no evidence of a pose: {name} is {value:g}, not between {low:g} and {high:g}")
    return evidence


def checked_count(value: Any, least: int = 0) -> int:
    """Returns a whole number that was read from a file.

    Args:
        value: A plain value.
        least: Its lower bound.

    Raises:
        ValueError: It is none, or out of range.
    """
    if type(value) is not int or not least <= value < 2**63:
        raise ValueError(f"no result of a view: {value!r} is no whole number from {least} on")
    return value


def _number(value: Any, low: float, high: float = _LARGEST) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"no result of a view: {value!r} is no number from {low:g} to {high:g}")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"no result of a view: {value!r} is no text")
    return value


def _is_rigid(T: npt.NDArray[np.float64]) -> bool:
    R = T[:3, :3]
    rotation = np.abs(R @ R.T - np.eye(3)).max() <= _SLOPPY_ROTATION and np.linalg.det(R) > 0
    return bool(rotation and (T[3] == (0.0, 0.0, 0.0, 1.0)).all())


def _is_covariance(matrix: npt.NDArray[np.float64]) -> bool:
    size = float(np.abs(matrix).max())
    symmetric = np.abs(matrix - matrix.T).max() <= _ROUNDING * size
    return bool(symmetric and np.linalg.eigvalsh(matrix)[0] >= -_ROUNDING * size)


def _array(value: Any, shape: tuple[int, ...]) -> npt.NDArray[np.float64] | None:
    if value is None:
        return None
    array = np.asarray(value, dtype=np.float64)
    if array.size == 0:
        array = array.reshape(shape)
    if array.shape != shape or not (np.abs(array) <= _LARGEST).all():  # refuses what is not finite, too
        raise ValueError(f"no result of a view: an array of shape {array.shape} where a finite {shape} should be")
    return array
