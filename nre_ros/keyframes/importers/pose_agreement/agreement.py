# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How well poses explain verified matches of two images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nre_ros.geometry import invert
from nre_ros.keyframes.importers.pose_agreement.pairs import ImagePair

EPIPOLAR_ERROR = 0.015
"""Largest angle (radians) between a ray and its epipolar plane (8 pixels of 640)."""
REPROJECTION_ERROR = (0.02, 0.05)
"""Largest angle (radians) between a ray and the point that the other image's depth gives: ``_SHARE_OF_MOTION`` of the
pair's motion, within these limits (10 and 26 pixels of 640)."""
_SHARE_OF_MOTION = 0.25
AGREEING = 0.5
"""Least share of a pair's matches that right poses explain.

With these limits poses with errors of 1 cm and 0.3 degrees are not warned about (``benchmarks/pose_mistakes.py``)."""


def pair_agreement(pair: ImagePair, T_first_second: npt.NDArray[np.float64], depth_scale: float = 1.0) -> float:
    """Computes the share of a pair's matches that a relative pose explains.

    A match with depth agrees if its 3D point appears where the other image shows it. Without depth the match must lie
    on its epipolar line, and in front of both cameras.

    Args:
        pair: The matches.
        T_first_second: [4, 4] pose of the second camera in the first camera's frame.
        depth_scale: Factor on the depths.

    Returns:
        Between 0 and 1; nan if the relative pose is not finite.
    """
    if not np.isfinite(T_first_second).all():
        return float("nan")
    known = pair.depths > 0
    angles = reprojection_angles(pair, T_first_second, depth_scale)
    with_depth = known.any(axis=0)
    tolerance = np.clip(_SHARE_OF_MOTION * pair.motion(), *REPROJECTION_ERROR)
    agrees: npt.NDArray[np.bool_] = np.where(known, angles, np.inf).min(axis=0) < tolerance
    if with_depth.sum() >= known.shape[1] / 4:
        return float(agrees[with_depth].mean())
    return float(_on_epipolar_plane(pair, T_first_second).mean())


def reprojection_angles(
    pair: ImagePair, T_first_second: npt.NDArray[np.float64], depth_scale: float = 1.0
) -> npt.NDArray[np.float64]:
    """Computes the angles between rays and the 3D points that the other image's depths give.

    Args:
        pair: The matches.
        T_first_second: [4, 4] pose of the second camera in the first camera's frame.
        depth_scale: Factor on the depths.

    Returns:
        Angles [2, M] in radians, for the depths of the first image and of the second; meaningless without depth.
    """
    angles = []
    for own, T in ((0, invert(T_first_second)), (1, T_first_second)):
        points = pair.rays[own] / pair.rays[own][:, 2:] * (depth_scale * pair.depths[own])[:, None]
        moved = points @ T[:3, :3].T + T[:3, 3]
        angles.append(_angles(moved, pair.rays[1 - own]))
    return np.stack(angles)


def agreements(
    pairs: Sequence[ImagePair], poses: npt.NDArray[np.float64], depth_scale: float = 1.0
) -> npt.NDArray[np.float64]:
    """Computes the agreement of each pair.

    Args:
        pairs: The pairs.
        poses: [V, 4, 4] poses of the images; nan for an image without a pose.
        depth_scale: Factor on the depths.

    Returns:
        [P] shares of the matches that the poses explain; nan for a pair without poses.
    """
    return np.array(
        [pair_agreement(pair, invert(poses[pair.first]) @ poses[pair.second], depth_scale) for pair in pairs]
    )


def _on_epipolar_plane(pair: ImagePair, T_first_second: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    R, t = T_first_second[:3, :3], T_first_second[:3, 3]
    u, v = pair.rays[0], pair.rays[1] @ R.T  # both in the first camera's frame
    distance = np.linalg.norm(t)
    if distance < 1e-9:
        return _angles(u, v) < EPIPOLAR_ERROR
    direction = t / distance
    # the angle that separates each ray from the plane of the baseline and the other ray
    error = np.maximum(_plane_angles(u, v, direction), _plane_angles(v, u, direction))
    # u a - v b = t: the rays meet in front of both cameras, or are parallel within the error (a point far away)
    uv = (u * v).sum(1)
    along_u = u @ direction - uv * (v @ direction)
    along_v = uv * (u @ direction) - v @ direction
    front = (along_u > 0) & (along_v > 0) | (_angles(u, v) < EPIPOLAR_ERROR)
    return (error < EPIPOLAR_ERROR) & front


def _plane_angles(
    u: npt.NDArray[np.float64], v: npt.NDArray[np.float64], direction: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    normal = np.cross(v, direction)
    length = np.linalg.norm(normal, axis=1)
    angles: npt.NDArray[np.float64] = np.arcsin(np.clip(np.abs((normal * u).sum(1)) / np.maximum(length, 1e-9), 0, 1))
    return np.where(length < EPIPOLAR_ERROR, _angles(u, v), angles)


def _angles(u: npt.NDArray[np.float64], v: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    lengths = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)
    angles: npt.NDArray[np.float64] = np.arccos(np.clip((u * v).sum(1) / np.maximum(lengths, 1e-12), -1, 1))
    return angles
