# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A map in 3D as one HTML file, with the keyframes' thumbnails on click, and from above as a PNG."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nre_ros.geometry import move_origin
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.tools.info import describe_map
from nre_ros.pictures.view_3d import axis_titles, camera_size, coordinates, drawn_origin, frustum_lines
from nre_ros.sampling import evenly_spaced_indices

_MAX_MAP_PAGE_POINTS = 60_000
_MAX_MAP_PAGE_CAMERAS = 20_000
_MAX_FRUSTUMS = 2_000
_MAX_THUMBNAIL_BYTES = 24 << 20
"""What a browser on a laptop opens within seconds and rotates smoothly; of more, evenly spaced ones are shown."""
_BLUE = "#2f6fde"

_ON_CLICK = """
const pictures = PICTURES;
document.body.style.margin = '0';
document.body.style.overflow = 'hidden';
const panel = document.createElement('div');
panel.style.cssText = 'position:fixed;right:16px;bottom:16px;padding:8px;background:#fff;font:13px sans-serif;'
  + 'box-shadow:0 1px 6px #0005;border-radius:4px;max-width:340px';
panel.textContent = 'Click a camera for its picture.';
document.body.appendChild(panel);
document.getElementById('{plot_id}').on('plotly_click', function (event) {
  const point = event.points[0];
  if (point.customdata === undefined) return;
  panel.textContent = '';
  const jpeg = pictures[point.customdata];
  if (jpeg) {
    const image = document.createElement('img');
    image.src = 'data:image/jpeg;base64,' + jpeg;
    image.style.cssText = 'display:block;width:320px;margin-bottom:6px';
    panel.appendChild(image);
  }
  const name = document.createElement('div');
  name.textContent = point.text + (jpeg ? '' : ' (no picture in this file)');
  panel.appendChild(name);
});
"""


@dataclass(frozen=True)
class MapSample:
    """The part of a map that is drawn.

    Attributes:
        ids: Ids [M] of the drawn keyframes.
        names: Their names.
        poses: Their poses [M, 4, 4], camera (optical frame) to map.
        points: The drawn points [N, 3], in the map's unit.
        keyframe_count: Number of keyframes in the map.
        point_count: Number of points in the map.
    """

    ids: npt.NDArray[np.int64]
    names: tuple[str, ...]
    poses: npt.NDArray[np.float64]
    points: npt.NDArray[np.floating]
    keyframe_count: int
    point_count: int

    @property
    def up(self) -> npt.NDArray[np.float64]:
        """The mean upward direction of the images [3]; the map's z if the images do not agree on one."""
        mean = -self.poses[:, :3, 1].mean(axis=0) if len(self.poses) else np.zeros(3)
        length = np.linalg.norm(mean)
        return mean / length if length > 0.3 else np.array([0.0, 0.0, 1.0])

    @property
    def title(self) -> str:
        """How many keyframes and points are drawn."""
        cameras = _share(len(self.ids), self.keyframe_count, "keyframes")
        return f"{cameras}, {_share(len(self.points), self.point_count, 'points')}"


def sample_map(store: KeyframeStore, seed: int = 0) -> MapSample:
    """Chooses what is drawn of a map: all of a small map, a part of a large one.

    Args:
        store: The map.
        seed: Seed of the choice of points.

    Returns:
        Evenly spaced keyframes, and points drawn at random.
    """
    scans = list(store.scan())
    ids = np.concatenate([scan.ids for scan in scans]) if scans else np.zeros(0, np.int64)
    names = np.array([name for scan in scans for name in scan.names], dtype=object)
    poses = np.concatenate([scan.poses for scan in scans]) if scans else np.zeros((0, 4, 4))
    counts = np.concatenate([scan.point_counts for scan in scans]) if scans else np.zeros(0, np.int64)
    shown = evenly_spaced_indices(len(ids), _MAX_MAP_PAGE_CAMERAS)
    rng = np.random.default_rng(seed)
    sampled = evenly_spaced_indices(len(ids), _MAX_FRUSTUMS)
    share = min(1.0, _MAX_MAP_PAGE_POINTS / max(int(counts[sampled].sum()), 1))
    parts: list[npt.NDArray[np.floating]] = [np.zeros((0, 3), np.float32)]
    for keyframe_id in ids[sampled]:
        points = store.load([keyframe_id])[0].points
        parts.append(points if share == 1 else points[rng.random(len(points)) < share])
    return MapSample(ids[shown], tuple(names[shown]), poses[shown], np.concatenate(parts), len(ids), int(counts.sum()))


