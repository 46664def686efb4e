# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Errors that all poses share: an offset, a delay between image and truth, another frame, another scale.

A localizer's own errors scatter; what these find is more often a mistake of the calibration, of the clocks
or of the ground truth.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from nre_ros.evaluation.metrics.outcomes import Outcomes
from nre_ros.evaluation.metrics.trajectory import Alignment, absolute_errors, umeyama
from nre_ros.geometry import invert

_FEWEST = 8
"""Poses with truth below which nothing is concluded."""
_SIGNIFICANT = 4.0
"""Standard errors that an effect must have to be told."""
_NOTABLE = 0.5
"""Share of the median error that it must have besides."""
_EXPLAINS = 0.25
"""A misfit is put down to an alignment that leaves less than this share of the median error."""
_OTHER_SCALE = 0.02
"""Departure of the scale from 1 that counts as another scale."""
_MAX_STEP = 1.0
"""Seconds between true poses over which a velocity is taken."""


def offset(outcomes: Outcomes) -> dict | None:
    """Mean error of the accepted poses with truth, in the map's axes and in the camera's.

    map_m, camera_m [3] metres with their standard errors; rotation_deg [3] about the map's axes.  None of
    fewer than ``_FEWEST`` poses.
    """
    used = _used(outcomes)
    if used.sum() < _FEWEST:
        return None
    in_map = outcomes.poses[used, :3, 3] - outcomes.truth[used, :3, 3]
    in_camera = np.einsum("nji,nj->ni", outcomes.truth[used, :3, :3], in_map)
    turns = np.degrees(outcomes.rotation_vectors[used])
    result = {}
    for name, values in (("map_m", in_map), ("camera_m", in_camera), ("rotation_deg", turns)):
        result[name] = values.mean(0).tolist()
        result[f"{name}_error"] = (values.std(0, ddof=1) / np.sqrt(len(values))).tolist()
    return result


def delay(outcomes: Outcomes) -> dict | None:
    """By how many seconds the poses lag behind the truth (negative: run ahead), and the standard error.

    Least squares of the position errors e = b - v delay on the velocity v of the truth, with a constant
    offset b: a lagging estimate is where the truth was ``delay`` before.  None without times or motion.
    """
    used = _used(outcomes) & (outcomes.stamps > 0)
    velocity = _velocity(outcomes)
    used &= np.isfinite(velocity).all(1)
    if used.sum() < _FEWEST:
        return None
    errors, v = outcomes.poses[used, :3, 3] - outcomes.truth[used, :3, 3], velocity[used]
    centred = v - v.mean(0)
    power = float((centred**2).sum())
    if power < 1e-9 * len(v):
        return None
    value = -float((centred * (errors - errors.mean(0))).sum()) / power
    residual = errors - errors.mean(0) + value * centred
    freedom = residual.size - 4
    return {
        "seconds": value,
        "error": float(np.sqrt((residual**2).sum() / freedom / power)),
        "explained": 1.0 - float((residual**2).sum() / ((errors - errors.mean(0)) ** 2).sum()),
    }


def findings(outcomes: Outcomes) -> list[str]:
    """What stands out, a line each; empty when nothing does."""
    misfit, used = frame_misfit(outcomes), _used(outcomes)
    if misfit:
        return [misfit]
    if used.sum() < _FEWEST:
        return []
    lines, median = [], float(np.median(outcomes.position_errors[used]))
    late = delay(outcomes)
    if late and abs(late["seconds"]) > _SIGNIFICANT * late["error"] and late["explained"] > _NOTABLE:
        word = "lag behind" if late["seconds"] > 0 else "run ahead of"
        lines.append(
            f"the poses {word} the truth by {abs(late['seconds']):.3f} s (+- {late['error']:.3f}): the clocks "
            "of images and truth differ, or the truth is not dated when it was true"
        )
    return lines + _offset_lines(offset(outcomes), median, bool(lines))


def _offset_lines(found: dict, median: float, late: bool) -> list[str]:
    best = None
    for name, words in (("map_m", "the map"), ("camera_m", "the camera")):
        mean, error = np.array(found[name]), np.array(found[f"{name}_error"])
        length = float(np.linalg.norm(mean))
        # the frame in which the offset is constant is the one where it scatters less
        if length > _NOTABLE * median and length > _SIGNIFICANT * float(np.linalg.norm(error)):
            if best is None or np.linalg.norm(error) < best[0]:
                best = float(np.linalg.norm(error)), length, mean, words
    if best is None or late:
        return []
    _, length, mean, words = best
    return [
        f"all poses are off by {100 * length:.1f} cm the same way: ({', '.join(f'{v:.3f}' for v in mean)}) m along "
        f"the axes of {words}"
    ]


