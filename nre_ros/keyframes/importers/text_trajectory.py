# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Text files of poses: TUM's ``t x y z qx qy qz qw``, one pose a line, and the forms that ``pose_columns`` recognises.

Format: https://cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImportSourceError, NreError, PoseError
from nre_ros.geometry import invert, pose_matrix, position_quaternion
from nre_ros.keyframes.importers.pose_checks import check_quaternion
from nre_ros.keyframes.importers.pose_columns import PoseColumns, PoseConvention, recognise_columns
from nre_ros.keyframes.importers.text_files import numbered_entries, numbered_lines, split_fields, without_header

_MAX_SECONDS = Decimal(2**62) / 10**9
"""Stamps beyond this do not fit into 64 bits of nanoseconds."""


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


@dataclass(frozen=True)
class TextTrajectory:
    """The lines of a trajectory file.

    Attributes:
        lines: The lines in the order of the file, without empty lines, comments and header.
        columns: How the lines were read.
    """

    lines: list[TrajectoryLine]
    columns: PoseColumns


def read_text_trajectory(path: Path | str, convention: PoseConvention = PoseConvention()) -> TextTrajectory:
    """Reads all lines of a trajectory file but empty ones, comments and the header.

    Args:
        path: The file.
        convention: What the user says of the poses.

    Returns:
        The lines; a line that is no pose contains the reason. Poses lead from the camera to the map, whatever the
        direction of the file.

    Raises:
        ImportSourceError: The file cannot be read, or its lines contain matrices, or stamps in two columns.
    """
    entries = without_header(numbered_entries(path))
    first = entries[0][0] if entries else 0
    headers = [text for number, text in numbered_lines(path) if number < first]
    rows = [split_fields(text) for _, text in entries]
    try:
        columns = recognise_columns(rows, headers, convention)
    except ImportSourceError as error:
        raise ImportSourceError(f"{path}: {error}") from None
    lines = []
    for (number, text), fields in zip(entries, rows):
        try:
            stamp, values = _parse_fields(fields, text, columns)
            lines.append(TrajectoryLine(number, stamp, values))
        except NreError as error:
            lines.append(TrajectoryLine(number, error=error))
    return TextTrajectory(lines, columns)


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
    stamp, values = _parse_fields(split_fields(line), line, PoseColumns())
    return stamp, pose_matrix(values[:3], values[3:])


def _parse_fields(fields: Sequence[str], line: str, columns: PoseColumns) -> tuple[int, npt.NDArray[np.float64]]:
    """Stamp in nanoseconds, and [7] x y z qx qy qz qw of the camera in the map; raises as ``parse_tum_pose``."""
    if len(fields) != columns.count:
        expected = "t x y z qx qy qz qw" if columns.count == 8 else f"{columns.count} as in most lines"
        raise ImportSourceError(f"pose has {len(fields)} numbers, expected {expected}: {line[:80]!r}")
    try:
        values = np.array([float(fields[column]) for column in columns.order[1:]])
    except ValueError:
        raise ImportSourceError(f"pose is not 't x y z qx qy qz qw': {line[:80]!r}") from None
    if not np.isfinite(values).all():
        raise PoseError(f"pose is not finite: {line[:120]!r}")
    stamp = parse_stamp(fields[columns.order[0]], columns.units_per_second)
    check_quaternion(values[3:], f": {line[:120]!r}")
    if columns.inverse:
        values = np.concatenate(position_quaternion(invert(pose_matrix(values[:3], values[3:]))))
    return stamp, values


def parse_stamp(text: str, units_per_second: int = 1) -> int:
    """Converts a decimal stamp to nanoseconds.

    The conversion is exact; a double would be off by a quarter of a microsecond today.

    Args:
        text: Time since the epoch, as a decimal number.
        units_per_second: Number of the stamp's units in one second, at most 10**9.

    Returns:
        Nanoseconds.

    Raises:
        ImportSourceError: The text is no number.
        PoseError: The number is not finite, or has no place in 64 bits.
    """
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ImportSourceError(f"time stamp is not a number: {text[:40]!r}") from None
    if not value.is_finite():
        raise PoseError(f"time stamp is not finite: {text[:40]!r}")
    if abs(value) > _MAX_SECONDS * units_per_second:
        raise PoseError(f"time stamp is out of range: {text[:40]!r}")
    return int(value * (10**9 // units_per_second))
