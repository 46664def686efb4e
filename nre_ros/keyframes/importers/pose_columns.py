# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which columns of a table of poses are what: from its header, from its numbers, or as the user says.

Programs write trajectories as ``t x y z qx qy qz qw`` (TUM), with w first, with stamps in nanoseconds and further
columns (EuRoC), or from the map to the camera. The norm of the quaternion and the size of the stamps show some of
these, a header shows most. What neither shows is TUM's order, unless the user names another.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImportSourceError
from nre_ros.keyframes.importers.pose_checks import QUATERNION_LENGTH_TOLERANCE
from nre_ros.keyframes.importers.text_files import is_number, split_fields

AUTO = "auto"
POSE_FORMATS = (AUTO, "tum", "wxyz", "euroc")
"""Formats that the user can name: TUM's, TUM's with w first, and EuRoC's (nanoseconds, w first)."""
CAMERA_TO_MAP, MAP_TO_CAMERA = "camera-to-map", "map-to-camera"
POSE_DIRECTIONS = (CAMERA_TO_MAP, MAP_TO_CAMERA)

_NAMES = ("t", "x", "y", "z", "qx", "qy", "qz", "qw")
_W_LAST = (0, 1, 2, 3, 4, 5, 6, 7)
_W_FIRST = (0, 1, 2, 3, 5, 6, 7, 4)
_ROTATION_FIRST = (0, 5, 6, 7, 2, 3, 4, 1)
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
"""Unit of the stamps -> units in one second."""
_UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_SMALLEST = (("ns", 1e17), ("us", 1e14), ("ms", 1e11))
"""Stamps of at least this size are in the unit: as seconds they would be later than the year 5000."""
_DECISIVE = 0.9
"""Share of the lines that must agree with a column order."""
_EUROC_COLUMNS = 17
"""Columns of EuRoC's ground truth: stamp, pose, velocity and two biases."""
_MATRIX_NUMBERS = (12, 16)
"""Numbers of a matrix of 3 or 4 rows of 4, as KITTI writes poses."""

_STAMP_WORD = re.compile(r"(?:t|time|timestamp|time_stamp|stamp|sec|secs|seconds)(?:_?(s|sec|ns|nsec|us|ms))?")
_NANOSECONDS_WORD = re.compile(r"(?:.*[._/])?(?:nsecs?|nanosecs?|nanoseconds?)")
_PREFIX, _MIDDLE, _BEHIND_LETTER = r"(?:.*[._/])?", r"[._]?(?:[a-z]+[._])*", r"(?:[._](?:[a-z]+[._])*)?"
_QUATERNION_WORD = re.compile(
    rf"{_PREFIX}(?:(?:quaternion|quat|orientation|rotation|rot){_MIDDLE}|q{_BEHIND_LETTER})([xyzw])"
)
_POSITION_WORD = re.compile(
    rf"(?:{_PREFIX}(?:(?:position|translation|trans|pos){_MIDDLE}|[pt]{_BEHIND_LETTER}))?([xyz])"
)


@dataclass(frozen=True)
class PoseConvention:
    """How the user says that poses are written.

    Attributes:
        format: One of ``POSE_FORMATS``.
        direction: One of ``POSE_DIRECTIONS``.
    """

    format: str = AUTO
    direction: str = CAMERA_TO_MAP

    def __post_init__(self) -> None:
        """Checks the names.

        Raises:
            ImportSourceError: A name is unknown.
        """
        if self.format not in POSE_FORMATS:
            raise ImportSourceError(f"pose format {self.format!r} is unknown, known: {', '.join(POSE_FORMATS)}")
        if self.direction not in POSE_DIRECTIONS:
            raise ImportSourceError(f"pose direction {self.direction!r} is unknown: {', '.join(POSE_DIRECTIONS)}")


@dataclass(frozen=True)
class PoseColumns:
    """The columns of a table of poses.

    Attributes:
        order: [8] column of t, x, y, z, qx, qy, qz and qw.
        count: Number of columns; lines may have more than the poses need.
        unit: Unit of the stamps: ``s``, ``ms``, ``us`` or ``ns``.
        inverse: Whether the poses lead from the map to the camera.
        reason: How the columns were recognised.
    """

    order: tuple[int, ...] = _W_LAST
    count: int = 8
    unit: str = "s"
    inverse: bool = False
    reason: str = ""

    @property
    def units_per_second(self) -> int:
        """Number of the stamps' units in one second."""
        return _UNITS[self.unit]

    @property
    def is_tum(self) -> bool:
        """Whether lines are ``t x y z qx qy qz qw`` in seconds, from the camera to the map."""
        return (self.order, self.count, self.unit, self.inverse) == (_W_LAST, 8, "s", False)

    def describe(self) -> str:
        """Returns one line for the user, for example ``t x y z qw qx qy qz in nanoseconds, camera-to-map (header)``."""
        names = {column: name for name, column in zip(_NAMES, self.order)}
        last = max(names)
        columns = " ".join(names.get(column, "-") for column in range(last + 1))
        more = f" and {self.count - last - 1} more" if self.count > last + 1 else ""
        direction = MAP_TO_CAMERA if self.inverse else CAMERA_TO_MAP
        reason = f" ({self.reason})" if self.reason else ""
        return f"{columns}{more} in {_UNIT_NAMES[self.unit]}, {direction}{reason}"


