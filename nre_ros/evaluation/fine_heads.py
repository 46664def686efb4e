# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Evaluates fine heads beside each other: the same images, one map for each head."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from nre_ros.evaluation.datasets.benchmark import can_reuse_map, run_benchmark
from nre_ros.evaluation.datasets.dataset import Dataset
from nre_ros.evaluation.evaluate import Evaluation, evaluate
from nre_ros.evaluation.inputs import EvaluationInput
from nre_ros.evaluation.options import EvaluationOptions
from nre_ros.evaluation.report.write import write_comparison
from nre_ros.evaluation.result_files import write_json
from nre_ros.features import DEFAULT_BACKBONE, FeatureBackbone, choose_device, load_backbone
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.importers.build_map import build_map
from nre_ros.keyframes.importers.rebuild_source import RebuildSource, named_images, recorded_images
from nre_ros.keyframes.importers.resume_file import source_fingerprint
from nre_ros.keyframes.storage.store import KeyframeStore

PACKAGED = "packaged"
"""Name of the head that ships with the package, in tables and folders."""
FIGURES = "figures.json"
PAGE = "comparison.html"

Heads: TypeAlias = "Mapping[str, Path | None]"
"""Name -> file of a fine head; None for the packaged one."""
Comparison: TypeAlias = "dict[str, dict[str, Evaluation]]"
"""Scene -> name of the head -> evaluation."""


def name_heads(files: Sequence[Path]) -> dict[str, Path | None]:
    """Names fine heads by their files, the packaged one included, for tables and folders.

    Args:
        files: The heads' files. A file that has the default name is named by its folder.

    Returns:
        Name -> file, each name once; first the packaged head.
    """
    heads: dict[str, Path | None] = {PACKAGED: None}
    for file in files:
        name = file.stem if file.stem != "fine_head" else file.resolve().parent.name or file.stem
        while name in heads:
            name += "'"
        heads[name] = file
    return heads


def compare_on_dataset(
    dataset: Dataset,
    root: Path,
    heads: Heads,
    options: EvaluationOptions,
    names: Sequence[str] = (),
    queries: int = 0,
    points: int = 500,
) -> Comparison:
    """Builds the maps of a data set with each head, and localizes the queries. An interrupted run is continued.

    Args:
        dataset: The data set.
        root: Its folder.
        heads: The heads.
        options: Options of the evaluations; everything is written into ``options.output``.
        names: Names of the scenes to use, all if empty.
        queries: Number of evenly spaced queries of each scene, 0 for all.
        points: Points of a keyframe.

    Returns:
        The evaluations.

    Raises:
        NreError: A head or the data set cannot be used.
    """
    backbones = _backbones(heads, options)
    found: Comparison = {}
    for name, head in heads.items():
        print(f"fine head: {name}", file=sys.stderr)
        builder = KeyframeBuilder(backbones[name], points, seed=options.seed)
        of_head = replace(options, output=options.output / name, fine_head=head)
        for scene, done in run_benchmark(dataset, root, of_head, builder, names, queries).evaluations.items():
            found.setdefault(scene, {})[name] = done
    _write(found, options.output)
    return found


def compare_on_map(
    source: EvaluationInput,
    heads: Heads,
    options: EvaluationOptions,
    images: Sequence[Path | str] = (),
    topic: str = "",
) -> Comparison:
    """Rebuilds a map with each head from its images, and localizes the queries. An interrupted run is continued.

    Keyframes and points stay those of the map; only the descriptors are computed again.

    Args:
        source: Query images.
        heads: The heads.
        options: Options of the evaluations, whose ``map_file`` is rebuilt; everything is written into
            ``options.output``.
        images: Folders or bags with the map's images; by default where they were when the map was built.
        topic: Topic of the images in a bag.

    Returns:
        The evaluations, of one scene with the name of the map.

    Raises:
        NreError: A head, the map or its images cannot be used, or the inputs do not fit together.
    """
    backbones = _backbones(heads, options)
    done: dict[str, Evaluation] = {}
    for name, head in heads.items():
        print(f"fine head: {name}", file=sys.stderr)
        rebuilt = options.output / name / options.map_file.name
        _rebuild(options, rebuilt, KeyframeBuilder(backbones[name], seed=options.seed), images, topic)
        folder = options.output / name / options.map_file.stem
        done[name] = evaluate(source, replace(options, map_file=rebuilt, output=folder, fine_head=head))
    found = {options.map_file.stem: done}
    _write(found, options.output)
    return found


def _backbones(heads: Heads, options: EvaluationOptions) -> dict[str, FeatureBackbone]:
    """The networks with each head: a head that cannot be used is reported before anything is computed."""
    device = choose_device(options.device)
    return {name: load_backbone(DEFAULT_BACKBONE, device, head) for name, head in heads.items()}


def _rebuild(
    options: EvaluationOptions, path: Path, builder: KeyframeBuilder, images: Sequence[Path | str], topic: str
) -> None:
    with KeyframeStore.open(options.map_file, cache_bytes=0) as store:
        places = list(images) or recorded_images(store)
        with closing(RebuildSource(store, [named_images(place, topic) for place in places])) as source:
            if not can_reuse_map(path, source_fingerprint(source, builder), options.force):
                warning = store.metadata().get("warning", "")
                build_map(source, builder, path, options.force, options.progress, warning=warning)


def _write(found: Comparison, output: Path) -> None:
    """Writes a page for each scene, and the most important figures of all."""
    figures = {}
    for scene, runs in found.items():
        summaries = {name: done.summary for name, done in runs.items()}
        write_comparison(output / f"{scene}_{PAGE}", {name: done.results for name, done in runs.items()}, summaries)
        figures[scene] = {
            name: {key: summary[key] for key in ("shares", "median_of_all", "position_error_m", "recall")}
            for name, summary in summaries.items()
        }
    write_json(output / FIGURES, figures)
