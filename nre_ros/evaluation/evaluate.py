# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The whole evaluation: images localized, joined with the ground truth, and reported."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nre_ros import __version__
from nre_ros.errors import EvaluationError
from nre_ros.evaluation import ground_truth as truths
from nre_ros.evaluation.bag_input import BagInput
from nre_ros.evaluation.inputs import ImageListInput, PosedInput
from nre_ros.evaluation.metrics.outcomes import WRONG_DEGREES, WRONG_METRES, Outcomes, collect, without_truth
from nre_ros.evaluation.metrics.summary import summarize, write_csv, write_json, write_tum
from nre_ros.evaluation.recording import RECORDS, about_map, begin, localize_all, with_localizer
from nre_ros.evaluation.records import RecordFile, read_records
from nre_ros.features import choose_device
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.localization.localizer import Localizer
from nre_ros.nre import EstimatorConfig

OUTCOMES, SUMMARY, POSES, REPORT = "outcomes.csv", "summary.json", "poses.tum", "report.html"


@dataclass(frozen=True)
class Options:
    """What an evaluation is asked for; units are metres, degrees and seconds.

    truth: a TUM file or a topic, empty for none (of a bag: the topic that looks like it).  truth_frame: a
    name under which the truth calls the map's frame.  worst: images that the report shows.  peers: names of
    ``peers.PEERS``.
    """

    map_file: Path
    output: Path
    truth: str = ""
    truth_frame: str = ""
    max_gap: float = truths.MAX_GAP
    device: str = "auto"
    seed: int = 0
    retrieve: int = 5
    min_confidence: float = 0.5
    wrong_beyond: tuple[float, float] = (WRONG_METRES, WRONG_DEGREES)
    config: EstimatorConfig = EstimatorConfig()
    through_ros: bool = False
    rate: float = 1.0
    parameters: dict[str, str] = field(default_factory=dict)
    peers: tuple[str, ...] = ()
    map_images: Path | None = None
    map_depth: Path | None = None
    worst: int = 10
    force: bool = False
    progress: bool = True


@dataclass(frozen=True)
class Evaluation:
    """What a run came to: its outcomes, the figures (as in summary.json) and where the report lies."""

    outcomes: Outcomes
    summary: dict
    report: Path


def evaluate(source: BagInput | ImageListInput | PosedInput, options: Options) -> Evaluation:
    """Runs, or goes on with, an evaluation into ``options.output``.

    Raises an ``NreError`` of one line when inputs do not fit together; what has been localized by then is kept.
    """
    with KeyframeStore.open(options.map_file) as store:
        about = _about(source, options, store)
    # before hours of work: what cannot fit
    truth, truth_of = _truth(source, options, about["map"]["frame"])
    map_images = _map_images(options)
    notes = [*getattr(source, "notes", ()), *(truth.notes if truth else ())]
    begin(options.output, about, options.force)
    _record(source, options)
    notes += getattr(source, "damage", [])
    outcomes = collect(read_records(options.output / RECORDS), truth_of, _min_confidence(options), options.wrong_beyond)
    if truth is not None:
        _check_met(outcomes, truth, options)
    summary = _write_ours(source, options, about, outcomes, notes, truth)
    runs = {"nre_ros": outcomes}
    if map_images is not None:
        from nre_ros.evaluation.baselines.run_baselines import run_peers

        runs |= run_peers(source, options, truth_of, map_images)
        summary["peers"] = {name: summarize(run) for name, run in runs.items() if name != "nre_ros"}
        write_json(options.output / SUMMARY, summary)
    return _report(source, options, runs, summary)


def _about(source, options: Options, store: KeyframeStore) -> dict:
    about = {
        "nre_ros": __version__,
        "map": about_map(store),
        "input": {**source.describe(), "every": source.every},
        "seed": options.seed,
        "retrieve": options.retrieve,
        "device": str(choose_device(options.device)),
        "config": repr(options.config),
        "peers": None,
    }
    if options.peers:
        about["peers"] = {
            name: str(path.resolve()) if path else None
            for name, path in (("map_images", options.map_images), ("map_depth", options.map_depth))
        }
    if options.through_ros:
        from nre_ros.evaluation.through_ros import node_parameters

        parameters = node_parameters(options)
        about |= {name: parameters[name] for name in ("seed", "retrieve", "device")}
        about["through_ros"] = {"rate": options.rate, "parameters": parameters}
    return about


