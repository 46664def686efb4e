# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Errors that all poses share: an offset, a time delay, another frame or another scale of the ground truth.

The errors of a localizer are mostly random. A systematic error usually comes from the camera calibration, from the
clocks or from the ground truth.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from nre_ros.evaluation.metrics.query_results import QueryResults
from nre_ros.evaluation.metrics.trajectory import Alignment, absolute_errors, umeyama
from nre_ros.geometry import distant_origin, invert

_MIN_POSES = 8
"""With fewer poses nothing is concluded."""
_MIN_STANDARD_ERRORS = 4.0
"""An effect is reported if it exceeds this many standard errors."""
_MIN_SHARE_OF_ERROR = 0.5
"""An effect is reported if it also explains this share of the error."""
_MAX_RESIDUAL = 0.25
"""An alignment explains a misfit if less than this share of the median error remains."""
_MIN_SCALE_CHANGE = 0.02
"""A scale that differs more than this from 1 is another scale."""
_MAX_CONVENTION_DEGREES = 5.0
"""Poses that are read in the right convention differ by less than this in rotation."""
_W_FIRST = "has w first in its quaternions (--truth-format wxyz)"
_W_LAST = "has w last in its quaternions (--truth-format tum)"
_WRONG_DIRECTION = "leads from the map to the camera (--truth-direction map-to-camera)"
_MAX_VELOCITY_SPAN = 1.0
"""Seconds between the two ground-truth poses from which a velocity is computed."""


def mean_offset(results: QueryResults) -> dict[str, list[float]] | None:
    """Computes the mean error of the accepted poses that are not wrong, with its standard error.

    Args:
        results: Results of a run.

    Returns:
        ``map_m`` and ``camera_m`` (``[3]`` metres in the axes of the map and of the camera) and ``rotation_deg``
        (``[3]`` degrees about the map's axes), each with its standard error under ``NAME_error``. None for fewer
        than 8 poses.
    """
    used = _used(results)
    if used.sum() < _MIN_POSES:
        return None
    in_map = results.poses[used, :3, 3] - results.ground_truth[used, :3, 3]
    in_camera = np.einsum("nji,nj->ni", results.ground_truth[used, :3, :3], in_map)
    rotations = np.degrees(results.rotation_vectors[used])
    offset = {}
    for name, values in (("map_m", in_map), ("camera_m", in_camera), ("rotation_deg", rotations)):
        offset[name] = values.mean(0).tolist()
        offset[f"{name}_error"] = (values.std(0, ddof=1) / np.sqrt(len(values))).tolist()
    return offset


def time_delay(results: QueryResults) -> dict[str, float] | None:
    """Estimates the delay of the poses relative to the ground truth.

    The delay and a constant offset b are fitted to the position errors by least squares: e = b - v delay, where v is
    the velocity of the ground truth. A delayed estimate is where the ground truth was ``delay`` seconds before.

    Args:
        results: Results of a run.

    Returns:
        ``seconds`` (negative if the poses are ahead of the ground truth), ``error`` (its standard error) and
        ``explained`` (share of the variance of the errors). None without stamps, without motion, and for fewer than
        8 poses.
    """
    used = _used(results) & (results.stamps > 0)
    velocity = _velocity(results)
    used &= np.isfinite(velocity).all(1)
    if used.sum() < _MIN_POSES:
        return None
    errors, v = results.poses[used, :3, 3] - results.ground_truth[used, :3, 3], velocity[used]
    centred = v - v.mean(0)
    power = float((centred**2).sum())
    if power < 1e-9 * len(v):
        return None
    delay = -float((centred * (errors - errors.mean(0))).sum()) / power
    residual = errors - errors.mean(0) + delay * centred
    freedom = residual.size - 4
    return {
        "seconds": delay,
        "error": float(np.sqrt((residual**2).sum() / freedom / power)),
        "explained": 1.0 - float((residual**2).sum() / ((errors - errors.mean(0)) ** 2).sum()),
    }


