# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The figures of a summary in words: cards, and tables with a column a run."""

from __future__ import annotations

from math import isfinite
from statistics import median

from nre_ros.evaluation.metrics.basic import RECALL_PAIRS


def headline(summary: dict) -> list[tuple[str, str, bool]]:
    """The few figures that say how it went: value, what, whether it is bad news."""
    shares = summary["shares"]
    share = f"{100 * shares['accepted'] / shares['images']:.1f}%" if shares["images"] else "-"
    found = [(share, f"accepted: {shares['accepted']} of {shares['images']} images have a pose", False)]
    if shares["judged"]:
        position, rotation = summary["position_error_m"], summary["rotation_error_deg"]
        found += [
            (f"{100 * position['median']:.2f} cm", f"and {rotation['median']:.2f}°: median error", False),
            (f"{100 * position['p90']:.2f} cm", f"and {rotation['p90']:.2f}°: 90% below", False),
            (f"{100 * summary['recall'][pair_name(*RECALL_PAIRS[0])]:.1f}%", "of images within 5 cm and 5°", False),
            (str(shares["wrong"]), f"wrong poses of {shares['judged']} with truth", shares["wrong"] > 0),
        ]
    if "total" in summary["latency_ms"]:
        found.append((f"{summary['latency_ms']['total']['median']:.0f} ms", "an image (median)", False))
    return found


def main_rows(summaries: dict[str, dict]) -> list[list[str]]:
    """What was reached, a row each, a column a run."""
    runs = list(summaries.values())
    limits = [f"{run['wrong_beyond']['metres']:g} m or {run['wrong_beyond']['degrees']:g}°" for run in runs]
    # one for all is said once
    label, each = (
        (f" (beyond {limits[0]})", [""] * len(runs))
        if len(set(limits)) == 1
        else ("", [f" beyond {limit}" for limit in limits])
    )
    rows = [
        ["images", *(str(run["shares"]["images"]) for run in runs)],
        ["posed", *(_share_of(run, "posed", "images") for run in runs)],
        ["accepted", *(_share_of(run, "accepted", "images") for run in runs)],
        ["min confidence", *(str(run.get("about", {}).get("min_confidence", "-")) for run in runs)],
        ["with truth", *(str(run["shares"]["with_truth"]) for run in runs)],
    ]
    if any(run["shares"]["judged"] for run in runs):
        rows += [
            [f"wrong{label}", *(_share_of(run, "wrong", "judged") + limit for run, limit in zip(runs, each))],
            ["position error", *(_spread(run["position_error_m"], 100, "cm") for run in runs)],
            ["rotation error", *(_spread(run["rotation_error_deg"], 1, "°") for run in runs)],
        ]
        rows += [
            [
                f"recall at {_length(metres)}, {degrees:g}°",
                *(_percent(run["recall"][pair_name(metres, degrees)]) for run in runs),
            ]
            for metres, degrees in RECALL_PAIRS
        ]
        kinds = {"APE (RMSE)": "ape", "APE, aligned (RMSE)": "ape_aligned", "RPE, pose to pose (RMSE)": "rpe"}
        rows += [[label, *(_rmse(run, key) for run in runs)] for label, key in kinds.items()]
    rows += [
        ["first good pose after", *(_start(run["delays"]) for run in runs)],
        ["losses", *(_losses(run["delays"]) for run in runs)],
    ]
    return rows


def calibration_rows(summaries: dict[str, dict]) -> list[list[str]]:
    """Expected calibration error, and what the ellipsoids hold."""
    runs = list(summaries.values())
    rows = [["confidence: expected calibration error", *(_number(run["confidence"], "ece") for run in runs)]]
    for kind in ("position", "pose"):
        for level in ("0.5", "0.9", "0.99"):
            rows.append(
                [
                    f"{kind}: within the {100 * float(level):g}% ellipsoid",
                    *(_percent(run["covariance"][kind]["within"][level]) if run["covariance"] else "-" for run in runs),
                ]
            )
        rows.append(
            [
                f"{kind}: standard deviations are too small by",
                *(_times(run["covariance"][kind]["scale"]) if run["covariance"] else "-" for run in runs),
            ]
        )
    return rows


def latency_rows(summaries: dict[str, dict]) -> list[list[str]]:
    """Stage, and median, 99th percentile for each run, in milliseconds."""
    runs = list(summaries.values())
    stages = dict.fromkeys(stage for run in runs for stage in run["latency_ms"] if stage != "total")
    return [
        [
            stage,
            *(
                f"{run['latency_ms'][stage]['median']:.1f}, {run['latency_ms'][stage]['p99']:.1f}"
                if stage in run["latency_ms"]
                else "-"
                for run in runs
            ),
        ]
        for stage in [*stages, "total"]
    ]


def systematic_rows(summary: dict) -> list[list[str]]:
    """Offset and delay with their standard errors."""
    rows, found = [], summary["offset"]
    if found:
        for label, key, factor, unit in (
            ("mean error along the map's axes", "map_m", 100, "cm"),
            ("... along the camera's axes", "camera_m", 100, "cm"),
            ("mean rotation about the map's axes", "rotation_deg", 1, "°"),
        ):
            values = [f"{factor * v:+.2f} ± {factor * e:.2f}" for v, e in zip(found[key], found[f"{key}_error"])]
            rows.append([label, f"{', '.join(values)} {unit}"])
    if summary["delay"]:
        rows.append(
            [
                "delay of the poses against the truth",
                f"{1e3 * summary['delay']['seconds']:+.1f} ± {1e3 * summary['delay']['error']:.1f} ms",
            ]
        )
    return rows


def pair_name(metres: float, degrees: float) -> str:
    """A recall pair as summary.json names it."""
    return f"{metres:g} m, {degrees:g} deg"


def _length(metres: float) -> str:
    return f"{100 * metres:g} cm" if metres < 1 else f"{metres:g} m"


def _share_of(summary: dict, what: str, of: str) -> str:
    part, whole = summary["shares"][what], summary["shares"][of]
    return f"{part} ({100 * part / whole:.1f}%)" if whole else "-"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"


def _spread(values: dict | None, factor: float, unit: str) -> str:
    if not values:
        return "-"
    return " / ".join(f"{factor * values[key]:.2f}" for key in ("median", "p90", "p99")) + f" {unit} (50 / 90 / 99%)"


def _rmse(run: dict, key: str) -> str:
    found = run["trajectory"][key]
    return "-" if not found else f"{100 * found['position_m']['rmse']:.2f} cm, {found['rotation_deg']['rmse']:.2f}°"


def _start(delays: dict) -> str:
    return "never" if delays["start"] is None else f"{delays['start']:.2f} {delays['unit']}"


def _losses(delays: dict) -> str:
    if not delays["losses"]:
        return "0"
    after = delays["after_loss"]
    middle = f", median {median(after):.2f}, longest {max(after):.2f} {delays['unit']}" if after else ""
    return f"{delays['losses']}{middle}" + (", the last one to the end" if delays["unrecovered"] else "")


def _times(scale: float | None) -> str:
    """None is what summary.json has for infinity."""
    return f"{scale:.2f} times" if scale is not None and isfinite(scale) else "infinitely"


def _number(values: dict | None, key: str) -> str:
    return "-" if not values or values[key] is None else f"{values[key]:.3f}"
