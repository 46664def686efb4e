# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Absolute and relative pose errors of a trajectory, and its alignment.

APE and RPE follow Sturm et al., "A Benchmark for the Evaluation of RGB-D SLAM Systems", IROS 2012, section VI. The tests
compare them with the library evo (https://github.com/MichaelGrupp/evo). The alignment follows Umeyama, "Least-Squares
Estimation of Transformation Parameters Between Two Point Patterns", PAMI 1991.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from nre_ros.geometry import invert

_EVO_MAX_POSES = 5000
"""evo processes poses one by one and takes minutes for the poses of an hour; longer runs are left out."""


@dataclass(frozen=True)
class Alignment:
    """A similarity transform x -> scale * rotation x + translation.

    Attributes:
        rotation: ``[3, 3]`` rotation matrix.
        translation: ``[3]`` metres.
        scale: Scale factor.
    """

    rotation: npt.NDArray[np.float64]
    translation: npt.NDArray[np.float64]
    scale: float = 1.0

    def apply(self, poses: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Transforms poses.

        Args:
            poses: ``[N, 4, 4]`` poses in the source frame.

        Returns:
            ``[N, 4, 4]`` poses in the target frame.
        """
        aligned = np.array(poses, dtype=np.float64)
        aligned[:, :3, :3] = self.rotation @ poses[:, :3, :3]
        aligned[:, :3, 3] = self.scale * poses[:, :3, 3] @ self.rotation.T + self.translation
        return aligned


def umeyama(
    source: npt.NDArray[np.float64], target: npt.NDArray[np.float64], with_scale: bool = False
) -> Alignment | None:
    """Finds the least-squares alignment of two point sets (Umeyama 1991, equations 40 to 43).

    Args:
        source: ``[N, 3]`` points.
        target: ``[N, 3]`` corresponding points.
        with_scale: Whether the scale is estimated; otherwise the scale is 1.

    Returns:
        The alignment from source to target, or None for fewer than three points and for points on a line.
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


def absolute_errors(
    estimated: npt.NDArray[np.float64], ground_truth: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Computes the absolute pose error (APE) of each pose.

    Args:
        estimated: ``[N, 4, 4]`` estimated poses.
        ground_truth: ``[N, 4, 4]`` ground-truth poses.

    Returns:
        ``[N]`` position errors in metres and ``[N]`` rotation errors in radians.
    """
    return _magnitudes(invert(ground_truth) @ estimated)


def relative_errors(
    estimated: npt.NDArray[np.float64], ground_truth: npt.NDArray[np.float64], delta: int = 1
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Computes the relative pose error (RPE): the error of the motion from pose i to pose i + delta.

    Args:
        estimated: ``[N, 4, 4]`` estimated poses.
        ground_truth: ``[N, 4, 4]`` ground-truth poses.
        delta: Number of poses from the first to the second pose of a pair.

    Returns:
        ``[N - delta]`` position errors in metres and ``[N - delta]`` rotation errors in radians.
    """
    motion, true_motion = (invert(poses[:-delta]) @ poses[delta:] for poses in (estimated, ground_truth))
    return _magnitudes(invert(true_motion) @ motion)


def trajectory_errors(estimated: npt.NDArray[np.float64], ground_truth: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Computes statistics of APE, of APE after a rigid alignment of the positions, and of RPE from pose to pose.

    Args:
        estimated: ``[N, 4, 4]`` estimated poses.
        ground_truth: ``[N, 4, 4]`` ground-truth poses.

    Returns:
        The number of poses, and statistics in metres and degrees; None where there are too few poses.
    """
    result: dict[str, Any] = {"poses": len(estimated), "ape": None, "ape_aligned": None, "rpe": None}
    if not len(estimated):
        return result
    result["ape"] = _statistics_of_both(absolute_errors(estimated, ground_truth))
    alignment = umeyama(estimated[:, :3, 3], ground_truth[:, :3, 3])
    if alignment is not None:
        result["ape_aligned"] = _statistics_of_both(absolute_errors(alignment.apply(estimated), ground_truth))
    if len(estimated) > 1:
        result["rpe"] = _statistics_of_both(relative_errors(estimated, ground_truth))
    return result


def evo_errors(
    seconds: npt.NDArray[np.float64], estimated: npt.NDArray[np.float64], ground_truth: npt.NDArray[np.float64]
) -> dict[str, dict[str, float]] | None:
    """Computes the RMSE of APE and RPE with the library evo.

    Args:
        seconds: ``[N]`` times of the poses.
        estimated: ``[N, 4, 4]`` estimated poses.
        ground_truth: ``[N, 4, 4]`` ground-truth poses.

    Returns:
        ``ape`` and ``rpe``, each with ``position_m`` and ``rotation_deg``. None without evo, for fewer than two poses
        and for more than 5,000 poses.
    """
    if not 2 <= len(estimated) <= _EVO_MAX_POSES:
        return None
    try:
        from evo.core import metrics
        from evo.core.trajectory import PoseTrajectory3D
    except ImportError:
        return None
    pair = tuple(PoseTrajectory3D(poses_se3=list(poses), timestamps=seconds) for poses in (ground_truth, estimated))
    found: dict[str, dict[str, float]] = {}
    for name, kind in (("ape", metrics.APE), ("rpe", metrics.RPE)):
        for unit, relation in (
            ("position_m", metrics.PoseRelation.translation_part),
            ("rotation_deg", metrics.PoseRelation.rotation_angle_deg),
        ):
            metric = kind(relation) if name == "ape" else kind(relation, delta=1, delta_unit=metrics.Unit.frames)
            metric.process_data(pair)
            found.setdefault(name, {})[unit] = float(metric.get_statistic(metrics.StatisticsType.rmse))
    return found


def _statistics_of_both(
    errors: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
) -> dict[str, dict[str, float]]:
    return {"position_m": _statistics(errors[0]), "rotation_deg": _statistics(np.degrees(errors[1]))}


def _statistics(errors: npt.NDArray[np.float64]) -> dict[str, float]:
    """Statistics under the names that evo uses."""
    return {
        "rmse": float(np.sqrt((errors**2).mean())),
        "mean": float(errors.mean()),
        "median": float(np.median(errors)),
        "std": float(errors.std()),
        "min": float(errors.min()),
        "max": float(errors.max()),
    }


def _magnitudes(motions: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Metres ``[N]`` and radians ``[N]`` of motions ``[N, 4, 4]``."""
    return np.linalg.norm(motions[:, :3, 3], axis=1), Rotation.from_matrix(motions[:, :3, :3]).magnitude()
