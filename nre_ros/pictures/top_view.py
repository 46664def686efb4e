# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A map projected onto the plane that is seen from above, for the plots of reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.pictures.map_view import sample_map

_MAX_TOP_VIEW_POINTS = 15_000
"""Map points that are drawn at most."""


@dataclass(frozen=True)
class MapTopView:
    """The map projected onto the plane that is seen from above.

    Attributes:
        positions: ``[K, 2]`` positions of the keyframes in metres.
        directions: ``[K, 2]`` viewing directions of the keyframes.
        points: ``[P, 2]`` map points in metres.
        plane: ``[2, 3]`` axes of the plane in the map.
    """

    positions: npt.NDArray[np.float64]
    directions: npt.NDArray[np.float64]
    points: npt.NDArray[np.float64]
    plane: npt.NDArray[np.float64]


def project_map(map_file: Path) -> MapTopView:
    """Projects a map onto its horizontal plane.

    Args:
        map_file: Map to read.

    Returns:
        The projected map.

    Raises:
        NreError: The map cannot be read.
    """
    with KeyframeStore.open(map_file) as store:
        sample = sample_map(store)
    up = sample.up
    if up[2] > 0.7:  # the map is level: cameras that look down a little must not tilt the plane
        plane = np.eye(3)[:2]
    else:
        right = np.cross([0.0, 1.0, 0.0] if abs(up[1]) < 0.9 else [0.0, 0.0, 1.0], up)
        right /= np.linalg.norm(right)
        plane = np.stack([right, np.cross(up, right)])
    points = sample.points[:: max(1, len(sample.points) // _MAX_TOP_VIEW_POINTS)]
    return MapTopView(sample.poses[:, :3, 3] @ plane.T, sample.poses[:, :3, 2] @ plane.T, points @ plane.T, plane)