def findings(results: QueryResults) -> list[str]:
    """Describes the systematic errors of a run in words.

    Args:
        results: Results of a run.

    Returns:
        One line per finding; empty if no effect is significant.
    """
    misfit, used = frame_misfit(results), _used(results)
    if misfit:
        return [misfit]
    if used.sum() < _MIN_POSES:
        return []
    delay = time_delay(results)
    if (
        delay
        and abs(delay["seconds"]) > _MIN_STANDARD_ERRORS * delay["error"]
        and delay["explained"] > _MIN_SHARE_OF_ERROR
    ):
        verb = "lag behind" if delay["seconds"] > 0 else "run ahead of"
        return [
            f"The poses {verb} the ground truth by {abs(delay['seconds']):.3f} s (+- {delay['error']:.3f} s). Check "
            "whether the images and the ground truth are stamped by the same clock, at the time of measurement."
        ]
    return _offset_finding(mean_offset(results), float(np.median(results.position_errors[used])))


def _offset_finding(offset: dict[str, list[float]] | None, median_error: float) -> list[str]:
    """One line about the offset in the frame where it varies less, or none if it is not significant."""
    if offset is None:
        return []
    best: tuple[float, float, npt.NDArray[np.float64], str] | None = None
    for name, frame in (("map_m", "the map"), ("camera_m", "the camera")):
        mean, error = np.array(offset[name]), float(np.linalg.norm(offset[f"{name}_error"]))
        length = float(np.linalg.norm(mean))
        if length > _MIN_SHARE_OF_ERROR * median_error and length > _MIN_STANDARD_ERRORS * error:
            if best is None or error < best[0]:
                best = error, length, mean, frame
    if best is None:
        return []
    _, length, mean, frame = best
    return [
        f"All poses have the same offset of {100 * length:.1f} cm: ({', '.join(f'{v:.3f}' for v in mean)}) m along the "
        f"axes of {frame}."
    ]


def frame_misfit(results: QueryResults) -> str:
    """Finds out whether the ground truth is in another frame or scale than the map.

    Three explanations are tried where most poses are beyond the error limits: another scale, another map frame, and
    another frame of the moving body than the camera.

    Args:
        results: Results of a run.

    Returns:
        One line that describes the misfit, or an empty string.
    """
    used = results.posed & results.has_ground_truth
    estimated, true = results.poses[used], results.ground_truth[used]
    if used.sum() < _MIN_POSES or results.beyond_limits[used].mean() < 0.5 and not _scale_differs(estimated, true):
        return ""
    before = float(np.median(results.position_errors[used]))
    if convention := _convention_misfit(estimated, true):
        return convention
    rigid, similar = (_robust_alignment(true, estimated, with_scale) for with_scale in (False, True))
    if rigid is None or similar is None:
        return ""
    after_rigid, after_similar = (_median_distance(a.apply(true), estimated) for a in (rigid, similar))
    if abs(similar.scale - 1) > _MIN_SCALE_CHANGE and after_similar < _MAX_RESIDUAL * min(before, after_rigid):
        return (
            f"The ground truth has another scale than the map. Scaled by {similar.scale:.4g}, its median distance from "
            f"the poses is {_length(after_similar)} instead of {_length(before)}."
        )
    if after_rigid < _MAX_RESIDUAL * before:
        angle = np.degrees(Rotation.from_matrix(rigid.rotation).magnitude())
        centre = np.median(true[:, :3, 3], axis=0)
        # far from the origin the translation says nothing: a small rotation about the origin moves the scene far
        moved = rigid.translation if distant_origin(centre) is None else _moved(rigid, centre)
        shift = _length(float(np.linalg.norm(moved)))
        return (
            f"The ground truth is in another frame than the map. Rotated by {angle:.1f} degrees and shifted by {shift}, "
            f"its median distance from the poses is {_length(after_rigid)} instead of {_length(before)}."
        )
    return _body_frame_misfit(estimated, true, before)


def _convention_misfit(estimated: npt.NDArray[np.float64], true: npt.NDArray[np.float64]) -> str:
    """One line if the ground truth agrees with the poses once its quaternions or its direction are read otherwise."""
    before = _typical_errors(estimated, true)
    for order, shift in (("", 0), (_W_FIRST, -1), (_W_LAST, 1)):
        for direction in ("", _WRONG_DIRECTION):
            what = " and ".join(text for text in (order, direction) if text)
            other, inverse = _shifted_quaternions(true, shift), bool(direction)
            position, degrees = _typical_errors(estimated, invert(other) if inverse else other)
            if what and degrees < min(_MAX_RESIDUAL * before[1], _MAX_CONVENTION_DEGREES) and position <= before[0]:
                return (
                    f"The ground truth {what}: read so, its median difference from the poses is "
                    f"{_length(position)} and {degrees:.1f} degrees instead of {_length(before[0])} and "
                    f"{before[1]:.1f} degrees."
                )
    return ""


