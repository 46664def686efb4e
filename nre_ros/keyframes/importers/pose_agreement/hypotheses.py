# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Mistakes that are made with poses and depth, and which of them explains matched images.

A mistake in the direction or the numbers of a pose shows in the relative rotations alone, whatever the unit of the
depth and wherever the camera is mounted. These are tried first. Scale of the depth and place of the camera follow by
least squares for the few mistakes that explain the rotations. Camera from body: Park and Martin, "Robot Sensor
Calibration: Solving AX = XB on the Euclidean Group", IEEE Transactions on Robotics and Automation 1994.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from nre_ros.geometry import invert, rotation_angle
from nre_ros.keyframes.importers.pose_agreement.agreement import AGREEING, agreements
from nre_ros.keyframes.importers.pose_agreement.pairs import ImagePair
from nre_ros.keyframes.importers.pose_frames import POSE_FRAMES

_Poses = npt.NDArray[np.float64]

_MAX_ROTATION_ERROR = np.radians(3.0)
"""Largest difference between a relative rotation of poses and the one that the images show."""
_MIN_ROTATION = np.radians(2.0)
"""Smaller relative rotations do not show how a camera is mounted."""
_TRIED = 6
"""Hypotheses, the best by rotations, whose scale and lever arm are fitted."""
_COST = 0.02
"""Share of agreeing matches by which every further mistake must be better."""
_UNITS = (0.001, 0.1, 10.0, 1000.0, 0.2, 5.0)
"""Usual factors between units of depth."""
_UNIT_ERROR = 1.15
"""Largest ratio of a fitted scale to a usual factor, or to 1 for no mistake."""


@dataclass(frozen=True)
class Hypothesis:
    """Poses and a depth scale that may be the right ones.

    Attributes:
        mistakes: What is wrong with the source if this hypothesis is right, one phrase each; empty: nothing.
        poses: [V, 4, 4] poses of the cameras.
        depth_scale: Factor on the source's depths.
        T_pose_cam: [4, 4] pose of the camera in the frame whose poses the source has; None for no difference.
        agreeing: Share of the pairs that agree.
        agreement: Mean share of the matches that agree.
    """

    mistakes: tuple[str, ...]
    poses: _Poses
    depth_scale: float = 1.0
    T_pose_cam: npt.NDArray[np.float64] | None = None
    agreeing: float = 0.0
    agreement: float = 0.0


def best_hypothesis(pairs: Sequence[ImagePair], poses: _Poses) -> Hypothesis:
    """Finds the fewest mistakes that explain the images.

    Args:
        pairs: Verified pairs, at least one.
        poses: [V, 4, 4] poses of the images as the source has them; nan for an image without a pose.

    Returns:
        The best hypothesis; the caller judges whether ``agreeing`` is high enough.
    """
    measured = [relative_motion(pair) for pair in pairs]
    candidates = [(_rotation_score(pairs, measured, h.poses), h) for h in _pose_hypotheses(pairs, measured, poses)]
    candidates.sort(key=lambda item: -item[0] + _COST * len(item[1].mistakes))
    fitted = [_evaluated(pairs, candidate) for _, candidate in candidates[:_TRIED]]
    fitted += [_evaluated(pairs, refined) for h in fitted for refined in _fits(pairs, measured, h)]
    return max(fitted, key=lambda h: h.agreement - _COST * len(h.mistakes))


