# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Writes the report of a run, with peers laid over it or not, and of two runs compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nre_ros.errors import EvaluationError, NreError
from nre_ros.evaluation.metrics.outcomes import Outcomes
from nre_ros.evaluation.report import page, tables
from nre_ros.evaluation.report.worst import worst_queries


def write_report(path: Path, runs: dict[str, Outcomes], summary: dict, source, options) -> None:
    """The page of one evaluation; the first of ``runs`` is ours, the others are peers."""
    summaries = {"nre_ros": summary, **summary.get("peers", {})}
    about = summary["about"]
    what = about["input"].get("bag") or about["input"].get("images")
    parts = [
        page.cards(tables.headline(summary)),
        page.notes([*summary["notes"], *summary["findings"]]),
        *_common(runs, summaries, backdrop(options.map_file)),
        page.heading("Systematic errors"),
        page.table(["", "mean ± standard error"], tables.systematic_rows(summary))
        if summary["offset"]
        else page.paragraph("Too few poses with truth."),
        *([page.heading("The worst images")] if options.worst else []),
        *(
            page.picture(runs["nre_ros"].names[entry.index], entry.why, entry.picture)
            for entry in worst_queries(source, options, runs["nre_ros"])
        ),
        page.heading("How it was run"),
        page.table(["", ""], _about_rows(summary)),
    ]
    _write(path, page.page(f"Localization in {Path(about['map']['path']).name}", f"Images of {what}", parts))


def write_comparison(path: Path, runs: dict[str, Outcomes], summaries: dict[str, dict]) -> None:
    """The page of two (or more) evaluations laid over each other."""
    first = next(iter(summaries.values()))
    try:
        behind = backdrop(Path(first["about"]["map"]["path"]))
    except NreError:
        behind = None  # the figures stand without it
    rows = [
        [name, _input(summary), Path(summary["about"]["map"]["path"]).name, f"{summary['about']['seed']}"]
        for name, summary in summaries.items()
    ]
    parts = [
        page.table(["run", "images", "map", "seed"], rows),
        page.notes(
            [
                f"{name}: {line}"
                for name, summary in summaries.items()
                for line in (*summary["notes"], *summary["findings"])
            ]
        ),
        *_common(runs, summaries, behind),
    ]
    _write(path, page.page(" against ".join(runs), "Two evaluations laid over each other", parts))


def _common(runs: dict[str, Outcomes], summaries: dict[str, dict], behind) -> list[str]:
    """What a report and a comparison both show."""
    from nre_ros.evaluation.report import figures

    first, names = next(iter(runs.values())), list(runs)
    parts = [page.table(["", *names], tables.main_rows(summaries))]
    for name, summary in summaries.items():
        if summary["reasons"]:
            whose = f" ({name})" if len(runs) > 1 else ""
            parts += [
                page.heading(f"Why there is no accepted pose{whose}"),
                page.table(["images", "reason"], [[str(n), reason] for reason, n in summary["reasons"].items()]),
            ]
    parts += [
        page.heading("The way from above"),
        page.figure(
            figures.from_above(runs, behind),
            "Grey: the map's points and keyframes, with the way they look. Black: the truth.",
        ),
    ]
    known = first.known.any()
    if known:
        parts += [
            page.heading("Errors"),
            page.figure(
                figures.over_time(runs),
                "Errors of accepted poses; crosses at the top are images without one, triangles are wrong poses.",
            ),
            page.figure(
                figures.cumulative(runs),
                "Share of the images with truth whose accepted pose is off by no "
                "more than the value below; dotted: the recall pairs.",
            ),
        ]
    parts += [
        page.heading("Time"),
        page.figure(figures.times(runs), "Milliseconds of each stage; values are medians."),
        page.table(["stage", *(f"{name}: median, 99% [ms]" for name in names)], tables.latency_rows(summaries)),
    ]
    if known:
        parts += [
            page.heading("Calibration"),
            page.figure(
                figures.calibration(runs),
                "Left: how often poses of a confidence are right. Right: which "
                "share of the errors the covariance's ellipsoids hold. On the diagonal both mean what they "
                "say; a curve below it is overconfident.",
            ),
            page.table(["", *names], tables.calibration_rows(summaries)),
        ]
    return parts


def backdrop(map_file: Path):
    """The map as ``figures.from_above`` wants it, in the plane that is level in it."""
    from nre_ros.evaluation.report.figures import Backdrop
    from nre_ros.keyframes.storage.store import KeyframeStore
    from nre_ros.pictures.map_view import sample_map

    with KeyframeStore.open(map_file) as store:
        sample = sample_map(store)
    up = sample.up
    if up[2] > 0.7:  # level maps: cameras that look down a little must not tilt it
        plane = np.eye(3)[:2]
    else:
        right = np.cross([0.0, 1.0, 0.0] if abs(up[1]) < 0.9 else [0.0, 0.0, 1.0], up)
        right /= np.linalg.norm(right)
        plane = np.stack([right, np.cross(up, right)])
    points = sample.points[:: max(1, len(sample.points) // 15_000)]
    return Backdrop(sample.poses[:, :3, 3] @ plane.T, sample.poses[:, :3, 2] @ plane.T, points @ plane.T, plane)


def _input(summary: dict) -> str:
    about = summary["about"]["input"]
    through = ", through ROS" if "through_ros" in summary["about"] else ""
    return Path(about.get("bag") or about.get("images")).name + through


def _about_rows(summary: dict) -> list[list[str]]:
    about = summary["about"]
    rows = [
        ["map", about["map"]["path"]],
        ["keyframes", str(about["map"]["keyframes"])],
        ["features", about["map"]["features"]],
        ["made", about["map"]["created"]],
    ]
    rows += [[key.replace("_", " "), str(value)] for key, value in about["input"].items()]
    rows += [
        ["ground truth", str(about["ground_truth"])],
        ["min confidence", f"{about['min_confidence']}"],
        ["seed", str(about["seed"])],
        ["device", about["device"]],
        ["keyframes a query", str(about["retrieve"])],
        ["nre_ros", about["nre_ros"]],
    ]
    if "through_ros" in summary:
        sent = summary["through_ros"]
        rows.append(
            [
                "through ROS",
                f"{about['through_ros']['rate']:g} times real time; the node took "
                f"{sent['images_taken']} of {sent['images_sent']} images (the newest wins)",
            ]
        )
        rows += [[f"node: {name}", value] for name, value in about["through_ros"]["parameters"].items()]
    return rows


def _write(path: Path, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise EvaluationError(f"{path} cannot be written: {error.strerror}") from error
