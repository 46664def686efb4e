# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The records of a run joined with the ground truth, as columns of numbers."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

WRONG_METRES, WRONG_DEGREES = 0.5, 5.0
"""An accepted pose that is off by more than either is wrong, unless the user has it otherwise."""


@dataclass(frozen=True)
class Outcomes:
    """What became of N images, in their order.

    names, reasons: reasons are why there is no pose, empty with one.  stamps [N] int64 nanoseconds (0: none).
    posed [N] bool: the estimator found a pose; accepted [N]: and it is believed.  poses, truth [N, 4, 4]:
    camera to map, nan without.  covariances [N, 6, 6] of (x, y, z, rotation about x, y, z) in the map's axes.
    confidence [N], nan where none is told; points_used [N]; milliseconds: stage -> [N], nan where an image did not
    get there.  keyframes: ids retrieved for each.  wrong_beyond: metres and degrees.
    """

    names: list[str]
    stamps: np.ndarray
    posed: np.ndarray
    accepted: np.ndarray
    poses: np.ndarray
    covariances: np.ndarray
    truth: np.ndarray
    confidence: np.ndarray
    points_used: np.ndarray
    milliseconds: dict[str, np.ndarray]
    reasons: list[str]
    keyframes: list[tuple[int, ...]] = field(repr=False)
    wrong_beyond: tuple[float, float] = (WRONG_METRES, WRONG_DEGREES)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def known(self) -> np.ndarray:
        """[N] bool: there is a true pose."""
        return np.isfinite(self.truth[:, 0, 0])

    @property
    def position_errors(self) -> np.ndarray:
        """[N] metres between the camera centres; nan without a pose or without truth."""
        return np.linalg.norm(self.poses[:, :3, 3] - self.truth[:, :3, 3], axis=1)

    @property
    def rotation_errors(self) -> np.ndarray:
        """[N] radians of the rotation between the two; nan without a pose or without truth."""
        return np.linalg.norm(self.rotation_vectors, axis=1)

    @property
    def rotation_vectors(self) -> np.ndarray:
        """[N, 3] rotation, about the map's axes, that takes the true orientation to the estimated one."""
        both = self.posed & self.known
        vectors = np.full((len(self), 3), np.nan)
        if both.any():
            relative = self.poses[both, :3, :3] @ np.swapaxes(self.truth[both, :3, :3], 1, 2)
            vectors[both] = Rotation.from_matrix(relative).as_rotvec()
        return vectors

    @property
    def off(self) -> np.ndarray:
        """[N] bool: posed, and beyond ``wrong_beyond`` of the truth, whether accepted or not."""
        metres, degrees = self.wrong_beyond
        with np.errstate(invalid="ignore"):
            return (self.position_errors > metres) | (np.degrees(self.rotation_errors) > degrees)

    @property
    def wrong(self) -> np.ndarray:
        """[N] bool: accepted and off."""
        return self.accepted & self.off

    @property
    def total_milliseconds(self) -> np.ndarray:
        """[N] sum over the stages, nan for an image that was not worked on."""
        if not self.milliseconds:
            return np.full(len(self), np.nan)
        stages = np.array(list(self.milliseconds.values()))
        return np.where(np.isfinite(stages).any(0), np.nansum(stages, axis=0), np.nan)

    def seconds(self) -> np.ndarray:
        """[N] since the first image; the place in the list where there are no times."""
        timed = len(self) and (self.stamps > 0).all()
        return (self.stamps - self.stamps[0]) / 1e9 if timed else np.arange(len(self), dtype=float)


def collect(
    records: Iterable[dict],
    truth_of,
    min_confidence: float,
    wrong_beyond: tuple[float, float] = (WRONG_METRES, WRONG_DEGREES),
) -> Outcomes:
    """Columns of records; a pose is accepted with at least ``min_confidence``, or where the record says ``accepted``.

    Less than a kilobyte an image, but for the names.
    truth_of: (names, stamps [N]) -> (stamps [N], true poses [N, 4, 4]), see ``truth``.
    """
    names, reasons, keyframes, shared = [], [], [], Shared()
    stamps, numbers, covariances, said, stages = array("q"), array("d"), array("d"), array("b"), {}
    for record in records:
        for name, milliseconds in (record.get("milliseconds") or {}).items():
            column = stages.setdefault(name, array("d"))
            column.extend([math.nan] * (len(names) - len(column)))
            column.append(milliseconds)
        names.append(record["image"])
        stamps.append(record.get("stamp", 0))
        reasons.append(shared(record.get("reason", "")))
        keyframes.append(tuple(map(shared, record.get("keyframes", ()))))
        confidence, covariance = record.get("confidence", 0.0), record.get("covariance")
        numbers.extend([*record["position"], *record["quaternion"]] if record["success"] else [math.nan] * 7)
        numbers.extend([math.nan if confidence is None else confidence, record.get("points_used", 0)])
        if record["success"] and covariance is not None:
            covariances.extend(float(value) for row in covariance for value in row)
        else:
            covariances.extend([math.nan] * 36)
        said.append({None: -1, False: 0, True: 1}[record.get("accepted")])
    for column in stages.values():
        column.extend([math.nan] * (len(names) - len(column)))
    numbers, said = np.asarray(numbers).reshape(-1, 9), np.asarray(said)
    posed = np.isfinite(numbers[:, :7]).all(1)
    accepted = posed & np.where(said < 0, numbers[:, 7] >= min_confidence, said > 0)
    for k in np.flatnonzero(posed & ~accepted):
        reasons[k] = reasons[k] or f"confidence {numbers[k, 7]:.2f} is below {min_confidence:.2f}"
    stamps, truth = truth_of(names, np.array(stamps, dtype=np.int64))
    return Outcomes(
        names,
        stamps,
        posed,
        accepted,
        pose_matrices(numbers[:, :7]),
        np.asarray(covariances).reshape(-1, 6, 6),
        truth,
        numbers[:, 7].copy(),
        numbers[:, 8].astype(int),
        {name: np.array(column) for name, column in stages.items()},
        reasons,
        keyframes,
        wrong_beyond,
    )


class Shared(dict):
    """The first of equal values, for all: reasons, and numbers of keyframes, come again and again."""

    def __call__(self, value):
        return self.setdefault(value, value)


def pose_matrices(numbers: np.ndarray) -> np.ndarray:
    """[N, 4, 4] of rows x y z qx qy qz qw [N, 7]; nan where a row is not finite."""
    poses = np.full((len(numbers), 4, 4), np.nan)
    good = np.isfinite(numbers).all(1)
    if good.any():
        poses[good] = np.eye(4)
        poses[good, :3, 3] = numbers[good, :3]
        poses[good, :3, :3] = Rotation.from_quat(numbers[good, 3:]).as_matrix()
    return poses


def pose_numbers(poses: np.ndarray) -> np.ndarray:
    """Rows x y z qx qy qz qw [N, 7] (qw >= 0) of poses [N, 4, 4]; nan where one is not finite."""
    numbers = np.full((len(poses), 7), np.nan)
    good = np.isfinite(poses).all((1, 2))
    if good.any():
        quaternions = Rotation.from_matrix(poses[good, :3, :3]).as_quat()
        numbers[good, :3] = poses[good, :3, 3]
        numbers[good, 3:] = np.where(quaternions[:, 3:] < 0, -quaternions, quaternions)
    return numbers


def without_truth(names: list[str], stamps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For ``collect`` where there is none."""
    return stamps, np.full((len(names), 4, 4), np.nan)
