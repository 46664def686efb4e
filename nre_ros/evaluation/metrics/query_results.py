# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The records of a run joined with the ground truth: one row per query image, as arrays."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

WRONG_METRES, WRONG_DEGREES = 0.5, 5.0
"""Default error limits: an accepted pose with a larger position or rotation error is wrong."""

GroundTruthLookup = Callable[
    [Sequence[str], npt.NDArray[np.int64]], tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]
]
"""Function (image names, stamps ``[N]``) -> (stamps ``[N]`` in nanoseconds, ground-truth poses ``[N, 4, 4]``).

Poses are camera to map and NaN where an image has no ground truth.
"""

_Hashable = TypeVar("_Hashable", str, int)


@dataclass(frozen=True)
class QueryResults:
    """Results of N query images in the order in which they were localized.

    Attributes:
        names: Image names, unique within a run.
        stamps: ``[N]`` int64 nanoseconds, 0 for an image without a stamp.
        posed: ``[N]`` bool, whether the estimator found a pose.
        accepted: ``[N]`` bool, whether the pose was also accepted.
        poses: ``[N, 4, 4]`` estimated poses, camera to map, NaN without a pose.
        covariances: ``[N, 6, 6]`` covariances of (x, y, z, rotation about x, y, z) in the map's axes, in metres
            and radians, NaN without a covariance.
        ground_truth: ``[N, 4, 4]`` ground-truth poses, camera to map, NaN without ground truth.
        confidence: ``[N]`` confidence of each result, NaN where the method reports none.
        points_used: ``[N]`` number of inliers.
        milliseconds: Stage name to ``[N]`` durations, NaN where an image did not reach the stage.
        reasons: Why an image has no accepted pose, empty for an accepted pose.
        keyframe_ids: Identifiers of the keyframes that were retrieved for each image.
        wrong_beyond: Error limits in metres and degrees; an accepted pose beyond either limit is wrong.
    """

    names: list[str]
    stamps: npt.NDArray[np.int64]
    posed: npt.NDArray[np.bool_]
    accepted: npt.NDArray[np.bool_]
    poses: npt.NDArray[np.float64]
    covariances: npt.NDArray[np.float64]
    ground_truth: npt.NDArray[np.float64]
    confidence: npt.NDArray[np.float64]
    points_used: npt.NDArray[np.int_]
    milliseconds: dict[str, npt.NDArray[np.float64]]
    reasons: list[str]
    keyframe_ids: list[tuple[int, ...]] = field(repr=False)
    wrong_beyond: tuple[float, float] = (WRONG_METRES, WRONG_DEGREES)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def has_ground_truth(self) -> npt.NDArray[np.bool_]:
        """``[N]`` bool: the image has a ground-truth pose."""
        return np.isfinite(self.ground_truth[:, 0, 0])

    @property
    def evaluated(self) -> npt.NDArray[np.bool_]:
        """``[N]`` bool: the pose was accepted and the image has a ground-truth pose."""
        return self.accepted & self.has_ground_truth

    @property
    def position_errors(self) -> npt.NDArray[np.float64]:
        """``[N]`` distances between the camera centres in metres, NaN without a pose or without ground truth."""
        return np.linalg.norm(self.poses[:, :3, 3] - self.ground_truth[:, :3, 3], axis=1)

    @property
    def rotation_errors(self) -> npt.NDArray[np.float64]:
        """``[N]`` angles between the orientations in radians, NaN without a pose or without ground truth."""
        return np.linalg.norm(self.rotation_vectors, axis=1)

    @property
    def rotation_vectors(self) -> npt.NDArray[np.float64]:
        """``[N, 3]`` rotation vectors from the true to the estimated orientation, about the map's axes, in radians."""
        both = self.posed & self.has_ground_truth
        vectors = np.full((len(self), 3), np.nan)
        if both.any():
            relative = self.poses[both, :3, :3] @ np.swapaxes(self.ground_truth[both, :3, :3], 1, 2)
            vectors[both] = Rotation.from_matrix(relative).as_rotvec()
        return vectors

    @property
    def beyond_limits(self) -> npt.NDArray[np.bool_]:
        """``[N]`` bool: the pose, accepted or not, has an error beyond ``wrong_beyond``."""
        metres, degrees = self.wrong_beyond
        with np.errstate(invalid="ignore"):
            return (self.position_errors > metres) | (np.degrees(self.rotation_errors) > degrees)

    @property
    def wrong(self) -> npt.NDArray[np.bool_]:
        """``[N]`` bool: the pose was accepted although its error is beyond ``wrong_beyond``."""
        return self.accepted & self.beyond_limits

    @property
    def total_milliseconds(self) -> npt.NDArray[np.float64]:
        """``[N]`` sums over the stages, NaN for an image that reached no stage."""
        if not self.milliseconds:
            return np.full(len(self), np.nan)
        stages = np.array(list(self.milliseconds.values()))
        return np.where(np.isfinite(stages).any(0), np.nansum(stages, axis=0), np.nan)

    @property
    def has_stamps(self) -> bool:
        """Whether the run has images and every image has a stamp."""
        return len(self) > 0 and bool((self.stamps > 0).all())

    def seconds(self) -> npt.NDArray[np.float64]:
        """Returns the time of each image.

        Returns:
            ``[N]`` seconds since the first image, or the images' indices where stamps are missing.
        """
        if self.has_stamps:
            return (self.stamps - self.stamps[0]) / 1e9
        return np.arange(len(self), dtype=float)


