# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Writes the report of a run, with or without baselines, and the comparison of several runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nre_ros.errors import EvaluationError, NreError
from nre_ros.evaluation.inputs import EvaluationInput
from nre_ros.evaluation.metrics import QueryResults
from nre_ros.evaluation.options import EvaluationOptions
from nre_ros.evaluation.report import figures, tables
from nre_ros.evaluation.report.top_view import draw_top_view
from nre_ros.evaluation.report.worst_queries import worst_queries
from nre_ros.pictures import page
from nre_ros.pictures.top_view import MapTopView, project_map


def write_report(
    path: Path,
    runs: dict[str, QueryResults],
    summary: dict[str, Any],
    source: EvaluationInput,
    options: EvaluationOptions,
) -> None:
    """Writes the report of an evaluation.

    Args:
        path: HTML file to write.
        runs: Run name to results: ``nre_ros`` first, followed by the baselines.
        summary: Summary of the evaluation.
        source: Query images, for the pictures of the worst ones.
        options: Options of the evaluation.

    Raises:
        EvaluationError: The file cannot be written.
    """
    summaries = {"nre_ros": summary, **summary.get("baselines", {})}
    about, results = summary["about"], runs["nre_ros"]
    parts = [
        page.cards(tables.headline(summary)),
        page.notes([*summary["notes"], *summary["findings"]]),
        *_common_parts(runs, summaries, project_map(options.map_file)),
        page.heading("Systematic errors"),
        page.table(["", "mean ± standard error"], tables.systematic_rows(summary))
        if summary["offset"]
        else page.paragraph("There are too few poses with ground truth to estimate systematic errors."),
    ]
    if options.worst:
        parts.append(page.heading("The worst images"))
        parts += [
            page.picture(results.names[query.index], query.explanation, query.picture)
            for query in worst_queries(source, options, results)
        ]
    parts += [page.heading("How the evaluation was run"), page.table(["", ""], _about_rows(summary))]
    subtitle = f"Images of {_images(summary)}"
    _write(path, page.page(f"Localization in {Path(about['map']['path']).name}", subtitle, parts))


def write_comparison(path: Path, runs: dict[str, QueryResults], summaries: dict[str, dict[str, Any]]) -> None:
    """Writes the comparison of two or more evaluations.

    Args:
        path: HTML file to write.
        runs: Run name to results.
        summaries: Run name to summary.

    Raises:
        EvaluationError: A summary lacks figures, or the file cannot be written.
    """
    for name, summary in summaries.items():
        _check_summary(name, summary)
    first = next(iter(summaries.values()))
    view: MapTopView | None
    try:
        view = project_map(Path(first["about"]["map"]["path"]))
    except NreError:
        view = None  # the comparison does not need the map
    overview = [
        [name, _short_images(summary), Path(summary["about"]["map"]["path"]).name, f"{summary['about']['seed']}"]
        for name, summary in summaries.items()
    ]
    notes = [
        f"{name}: {line}" for name, summary in summaries.items() for line in (*summary["notes"], *summary["findings"])
    ]
    parts = [
        page.table(["run", "images", "map", "seed"], overview),
        page.notes(notes),
        *_common_parts(runs, summaries, view),
    ]
    _write(path, page.page(" compared with ".join(runs), "Comparison of evaluations", parts))


def _check_summary(name: str, summary: dict[str, Any]) -> None:
    """Raises ``EvaluationError`` unless a summary has all figures that a comparison shows."""
    try:
        for rows in (tables.main_rows, tables.calibration_rows, tables.latency_rows):
            rows({name: summary})
        texts = [*summary["notes"], *summary["findings"], *summary["reasons"].keys(), summary["about"]["map"]["path"]]
        whole = all(isinstance(text, str) for text in texts)
        _short_images(summary), summary["about"]["seed"]
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        whole = False
    if not whole:
        raise EvaluationError(f"run {name}: its summary.json is damaged or of another version: evaluate again")


def _common_parts(
    runs: dict[str, QueryResults], summaries: dict[str, dict[str, Any]], view: MapTopView | None
) -> list[str]:
    """The parts that a report and a comparison share."""
    first, names = next(iter(runs.values())), list(runs)
    parts = [page.table(["", *names], tables.main_rows(summaries))]
    for name, summary in summaries.items():
        if summary["reasons"]:
            suffix = f" ({name})" if len(runs) > 1 else ""
            parts += [
                page.heading(f"Why images have no accepted pose{suffix}"),
                page.table(["images", "reason"], [[str(n), reason] for reason, n in summary["reasons"].items()]),
            ]
    parts += [
        page.heading("Top view"),
        page.figure(
            draw_top_view(runs, view),
            "Grey: points and keyframes of the map, with their viewing directions. Black: ground-truth trajectory.",
        ),
    ]
    has_ground_truth = first.has_ground_truth.any()
    if has_ground_truth:
        parts += [
            page.heading("Errors"),
            page.figure(
                figures.errors_over_time(runs),
                "Errors of the accepted poses over time. Crosses at the top mark images without an accepted pose, "
                "triangles mark wrong poses.",
            ),
            page.figure(
                figures.cumulative_errors(runs),
                "Share of the images with ground truth whose accepted pose has at most the error on the horizontal axis. "
                "Dotted lines mark the recall thresholds.",
            ),
        ]
    parts += [
        page.heading("Durations"),
        page.figure(figures.stage_durations(runs), "Duration of each stage in milliseconds. The numbers are medians."),
        page.table(["stage", *(f"{name}: median, 99% [ms]" for name in names)], tables.latency_rows(summaries)),
    ]
    if has_ground_truth:
        parts += [
            page.heading("Calibration"),
            page.figure(
                figures.calibration(runs),
                "Left: share of right poses for each confidence. Right: share of the errors inside the covariance "
                "ellipsoid of each probability. On the diagonal, confidence and covariance are right. A curve below "
                "the diagonal is overconfident.",
            ),
            page.table(["", *names], tables.calibration_rows(summaries)),
        ]
    return parts


def _images(summary: dict[str, Any]) -> str:
    """Path of the bag, of the image folder or of the data set."""
    about = summary["about"]["input"]
    return str(about.get("bag") or about.get("images"))


def _short_images(summary: dict[str, Any]) -> str:
    return Path(_images(summary)).name + (", through ROS" if "through_ros" in summary["about"] else "")


def _about_rows(summary: dict[str, Any]) -> list[list[str]]:
    about = summary["about"]
    rows = [
        ["map", about["map"]["path"]],
        ["keyframes of the map", str(about["map"]["keyframes"])],
        ["features of the map", about["map"]["features"]],
        ["map created", about["map"]["created"]],
    ]
    rows += [[key.replace("_", " "), str(value)] for key, value in about["input"].items()]
    rows += [
        ["ground truth", str(about["ground_truth"] or "none")],
        ["min confidence", f"{about['min_confidence']}"],
        ["seed", str(about["seed"])],
        ["device", about["device"]],
        ["keyframes retrieved per query", str(about["retrieve"])],
        ["version of nre_ros", about["nre_ros"]],
    ]
    if "through_ros" in summary:
        counts, session = summary["through_ros"], about["through_ros"]
        rows.append(
            [
                "through ROS",
                f"Played at {session['rate']:g} times real time. The node processed {counts['images_taken']} of "
                f"{counts['images_sent']} images; it always processes the newest image.",
            ]
        )
        rows += [[f"node: {name}", value] for name, value in session["parameters"].items()]
    return rows


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be written ({error.strerror})") from error
