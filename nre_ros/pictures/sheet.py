# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A sheet about one image: the image with its map points, three loss maps, the camera from above."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from nre_ros.localization.result import LocalizationResult
from nre_ros.pictures.query import draw_query

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure


def write_sheet(
    path: Path | str,
    image: npt.NDArray[np.uint8],
    result: LocalizationResult,
    keyframes: Mapping[int, npt.NDArray[np.float64]],
) -> None:
    """Writes the sheet as a picture file.

    Args:
        path: File to write; its ending decides the format.
        image: BGR [H, W, 3] or grey [H, W], uint8.
        result: What localizing the image gave.
        keyframes: Id -> pose [4, 4] of the map's keyframes; those retrieved for the image are highlighted.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(15, 7.2), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.25, 1))[0]
    axes = left.subplots()
    axes.imshow(cv2.cvtColor(draw_query(image, result), cv2.COLOR_BGR2RGB))
    axes.set_axis_off()
    top, bottom = right.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.9))[:, 0]
    _draw_loss_maps(top, image, result)
    draw_from_above(bottom.subplots(), keyframes, result)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _draw_loss_maps(figure: SubFigure, image: npt.NDArray[np.uint8], result: LocalizationResult) -> None:
    """Draws three loss maps over the image, and where the pose projects their points."""
    if result.sample_maps is None or result.sample_pixels is None or result.sample_grid is None:
        return
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image.ndim == 3 else image
    figure.suptitle("loss maps of three points (bright: low loss; ring: projection by the pose)", fontsize=9)
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


def draw_from_above(axes: Axes, keyframes: Mapping[int, npt.NDArray[np.float64]], result: LocalizationResult) -> None:
    """Draws the map's keyframes, the points of those retrieved, and the camera of the image, in the map's x and y.

    Args:
        axes: Axes of matplotlib to draw on.
        keyframes: Id -> pose [4, 4] of the map's keyframes; those retrieved are blue.
        result: What localizing the image gave.
    """
    for ids, colour, label in (
        (set(keyframes) - set(result.keyframes), "#b8c1cc", "keyframes"),
        (set(result.keyframes) & set(keyframes), "#2f6fde", "retrieved"),
    ):
        poses = np.array([keyframes[i] for i in sorted(ids)]).reshape(-1, 4, 4)
        _arrows(axes, poses, colour, label)
    if result.T_map_cam is not None and result.losses is not None and result.points is not None:
        in_view = result.losses < 1
        axes.scatter(result.points[~in_view, 0], result.points[~in_view, 1], s=2, color="#dfe4ea")
        agreement = 1 - result.losses[in_view]
        axes.scatter(
            result.points[in_view, 0], result.points[in_view, 1], s=3, c=agreement, cmap="RdYlGn", vmin=0, vmax=1
        )
        _arrows(axes, result.T_map_cam[None], "#d1495b", "this camera", width=0.008)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.05)
    axes.set_title(
        "from above, the map's x and y (points: green low loss, red high loss, grey out of view)", fontsize=9
    )
    axes.legend(loc="best", fontsize=8)
    axes.grid(alpha=0.25)


def _arrows(axes: Axes, poses: npt.NDArray[np.float64], colour: str, label: str, width: float = 0.004) -> None:
    if len(poses):
        positions, forward = poses[:, :2, 3], poses[:, :2, 2]
        axes.quiver(*positions.T, *forward.T, color=colour, width=width, scale=22)
        axes.plot(*positions.T, ".", color=colour, markersize=4, label=label)