def recognise_columns(
    rows: Sequence[Sequence[str]], headers: Sequence[str], convention: PoseConvention = PoseConvention()
) -> PoseColumns:
    """Recognises the columns of a table of poses.

    Args:
        rows: Fields of the lines.
        headers: Lines ahead of the first pose that may name the columns, the nearest last.
        convention: What the user says.

    Returns:
        The columns. TUM's, if nothing shows another order.

    Raises:
        ImportSourceError: The lines contain matrices, or stamps in two columns.
    """
    inverse = convention.direction == MAP_TO_CAMERA
    lengths = [len(row) for row in rows]
    count = max(set(lengths), key=lengths.count) if lengths else 8
    numbers = _numbers(rows, count)
    named = _columns_by_header(headers, count)
    order: tuple[int, ...] = _W_LAST
    unit = reason = ""
    if convention.format != AUTO:
        order = _W_LAST if convention.format == "tum" else _W_FIRST
        unit, reason = "ns" if convention.format == "euroc" else "", "as asked for"
    elif named is not None:
        order, unit = named
        reason = "by the header"
    elif len(numbers):
        _refuse_matrices(numbers)
        order, reason = _columns_by_numbers(numbers)
    unit = unit or _unit_by_size([row[order[0]] for row in rows if len(row) == count >= 8])
    return PoseColumns(order, count if count >= 8 else 8, unit, inverse, reason)


def describe_columns(columns: PoseColumns | None) -> dict[str, Any]:
    """Returns what keyframes depend on, as plain JSON values; nothing for TUM's columns, as in maps made so far.

    Args:
        columns: The columns; None if the poses come from elsewhere.
    """
    return (
        {} if columns is None or columns.is_tum else {"pose_columns": [*columns.order, columns.unit, columns.inverse]}
    )


def _numbers(rows: Sequence[Sequence[str]], count: int) -> npt.NDArray[np.float64]:
    """[N, count] numbers of the lines of the usual length that consist of finite numbers; [0, 8] for short lines."""
    whole = [row for row in rows if len(row) == count and all(map(is_number, row))] if count >= 8 else []
    numbers = np.array([[float(field) for field in row] for row in whole]).reshape(-1, max(count, 8))
    finite: npt.NDArray[np.float64] = numbers[np.isfinite(numbers).all(axis=1)]
    return finite


def _refuse_matrices(numbers: npt.NDArray[np.float64]) -> None:
    """Raises ``ImportSourceError`` if lines consist of a matrix, with or without a stamp ahead of its numbers."""
    count = numbers.shape[1]
    size = next((size for size in _MATRIX_NUMBERS if size <= count <= size + 1), None)
    if size is None:
        return
    R = numbers[:, -size:][:, :12].reshape(-1, 3, 4)[:, :, :3]
    rotations = np.abs(R @ R.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2)) <= 2 * QUATERNION_LENGTH_TOLERANCE
    if rotations.mean() >= _DECISIVE:
        raise ImportSourceError(
            f"the poses are matrices of {size} numbers (as KITTI's), expected lines of t x y z qx qy qz qw"
        )


def _columns_by_header(headers: Sequence[str], count: int) -> tuple[tuple[int, ...], str] | None:
    """Order and unit of the stamps, from the nearest line that names all columns once; unit empty if it names none."""
    for line in reversed(headers):
        line = line.strip().lstrip("#%").lower()  # %: rostopic echo -p
        unit = re.search(r"[\[(](ns|us|ms|s)[\])]", line)
        words = split_fields(re.sub(r"[\[(].*?[\])]", " ", line))
        found = [_column_name(word) for word in words]
        if len(words) == count and all(found.count(name) == 1 for name in _NAMES):
            if any(map(_NANOSECONDS_WORD.fullmatch, words)):
                raise ImportSourceError(
                    f"stamps in two columns are not supported, write one of nanoseconds: {line[:80]!r}"
                )
            suffix = _STAMP_WORD.fullmatch(words[found.index("t")])
            named = (suffix and suffix[1] or "").replace("sec", "s")
            return tuple(found.index(name) for name in _NAMES), named or (unit[1] if unit else "")
    return None


def _column_name(word: str) -> str:
    """One of ``_NAMES`` for a word of a header; empty for another word."""
    word = word.strip()
    if _STAMP_WORD.fullmatch(word):
        return "t"
    if match := _QUATERNION_WORD.fullmatch(word):
        return f"q{match[1]}"
    match = _POSITION_WORD.fullmatch(word)
    return match[1] if match else "qw" if word == "w" else ""


def _columns_by_numbers(numbers: npt.NDArray[np.float64]) -> tuple[tuple[int, ...], str]:
    """The order that the numbers show, and how; TUM's and an empty reason if they show none."""
    if _share_of_unit_length(numbers[:, 4:8]) < _DECISIVE <= _share_of_unit_length(numbers[:, 1:5]):
        return _ROTATION_FIRST, "the unit quaternion is ahead of the position"
    if numbers.shape[1] == _EUROC_COLUMNS and np.median(numbers[:, 0]) >= _SMALLEST[0][1]:
        return _W_FIRST, f"EuRoC's columns: nanoseconds and {_EUROC_COLUMNS} columns"
    position, quaternion = numbers[0, 1:4], numbers[0, 4:8]
    if np.abs(position).max() < 1e-6 and np.abs(np.abs(quaternion) - [1, 0, 0, 0]).max() < 1e-6:
        return _W_FIRST, "the first pose is the identity with w first"
    return _W_LAST, ""


def _share_of_unit_length(quaternions: npt.NDArray[np.float64]) -> float:
    return float((np.abs(np.linalg.norm(quaternions, axis=1) - 1) <= QUATERNION_LENGTH_TOLERANCE).mean())


def _unit_by_size(stamps: Sequence[str]) -> str:
    """The unit in which the middle stamp lies in this century, or ``s``."""
    values = np.array([float(stamp) for stamp in stamps if is_number(stamp)])
    values = np.abs(values[np.isfinite(values)])
    middle = float(np.median(values)) if len(values) else 0.0
    return next((unit for unit, smallest in _SMALLEST if middle >= smallest), "s")
