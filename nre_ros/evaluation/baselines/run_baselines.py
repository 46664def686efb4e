# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs baselines on the images of an evaluation. Each gets the keyframes that this project retrieved for the image."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from nre_ros.errors import EvaluationError, NreError
from nre_ros.evaluation.baselines import make_baseline
from nre_ros.evaluation.baselines.base import BaselineUnavailable
from nre_ros.evaluation.baselines.localizer import MIN_INLIERS, BaselineLocalizer
from nre_ros.evaluation.baselines.map_images import MapImages
from nre_ros.evaluation.inputs import EvaluationInput, Query
from nre_ros.evaluation.localize_queries import LocalizeQuery, localize_queries
from nre_ros.evaluation.metrics import GroundTruthLookup, QueryResults, collect_results
from nre_ros.evaluation.options import EvaluationOptions
from nre_ros.evaluation.output_folder import RECORDS, baseline_records
from nre_ros.evaluation.records import read_records
from nre_ros.features import choose_device
from nre_ros.geometry import position_quaternion
from nre_ros.localization.result import LocalizationResult


def run_baselines(
    source: EvaluationInput, options: EvaluationOptions, lookup: GroundTruthLookup, images: MapImages
) -> dict[str, QueryResults]:
    """Localizes the images of an evaluation with the baselines of ``options.baselines``.

    A pose with at least ``MIN_INLIERS`` inliers is accepted. Baselines report no confidence. The records of a baseline
    are kept in the output folder, and an interrupted run is continued. A baseline that is not installed is skipped
    with a note on stderr.

    Args:
        source: Query images.
        options: Options of the evaluation.
        lookup: Function that finds the ground-truth poses.
        images: Images of the map.

    Returns:
        Label of each baseline to its results.

    Raises:
        EvaluationError: The records of this project do not contain the retrieved keyframes.
    """
    retrieved = {record["image"]: record["keyframes"] for record in read_records(options.output / RECORDS)}
    if not any(retrieved.values()):
        raise EvaluationError(
            f"{options.output / RECORDS} contains no retrieved keyframes, which baselines need: no baseline was run"
        )
    runs: dict[str, QueryResults] = {}
    for name in options.baselines:
        try:
            baseline = make_baseline(name, str(choose_device(options.device)))
            localizer = BaselineLocalizer(baseline, images.image, images.lifter(baseline), options.seed)
        except BaselineUnavailable as error:
            print(f"note: baseline {name} is skipped: {error} (requirements/baselines.txt)", file=sys.stderr)
            continue
        path = baseline_records(options.output, name)
        method = _baseline_method(localizer, images.names, retrieved)
        localize_queries(method, source.queries(), path, len(source), name, options.progress)
        runs[baseline.label] = collect_results(read_records(path), lookup, 0.0, options.wrong_beyond)
    return runs


def _baseline_method(
    localizer: BaselineLocalizer, keyframe_names: Mapping[int, str], retrieved: Mapping[str, Sequence[int]]
) -> LocalizeQuery:
    """The function that localizes a query with a baseline."""

    def localize(query: Query) -> dict[str, Any]:
        ids = retrieved.get(query.name, [])
        try:
            image, camera = query.load()
            found = localizer.localize(image, camera, [keyframe_names[i] for i in ids])
        except NreError as error:
            return LocalizationResult(reason=str(error)).to_json()
        position = quaternion = None
        if found.T_map_cam is not None:
            position, quaternion = (array.tolist() for array in position_quaternion(found.T_map_cam))
        posed = found.T_map_cam is not None
        accepted = posed and found.inliers >= MIN_INLIERS
        return {
            "success": posed,
            "position": position,
            "quaternion": quaternion,
            "covariance": None,
            "confidence": None,
            "accepted": accepted,
            "reason": "" if accepted else f"{found.inliers} inliers of {found.matches} matches",
            "points_used": found.inliers,
            "keyframes": list(ids),
            "milliseconds": found.milliseconds,
        }

    return localize
