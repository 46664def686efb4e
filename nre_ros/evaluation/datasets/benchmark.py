# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs a public benchmark: builds the maps, localizes the queries, and compares the figures with published ones."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nre_ros.errors import EvaluationError, NreError
from nre_ros.evaluation.datasets.dataset import Dataset, Scene
from nre_ros.evaluation.evaluate import Evaluation, evaluate
from nre_ros.evaluation.options import EvaluationOptions
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.importers.build_map import build_map
from nre_ros.keyframes.importers.resume_file import source_fingerprint
from nre_ros.keyframes.storage.store import KeyframeStore

TABLE, SUBMISSION = "table.md", "submission.txt"


@dataclass(frozen=True)
class BenchmarkResult:
    """The result of a benchmark.

    Attributes:
        lines: Lines of the table in Markdown.
        evaluations: Scene name to evaluation.
        submission: File for the server of the benchmark's owners, None if there is none.
    """

    lines: list[str]
    evaluations: dict[str, Evaluation]
    submission: Path | None


def run_benchmark(
    dataset: Dataset,
    root: Path,
    options: EvaluationOptions,
    builder: KeyframeBuilder,
    names: Sequence[str] = (),
    queries: int = 0,
) -> BenchmarkResult:
    """Builds the map of each scene, evaluates its queries, and writes the table. An interrupted run is continued.

    Args:
        dataset: The benchmark.
        root: Folder of the data set.
        options: Options of the evaluations; maps, reports and the table are written into ``options.output``.
        builder: Builder of the maps' keyframes.
        names: Names of the scenes to run, all if empty.
        queries: Number of evenly spaced queries of each scene, 0 for all.

    Returns:
        The result.

    Raises:
        NreError: The data set is incomplete, or an existing map was built from other images or with other options and
            ``options.force`` is not set.
    """
    evaluations: dict[str, Evaluation] = {}
    maps: dict[str, Path] = {}
    for scene in dataset.scenes(root, names):
        map_file = _build_map(scene, options, builder, maps)
        scene_options = replace(options, map_file=map_file, output=options.output / scene.name)
        evaluations[scene.name] = evaluate(scene.queries.subset(queries), scene_options)
    lines = format_table(dataset, {name: done.summary for name, done in evaluations.items()}, queries)
    _write_lines(options.output / TABLE, lines)
    submission = dataset.submission(done.results for done in evaluations.values())
    if submission:
        _write_lines(options.output / SUBMISSION, submission)
    return BenchmarkResult(lines, evaluations, options.output / SUBMISSION if submission else None)


def _build_map(scene: Scene, options: EvaluationOptions, builder: KeyframeBuilder, maps: dict[str, Path]) -> Path:
    """The scene's map. Scenes with the same source share one map."""
    source = source_fingerprint(scene.source, builder)
    if source not in maps:
        path = options.output / f"{scene.name}.db"
        for note in scene.source.notes:
            print(f"note: map of {scene.name}: {note}", file=sys.stderr)
        if not can_reuse_map(path, source, options.force):
            build_map(scene.source, builder, path, force=options.force, progress=options.progress)
        maps[source] = path
    return maps[source]


def can_reuse_map(path: Path, source: str, force: bool) -> bool:
    """Decides whether an existing map can be used again.

    Args:
        path: Map file.
        source: Description of the images and options that the map must be built from, as JSON.
        force: Whether a different map may be replaced.

    Returns:
        True if the map exists and was built from the same images with the same options.

    Raises:
        EvaluationError: The map is different and ``force`` is not set.
    """
    if not path.exists():
        return False
    try:
        with KeyframeStore.open(path) as store:
            earlier = json.loads(store.metadata().get("source") or "{}")
    except (NreError, ValueError):
        earlier = {}
    if not isinstance(earlier, dict):
        earlier = {}
    now = json.loads(source)
    different = [key for key in sorted({*earlier, *now}) if earlier.get(key) != now.get(key)]
    if different and not force:
        raise EvaluationError(
            f"map {path} was built with other {', '.join(different)}: --force builds the map again, or use another "
            "output folder"
        )
    return not different


def format_table(dataset: Dataset, summaries: dict[str, dict[str, Any]], queries: int = 0) -> list[str]:
    """Formats the table of a benchmark in Markdown, with published figures for the scenes that were run.

    Args:
        dataset: The benchmark.
        summaries: Scene name to summary of its evaluation.
        queries: Number of queries of each scene, 0 for all.

    Returns:
        The lines of the table and of its notes.

    Raises:
        EvaluationError: There is no scene.
    """
    if not summaries:
        raise EvaluationError("no scene was evaluated")
    rows: list[tuple[str, ...]] = [("scene", "method", *dataset.columns)]
    for name, summary in summaries.items():
        rows.append((name, "nre_ros", *dataset.cells(summary)))
        for other in dataset.published:
            if name in other.cells:
                cells = other.cells[name]
                rows.append((name, f"{other.method} (published)", *cells, *[""] * (len(dataset.columns) - len(cells))))
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    lines += ["", *(f"{other.method}: {other.source}." for other in dataset.published), *dataset.notes]
    if queries:
        lines.append(f"Only {queries} evenly spaced queries of each scene: not comparable with published figures.")
    return lines


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
