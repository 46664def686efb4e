# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What ``nre_ros map check`` is worth: covariances in maps with errors, its predictions, and the keyframes it names.

The views that the check localizes and the queries are kept in the benchmark's folder. ``lund_door`` has no queries of its own:
each of its images is localized in the map of the others, which is checked for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from common import Options, Table
from perturbed_maps import Perturbation, perturb, perturb_single, without
from rendered_rooms import APART, CAMERA, write_map
from scenes import THIN, Query, Scene, fountain, gallery, kitchen, lund_door, rendered_room
from scipy.stats import chi2

from nre_ros.gallery.render import Gallery
from nre_ros.gallery.room import build_room
from nre_ros.gallery.trajectory import mapping_poses
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.localization.confidence import ConfidenceModel, load_model
from nre_ros.localization.covariance import PoseEvidence, combined_covariance
from nre_ros.localization.localizer import Localizer
from nre_ros.localization.map_noise import MapNoise
from nre_ros.map_check.check import CheckResult, evaluate_views, localize_views, recording_order
from nre_ros.map_check.leave_one_out import LeftOutResult
from nre_ros.map_check.repair import repair_map
from nre_ros.map_check.view_result import ViewResult, localize_view

LEVELS = (0.5, 0.9, 0.99)
MIN_CONFIDENCE = 0.5
NONE = Perturbation()
SCENES: dict[str, tuple[str, Callable[[Options], Scene]]] = {
    "kitchen": ("kitchen, 63 keyframes", kitchen),
    "eleven": ("kitchen, 11 keyframes", partial(kitchen, every=6)),
    "thin": ("kitchen, 3 keyframes", partial(kitchen, every=THIN)),
    "room": ("rendered room", rendered_room),
    "fountain": ("fountain", fountain),
    "gallery": ("virtual gallery", gallery),
}
LUND_DOOR = "lund_door"
ERRORS: dict[str, tuple[str, Perturbation]] = {
    "r05": ("0.5 cm, 0.1 degrees, random", Perturbation(True, 0.005, 0.1)),
    "r1": ("1 cm, 0.25 degrees, random", Perturbation(True, 0.01, 0.25)),
    "r2": ("2 cm, 0.5 degrees, random", Perturbation(True, 0.02, 0.5)),
    "r5": ("5 cm, 1 degree, random", Perturbation(True, 0.05, 1.0)),
    "d05": ("0.5 cm, 0.1 degrees, drifting", Perturbation(False, 0.005, 0.1)),
    "d1": ("1 cm, 0.25 degrees, drifting", Perturbation(False, 0.01, 0.25)),
    "d2": ("2 cm, 0.5 degrees, drifting", Perturbation(False, 0.02, 0.5)),
    "d5": ("5 cm, 1 degree, drifting", Perturbation(False, 0.05, 1.0)),
    "depth": ("depth 2 % too large", Perturbation(depth=1.02)),
    "focal": ("focal length 1 % too large", Perturbation(focal=1.01)),
}
_WRONG_SHARE, _WRONG_MAPS = 0.1, 4


@dataclass(frozen=True)
class Run:
    """A map's check, and its queries.

    Attributes:
        check: what the check found.
        queries: the queries, localized in the whole map.
        model: the general fit of confidence and covariance.
    """

    check: CheckResult
    queries: list[ViewResult]
    model: ConfidenceModel


def run(options: Options):
    """Yields a table of predictions, one of covariances, and one of the keyframes that are named."""
    names = options.selected_sets(
        (
            *SCENES,
            LUND_DOOR,
            *(f"{scene}-{error}" for scene in SCENES for error in ERRORS),
            "wrong",
            "repair",
            "identical",
        )
    )
    if not options.sets:
        names = [*SCENES, LUND_DOOR, *(f"{scene}-{error}" for scene in ("kitchen", "room") for error in ERRORS)]
        names += ["wrong", "repair", "identical"]
    predictions = Table(
        "Prediction",
        (
            "map",
            "views",
            "queries",
            "recall predicted [%]",
            "measured [%]",
            "median predicted [cm]",
            "measured [cm]",
            "suspicious",
            "time of the check in queries",
        ),
    )
    ellipsoids = Table(
        "Share of true errors inside the ellipsoids",
        ("map", "error", "queries", *(f"{level:.0%}, general fit" for level in LEVELS), *(f"{x:.0%}" for x in LEVELS)),
    )
    for name in names:
        if name in ("wrong", "repair", "identical"):
            continue
        if name == LUND_DOOR:
            ellipsoids.rows.append(
                ("lund_door, each image in the map of the others", "none", *_ellipsoids(_left_out(options)))
            )
            print(f"   lund_door: {ellipsoids.rows[-1][2:]}", flush=True)
            continue
        scene, _, error = name.partition("-")
        found = _run(options, scene, error)
        title = SCENES[scene][0] + (f"; {ERRORS[error][0]}" if error else "")
        predictions.rows.append((title, *_prediction(found)))
        ellipsoids.rows.append((SCENES[scene][0], ERRORS[error][0] if error else "none", *_ellipsoids([found])))
        print(f"   {title}: {predictions.rows[-1][1:]} {ellipsoids.rows[-1][2:]}", flush=True)
    if predictions.rows:
        yield predictions
    if ellipsoids.rows:
        yield ellipsoids
    if "wrong" in names:
        yield _wrong_keyframes(options)
    if "repair" in names:
        yield _repaired(options)
    if "identical" in names:
        yield _identical_rooms(options)


