# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The picture of a replay: the way from above, true and estimated, and one query with its map points."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nre_ros.replay.report import pose_of
from nre_ros.replay.session import Session

_TRUTH, _ESTIMATE, _MAP = "#222222", "#d1495b", "#9aa5b1"


def write_picture(
    path: Path | str, session: Session, truth: dict[int, np.ndarray], keyframes: np.ndarray, query: np.ndarray | None
) -> None:
    """Writes a PNG.

    truth: stamp -> [4, 4] true poses (may be empty).  keyframes: [K, 4, 4] of the map.  query:
    uint8 BGR picture of one query from ``pictures.query.draw_query``, or None.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    posed = [status for status in session.statuses if status["success"]]
    figure, axes = plt.subplots(
        1,
        2 if query is not None else 1,
        figsize=(14 if query is not None else 8, 6.2),
        squeeze=False,
        width_ratios=[1, 1.25] if query is not None else None,
        layout="constrained",
    )
    _draw_ways(axes[0, 0], posed, truth, keyframes)
    if query is not None:
        axes[0, 1].imshow(query[..., ::-1])
        axes[0, 1].set_title("one query, with the map points where its pose puts them\n(green: the image agrees)")
        axes[0, 1].set_axis_off()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_ways(axes, posed: list[dict], truth: dict[int, np.ndarray], keyframes: np.ndarray) -> None:
    forward = keyframes[:, :3, 2]
    axes.quiver(*keyframes[:, :2, 3].T, *forward[:, :2].T, color=_MAP, width=0.003, scale=25)
    axes.plot(*keyframes[:, :2, 3].T, ">", color=_MAP, markersize=3, label=f"{len(keyframes)} keyframes")
    if truth:
        way = np.array([truth[stamp][:3, 3] for stamp in sorted(truth)])
        axes.plot(way[:, 0], way[:, 1], color=_TRUTH, linewidth=1.5, label="true way of the camera")
    if posed:
        places = np.array([pose_of(status)[:3, 3] for status in posed])
        axes.plot(
            places[:, 0], places[:, 1], "o", color=_ESTIMATE, markersize=4, alpha=0.85, label=f"{len(posed)} poses"
        )
    axes.margins(0.08)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel("x [m]")
    axes.set_ylabel("y [m]")
    axes.set_title("from above")
    axes.legend(loc="best", framealpha=0.9)
    axes.grid(alpha=0.25)