def collect_results(
    records: Iterable[dict[str, Any]],
    lookup: GroundTruthLookup,
    min_confidence: float,
    wrong_beyond: tuple[float, float] = (WRONG_METRES, WRONG_DEGREES),
) -> QueryResults:
    """Joins the records of a run with its ground truth.

    A pose is accepted if its confidence is at least ``min_confidence``. A record with the field ``accepted`` decides
    for itself. Each image takes less than one kilobyte of memory besides its name.

    Args:
        records: Records of the images, as ``records.read_records`` returns them.
        lookup: Function that finds the ground-truth poses.
        min_confidence: Smallest confidence of an accepted pose.
        wrong_beyond: Error limits in metres and degrees.

    Returns:
        The results of all records.
    """
    intern_text, intern_id = Interning[str](), Interning[int]()
    names: list[str] = []
    reasons: list[str] = []
    keyframe_ids: list[tuple[int, ...]] = []
    stages: dict[str, array[float]] = {}
    # plain numbers: 7 of the pose, confidence and points_used of each image
    stamp_values, values, covariance_values, decisions = array("q"), array("d"), array("d"), array("b")
    for record in records:
        for name, milliseconds in (record.get("milliseconds") or {}).items():
            column = stages.setdefault(name, array("d"))
            column.extend([math.nan] * (len(names) - len(column)))
            column.append(milliseconds)
        names.append(record["image"])
        stamp_values.append(record.get("stamp", 0))
        reasons.append(intern_text(record.get("reason", "")))
        keyframe_ids.append(tuple(map(intern_id, record.get("keyframes", ()))))
        confidence, covariance = record.get("confidence", 0.0), record.get("covariance")
        values.extend([*record["position"], *record["quaternion"]] if record["success"] else [math.nan] * 7)
        values.extend([math.nan if confidence is None else confidence, record.get("points_used", 0)])
        if record["success"] and covariance is not None:
            covariance_values.extend(float(value) for row in covariance for value in row)
        else:
            covariance_values.extend([math.nan] * 36)
        decisions.append({None: -1, False: 0, True: 1}[record.get("accepted")])
    for column in stages.values():
        column.extend([math.nan] * (len(names) - len(column)))
    numbers, decided = np.asarray(values).reshape(-1, 9), np.asarray(decisions)
    posed = np.isfinite(numbers[:, :7]).all(1)
    accepted = posed & np.where(decided < 0, numbers[:, 7] >= min_confidence, decided > 0)
    for k in np.flatnonzero(posed & ~accepted):
        reasons[k] = reasons[k] or f"confidence {numbers[k, 7]:.2f} is below {min_confidence:.2f}"
    stamps, ground_truth = lookup(names, np.array(stamp_values, dtype=np.int64))
    return QueryResults(
        names=names,
        stamps=stamps,
        posed=posed,
        accepted=accepted,
        poses=pose_matrices(numbers[:, :7]),
        covariances=np.asarray(covariance_values).reshape(-1, 6, 6),
        ground_truth=ground_truth,
        confidence=numbers[:, 7].copy(),
        points_used=numbers[:, 8].astype(int),
        milliseconds={name: np.array(column) for name, column in stages.items()},
        reasons=reasons,
        keyframe_ids=keyframe_ids,
        wrong_beyond=wrong_beyond,
    )


def without_ground_truth(
    names: Sequence[str], stamps: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Returns NaN poses for every image: the ``GroundTruthLookup`` of a run without ground truth.

    Args:
        names: N image names.
        stamps: ``[N]`` nanoseconds.

    Returns:
        The stamps unchanged, and ``[N, 4, 4]`` poses of NaN.
    """
    return stamps, np.full((len(names), 4, 4), np.nan)


class Interning(dict[_Hashable, _Hashable]):
    """Keeps one object for all equal values; failure reasons and keyframe identifiers repeat in most records."""

    def __call__(self, value: _Hashable) -> _Hashable:
        return self.setdefault(value, value)


def pose_matrices(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Converts positions and quaternions to matrices.

    Args:
        numbers: ``[N, 7]`` rows x y z qx qy qz qw.

    Returns:
        ``[N, 4, 4]`` poses, NaN where a row is not finite.
    """
    poses = np.full((len(numbers), 4, 4), np.nan)
    finite = np.isfinite(numbers).all(1)
    if finite.any():
        poses[finite] = np.eye(4)
        poses[finite, :3, 3] = numbers[finite, :3]
        poses[finite, :3, :3] = Rotation.from_quat(numbers[finite, 3:]).as_matrix()
    return poses


def pose_numbers(poses: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Converts matrices to positions and quaternions.

    Args:
        poses: ``[N, 4, 4]`` poses.

    Returns:
        ``[N, 7]`` rows x y z qx qy qz qw with qw >= 0, NaN where a pose is not finite.
    """
    numbers = np.full((len(poses), 7), np.nan)
    finite = np.isfinite(poses).all((1, 2))
    if finite.any():
        quaternions = Rotation.from_matrix(poses[finite, :3, :3]).as_quat()
        numbers[finite, :3] = poses[finite, :3, 3]
        numbers[finite, 3:] = np.where(quaternions[:, 3:] < 0, -quaternions, quaternions)
    return numbers
