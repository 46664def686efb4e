# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What all plots of a report share: colours, axes, legends, and the conversion to SVG."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

COLOURS = ("#c8384d", "#2f6fde", "#2a9d6f", "#b7791f", "#7a4fc4", "#4b5563")
"""Colours of the runs, repeated if there are more runs."""
GROUND_TRUTH, MAP, REJECTED = "#1f2937", "#9aa5b1", "#6b7280"
RASTERIZE_ABOVE = 3000
"""Plots with more points contain them as pixels, because browsers are slow with so many shapes."""


def new_figure(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Figure, npt.NDArray[Any]]:
    """Creates a figure with empty axes.

    Args:
        rows: Number of rows of axes.
        columns: Number of columns of axes.
        size: Width and height in inches.
        options: Further options of ``pyplot.subplots``.

    Returns:
        The figure and its axes ``[rows, columns]``.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)
    for ax in axes.flat:
        ax.grid(alpha=0.25)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def add_legend(ax: Axes, **options: Any) -> None:
    """Adds a legend if the axes contain labelled artists.

    Args:
        ax: The axes.
        options: Further options of ``Axes.legend``.
    """
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8, framealpha=0.9, **options)


def plain_number(value: float, position: float | None = None) -> str:
    """Formats a tick label as a decimal number instead of a power of ten.

    Args:
        value: Value of the tick.
        position: Index of the tick, which matplotlib passes.

    Returns:
        The label.
    """
    return f"{value:g}"


def label_log_axis(axis: Axis) -> None:
    """Labels a logarithmic axis with decimal numbers, with minor labels where there is space.

    Args:
        axis: The axis.
    """
    from matplotlib.ticker import LogFormatter

    class MinorFormatter(LogFormatter):
        def __call__(self, value: float, pos: int | None = None) -> str:
            return plain_number(value) if super().__call__(value, pos) else ""

    axis.set_major_formatter(plain_number)
    axis.set_minor_formatter(MinorFormatter(labelOnlyBase=False, minor_thresholds=(1, 0.4)))


def svg_element(figure: Figure, title: str) -> str:
    """Converts a figure to an SVG element for the page, and closes the figure. The same data give the same text.

    Args:
        figure: The figure.
        title: Title for screen readers, unique within the page.

    Returns:
        The SVG element.
    """
    import matplotlib
    from matplotlib import pyplot as plt

    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": title}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Title": title}, dpi=150)
    plt.close(figure)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    # identifiers are made unique within the page, which contains several figures
    prefix = re.sub(r"\W+", "-", title)
    svg = re.sub(r'id="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\1{prefix}-", svg)
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', f'role="img" aria-label="{title}"', svg, count=1)
