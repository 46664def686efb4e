# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A whole evaluation: localize the images, join the records with the ground truth, and write figures and a report."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nre_ros import __version__
from nre_ros.errors import EvaluationError
from nre_ros.evaluation.bag_input import BagInput
from nre_ros.evaluation.ground_truth import check_association
from nre_ros.evaluation.inputs import EvaluationInput
from nre_ros.evaluation.localize_queries import localize_queries, nre_method
from nre_ros.evaluation.metrics import QueryResults, collect_results, summarize
from nre_ros.evaluation.options import EvaluationOptions
from nre_ros.evaluation.output_folder import OUTCOMES, POSES, RECORDS, REPORT, SUMMARY, prepare_output_folder
from nre_ros.evaluation.records import RecordFile, read_records
from nre_ros.evaluation.result_files import write_csv, write_json, write_tum
from nre_ros.features import choose_device
from nre_ros.keyframes.importers.text_files import digest
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.localization import confidence
from nre_ros.localization.localizer import Localizer

if TYPE_CHECKING:
    from nre_ros.evaluation.baselines.map_images import MapImages


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation.

    Attributes:
        results: Results of this project's localizer.
        summary: All figures, the content of ``summary.json``.
        report: Path of the report.
    """

    results: QueryResults
    summary: dict[str, Any]
    report: Path


def evaluate(source: EvaluationInput, options: EvaluationOptions) -> Evaluation:
    """Runs an evaluation, or continues an interrupted one, and writes its files into ``options.output``.

    Args:
        source: Query images.
        options: Options of the evaluation.

    Returns:
        The finished evaluation.

    Raises:
        NreError: The inputs do not fit together. Images that were localized before stay recorded.
    """
    with KeyframeStore.open(options.map_file) as store:
        about = describe_run(source, options, store)
        # ground truth and map images are checked before hours of localizing
        association = source.ground_truth(options, about["map"]["frame"])
        map_images = _open_map_images(store, options)
    prepare_output_folder(options.output, about, options.force)
    _localize(source, options)

    # the node decides with its own parameter: all poses that it reports are accepted
    min_confidence = 0.0 if options.through_ros else options.min_confidence
    records = read_records(options.output / RECORDS)
    results = collect_results(records, association.lookup, min_confidence, options.wrong_beyond)
    trajectory = association.trajectory
    if trajectory is not None:
        check_association(bool(results.has_ground_truth.any()), results.stamps, trajectory, options.max_gap)

    summary = {
        "about": {**about, "min_confidence": used_min_confidence(options, about), "ground_truth": association.source},
        "notes": [*source.notes, *(trajectory.notes if trajectory else ()), *source.damage],
        **summarize(results),
    }
    if options.through_ros:
        from nre_ros.evaluation.through_ros import count_sent_images

        summary["through_ros"] = {"images_sent": count_sent_images(options.output), "images_taken": len(results)}
    _write_results(options.output, results, summary)  # before the baselines, which take long

    runs = {"nre_ros": results}
    if map_images is not None:
        from nre_ros.evaluation.baselines.run_baselines import run_baselines

        runs |= run_baselines(source, options, association.lookup, map_images)
        summary["baselines"] = {name: summarize(run) for name, run in runs.items() if name != "nre_ros"}
        write_json(options.output / SUMMARY, summary)
    return Evaluation(results, summary, _write_report(source, options, runs, summary))


def describe_run(source: EvaluationInput, options: EvaluationOptions, store: KeyframeStore) -> dict[str, Any]:
    """Describes everything that the records of a run depend on.

    Args:
        source: Query images.
        options: Options of the evaluation.
        store: Map.

    Returns:
        Plain JSON values, the content of ``run.json``.
    """
    metadata = store.metadata()
    about: dict[str, Any] = {
        "nre_ros": __version__,
        "map": {
            "path": str(store.path.resolve()),
            "created": metadata["created"],
            "bytes": store.path.stat().st_size,
            "keyframes": len(store),
            "frame": metadata["frame_id"],
            "features": metadata["backbone"],
        },
        "input": {**source.describe(), "every": source.every},
        "seed": options.seed,
        "retrieve": options.retrieve,
        "device": str(choose_device(options.device)),
        "config": repr(options.config),
        "weights_hash": metadata["weights_hash"],  # of the network
        "confidence_model": digest(confidence.MODEL_FILE),
        "baselines": None,
    }
    if options.baselines:
        about["baselines"] = {
            name: str(path.resolve()) if path else None
            for name, path in (("map_images", options.map_images), ("map_depth", options.map_depth))
        }
    if options.through_ros:
        from nre_ros.evaluation.through_ros import node_parameters

        parameters = node_parameters(options)
        about |= {name: parameters[name] for name in ("seed", "retrieve", "device")}
        about["through_ros"] = {"rate": options.rate, "parameters": parameters}
    return about


def used_min_confidence(options: EvaluationOptions, about: dict[str, Any]) -> float | str:
    """Returns the smallest confidence of an accepted pose, for the report.

    Args:
        options: Options of the evaluation.
        about: Description of the run.

    Returns:
        The option, or the node's parameter of a session through ROS.
    """
    if options.through_ros:
        return str(about["through_ros"]["parameters"]["min_confidence"])
    return options.min_confidence


def _open_map_images(store: KeyframeStore, options: EvaluationOptions) -> MapImages | None:
    """The map's images, which baselines need; None without baselines."""
    if not options.baselines or options.map_images is None:
        return None
    from nre_ros.evaluation.baselines.map_images import MapImages

    return MapImages(store, options.map_images, options.map_depth)


def _localize(source: EvaluationInput, options: EvaluationOptions) -> None:
    """Records the images that are not recorded yet."""
    if options.through_ros:
        from nre_ros.evaluation.through_ros import record_session

        if not isinstance(source, BagInput):
            raise EvaluationError("an evaluation through ROS needs a bag")
        record_session(source, options)
        return
    path = options.output / RECORDS
    with RecordFile(path) as records:
        if len(records.done) >= len(source):
            return
    with Localizer(
        options.map_file, options.device, options.seed, options.retrieve, 0.0, options.config, options.fine_head
    ) as localizer:
        localizer.warm_up()
        localize_queries(nre_method(localizer), source.queries(), path, len(source), progress=options.progress)


def _write_results(folder: Path, results: QueryResults, summary: dict[str, Any]) -> None:
    write_csv(folder / OUTCOMES, results)
    write_tum(folder / POSES, results)
    write_json(folder / SUMMARY, summary)


def _write_report(
    source: EvaluationInput, options: EvaluationOptions, runs: dict[str, QueryResults], summary: dict[str, Any]
) -> Path:
    from nre_ros.evaluation.report.write import write_report

    for line in [*summary["notes"], *summary["findings"]]:
        print(f"note: {line}", file=sys.stderr)
    path = options.output / REPORT
    write_report(path, runs, summary, source, options)
    return path
