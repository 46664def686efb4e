# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The picture of a replay: true and estimated trajectory from above, and one image with its projected map points."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nre_ros.replay.session import Session
from nre_ros.replay.summary import recorded_pose

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GROUND_TRUTH_COLOUR, ESTIMATE_COLOUR, KEYFRAME_COLOUR = "#222222", "#d1495b", "#9aa5b1"


def write_picture(
    path: Path | str,
    session: Session,
    ground_truth: Mapping[int, npt.NDArray[np.float64]],
    keyframes: npt.NDArray[np.float64],
    query: npt.NDArray[np.uint8] | None,
) -> None:
    """Writes the picture as a PNG.

    Args:
        path: File to write.
        session: What was recorded.
        ground_truth: Stamp -> true pose [4, 4] of the camera in the map; may be empty.
        keyframes: Poses [K, 4, 4] of the map's keyframes.
        query: One image with its map points (uint8 BGR [H, W, 3], from ``pictures.query.draw_query``), or None.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    poses = [recorded_pose(status) for status in session.statuses if status["success"]]
    positions = np.array(poses).reshape(-1, 4, 4)[:, :3, 3]
    figure, axes = plt.subplots(
        1,
        2 if query is not None else 1,
        figsize=(14 if query is not None else 8, 6.2),
        squeeze=False,
        width_ratios=[1, 1.25] if query is not None else None,
        layout="constrained",
    )
    above = axes[0, 0]
    draw_trajectory(above, ground_truth, keyframes)
    if len(positions):
        label = f"{len(positions)} estimated poses"
        above.plot(*positions[:, :2].T, "o", color=ESTIMATE_COLOUR, markersize=4, alpha=0.85, label=label)
    above.legend(loc="best", framealpha=0.9)
    if query is not None:
        axes[0, 1].imshow(query[..., ::-1])
        axes[0, 1].set_title("one image with the map points projected by its pose\n(green: the image agrees)")
        axes[0, 1].set_axis_off()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_trajectory(
    axes: Axes, ground_truth: Mapping[int, npt.NDArray[np.float64]], keyframes: npt.NDArray[np.float64]
) -> None:
    """Draws the map's keyframes and the true trajectory from above.

    Args:
        axes: Axes of matplotlib to draw on.
        ground_truth: Stamp -> true pose [4, 4] of the camera in the map; may be empty.
        keyframes: Poses [K, 4, 4] of the map's keyframes.
    """
    directions = keyframes[:, :2, 2]
    axes.quiver(*keyframes[:, :2, 3].T, *directions.T, color=KEYFRAME_COLOUR, width=0.003, scale=25)
    label = f"{len(keyframes)} keyframes of the map"
    axes.plot(*keyframes[:, :2, 3].T, ">", color=KEYFRAME_COLOUR, markersize=3, label=label)
    if ground_truth:
        trajectory = np.array([ground_truth[stamp][:2, 3] for stamp in sorted(ground_truth)])
        axes.plot(*trajectory.T, color=GROUND_TRUTH_COLOUR, linewidth=1.5, label="true trajectory of the camera")
    axes.margins(0.08)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel("x [m]")
    axes.set_ylabel("y [m]")
    axes.set_title("from above")
    axes.grid(alpha=0.25)
