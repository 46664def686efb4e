# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Pose errors on real images: nre_ros, and SIFT, XFeat, LighterGlue and DISK + LightGlue with PoseLib.

All methods get the same retrieved keyframes and the same depth or triangulated points.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from common import MIN_CONFIDENCE, Options, Skip, Table, check_names, timed
from image_pair import moulin_rouge, moulin_rouge_baselines
from scenes import THIN, Query, Scene, evenly_spaced, fountain, gallery, kitchen, rendered_room

from nre_ros.evaluation.baselines import BASELINES, make_baseline
from nre_ros.evaluation.baselines.base import BaselineUnavailable
from nre_ros.evaluation.baselines.localizer import MAX_REPROJECTION_ERROR, BaselineLocalizer
from nre_ros.evaluation.baselines.xfeat import XFeat
from nre_ros.geometry import pose_error
from nre_ros.keyframes.global_descriptor import global_descriptor
from nre_ros.localization.localizer import Localizer

RETRIEVED = 5
_ALL = ("ours", *BASELINES)
_QUICK = tuple(name for name in _ALL if name != "disk_lightglue")
_MOST = {"disk_lightglue": 6}
"""The most queries, evenly spaced, of methods that take half a minute a query on a CPU."""
SETS = {
    "kitchen": ("kitchen, 63 keyframes", kitchen, _ALL, "0.21 cm, 100 %"),
    "eleven": ("kitchen, every 6th map frame", partial(kitchen, every=6), _ALL, ""),
    "thin": (
        f"kitchen, every {THIN}st map frame",
        partial(kitchen, every=THIN),
        _ALL,
        "60 within 5 cm, 61 of 62 within 25 cm",
    ),
    "degraded": ("kitchen, degraded queries", partial(kitchen, degraded=True), _ALL, "0.32 cm, 100 %"),
    "fountain": ("fountain", fountain, _QUICK, "0.35 cm"),
    "room": ("rendered room that no training has seen", rendered_room, _QUICK, ""),
    "gallery": ("virtual gallery, a rig of two cameras", gallery, _QUICK, "5 cm"),
}
"""Name -> title, scene, the methods that can run on it, the goal for nre_ros."""


def run(options: Options):
    """Yields one table for each set."""
    check_names("method", options.methods, _ALL)
    skipped = []
    for name in options.selected_sets((*SETS, "moulin_rouge")):
        try:
            if name == "moulin_rouge":
                yield moulin_rouge(options)
                yield moulin_rouge_baselines(options, [name for name in _QUICK if name in BASELINES])
            else:
                yield _table(options, *SETS[name])
        except Skip as reason:  # the other sets may be there
            skipped.append(f"{name} {reason}")
    if skipped:
        raise Skip("; ".join(skipped))


def _table(options: Options, title: str, make, methods, goal: str) -> Table:
    scene: Scene = make(options)
    table = Table(
        title,
        (
            "method",
            "queries",
            "median [cm]",
            "median [deg]",
            "90 % below [cm]",
            "within 5 cm and 5 deg [%]",
            "within 25 cm and 5 deg [%]",
            "time [s]",
        ),
    )
    with Localizer(
        scene.map_path, device=options.device, seed=options.seed, retrieve=RETRIEVED, min_confidence=MIN_CONFIDENCE
    ) as localizer:
        queries = list(scene.queries())
        retrieved = [_retrieve(localizer, query) for query in queries]
        for method in methods:
            if options.methods and method not in options.methods:
                continue
            try:
                label, localize = _method(method, localizer, scene, options)
            except BaselineUnavailable as reason:
                table.notes.append(f"{method} skipped: {reason}")
                continue
            asked = list(zip(queries, retrieved))
            if options.device == "cpu":
                asked = evenly_spaced(asked, _MOST.get(method, 0))
            outcomes = [localize(query, names) for query, names in asked]
            table.rows.append((label, len(asked), *summary(outcomes, [query for query, _ in asked])))
        count = len(localizer.retriever.ids)
    table.notes += [
        f"Map of {count} keyframes; every method got the same {min(RETRIEVED, count)} retrieved ones a query. Queries "
        f"without a pose count as infinitely far off.{f' To reach: {goal}.' if goal else ''}",
        "Time: median a query; ours with retrieval and verdict, the others without retrieval. "
        "In maps from RGB-D, depths are refined against the other map frames, of our points at import and of the "
        "others' keypoints alike; of posed images SIFT has the importer's points, the others' are triangulated from "
        "their own matches. "
        f"PoseLib's threshold: {MAX_REPROJECTION_ERROR:g} pixels; XFeat's keypoints: {XFeat.max_keypoints} an image.",
    ]
    return table


def _retrieve(localizer: Localizer, query: Query) -> list[str]:
    """Returns the names of the keyframes that the localizer retrieves."""
    features = localizer.backbone.extract(query.image, fine=False)
    ids, _ = localizer.retriever.query(
        global_descriptor(features.coarse), RETRIEVED, None, features.coarse, localizer.backbone.coarse_temperature
    )
    return [localizer.store.get(keyframe_id).name for keyframe_id in ids]


def _method(method: str, localizer: Localizer, scene: Scene, options: Options):
    """Returns a method's label, and a function (query, keyframe names) -> (T_map_cam or None, seconds)."""
    if method != "ours":
        baseline = make_baseline(method, options.device)
        localizer = BaselineLocalizer(baseline, scene.image, scene.lifter(baseline), options.seed)

        def localize_with_baseline(query, names):
            found = localizer.localize(query.image, query.camera, names)
            return found.T_map_cam, found.seconds

        return baseline.label, localize_with_baseline

    def localize_with_nre(query, names):
        seconds, result = timed(localizer.localize, query.image, query.camera)
        used = [localizer.store.get(keyframe_id).name for keyframe_id in result.keyframes]
        if used[: len(names)] != names:  # more follow where the search was cut
            raise RuntimeError(
                f"{query.name}: the localizer took the keyframes {used}, the baselines were given {names}"
            )
        return result.T_map_cam, seconds

    localizer.warm_up()
    return "ours", localize_with_nre


def summary(outcomes, queries) -> tuple[float, float, float, float, float, float]:
    """Computes median cm, median degrees, 90th percentile cm, shares [%] within 5 and 25 cm, median seconds."""
    errors = np.array(
        [(np.inf, np.inf) if T is None else pose_error(T, query.T_map_cam) for (T, _), query in zip(outcomes, queries)]
    )
    centimetres, degrees = 100 * errors[:, 0], np.degrees(errors[:, 1])
    shares = [100 * float(((centimetres <= bound) & (degrees <= 5)).mean()) for bound in (5, 25)]
    within = float(np.quantile(centimetres, 0.9, method="higher"))
    seconds = float(np.median([seconds for _, seconds in outcomes]))
    return float(np.median(centimetres)), float(np.median(degrees)), within, *shares, seconds