def relative_motion(pair: ImagePair) -> npt.NDArray[np.float64]:
    """Measures the relative motion of two images from their matches alone.

    Args:
        pair: The matches.

    Returns:
        ``T_first_second`` [4, 4], in metres if the pair has depth; otherwise the translation has length 1.
    """
    T = np.eye(4)
    for own in (0, 1):
        known = pair.depths[own] > 0
        if known.mean() < 0.25 or known.sum() < 12:
            continue
        rays = pair.rays[own][known]
        points = rays / rays[:, 2:] * pair.depths[own][known][:, None]
        target = pair.rays[1 - own][known]
        cv2.setRNGSeed(0)
        found, r, t, _ = cv2.solvePnPRansac(
            points / np.median(pair.depths[own][known]), target[:, :2] / target[:, 2:], np.eye(3), None,
            reprojectionError=0.008, iterationsCount=500,
        )  # fmt: skip
        if found:
            T[:3, :3] = cv2.Rodrigues(r)[0]
            T[:3, 3] = t[:, 0] * np.median(pair.depths[own][known])
            return invert(T) if own == 0 else T
    u, v = (rays[:, :2] / rays[:, 2:] for rays in pair.rays)
    cv2.setRNGSeed(0)
    E, mask = cv2.findEssentialMat(u, v, np.eye(3), cv2.RANSAC, 0.999, 0.003)
    if E is None or E.shape != (3, 3):
        return np.full((4, 4), np.nan)
    _, T[:3, :3], t, _ = cv2.recoverPose(E, u, v, np.eye(3), mask=mask)
    T[:3, 3] = t[:, 0]
    return invert(T)


# --- mistakes in the poses ----------------------------------------------------------------------------------


def _w_first(poses: _Poses) -> _Poses:
    """The poses of a file whose quaternions begin with w, where they were read with w at the end."""
    return _with_quaternions(poses, [1, 2, 3, 0])


def _w_last(poses: _Poses) -> _Poses:
    return _with_quaternions(poses, [3, 0, 1, 2])


def _with_quaternions(poses: _Poses, order: list[int]) -> _Poses:
    out = poses.copy()
    good = np.isfinite(poses).all((1, 2))
    if good.any():
        quaternions = Rotation.from_matrix(poses[good, :3, :3]).as_quat()[:, order]
        out[good, :3, :3] = Rotation.from_quat(quaternions).as_matrix()
    return out


def _inverse(poses: _Poses) -> _Poses:
    return np.array([invert(T) for T in poses])


def _mixed(poses: _Poses) -> _Poses:
    """Rotations from the map to the camera beside positions of the camera in the map."""
    out = poses.copy()
    out[:, :3, :3] = np.swapaxes(poses[:, :3, :3], 1, 2)
    return out


def _centre(poses: _Poses) -> _Poses:
    """As ``_mixed``, read from a file of poses from the map to the camera."""
    out = poses.copy()
    out[:, :3, 3] = _inverse(poses)[:, :3, 3]
    return out


_Mistake = tuple[tuple[str, ...], Callable[[_Poses], _Poses]]
INVERSE = "the poses are inverse (map to camera where camera to map is expected, or the reverse)"
W_FIRST = "the quaternions begin with w where they are read with w at the end"
W_LAST = "the quaternions end with w where they are read with w at the beginning"
MIXED = "the rotations lead from the map to the camera, and the positions are those of the camera in the map"
_READINGS: tuple[_Mistake, ...] = (
    ((), lambda poses: poses),
    ((INVERSE,), _inverse),
    ((W_FIRST,), _w_first),
    ((W_LAST,), _w_last),
    ((W_FIRST,), lambda poses: _inverse(_w_first(_inverse(poses)))),
    ((W_LAST,), lambda poses: _inverse(_w_last(_inverse(poses)))),
    ((W_FIRST, INVERSE), lambda poses: _inverse(_w_first(poses))),
    ((W_LAST, INVERSE), lambda poses: _inverse(_w_last(poses))),
    ((W_FIRST, INVERSE), lambda poses: _w_first(_inverse(poses))),
    ((W_LAST, INVERSE), lambda poses: _w_last(_inverse(poses))),
    ((MIXED,), _mixed),
    ((MIXED,), _centre),
)
"""Mistakes in direction and order of numbers, and what corrects them."""
_SHIFTS = {
    0: (),
    1: ("every image has the pose of the image before it",),
    -1: ("every image has the pose of the image after it",),
}


_BODY, _OPENGL = POSE_FRAMES["body"][0], POSE_FRAMES["opengl"][0]
_OTHER_MOUNTINGS = (invert(_BODY), invert(_BODY) @ _OPENGL, invert(_OPENGL) @ _BODY)
"""Poses of the camera in the wrong frame that the user named; of OpenGL's in place of the camera's: as the reverse."""


