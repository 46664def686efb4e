# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Absolute and relative pose errors of a trajectory, and its alignment.

APE and RPE as in Sturm et al., "A Benchmark for the Evaluation of RGB-D SLAM Systems", IROS 2012, section
VI, and in evo (https://github.com/MichaelGrupp/evo), against which the tests hold them.  Alignment: Umeyama,
"Least-Squares Estimation of Transformation Parameters Between Two Point Patterns", PAMI 1991.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from nre_ros.geometry import invert

_EVO_MOST = 5000
"""Poses at most that evo is given: it works on them one by one, and takes minutes for those of an hour."""


@dataclass(frozen=True)
class Alignment:
    """x -> scale * rotation x + translation: rotation [3, 3], translation [3]."""

    rotation: np.ndarray
    translation: np.ndarray
    scale: float = 1.0

    def apply(self, poses: np.ndarray) -> np.ndarray:
        """Poses [N, 4, 4], moved."""
        moved = np.array(poses, dtype=np.float64)
        moved[:, :3, :3] = self.rotation @ poses[:, :3, :3]
        moved[:, :3, 3] = self.scale * poses[:, :3, 3] @ self.rotation.T + self.translation
        return moved


def umeyama(source: np.ndarray, target: np.ndarray, with_scale: bool = False) -> Alignment | None:
    """The alignment of points [N, 3] that takes source to target with the least squares.

    None where it is not determined: fewer than three points, or all of them on a line.
    """
    if len(source) < 3:
        return None
    mean_source, mean_target = source.mean(0), target.mean(0)
    centred = source - mean_source
    covariance = (target - mean_target).T @ centred / len(source)
    U, values, Vt = np.linalg.svd(covariance)
    if values[1] <= 1e-12 * max(values[0], 1e-300):
        return None
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(U) * np.linalg.det(Vt))])
    rotation = U * signs @ Vt
    scale = float((values * signs).sum() / centred.var(0).sum()) if with_scale else 1.0
    return Alignment(rotation, mean_target - scale * rotation @ mean_source, scale)


def absolute_errors(estimate: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """APE of poses [N, 4, 4]: [N] metres between the positions and [N] radians between the orientations."""
    return _sizes(invert(truth) @ estimate)


def relative_errors(estimate: np.ndarray, truth: np.ndarray, delta: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """RPE of poses [N, 4, 4] over ``delta`` of them: [N - delta] metres and radians.

    Of pose i and i + delta, the error of the motion between them: (motion of the truth)^-1 motion.
    """
    moved, true = (invert(poses[:-delta]) @ poses[delta:] for poses in (estimate, truth))
    return _sizes(invert(true) @ moved)


def statistics(errors: np.ndarray) -> dict[str, float]:
    """rmse, mean, median, std, min and max, under evo's names."""
    return {
        "rmse": float(np.sqrt((errors**2).mean())),
        "mean": float(errors.mean()),
        "median": float(np.median(errors)),
        "std": float(errors.std()),
        "min": float(errors.min()),
        "max": float(errors.max()),
    }


def trajectory_errors(estimate: np.ndarray, truth: np.ndarray) -> dict:
    """APE as it is and with the trajectory aligned, RPE from pose to pose; None where there are too few poses.

    Lengths in metres, angles in degrees.
    """
    result = {"poses": len(estimate), "ape": None, "ape_aligned": None, "rpe": None}
    if not len(estimate):
        return result
    result["ape"] = _both(absolute_errors(estimate, truth))
    alignment = umeyama(estimate[:, :3, 3], truth[:, :3, 3])
    if alignment is not None:
        result["ape_aligned"] = _both(absolute_errors(alignment.apply(estimate), truth))
    if len(estimate) > 1:
        result["rpe"] = _both(relative_errors(estimate, truth))
    return result


def by_evo(stamps: np.ndarray, estimate: np.ndarray, truth: np.ndarray) -> dict | None:
    """RMSE of APE and RPE by the library evo, under the same names; None where it is not installed.

    stamps [N] in seconds.  None, too, for fewer than two poses and for more than ``_EVO_MOST``.
    """
    if not 2 <= len(estimate) <= _EVO_MOST:
        return None
    try:
        from evo.core import metrics
        from evo.core.trajectory import PoseTrajectory3D
    except ImportError:
        return None
    pair = tuple(PoseTrajectory3D(poses_se3=list(poses), timestamps=stamps) for poses in (truth, estimate))
    found = {}
    for name, kind in (("ape", metrics.APE), ("rpe", metrics.RPE)):
        for unit, relation in (
            ("position_m", metrics.PoseRelation.translation_part),
            ("rotation_deg", metrics.PoseRelation.rotation_angle_deg),
        ):
            metric = kind(relation) if name == "ape" else kind(relation, delta=1, delta_unit=metrics.Unit.frames)
            metric.process_data(pair)
            found.setdefault(name, {})[unit] = float(metric.get_statistic(metrics.StatisticsType.rmse))
    return found


def _both(errors: tuple[np.ndarray, np.ndarray]) -> dict:
    return {"position_m": statistics(errors[0]), "rotation_deg": statistics(np.degrees(errors[1]))}


def _sizes(motions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.linalg.norm(motions[:, :3, 3], axis=1), Rotation.from_matrix(motions[:, :3, :3]).magnitude()
