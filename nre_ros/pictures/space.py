# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""All poses and points in space: one HTML file that turns under the mouse and needs no network."""

from __future__ import annotations

from pathlib import Path

import numpy as np

_MAX_POINTS = 30_000
"""Points drawn at most; browsers turn that many smoothly."""
_FRUSTUM = np.array([[0, 0, 0], [-0.6, -0.45, 1], [0.6, -0.45, 1], [0.6, 0.45, 1], [-0.6, 0.45, 1]], dtype=float)
_EDGES = (0, 1, 2, 0, 3, 4, 0, 1, 4, 3, 2)
"""The corners of a camera's pyramid in the order of one line along its edges."""


def write_space(
    path: Path | str, points: np.ndarray, keyframes: np.ndarray, poses: dict[str, np.ndarray], title: str = ""
) -> None:
    """Writes the HTML file.

    points: [N, 3] of the map; keyframes: [K, 4, 4]; poses: name -> [4, 4] of the localized images.
    All are camera to map, z forward, lengths in the map's unit.
    """
    from plotly import graph_objects

    points = np.asarray(points, dtype=float)[:: max(1, -(-len(points) // _MAX_POINTS))]
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
        **pyramids(keyframes, size),
        mode="lines",
        line={"color": "#2f6fde", "width": 2},
        hoverinfo="skip",
        name=f"{len(keyframes)} keyframes",
    )
    localized = np.array(list(poses.values())).reshape(-1, 4, 4)
    figure.add_scatter3d(
        **pyramids(localized, size),
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
        scene={"aspectmode": "data"},
        margin={"l": 0, "r": 0, "t": 40 if title else 0, "b": 0},
        legend={"x": 0.01, "y": 0.99},
    )
    figure.write_html(path, include_plotlyjs=True, full_html=True, default_height="100vh")


def camera_size(keyframes: np.ndarray, points: np.ndarray) -> float:
    """Length of a drawn camera: a share of the scene, whatever its unit."""
    places = np.concatenate([keyframes[:, :3, 3], points]) if len(points) else keyframes[:, :3, 3]
    spans = np.percentile(places, 95, axis=0) - np.percentile(places, 5, axis=0) if len(places) else np.ones(3)
    return 0.03 * float(np.linalg.norm(spans)) or 0.1


def pyramids(poses: np.ndarray, size: float) -> dict:
    """One line along the edges of all cameras, interrupted between them."""
    lines = []
    for T in poses:
        corners = size * _FRUSTUM[list(_EDGES)] @ T[:3, :3].T + T[:3, 3]
        lines += [corners, np.full((1, 3), np.nan)]
    return coordinates(np.concatenate(lines) if lines else np.zeros((0, 3)))


def coordinates(points: np.ndarray) -> dict:
    """Points [N, 3] as plotly takes them."""
    return dict(zip("xyz", np.asarray(points).reshape(-1, 3).T))