def write_map_html(path: Path | str, store: KeyframeStore, sample: MapSample) -> None:
    """Writes the HTML file, which contains its thumbnails and needs no network.

    Args:
        path: File to write.
        store: The map, for the thumbnails.
        sample: What is drawn of it.
    """
    from plotly import graph_objects

    origin = drawn_origin(sample.poses[:, :3, 3])
    if origin.any():
        sample = replace(sample, points=sample.points - origin, poses=move_origin(sample.poses, origin))
    up = sample.up
    pictures, complete = _pictures(store, sample.ids)
    figure = graph_objects.Figure()
    figure.add_scatter3d(
        **coordinates(sample.points),
        mode="markers",
        name="points",
        hoverinfo="skip",
        marker={"size": 1.5, "color": sample.points @ up, "colorscale": "Viridis", "opacity": 0.7},
    )
    drawn = evenly_spaced_indices(len(sample.ids), _MAX_FRUSTUMS)
    figure.add_scatter3d(
        **frustum_lines(sample.poses[drawn], camera_size(sample.poses, sample.points)),
        mode="lines",
        line={"color": _BLUE, "width": 2},
        hoverinfo="skip",
        name="views",
    )
    figure.add_scatter3d(
        **coordinates(sample.poses[:, :3, 3]),
        mode="markers",
        marker={"size": 4, "color": _BLUE},
        text=list(sample.names),
        customdata=sample.ids.tolist(),
        name="keyframes",
        hovertemplate="%{text}<br>%{x:.3f} %{y:.3f} %{z:.3f}<extra></extra>",
    )
    low, high = _bounds(sample)
    titles = axis_titles(origin)
    axes = {
        f"{axis}axis": {**titles.get(f"{axis}axis", {}), "range": [low[k], high[k]]} for k, axis in enumerate("xyz")
    }
    aside = np.cross(up, [0.6, 0.8, 0.0] if abs(up[2]) > 0.9 else [0.0, 0.6, 0.8])
    eye = 1.2 * up + 1.2 * aside / np.linalg.norm(aside)
    title = f"{store.path.name}: {sample.title}" + ("" if complete else f", {len(pictures)} pictures")
    figure.update_layout(
        title=title,
        margin={"l": 0, "r": 0, "t": 40, "b": 0},
        legend={"x": 0.01, "y": 0.99},
        scene={
            **axes,
            "aspectmode": "data",
            "camera": {name: dict(zip("xyz", vector.tolist())) for name, vector in (("up", up), ("eye", eye))},
        },
    )
    script = _ON_CLICK.replace("PICTURES", json.dumps(pictures))
    figure.write_html(path, include_plotlyjs=True, full_html=True, default_height="100vh", post_script=script)


def write_map_png(path: Path | str, title: str, sample: MapSample) -> None:
    """Writes a PNG of the map from above: points coloured by height, cameras with their viewing directions.

    Args:
        path: File to write.
        title: Name of the map.
        sample: What is drawn of it.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    up = sample.up
    right = np.cross([0.0, 1.0, 0.0] if abs(up[1]) < 0.9 else [0.0, 0.0, 1.0], up)
    plane = np.stack([right / np.linalg.norm(right), np.cross(up, right / np.linalg.norm(right))])
    points, positions = sample.points @ plane.T, sample.poses[:, :3, 3] @ plane.T
    figure, axes = plt.subplots(figsize=(10, 8), layout="constrained")
    drawn = axes.scatter(points[:, 0], points[:, 1], c=sample.points @ up, s=1, cmap="viridis", alpha=0.6, linewidths=0)
    forward = sample.poses[:, :3, 2] @ plane.T
    if len(positions):
        axes.quiver(*positions.T, *forward.T, color=_BLUE, width=0.0025, scale=30)
        axes.plot(*positions.T, ".", color=_BLUE, markersize=3)
    low, high = (np.sort([corner @ plane.T for corner in _corners(sample)], axis=0)[k] for k in (0, -1))
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])
    axes.set_aspect("equal")
    level = up[2] > 0.99
    axes.set_xlabel("x (map units)" if level else "map units")
    axes.set_ylabel("y (map units)" if level else "map units")
    axes.set_title(f"{title} from above: {sample.title}", fontsize=10)
    axes.grid(alpha=0.25)
    if len(points):
        figure.colorbar(drawn, ax=axes, label="height (map units)", shrink=0.6)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _pictures(store: KeyframeStore, ids: npt.NDArray[np.int64]) -> tuple[dict[int, str], bool]:
    """id -> JPEG in base64, of as many evenly spaced keyframes as there is room for, and whether that is all."""
    total = describe_map(store).thumbnail_bytes * 4 / 3
    count = len(ids) if total <= _MAX_THUMBNAIL_BYTES else int(len(ids) * _MAX_THUMBNAIL_BYTES / total)
    found = {int(i): store.thumbnail(int(i)) for i in ids[evenly_spaced_indices(len(ids), count)]}
    return {i: base64.b64encode(jpeg).decode() for i, jpeg in found.items() if jpeg}, count == len(ids)


def _bounds(sample: MapSample) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Corners of the first view: all cameras and 98 % of the points, without the few that lie far away."""
    positions = sample.poses[:, :3, 3]
    if len(sample.points):
        positions = np.concatenate([positions, np.percentile(sample.points, (1, 99), axis=0)])
    if not len(positions):
        return -np.ones(3), np.ones(3)
    low, high = positions.min(axis=0), positions.max(axis=0)
    margin = 0.05 * np.linalg.norm(high - low) or 1.0
    return low - margin, high + margin


def _corners(sample: MapSample) -> npt.NDArray[np.float64]:
    """The eight corners [8, 3] of the first view."""
    return np.stack(np.meshgrid(*np.stack(_bounds(sample), axis=1)), axis=-1).reshape(-1, 3)


def _share(shown: int, total: int, what: str) -> str:
    return f"{total} {what}" if shown == total else f"{shown} of {total} {what}"