def _prediction(found: Run) -> tuple:
    expected, queries = found.check.expected, found.queries
    right = [query.position_error for query in queries if query.right]
    seconds = float(np.mean([query.seconds for query in queries]))
    return (
        len(found.check.views),
        len(queries),
        100 * expected.recall if expected else np.nan,
        100 * float(np.mean([query.posed and query.confidence >= MIN_CONFIDENCE for query in queries])),
        100 * expected.position if expected else np.nan,
        100 * float(np.median(right)) if right else np.nan,
        len(found.check.suspicious),
        sum(result.view.seconds for result in found.check.views) / seconds,
    )


def _ellipsoids(runs: Iterable[Run]) -> tuple:
    pairs = [(run, query) for run in runs for query in run.queries if query.right]
    columns = [len(pairs)]
    for checked in (False, True):
        squared = np.array(
            [_squared_mahalanobis(query, run.model, run.check.noise if checked else MapNoise()) for run, query in pairs]
        )
        columns += [100 * float((squared <= chi2.ppf(level, 6)).mean()) if pairs else np.nan for level in LEVELS]
    return tuple(columns)


def _squared_mahalanobis(query: ViewResult, model: ConfidenceModel, noise: MapNoise) -> float:
    evidence = PoseEvidence(
        query.covariance, query.influence, query.disagreement, query.keyframes, query.evidence, query.distance
    )
    error = query.error()
    return float(error @ np.linalg.solve(combined_covariance(evidence, model, noise)[0], error))


def _wrong_keyframes(options: Options) -> Table:
    table = Table(
        "Wrong keyframes", ("map", "wrong", "named", "named [%]", "others", "named wrongly", "false alarms [%]")
    )
    for name in ("kitchen", "room"):
        scene = SCENES[name][1](options)
        wrong_count = named = others = false = 0
        missed = []
        for seed in range(_WRONG_MAPS):
            path = options.folder / f"{name}_wrong_{seed}.db"
            wrong = perturb_single(scene.map_path, path, _WRONG_SHARE, seed)
            check = _check(options, path, scene, f"{name}_wrong_{seed}")
            accused = {each.name for each in check.suspicious}
            wrong_count, named = wrong_count + len(wrong), named + len(accused & wrong.keys())
            others, false = others + len(check.names) - len(wrong), false + len(accused - wrong.keys())
            missed += [f"{key} ({what})" for key, what in wrong.items() if key not in accused]
        table.rows.append(
            (SCENES[name][0], wrong_count, named, 100 * named / wrong_count, others, false, 100 * false / others)
        )
        table.notes.append(f"{SCENES[name][0]}: missed {', '.join(missed) or 'none'}.")
    table.notes.append(
        f"{_WRONG_MAPS} maps each; {_WRONG_SHARE:.0%} of the keyframes are wrong by 10 cm to 1 m or by 3 to 30 degrees."
    )
    return table


def _repaired(options: Options) -> Table:
    table = Table(
        "Repair",
        (
            "map",
            "error",
            "left-out views before [cm]",
            "after [cm]",
            "queries before [cm]",
            "after [cm]",
            "queries within 5 cm before [%]",
            "after [%]",
            "rounds",
        ),
    )
    for name, error in (("kitchen", ""), ("kitchen", "r2"), ("kitchen", "d2"), ("kitchen", "d5")):
        found = _run(options, name, error)
        scene = SCENES[name][1](options)
        perturbation = ERRORS[error][1] if error else NONE
        target = options.folder / f"{name}_{error or 'none'}_repaired.db"
        repair = repair_map(
            found.check, [_Images(scene)], target, 3, options.device, options.seed, True, progress=False
        )
        after = _localized_queries(options, scene, target, perturbation)
        row: list = [SCENES[name][0], ERRORS[error][0] if error else "none"]
        row += [_median_error(each.view for each in side.views) for side in (repair.before, repair.after)]
        row += [_median_error(queries) for queries in (found.queries, after)]
        row += [100 * float(np.mean([q.position_error < 0.05 for q in queries])) for queries in (found.queries, after)]
        table.rows.append((*row, repair.rounds))
        print(f"   repair, {ERRORS[error][0] if error else 'none'}: {row[2:]}", flush=True)
    return table


