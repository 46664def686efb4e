# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""COLMAP's files points3D.txt and points3D.bin: places, errors and numbers of views of the points.

Layout: https://colmap.github.io/format.html
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImportSourceError
from nre_ros.keyframes.importers.colmap.binary_file import read_binary_file
from nre_ros.keyframes.importers.text_files import numbered_entries, without_header

_POINT = struct.Struct("<Q3d3BdQ")
_TRACK_BYTES = 8
_TEXT_FIELDS = 8
_MAX_ID = 2**63 - 1


@dataclass(frozen=True)
class ModelPoints:
    """The points of a model.

    Attributes:
        rows: Id of a point -> its row in the arrays.
        xyz: [P, 3] in the model's frame.
        errors: [P] mean reprojection errors in pixels, negative if they are not known.
        views: [P] numbers of observations.
        left_out: Number of points whose coordinates are not finite.
    """

    rows: dict[int, int]
    xyz: npt.NDArray[np.float64]
    errors: npt.NDArray[np.float64]
    views: npt.NDArray[np.int64]
    left_out: int = 0

    def find(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Looks up points.

        Args:
            ids: [N] ids.

        Returns:
            [N] rows in the arrays, -1 for a point that the model lacks.
        """
        return np.array([self.rows.get(point, -1) for point in ids.tolist()], dtype=np.int64)


def read_points_file(path: Path) -> ModelPoints:
    """Reads points3D.txt or points3D.bin, by the name's ending.

    Args:
        path: The file.

    Returns:
        The points; those whose coordinates are not finite are left out.

    Raises:
        ImportSourceError: The file cannot be read, or a line is no point.
    """
    collected = _Collector()
    if path.suffix == ".txt":
        _read_text(path, collected)
    else:
        _read_binary(path, collected)
    return collected.points()


class _Collector:
    """Plain numbers of many points."""

    def __init__(self) -> None:
        self._rows: dict[int, int] = {}
        self._numbers, self._views = array("d"), array("q")

    def add(self, point_id: int, numbers: tuple[float, float, float, float], views: int) -> None:
        """Adds a point: x y z and the error."""
        if point_id <= _MAX_ID:
            self._rows[point_id] = len(self._views)
            self._numbers.extend(numbers)
            self._views.append(views)

    def points(self) -> ModelPoints:
        """Returns the finite points."""
        numbers = np.array(self._numbers).reshape(-1, 4)
        finite = np.isfinite(numbers[:, :3]).all(axis=1)
        rows = {point_id: row for point_id, row in self._rows.items() if finite[row]}
        errors = np.nan_to_num(numbers[:, 3], nan=-1.0, posinf=-1.0, neginf=-1.0)
        views = np.array(self._views, dtype=np.int64)
        return ModelPoints(rows, numbers[:, :3], errors, views, len(self._rows) - len(rows))


def _read_text(path: Path, collected: _Collector) -> None:
    for number, line in without_header(numbered_entries(path)):
        fields = line.split()
        try:
            x, y, z = map(float, fields[1:4])
            collected.add(int(fields[0]), (x, y, z, float(fields[7])), (len(fields) - _TEXT_FIELDS) // 2)
        except (ValueError, IndexError):
            raise ImportSourceError(
                f"{path} cannot be read: line {number} is no point (ID X Y Z R G B ERROR TRACK): {line[:80]!r}"
            ) from None


def _read_binary(path: Path, collected: _Collector) -> None:
    data, at = read_binary_file(path), 8
    try:
        for _ in range(struct.unpack_from("<Q", data)[0]):
            point_id, x, y, z, _, _, _, error, views = _POINT.unpack_from(data, at)
            at += _POINT.size + views * _TRACK_BYTES
            if at > len(data):
                raise ValueError(f"{len(data)} bytes, expected {at} or more")
            collected.add(point_id, (x, y, z, error), views)
    except (struct.error, ValueError) as error:
        raise ImportSourceError(f"{path} is truncated or no points3D.bin of COLMAP ({error})") from None
