# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One sheet a query: the image with the map points, three correspondence maps, the camera from above."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from nre_ros.localization.result import LocalizationResult
from nre_ros.pictures.query import draw_query


def write_sheet(
    path: Path | str, image: np.ndarray, result: LocalizationResult, keyframes: dict[int, np.ndarray]
) -> None:
    """Writes a picture file.

    image: uint8 BGR [H, W, 3] or grey; keyframes: id -> pose [4, 4] of the map's keyframes; those
    that the query was compared with stand out.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(15, 7.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.25, 1))
    axes = left.subplots()
    axes.imshow(cv2.cvtColor(draw_query(image, result), cv2.COLOR_BGR2RGB))
    axes.set_axis_off()
    top, bottom = right.subfigures(2, 1, height_ratios=(1, 1.9))
    _draw_maps(top, image, result)
    draw_from_above(bottom.subplots(), keyframes, result)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _draw_maps(figure, image: np.ndarray, result: LocalizationResult) -> None:
    """Three loss maps over the image, and where the pose puts their points."""
    if result.sample_maps is None:
        return
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image.ndim == 3 else image
    figure.suptitle("loss maps of three points (bright: seen there; ring: where the pose puts it)", fontsize=9)
    for axes, loss, pixel in zip(figure.subplots(1, len(result.sample_maps)), result.sample_maps, result.sample_pixels):
        rows, columns = loss.shape
        first, stride = result.sample_grid.offset - result.sample_grid.stride / 2, result.sample_grid.stride
        extent = (first, first + columns * stride, first + rows * stride, first)
        axes.imshow(grey, cmap="gray", alpha=0.5)
        axes.imshow(1 - loss, extent=extent, cmap="inferno", alpha=0.75, vmin=0, vmax=1, interpolation="nearest")
        axes.plot(*pixel, "o", markersize=11, markerfacecolor="none", markeredgecolor="cyan")
        axes.set_xlim(-0.5, grey.shape[1] - 0.5)
        axes.set_ylim(grey.shape[0] - 0.5, -0.5)
        axes.set_axis_off()


def draw_from_above(axes, keyframes: dict[int, np.ndarray], result: LocalizationResult) -> None:
    """The map's keyframes (those retrieved in blue), its points near the query, and the query's camera."""
    for ids, colour, label in (
        (set(keyframes) - set(result.keyframes), "#b8c1cc", "keyframes"),
        (set(result.keyframes) & set(keyframes), "#2f6fde", "retrieved"),
    ):
        poses = np.array([keyframes[i] for i in sorted(ids)]).reshape(-1, 4, 4)
        _arrows(axes, poses, colour, label)
    if result.success:
        in_view = result.losses < 1
        axes.scatter(*result.points[~in_view, :2].T, s=2, color="#dfe4ea")
        agreement = 1 - result.losses[in_view]
        axes.scatter(*result.points[in_view, :2].T, s=3, c=agreement, cmap="RdYlGn", vmin=0, vmax=1)
        _arrows(axes, result.T_map_cam[None], "#d1495b", "this camera", width=0.008)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.05)
    axes.set_title("from above, the map's x and y (green points agree, red do not, grey are out of view)", fontsize=9)
    axes.legend(loc="best", fontsize=8)
    axes.grid(alpha=0.25)


def _arrows(axes, poses: np.ndarray, colour: str, label: str, width: float = 0.004) -> None:
    if len(poses):
        places, forward = poses[:, :2, 3], poses[:, :2, 2]
        axes.quiver(*places.T, *forward.T, color=colour, width=width, scale=22)
        axes.plot(*places.T, ".", color=colour, markersize=4, label=label)