def frame_misfit(outcomes: Outcomes) -> str:
    """One line when most poses are off and one alignment of the truth explains it; else an empty string.

    Tried are another frame of the map, another scale with it, and another frame of what moves.
    """
    used = outcomes.posed & outcomes.known
    estimate, truth = outcomes.poses[used], outcomes.truth[used]
    if used.sum() < _FEWEST or outcomes.off[used].mean() < 0.5 and not _scale_differs(estimate, truth):
        return ""
    before = float(np.median(outcomes.position_errors[used]))
    rigid, similar = (_robust(truth, estimate, scale) for scale in (False, True))
    if rigid is None or similar is None:
        return ""
    after_rigid, after_similar = (_median_position(a.apply(truth), estimate) for a in (rigid, similar))
    if abs(similar.scale - 1) > _OTHER_SCALE and after_similar < _EXPLAINS * min(before, after_rigid):
        return (
            f"the ground truth is in another scale than the map: {similar.scale:.4g} times as large it would fit "
            f"within {_metres(after_similar)} (median), as it is the poses are {_metres(before)} off"
        )
    if after_rigid < _EXPLAINS * before:
        turn = np.degrees(Rotation.from_matrix(rigid.rotation).magnitude())
        move = _metres(float(np.linalg.norm(rigid.translation)))
        return (
            f"the ground truth is in another frame than the map: turned by {turn:.1f} degrees and moved by {move} "
            f"it would fit within {_metres(after_rigid)} (median), as it is the poses are {_metres(before)} off"
        )
    return _body_misfit(estimate, truth, before)


def _body_misfit(estimate, truth, before: float) -> str:
    """The truth may be of another part of the robot: truth^-1 estimate is then the same everywhere."""
    mounts = invert(truth) @ estimate
    rotation = Rotation.from_matrix(mounts[:, :3, :3]).mean()
    mount = np.eye(4)
    mount[:3, :3], mount[:3, 3] = rotation.as_matrix(), np.median(mounts[:, :3, 3], axis=0)
    positions, turns = absolute_errors(estimate, truth @ mount)
    angle = np.degrees(rotation.magnitude())
    if np.degrees(np.median(turns)) > 5 or angle < 5 or np.median(positions) > max(_EXPLAINS * before, 0.1):
        return ""
    away, within = _metres(float(np.linalg.norm(mount[:3, 3]))), _metres(float(np.median(positions)))
    return (
        f"the ground truth is of another frame than the camera's optical frame: of one turned by {angle:.1f} "
        f"degrees and {away} away; the poses are then within {within}"
    )


def _scale_differs(estimate, truth) -> bool:
    """A scale is told from positions alone, which may be off by less than what counts as wrong."""
    similar, rigid = _robust(truth, estimate, True), _robust(truth, estimate, False)
    return similar is not None and rigid is not None and abs(similar.scale - 1) > _OTHER_SCALE


def _robust(source: np.ndarray, target: np.ndarray, with_scale: bool) -> Alignment | None:
    """The alignment of positions, thrice over the better half: some of the poses may be wrong."""
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


def _median_position(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.median(np.linalg.norm(a[:, :3, 3] - b[:, :3, 3], axis=1)))


def _used(outcomes: Outcomes) -> np.ndarray:
    return outcomes.accepted & outcomes.known & ~outcomes.off


def _velocity(outcomes: Outcomes) -> np.ndarray:
    """[N, 3] metres a second of the truth: between the nearest true poses before and after, nan without both."""
    velocity = np.full((len(outcomes), 3), np.nan)
    index = np.flatnonzero(outcomes.known)
    seconds = outcomes.seconds()[index]
    places = outcomes.truth[index, :3, 3]
    if len(index) >= 3:
        span = (seconds[2:] - seconds[:-2])[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            slopes = (places[2:] - places[:-2]) / span
        velocity[index[1:-1]] = np.where((span > 0) & (span <= _MAX_STEP), slopes, np.nan)
    return velocity


def _metres(length: float) -> str:
    return f"{100 * length:.1f} cm" if length < 1 else f"{length:.2f} m"