def _shifted(poses: _Poses, shift: int) -> _Poses:
    """The poses of the images if each has the pose of the image ``shift`` before it."""
    out = np.full_like(poses, np.nan)
    if shift > 0:
        out[:-shift] = poses[shift:]
    elif shift < 0:
        out[-shift:] = poses[:shift]
    return out if shift else poses


def _pose_hypotheses(
    pairs: Sequence[ImagePair], measured: Sequence[npt.NDArray[np.float64]], poses: _Poses
) -> Iterator[Hypothesis]:
    """All combinations of a reading, a shift and a mounting of the camera."""
    for (mistakes, correct), (shift, shifted) in product(_READINGS, _SHIFTS.items()):
        read = _shifted(correct(poses), shift)
        yield Hypothesis((*mistakes, *shifted), read)
        for name, (T_pose_cam, what) in POSE_FRAMES.items():
            if name != "camera":
                text = f"the poses are those of {what}, not of the camera's optical frame"
                yield Hypothesis((*mistakes, *shifted, text), read @ T_pose_cam, T_pose_cam=T_pose_cam)
        for T in _OTHER_MOUNTINGS:
            text = "the poses are those of another frame than --pose-frame names"
            yield Hypothesis((*mistakes, *shifted, text), read @ T, T_pose_cam=T)
        R = _fitted_mounting(pairs, measured, read)
        if R is not None:
            T = np.eye(4)
            T[:3, :3] = R
            text = "the poses are those of a frame in which the camera is mounted obliquely"
            yield Hypothesis((*mistakes, *shifted, text, "(an unusual frame)"), read @ T, T_pose_cam=T)


def _rotations(pairs: Sequence[ImagePair], poses: _Poses) -> npt.NDArray[np.float64]:
    return np.array([poses[pair.first, :3, :3].T @ poses[pair.second, :3, :3] for pair in pairs])


def _rotation_score(pairs: Sequence[ImagePair], measured: Sequence[npt.NDArray[np.float64]], poses: _Poses) -> float:
    """Share of the pairs whose relative rotation agrees with the images."""
    expected = _rotations(pairs, poses)
    errors = [rotation_angle(T[:3, :3].T @ R) for T, R in zip(measured, expected)]
    return float(np.mean(np.array(errors) < _MAX_ROTATION_ERROR))


def _fitted_mounting(
    pairs: Sequence[ImagePair], measured: Sequence[npt.NDArray[np.float64]], poses: _Poses
) -> npt.NDArray[np.float64] | None:
    """The rotation R_pose_cam that maps the cameras' rotation vectors onto those of the poses; None if unclear."""
    with np.errstate(invalid="ignore"):
        expected = _rotations(pairs, poses)
    usable = np.isfinite(expected).all((1, 2)) & np.array([np.isfinite(T).all() for T in measured])
    if usable.sum() < 3:
        return None
    of_poses = Rotation.from_matrix(expected[usable]).as_rotvec()
    of_images = Rotation.from_matrix([T[:3, :3] for T, good in zip(measured, usable) if good]).as_rotvec()
    angles = np.linalg.norm(of_images, axis=1), np.linalg.norm(of_poses, axis=1)
    # conjugation keeps the angle of a rotation
    alike = (np.abs(angles[0] - angles[1]) < _MAX_ROTATION_ERROR) & (angles[0] > _MIN_ROTATION)
    if alike.sum() < 3:
        return None
    U, scales, Vt = np.linalg.svd(of_poses[alike].T @ of_images[alike])
    if scales[1] < 0.02 * scales[0]:
        return None  # one axis of rotation does not show the mounting
    R: npt.NDArray[np.float64] = U @ np.diag([1.0, 1.0, np.linalg.det(U @ Vt)]) @ Vt
    return R


# --- scale and lever arm ------------------------------------------------------------------------------------