def _identical_rooms(options: Options) -> Table:
    """A room that is built twice: each view of one has its twin in the other."""
    size, seed = (6.5, 5.0, 3.0), 900
    room = Gallery(build_room(seed, size, pixels_per_metre=200))
    poses = {}
    for name, shift in (("first", 0.0), ("second", APART)):
        for i, T in enumerate(mapping_poses(size, 25, seed)):
            moved = T.copy()
            moved[0, 3] += shift
            poses[f"{name} {i:02d}"] = (T, moved)
    path = options.folder / "identical.db"
    if not path.exists():
        write_map(path, ((name, room, T, moved) for name, (T, moved) in poses.items()), CAMERA, options)
    scene = Scene(path, lambda: iter(()), lambda name: room.render(CAMERA, poses[name][0]).image, lambda baseline: None)
    check = _check(options, path, scene, "identical")
    twins = [each for each in check.aliased if each.name.split()[0] != each.twin.split()[0]]
    table = Table(
        "Two identical rooms",
        ("views", "with a pose", "named as looking alike", "with a twin in the other room", "suspicious"),
    )
    posed = sum(result.view.posed for result in check.views)
    table.rows.append((len(check.views), posed, len(check.aliased), len(twins), len(check.suspicious)))
    return table


def _median_error(views: Iterable[ViewResult]) -> float:
    return 100 * float(np.median([view.position_error for view in views]))


class _Images:
    """The images of a scene by the names of its keyframes."""

    def __init__(self, scene: Scene) -> None:
        self.image = scene.image

    def close(self) -> None:
        pass


def _run(options: Options, name: str, error: str) -> Run:
    scene = SCENES[name][1](options)
    perturbation = ERRORS[error][1] if error else NONE
    path, label = scene.map_path, f"{name}_{error or 'none'}"
    if error:
        path = options.folder / f"{label}.db"
        perturb(scene.map_path, path, perturbation, options.seed)
    queries = _kept(
        options.folder / f"{label}_queries{options.queries or ''}.jsonl",
        lambda: _localized_queries(options, scene, path, perturbation),
    )
    check = _check(options, path, scene, label)
    with KeyframeStore.open(path) as store:
        model = load_model(store.metadata()["backbone"])
    return Run(check, queries, model)


def _left_out(options: Options) -> list[Run]:
    """Each image of lund_door in the map of the others; the check sees neither the image nor its pose."""
    scene = lund_door(options)
    runs = []
    for query in scene.queries():
        label = f"{LUND_DOOR}_without_{Path(query.name).stem}"
        path = options.folder / f"{label}.db"
        if not path.exists():
            without(scene.map_path, path, query.name)

        def localized(query: Query = query, path: Path = path) -> list[ViewResult]:
            with Localizer(path, options.device, options.seed) as localizer:
                return [localize_view(localizer, query.name, query.image, query.camera, query.T_map_cam)]

        queries = _kept(options.folder / f"{label}_queries.jsonl", localized)
        check = _check(options, path, scene, label)
        with KeyframeStore.open(path) as store:
            runs.append(Run(check, queries, load_model(store.metadata()["backbone"])))
    return runs


def _localized_queries(options: Options, scene: Scene, path: Path, perturbation: Perturbation) -> list[ViewResult]:
    with Localizer(path, options.device, options.seed) as localizer:
        return [
            localize_view(localizer, query.name, query.image, perturbation.camera(query.camera), query.T_map_cam)
            for query in scene.queries()
        ]


def _check(options: Options, path: Path, scene: Scene, label: str) -> CheckResult:
    file = options.folder / f"{label}_views.jsonl"
    if not file.exists():
        with Localizer(path, options.device, options.seed) as localizer:
            names, _ = recording_order(localizer.store)
            found, _ = localize_views(localizer, [_Images(scene)], np.array(list(names)), progress=False)
        file.write_text("".join(json.dumps(each.to_json()) + "\n" for each in found))
    views = [LeftOutResult.from_json(json.loads(line)) for line in file.read_text().splitlines()]
    with KeyframeStore.open(path) as store:
        return evaluate_views(store, views, [], MIN_CONFIDENCE)


def _kept(path: Path, compute: Callable[[], list[ViewResult]]) -> list[ViewResult]:
    if not path.exists():
        path.write_text("".join(json.dumps(result.to_json()) + "\n" for result in compute()))
    return [ViewResult.from_json(json.loads(line)) for line in path.read_text().splitlines()]
