# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Frames whose poses a source may have in place of the camera's optical frame, and the camera's place in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from nre_ros.errors import PoseError
from nre_ros.geometry import pose_matrix
from nre_ros.keyframes.importers.pose_checks import check_quaternion


def _axes(*rows: Sequence[float]) -> npt.NDArray[np.float64]:
    T = np.eye(4)
    T[:3, :3] = rows
    return T


POSE_FRAMES: dict[str, tuple[npt.NDArray[np.float64], str]] = {
    "camera": (np.eye(4), "the camera's optical frame (z forward, x right, y down)"),
    "body": (_axes([0, 0, 1], [-1, 0, 0], [0, -1, 0]), "a body frame (x forward, y left, z up, REP-103)"),
    "opengl": (_axes([1, 0, 0], [0, -1, 0], [0, 0, -1]), "an OpenGL camera (z backward, x right, y up)"),
}
"""Name of a frame -> pose ``T_pose_cam`` [4, 4] of the optical frame in it, and what it is."""


def camera_in_pose_frame(frame: str = "camera", extrinsics: str | None = None) -> npt.NDArray[np.float64] | None:
    """Makes the pose of the camera in the frame whose poses a source has.

    Args:
        frame: A key of ``POSE_FRAMES``.
        extrinsics: Pose of the optical frame in that frame, ``x y z`` (the axes are those of ``frame``) or
            ``x y z qx qy qz qw`` (the quaternion replaces the axes of ``frame``).

    Returns:
        ``T_pose_cam`` [4, 4]; None if the poses are the camera's.

    Raises:
        PoseError: The extrinsics are not 3 or 7 numbers, or no pose.
    """
    T: npt.NDArray[np.float64] = POSE_FRAMES[frame][0].copy()
    if extrinsics is not None:
        try:
            numbers = [float(field) for field in extrinsics.replace(",", " ").split()]
        except ValueError:
            numbers = []
        if len(numbers) not in (3, 7) or not np.isfinite(numbers).all():
            raise PoseError(f"extrinsics are not 'x y z' or 'x y z qx qy qz qw': {extrinsics!r}")
        if len(numbers) == 7:
            check_quaternion(numbers[3:], f" (extrinsics {extrinsics!r})")
            T = pose_matrix(numbers[:3], numbers[3:])
        T[:3, 3] = numbers[:3]
    return None if np.array_equal(T, np.eye(4)) else T


def extrinsics_option(T_pose_cam: npt.NDArray[np.float64]) -> str:
    """Returns the options of ``map build`` that give the pose of a camera in the frame whose poses a source has.

    Args:
        T_pose_cam: [4, 4] the pose.
    """
    place = T_pose_cam[:3, 3]
    for name, (axes, _) in POSE_FRAMES.items():
        if np.allclose(axes[:3, :3], T_pose_cam[:3, :3], atol=1e-3):
            return f"--pose-frame {name}" + ("" if np.abs(place).max() < 0.02 else f" --extrinsics '{_numbers(place)}'")
    return f"--extrinsics '{_numbers([*place, *Rotation.from_matrix(T_pose_cam[:3, :3]).as_quat()])}'"


def _numbers(values: Sequence[float] | npt.NDArray[np.float64]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
