# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Poses and points in 3D, as one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nre_ros.geometry import distant_origin, move_origin

_MAX_POSE_VIEW_POINTS = 30_000
"""Browsers rotate that many points smoothly; of more, evenly spaced ones are drawn."""
_FRUSTUM = np.array([[0, 0, 0], [-0.6, -0.45, 1], [0.6, -0.45, 1], [0.6, 0.45, 1], [-0.6, 0.45, 1]], dtype=float)
_EDGES = (0, 1, 2, 0, 3, 4, 0, 1, 4, 3, 2)
"""Corners of a frustum in the order of one line along all its edges."""


def write_3d_view(
    path: Path | str,
    points: npt.NDArray[np.float64],
    keyframes: npt.NDArray[np.float64],
    poses: Mapping[str, npt.NDArray[np.float64]],
    title: str = "",
) -> None:
    """Writes an HTML file with a map's points and keyframes, and the poses of localized images.

    Args:
        path: File to write.
        points: Points of the map [N, 3], in the map's unit.
        keyframes: Poses of the map's keyframes [K, 4, 4], camera (optical frame) to map.
        poses: Name of each localized image -> its pose [4, 4].
        title: Heading of the page.
    """
    from plotly import graph_objects

    points = np.asarray(points, dtype=float)[:: max(1, -(-len(points) // _MAX_POSE_VIEW_POINTS))]
    localized = np.array(list(poses.values())).reshape(-1, 4, 4)
    origin = drawn_origin(np.concatenate([keyframes[:, :3, 3], localized[:, :3, 3]]))
    points, keyframes, localized = points - origin, move_origin(keyframes, origin), move_origin(localized, origin)
    size = camera_size(keyframes, points)
    figure = graph_objects.Figure()
    figure.add_scatter3d(
        **coordinates(points),
        mode="markers",
        marker={"size": 1.5, "color": "#7a8794"},
        name=f"{len(points)} map points",
        hoverinfo="skip",
    )
    figure.add_scatter3d(
        **frustum_lines(keyframes, size),
        mode="lines",
        line={"color": "#2f6fde", "width": 2},
        hoverinfo="skip",
        name=f"{len(keyframes)} keyframes",
    )
    figure.add_scatter3d(
        **frustum_lines(localized, size),
        mode="lines",
        line={"color": "#d1495b", "width": 3},
        hoverinfo="skip",
        name=f"{len(localized)} localized images",
    )
    figure.add_scatter3d(
        **coordinates(localized[:, :3, 3]),
        mode="markers",
        marker={"size": 3, "color": "#d1495b"},
        text=list(poses),
        hovertemplate="%{text}<br>%{x:.3f} %{y:.3f} %{z:.3f}<extra></extra>",
        showlegend=False,
    )
    figure.update_layout(
        title=title,
        scene={**axis_titles(origin), "aspectmode": "data"},
        margin={"l": 0, "r": 0, "t": 40 if title else 0, "b": 0},
        legend={"x": 0.01, "y": 0.99},
    )
    figure.write_html(path, include_plotlyjs=True, full_html=True, default_height="100vh")


def camera_size(keyframes: npt.NDArray[np.float64], points: npt.NDArray[np.floating]) -> float:
    """Computes how long a camera is drawn, as a share of the scene's size.

    Args:
        keyframes: Poses [K, 4, 4] of the map's keyframes.
        points: Points of the map [N, 3].

    Returns:
        Length of a frustum, in the map's unit.
    """
    positions = np.concatenate([keyframes[:, :3, 3], points]) if len(points) else keyframes[:, :3, 3]
    if not len(positions):
        return 0.03 * float(np.sqrt(3))
    spans = np.percentile(positions, 95, axis=0) - np.percentile(positions, 5, axis=0)
    return 0.03 * float(np.linalg.norm(spans)) or 0.1


def drawn_origin(positions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Chooses what is subtracted from coordinates before they are drawn: browsers draw in single precision.

    Args:
        positions: [N, 3] in the map.

    Returns:
        [3]; zero near the origin of the map's frame.
    """
    origin = distant_origin(np.median(positions, axis=0)) if len(positions) else None
    return np.zeros(3) if origin is None else origin


def axis_titles(origin: npt.NDArray[np.float64]) -> dict[str, dict[str, object]]:
    """Makes titles of the three axes that name what was subtracted.

    Args:
        origin: [3] from ``drawn_origin``.

    Returns:
        Entries of plotly's ``scene``; none where nothing was subtracted.
    """
    if not origin.any():
        return {}
    return {f"{axis}axis": {"title": {"text": f"{axis} - {value:.0f}"}} for axis, value in zip("xyz", origin)}


def frustum_lines(poses: npt.NDArray[np.float64], size: float) -> dict[str, npt.NDArray[np.floating]]:
    """Makes one line along the edges of all cameras' frustums, interrupted between them.

    Args:
        poses: Poses [K, 4, 4], camera (optical frame) to map.
        size: Length of a frustum, in the map's unit.

    Returns:
        Coordinates as plotly takes them.
    """
    lines = [np.zeros((0, 3))]
    for T in poses:
        corners = size * _FRUSTUM[list(_EDGES)] @ T[:3, :3].T + T[:3, 3]
        lines += [corners, np.full((1, 3), np.nan)]
    return coordinates(np.concatenate(lines))


def coordinates(points: npt.NDArray[np.floating]) -> dict[str, npt.NDArray[np.floating]]:
    """Makes the keyword arguments x, y and z of plotly's traces.

    Args:
        points: [N, 3], or any shape with 3 N values.

    Returns:
        Coordinates [N] by ``x``, ``y`` and ``z``.
    """
    return dict(zip("xyz", np.asarray(points).reshape(-1, 3).T))
