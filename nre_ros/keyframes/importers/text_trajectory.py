# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Text files of poses in TUM's format: ``t x y z qx qy qz qw``, one pose a line.

Format: https://cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImportSourceError, NreError, PoseError
from nre_ros.geometry import pose_matrix
from nre_ros.keyframes.importers.pose_checks import check_quaternion
from nre_ros.keyframes.importers.text_files import numbered_entries


@dataclass(frozen=True)
class TrajectoryLine:
    """One line of a trajectory file.

    Attributes:
        number: Number of the line in the file, from 1.
        stamp: Nanoseconds; 0 if the line is no pose.
        values: [7] x y z qx qy qz qw; None if the line is no pose.
        error: Why the line is no pose; None if it is one.
    """

    number: int
    stamp: int = 0
    values: npt.NDArray[np.float64] | None = None
    error: NreError | None = None

    def stamped_pose(self) -> tuple[int, npt.NDArray[np.float64]]:
        """Returns the stamp in nanoseconds and the pose [4, 4].

        Raises:
            NreError: The line is no pose.
        """
        if self.values is None:
            raise self.error or PoseError("the line is no pose")
        return self.stamp, pose_matrix(self.values[:3], self.values[3:])


def read_text_trajectory(path: Path | str) -> list[TrajectoryLine]:
    """Reads all lines of a trajectory file but empty ones and comments.

    Args:
        path: The file.

    Returns:
        The lines in the order of the file; a line that is no pose contains the reason.

    Raises:
        ImportSourceError: The file cannot be read.
    """
    lines = []
    for number, text in numbered_entries(path):
        try:
            stamp, values = parse_tum_numbers(text)
            lines.append(TrajectoryLine(number, stamp, values))
        except NreError as error:
            lines.append(TrajectoryLine(number, error=error))
    return lines


def parse_tum_pose(line: str) -> tuple[int, npt.NDArray[np.float64]]:
    """Parses one line ``t x y z qx qy qz qw`` into a stamp and a pose.

    Args:
        line: The line.

    Returns:
        Stamp in nanoseconds, and pose [4, 4].

    Raises:
        ImportSourceError: The line does not consist of 8 numbers.
        PoseError: The numbers are no pose.
    """
    stamp, values = parse_tum_numbers(line)
    return stamp, pose_matrix(values[:3], values[3:])


def parse_tum_numbers(line: str) -> tuple[int, npt.NDArray[np.float64]]:
    """Parses one line ``t x y z qx qy qz qw`` into a stamp and the other numbers.

    Args:
        line: The line.

    Returns:
        Stamp in nanoseconds, and [7] x y z qx qy qz qw.

    Raises:
        ImportSourceError: The line does not consist of 8 numbers.
        PoseError: The numbers are no pose.
    """
    fields = line.split()
    try:
        values = np.array([float(field) for field in fields[1:]])
    except ValueError:
        raise ImportSourceError(f"pose is not 't x y z qx qy qz qw': {line[:80]!r}") from None
    if len(values) != 7:
        raise ImportSourceError(f"pose has {len(fields)} numbers, expected t x y z qx qy qz qw: {line[:80]!r}")
    if not np.isfinite(values).all():
        raise PoseError(f"pose is not finite: {line[:120]!r}")
    stamp = parse_stamp(fields[0])
    check_quaternion(values[3:], f": {line[:120]!r}")
    return stamp, values


def parse_stamp(text: str) -> int:
    """Converts decimal seconds to nanoseconds.

    The conversion is exact; a double would be off by a quarter of a microsecond today.

    Args:
        text: Seconds since the epoch, as a decimal number.

    Returns:
        Nanoseconds.

    Raises:
        ImportSourceError: The text is no number.
        PoseError: The number is not finite.
    """
    try:
        seconds = Decimal(text)
    except InvalidOperation:
        raise ImportSourceError(f"time stamp is not a number: {text[:40]!r}") from None
    if not seconds.is_finite():
        raise PoseError(f"time stamp is not finite: {text[:40]!r}")
    return int(seconds * 10**9)