def _truth(source, options: Options, map_frame: str):
    """The ground truth (None for none, or where it comes with the images) and the function that ``collect`` wants."""
    if isinstance(source, PosedInput):
        return None, lambda names, stamps: (stamps, source.poses(names))
    if isinstance(source, ImageListInput):
        if not options.truth:
            return None, without_truth
        truth, places, timed = truths.read_listed(options.truth, source.names)

        def of_list(names, stamps):
            found = np.array([places[name] for name in names], dtype=np.int64)
            return found if timed else stamps, truth.at(found, 0.0)

        return truth, of_list
    where = options.truth or truths.find_truth_topic(source.topics)
    if not where:
        return None, without_truth
    path = truths.truth_path(where)
    truth = truths.read_tum(path) if path else truths.read_topic(source.path, where, source.camera_frame)
    truths.check_frame(truth, map_frame, options.truth_frame)
    truths.check_overlap(truth, source.first_stamp, source.last_stamp, f"bag {source.path}")
    return truth, lambda names, stamps: (stamps, truth.at(stamps, options.max_gap))


def _record(source, options: Options) -> None:
    path = options.output / RECORDS
    if options.through_ros:
        from nre_ros.evaluation.through_ros import node_parameters, record_session

        record_session(
            source, options.map_file, options.output, path, options.rate, node_parameters(options), options.progress
        )
        return
    with RecordFile(path) as records:
        if len(records.done) >= len(source):
            return
    with Localizer(options.map_file, options.device, options.seed, options.retrieve, 0.0, options.config) as localizer:
        localizer.warm_up()
        localize_all(with_localizer(localizer), source.queries(), path, len(source), progress=options.progress)


def _min_confidence(options: Options) -> float:
    """The node has decided already, with its own parameter."""
    return 0.0 if options.through_ros else options.min_confidence


def _told_confidence(options: Options, about: dict) -> float | str:
    """What a pose's confidence had to reach, for the report."""
    return about["through_ros"]["parameters"]["min_confidence"] if options.through_ros else options.min_confidence


def _check_met(outcomes: Outcomes, truth: truths.Truth, options: Options) -> None:
    if not len(outcomes) or outcomes.known.any():
        return
    if not outcomes.stamps.all():
        raise EvaluationError(f"ground truth {truth.source} has no pose of any of the {len(outcomes)} images")
    nearest = min(float(np.abs(truth.stamps - stamp).min()) for stamp in outcomes.stamps) / 1e9
    raise EvaluationError(
        f"ground truth {truth.source} has no pose at any of the {len(outcomes)} images' times: the nearest is "
        f"{nearest:.3f} s away, and poses more than {options.max_gap:g} s apart are not interpolated (--max-gap)"
    )


def _told(source, truth: truths.Truth | None) -> str | None:
    """Where the ground truth is from, for the report."""
    return truth.source if truth else "with the images" if isinstance(source, PosedInput) else None


def _map_images(options: Options):
    """The map's images, which the peers need; None without peers."""
    if not options.peers:
        return None
    from nre_ros.evaluation.baselines.keyframes import MapImages

    with KeyframeStore.open(options.map_file) as store:
        return MapImages(store, options.map_images, options.map_depth)


def _write_ours(source, options: Options, about: dict, outcomes: Outcomes, notes, truth) -> dict:
    """All files but the report; the summary.  They are there when peers, which take long, begin."""
    folder = options.output
    summary = {
        "about": {**about, "min_confidence": _told_confidence(options, about), "ground_truth": _told(source, truth)},
        "notes": list(notes),
        **summarize(outcomes),
    }
    if options.through_ros:
        from nre_ros.evaluation.through_ros import images_sent

        summary["through_ros"] = {"images_sent": images_sent(folder), "images_taken": len(outcomes)}
    write_csv(folder / OUTCOMES, outcomes)
    write_tum(folder / POSES, outcomes)
    write_json(folder / SUMMARY, summary)
    return summary


def _report(source, options: Options, runs: dict[str, Outcomes], summary: dict) -> Evaluation:
    from nre_ros.evaluation.report.write import write_report

    for line in [*summary["notes"], *summary["findings"]]:
        print(f"note: {line}", file=sys.stderr)
    path = options.output / REPORT
    write_report(path, runs, summary, source, options)
    return Evaluation(runs["nre_ros"], summary, path)
