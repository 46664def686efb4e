# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The file of the last accepted pose, for the next start."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nre_ros.errors import NreError, PoseError, one_line
from nre_ros.geometry import pose_matrix, position_quaternion


class LastPoseError(NreError):
    """The file of the last pose cannot be read or written."""


@dataclass(frozen=True, eq=False)
class LastPose:
    """The last accepted pose.

    Attributes:
        T_map_cam: Pose [4, 4] of the optical frame ``camera_frame`` in ``map_frame``.
        covariance: [6, 6] of (x, y, z, rotation about x, y, z) in the map's axes.
        map_frame: Name of the map's frame.
        camera_frame: Name of the camera's optical frame.
        stamp: Nanoseconds.
    """

    T_map_cam: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]
    map_frame: str
    camera_frame: str
    stamp: int

    def save(self, path: Path | str) -> None:
        """Replaces the file atomically, so that it never holds half a pose.

        Args:
            path: The file.

        Raises:
            LastPoseError: The file cannot be written.
        """
        path = Path(path)
        position, quaternion = position_quaternion(self.T_map_cam)
        values = {
            "map_frame": self.map_frame,
            "camera_frame": self.camera_frame,
            "stamp": self.stamp,
            "position": position.tolist(),
            "quaternion_xyzw": quaternion.tolist(),
            "covariance": np.asarray(self.covariance).tolist(),
        }
        try:
            unfinished = path.with_name(path.name + ".unfinished")
            with open(unfinished, "w") as file:
                json.dump(values, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        except (OSError, ValueError) as error:  # no file's name, such as "."
            raise LastPoseError(f"the last pose cannot be written to {path}: {error}") from error

    @classmethod
    def load(cls, path: Path | str) -> LastPose | None:
        """Reads a pose from a file.

        Args:
            path: The file.

        Returns:
            The pose; None where there is no file.

        Raises:
            LastPoseError: The file is damaged or cannot be read.
        """
        path = Path(path)
        try:
            values = json.loads(path.read_text())
            T_map_cam = pose_matrix(values["position"], values["quaternion_xyzw"])
            covariance = np.array(values["covariance"], dtype=np.float64)
            names = values["map_frame"], values["camera_frame"], values["stamp"]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LastPoseError(f"the last pose cannot be read from {path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, PoseError) as error:
            raise LastPoseError(f"{path} holds no pose: {one_line(error)}") from error
        if covariance.shape != (6, 6) or not np.isfinite(covariance).all() or not _are(names, (str, str, int)):
            raise LastPoseError(f"{path} holds no pose: its covariance, frames or stamp are invalid")
        return cls(T_map_cam, covariance, *names)


def _are(values: tuple[object, ...], kinds: tuple[type, ...]) -> bool:
    return all(isinstance(value, kind) for value, kind in zip(values, kinds))
