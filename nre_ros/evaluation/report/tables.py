# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The figures of summaries as text: cards, and tables with one column per run.

``summary`` is what ``metrics.summarize`` returns; ``summaries`` are run name to summary.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from statistics import median
from typing import Any

from nre_ros.evaluation.metrics.accuracy import RECALL_PAIRS
from nre_ros.evaluation.metrics.summary import recall_key


def headline(summary: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Returns the most important figures of a run.

    Args:
        summary: Summary of the run.

    Returns:
        Value, description, and whether the value is highlighted as bad.
    """
    shares = summary["shares"]
    share = f"{100 * shares['accepted'] / shares['images']:.1f}%" if shares["images"] else "-"
    found = [(share, f"of images have an accepted pose ({shares['accepted']} of {shares['images']})", False)]
    if shares["judged"]:
        position, rotation = summary["position_error_m"], summary["rotation_error_deg"]
        found += [
            (f"{100 * position['median']:.2f} cm", f"and {rotation['median']:.2f}°: median error", False),
            (f"{100 * position['p90']:.2f} cm", f"and {rotation['p90']:.2f}°: 90% of the errors are smaller", False),
            (_percent(summary["recall"][recall_key(*RECALL_PAIRS[0])]), "of images within 5 cm and 5°", False),
            (str(shares["wrong"]), f"wrong poses of {shares['judged']} with ground truth", shares["wrong"] > 0),
        ]
    if "total" in summary["latency_ms"]:
        found.append((f"{summary['latency_ms']['total']['median']:.0f} ms", "per image (median)", False))
    return found


def main_rows(summaries: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Returns the table of counts, errors, recall, trajectory errors and delays.

    Args:
        summaries: Run name to summary.

    Returns:
        Label and one cell per run.
    """
    runs = list(summaries.values())
    limits = [f"{run['wrong_beyond']['metres']:g} m or {run['wrong_beyond']['degrees']:g}°" for run in runs]
    # limits that all runs share are part of the label
    if len(set(limits)) == 1:
        wrong_label, suffixes = f"wrong (beyond {limits[0]})", [""] * len(runs)
    else:
        wrong_label, suffixes = "wrong", [f" beyond {limit}" for limit in limits]

    def row(label: str, cell: Callable[[dict[str, Any]], str]) -> list[str]:
        return [label, *map(cell, runs)]

    rows = [
        row("images", lambda run: str(run["shares"]["images"])),
        row("posed", lambda run: _share_of(run, "posed", "images")),
        row("accepted", lambda run: _share_of(run, "accepted", "images")),
        row("min confidence", lambda run: str(run.get("about", {}).get("min_confidence", "-"))),
        row("with ground truth", lambda run: str(run["shares"]["with_truth"])),
    ]
    if any(run["shares"]["judged"] for run in runs):
        wrong_cells = [_share_of(run, "wrong", "judged") + suffix for run, suffix in zip(runs, suffixes)]
        rows += [
            [wrong_label, *wrong_cells],
            row("position error", lambda run: _percentiles(run["position_error_m"], 100, "cm")),
            row("rotation error", lambda run: _percentiles(run["rotation_error_deg"], 1, "°")),
        ]
        for metres, degrees in RECALL_PAIRS:
            recalls = [_percent(run["recall"][recall_key(metres, degrees)]) for run in runs]
            rows.append([f"recall at {_length(metres)}, {degrees:g}°", *recalls])
        rows += [
            row("APE (RMSE)", lambda run: _rmse(run, "ape")),
            row("APE, aligned (RMSE)", lambda run: _rmse(run, "ape_aligned")),
            row("RPE, pose to pose (RMSE)", lambda run: _rmse(run, "rpe")),
        ]
    rows += [
        row("first good pose after", lambda run: _first_pose(run["delays"])),
        row("losses", lambda run: _losses(run["delays"])),
    ]
    return rows


def calibration_rows(summaries: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Returns the table of the calibration of confidence and covariance.

    Args:
        summaries: Run name to summary.

    Returns:
        Label and one cell per run.
    """
    runs = list(summaries.values())
    rows = [["confidence: expected calibration error", *(_number(run["confidence"], "ece") for run in runs)]]
    for kind in ("position", "pose"):
        for level in ("0.5", "0.9", "0.99"):
            shares = [_percent(run["covariance"][kind]["within"][level]) if run["covariance"] else "-" for run in runs]
            rows.append([f"{kind}: errors inside the {100 * float(level):g}% ellipsoid", *shares])
        scales = [_ratio(run["covariance"][kind]["scale"]) if run["covariance"] else "-" for run in runs]
        rows.append([f"{kind}: measured / reported standard deviation", *scales])
    return rows


def latency_rows(summaries: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Returns the table of the durations of the stages.

    Args:
        summaries: Run name to summary.

    Returns:
        Stage, and median and 99th percentile in milliseconds for each run; the last row is the total.
    """
    runs = list(summaries.values())
    stages = dict.fromkeys(stage for run in runs for stage in run["latency_ms"] if stage != "total")
    return [[stage, *(_duration(run["latency_ms"].get(stage)) for run in runs)] for stage in [*stages, "total"]]


def systematic_rows(summary: dict[str, Any]) -> list[list[str]]:
    """Returns the table of systematic errors with their standard errors.

    Args:
        summary: Summary of a run.

    Returns:
        Label and value.
    """
    rows, offset, delay = [], summary["offset"], summary["delay"]
    if offset:
        for label, key, factor, unit in (
            ("mean error along the map's axes", "map_m", 100, "cm"),
            ("mean error along the camera's axes", "camera_m", 100, "cm"),
            ("mean rotation about the map's axes", "rotation_deg", 1, "°"),
        ):
            values = [f"{factor * v:+.2f} ± {factor * e:.2f}" for v, e in zip(offset[key], offset[f"{key}_error"])]
            rows.append([label, f"{', '.join(values)} {unit}"])
    if delay:
        value = f"{1e3 * delay['seconds']:+.1f} ± {1e3 * delay['error']:.1f} ms"
        rows.append(["delay of the poses relative to the ground truth", value])
    return rows


def join_columns(rows: list[list[str]]) -> list[tuple[str, str]]:
    """Joins the cells of each row, aligned in columns, for a table on the terminal.

    Args:
        rows: Label and one cell per run.

    Returns:
        Label and joined cells.
    """
    widths = [max(len(row[k]) for row in rows) for k in range(1, len(rows[0]))]
    return [(row[0], "  ".join(cell.ljust(width) for cell, width in zip(row[1:], widths)).rstrip()) for row in rows]


def _length(metres: float) -> str:
    return f"{100 * metres:g} cm" if metres < 1 else f"{metres:g} m"


def _share_of(summary: dict[str, Any], part: str, whole: str) -> str:
    count, total = summary["shares"][part], summary["shares"][whole]
    return f"{count} ({100 * count / total:.1f}%)" if total else "-"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"


def _percentiles(values: dict[str, float] | None, factor: float, unit: str) -> str:
    if not values:
        return "-"
    return " / ".join(f"{factor * values[key]:.2f}" for key in ("median", "p90", "p99")) + f" {unit} (50 / 90 / 99%)"


def _rmse(run: dict[str, Any], key: str) -> str:
    found = run["trajectory"][key]
    return "-" if not found else f"{100 * found['position_m']['rmse']:.2f} cm, {found['rotation_deg']['rmse']:.2f}°"


def _first_pose(delays: dict[str, Any]) -> str:
    return "never" if delays["start"] is None else f"{delays['start']:.2f} {delays['unit']}"


def _losses(delays: dict[str, Any]) -> str:
    if not delays["losses"]:
        return "0"
    after = delays["after_loss"]
    text = str(delays["losses"])
    if after:
        text += f", median {median(after):.2f}, longest {max(after):.2f} {delays['unit']}"
    return text + (", the last loss did not end" if delays["unrecovered"] else "")


def _duration(values: dict[str, float] | None) -> str:
    return "-" if values is None else f"{values['median']:.1f}, {values['p99']:.1f}"


def _ratio(scale: float | None) -> str:
    """A ratio; summary.json contains None for an infinite one."""
    return f"{scale:.2f}" if scale is not None and isfinite(scale) else "infinite"


def _number(values: dict[str, Any] | None, key: str) -> str:
    return "-" if not values or values[key] is None else f"{values[key]:.3f}"