def _typical_errors(estimated: npt.NDArray[np.float64], true: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Median difference of poses in metres and degrees."""
    rotations = Rotation.from_matrix(estimated[:, :3, :3]).inv() * Rotation.from_matrix(true[:, :3, :3])
    return _median_distance(true, estimated), float(np.degrees(np.median(rotations.magnitude())))


def _shifted_quaternions(true: npt.NDArray[np.float64], shift: int) -> npt.NDArray[np.float64]:
    """The poses [N, 4, 4] with the numbers of their quaternions x y z w shifted by some places, in a circle."""
    other = true.copy()
    quaternions = Rotation.from_matrix(true[:, :3, :3]).as_quat()
    other[:, :3, :3] = Rotation.from_quat(np.roll(quaternions, shift, axis=1)).as_matrix()
    return other


def _body_frame_misfit(estimated: npt.NDArray[np.float64], true: npt.NDArray[np.float64], before: float) -> str:
    """One line if the ground truth is the pose of another part of the robot: true^-1 estimated is then constant."""
    mounts = invert(true) @ estimated
    rotation = Rotation.from_matrix(mounts[:, :3, :3]).mean()
    mount = np.eye(4)
    mount[:3, :3], mount[:3, 3] = rotation.as_matrix(), np.median(mounts[:, :3, 3], axis=0)
    positions, rotations = absolute_errors(estimated, true @ mount)
    angle = np.degrees(rotation.magnitude())
    if np.degrees(np.median(rotations)) > 5 or angle < 5 or np.median(positions) > max(_MAX_RESIDUAL * before, 0.1):
        return ""
    distance, residual = _length(float(np.linalg.norm(mount[:3, 3]))), _length(float(np.median(positions)))
    return (
        f"The ground truth is the pose of another frame than the camera's optical frame: a frame rotated by "
        f"{angle:.1f} degrees and {distance} away. With this transform the median distance from the poses is {residual}."
    )


def _scale_differs(estimated: npt.NDArray[np.float64], true: npt.NDArray[np.float64]) -> bool:
    """Whether the positions fit another scale, which may leave every error within the limits."""
    similar, rigid = _robust_alignment(true, estimated, True), _robust_alignment(true, estimated, False)
    return similar is not None and rigid is not None and abs(similar.scale - 1) > _MIN_SCALE_CHANGE


def _robust_alignment(
    source: npt.NDArray[np.float64], target: npt.NDArray[np.float64], with_scale: bool
) -> Alignment | None:
    """The alignment of the positions, repeated three times with the better half, because some poses may be wrong."""
    a, b = source[:, :3, 3], target[:, :3, 3]
    keep = np.ones(len(a), dtype=bool)
    alignment = None
    for _ in range(4):
        alignment = umeyama(a[keep], b[keep], with_scale)
        if alignment is None:
            return None
        residuals = np.linalg.norm(alignment.apply(source)[:, :3, 3] - b, axis=1)
        keep = residuals <= max(np.median(residuals), 1e-12)
    return alignment


def _moved(alignment: Alignment, point: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """By how much [3] an alignment moves a point [3]."""
    pose = np.eye(4)
    pose[:3, 3] = point
    moved: npt.NDArray[np.float64] = alignment.apply(pose[None])[0, :3, 3] - point
    return moved


def _median_distance(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    return float(np.median(np.linalg.norm(a[:, :3, 3] - b[:, :3, 3], axis=1)))


def _used(results: QueryResults) -> npt.NDArray[np.bool_]:
    """``[N]`` bool: accepted poses with ground truth that are not wrong."""
    return results.evaluated & ~results.beyond_limits


def _velocity(results: QueryResults) -> npt.NDArray[np.float64]:
    """``[N, 3]`` metres per second between the ground-truth poses before and after each image, NaN without both."""
    velocity = np.full((len(results), 3), np.nan)
    index = np.flatnonzero(results.has_ground_truth)
    seconds = results.seconds()[index]
    positions = results.ground_truth[index, :3, 3]
    if len(index) >= 3:
        span = (seconds[2:] - seconds[:-2])[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            slopes = (positions[2:] - positions[:-2]) / span
        velocity[index[1:-1]] = np.where((span > 0) & (span <= _MAX_VELOCITY_SPAN), slopes, np.nan)
    return velocity


def _length(metres: float) -> str:
    return f"{100 * metres:.1f} cm" if metres < 1 else f"{metres:.2f} m"
