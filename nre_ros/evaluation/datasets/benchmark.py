# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A public benchmark from download to table: maps are built, queries localized, figures laid beside published ones."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from nre_ros.errors import EvaluationError, NreError
from nre_ros.evaluation.datasets.scene import Dataset, Scene
from nre_ros.evaluation.evaluate import Evaluation, Options, evaluate
from nre_ros.keyframes.importers.build_map import build_map
from nre_ros.keyframes.importers.resume_file import source_fingerprint
from nre_ros.keyframes.storage.store import KeyframeStore

TABLE, SUBMISSION = "table.md", "submission.txt"


@dataclass(frozen=True)
class BenchmarkResult:
    """lines: of the table, as markdown; submission: the file for the owners' server, None where there is none."""

    lines: list[str]
    evaluations: dict[str, Evaluation]
    submission: Path | None


def run_benchmark(
    dataset: Dataset, root: Path, options: Options, builder, wanted: tuple[str, ...] = (), queries: int = 0
) -> BenchmarkResult:
    """Builds the map of each scene (kept below ``options.output``), evaluates its queries and writes the table.

    An interrupted run goes on.  queries: evenly spaced ones of each scene, all for 0.  Raises ``EvaluationError`` when
    a map that is there was made of something else and ``options.force`` (which makes it anew) is not set.
    """
    done: dict[str, tuple[Scene, Evaluation]] = {}
    maps: dict[str, Path] = {}
    for scene in dataset.scenes(root, wanted):
        map_file = _map_of(scene, options, builder, maps)
        scene_options = replace(options, map_file=map_file, output=options.output / scene.name)
        done[scene.name] = scene, evaluate(scene.queries.thinned(queries), scene_options)
    lines = table(dataset, {name: evaluation.summary for name, (_, evaluation) in done.items()}, queries)
    path = options.output / TABLE
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    submitted = dataset.submission(done)
    if submitted:
        (options.output / SUBMISSION).write_text("\n".join(submitted) + "\n", encoding="utf-8")
    evaluations = {name: evaluation for name, (_, evaluation) in done.items()}
    return BenchmarkResult(lines, evaluations, options.output / SUBMISSION if submitted else None)


def _map_of(scene: Scene, options: Options, builder, maps: dict[str, Path]) -> Path:
    """The scene's map; scenes whose sources are the same share one."""
    source = source_fingerprint(scene.source, builder)
    if source not in maps:
        path = options.output / f"{scene.name}.db"
        for note in scene.source.notes:
            print(f"note: map of {scene.name}: {note}", file=sys.stderr)
        if not _is_there(path, source, options.force):
            build_map(scene.source, builder, path, force=options.force, progress=options.progress)
        maps[source] = path
    return maps[source]


def _is_there(path: Path, source: str, force: bool) -> bool:
    """Whether the map was made before, of the same; see ``run_benchmark``."""
    if not path.exists():
        return False
    try:
        with KeyframeStore.open(path) as store:
            earlier = json.loads(store.metadata().get("source") or "{}")
    except (NreError, ValueError):
        earlier = {}
    now = json.loads(source)
    different = [key for key in sorted({*earlier, *now}) if earlier.get(key) != now.get(key)]
    if different and not force:
        raise EvaluationError(
            f"map {path} was made with other {', '.join(different)}: --force makes it anew, or choose another folder"
        )
    return not different


def table(dataset: Dataset, summaries: dict[str, dict], queries: int = 0) -> list[str]:
    """The table in markdown: a row a scene and method; published rows only of the scenes that were run."""
    if not summaries:
        raise EvaluationError("no scene was evaluated")
    rows = [("scene", "method", *dataset.columns)]
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
        lines.append(f"Only {queries} evenly spaced queries of each scene: not the benchmark's own figure.")
    return lines