def _evaluated(pairs: Sequence[ImagePair], hypothesis: Hypothesis) -> Hypothesis:
    shares = agreements(pairs, hypothesis.poses, hypothesis.depth_scale)
    shares = shares[np.isfinite(shares)]
    if len(shares) < max(1, len(pairs) / 2):
        return hypothesis
    return replace(hypothesis, agreeing=float((shares >= AGREEING).mean()), agreement=float(shares.mean()))


def _fits(
    pairs: Sequence[ImagePair], measured: Sequence[npt.NDArray[np.float64]], hypothesis: Hypothesis
) -> Iterator[Hypothesis]:
    """The hypothesis with another depth scale, with the camera elsewhere in the frame, and with both."""
    metric = np.array([(pair.depths > 0).mean() > 0.1 for pair in pairs])
    for with_scale, with_lever in ((True, False), (False, True), (True, True)):
        if (with_scale and not metric.any()) or (with_lever and hypothesis.T_pose_cam is None):
            continue
        solved = _scale_and_lever(pairs, measured, hypothesis.poses, metric, with_scale, with_lever)
        if solved is None:
            continue
        scale, lever = solved
        changed = hypothesis
        if with_scale and max(scale, 1 / scale) > _UNIT_ERROR:
            unit = next((u for u in _UNITS if max(scale / u, u / scale) < _UNIT_ERROR), scale)
            text = f"the depth values are {_times(1 / unit)} (or the positions have another unit)"
            changed = replace(changed, mistakes=(*changed.mistakes, text), depth_scale=unit)
        if with_lever and hypothesis.T_pose_cam is not None:
            T = np.eye(4)
            T[:3, 3] = lever
            changed = replace(changed, poses=changed.poses @ T, T_pose_cam=hypothesis.T_pose_cam @ T)
        if changed is not hypothesis:
            yield changed


def _times(factor: float) -> str:
    return f"{factor:.3g} times too large" if factor > 1 else f"{1 / factor:.3g} times too small"


def _scale_and_lever(
    pairs: Sequence[ImagePair],
    measured: Sequence[npt.NDArray[np.float64]],
    poses: _Poses,
    metric: npt.NDArray[np.bool_],
    with_scale: bool,
    with_lever: bool,
) -> tuple[float, npt.NDArray[np.float64]] | None:
    """Scale of the depth, and place of the camera in the frame that the poses are of, axes as the camera's.

    Of a pair: scale * t_images = t_poses + (R - 1) lever. Reweighted least squares, since some pairs are wrong.
    """
    rows, targets = [], []
    for pair, T, has_depth in zip(pairs, measured, metric):
        relative = invert(poses[pair.first]) @ poses[pair.second]
        if not (np.isfinite(relative).all() and np.isfinite(T).all()):
            continue
        R, t = relative[:3, :3], relative[:3, 3]
        if has_depth:
            rows.append(np.hstack([T[:3, 3:], np.eye(3) - R]))
            targets.append(t)
        elif with_lever and not with_scale:  # the direction alone: the cross product vanishes
            d = T[:3, 3]
            cross = np.array([[0, -d[2], d[1]], [d[2], 0, -d[0]], [-d[1], d[0], 0]])
            rows.append(np.hstack([np.zeros((3, 1)), -cross @ (R - np.eye(3))]))
            targets.append(cross @ t)
    if len(rows) < 2:
        return None
    columns = [0] * with_scale + [1, 2, 3] * with_lever
    A = np.stack(rows)[:, :, columns]
    b = np.stack(targets) - (0 if with_scale else np.stack(rows)[:, :, 0])
    weight = np.ones(len(A))
    solution = np.zeros(len(columns))
    for _ in range(20):
        solution = np.linalg.lstsq(
            (A * weight[:, None, None]).reshape(-1, len(columns)), (b * weight[:, None]).ravel()
        )[0]
        residual = np.linalg.norm(A @ solution - b, axis=1)
        weight = 1 / np.sqrt(np.maximum(residual, 0.1 * np.median(residual) + 1e-12))
    scale = float(solution[0]) if with_scale else 1.0
    if not (np.isfinite(solution).all() and 1e-6 < scale < 1e6):
        return None
    return scale, solution[-3:] if with_lever else np.zeros(3)
