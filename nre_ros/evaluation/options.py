# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The options of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nre_ros.evaluation.ground_truth import DEFAULT_MAX_GAP
from nre_ros.evaluation.metrics.query_results import WRONG_DEGREES, WRONG_METRES
from nre_ros.keyframes.importers.pose_columns import PoseConvention
from nre_ros.localization.defaults import DEFAULT_MIN_CONFIDENCE
from nre_ros.nre import EstimatorConfig


@dataclass(frozen=True)
class EvaluationOptions:
    """Everything that a user chooses for an evaluation besides the images.

    Attributes:
        map_file: Map to localize in.
        output: Output folder.
        ground_truth: TUM file or topic, empty for the default (of a bag: the topic that ``ground_truth_topic`` chooses).
        ground_truth_frame: Name of the map's frame in the ground truth, if it differs from the name in the map.
        convention: What the user says of the poses of a ground-truth file.
        max_gap: Largest time in seconds between two ground-truth poses that are interpolated.
        device: ``auto``, ``cpu`` or ``cuda``.
        seed: Seed of the random draws.
        retrieve: Number of keyframes retrieved per query.
        min_confidence: Smallest confidence of an accepted pose.
        wrong_beyond: Error limits in metres and degrees; an accepted pose beyond either limit is wrong.
        config: Settings of the estimator.
        fine_head: Fine head that made the map, for a head that is neither packaged nor imported.
        through_ros: Whether the bag is played over DDS to the node instead of read directly.
        rate: Playback speed relative to real time, with ``through_ros``.
        parameters: Parameters of the node, with ``through_ros``.
        baselines: Names of ``BASELINES`` to run on the same images.
        map_images: Folder of the map's images, which baselines need.
        map_depth: Folder of the map's depth images, or None.
        worst: Number of images that the report shows with pictures.
        force: Whether the records of an earlier evaluation in ``output`` are replaced.
        progress: Whether progress bars are shown on stderr.
    """

    map_file: Path
    output: Path
    ground_truth: str = ""
    ground_truth_frame: str = ""
    convention: PoseConvention = PoseConvention()
    max_gap: float = DEFAULT_MAX_GAP
    device: str = "auto"
    seed: int = 0
    retrieve: int = 5
    min_confidence: float = DEFAULT_MIN_CONFIDENCE
    wrong_beyond: tuple[float, float] = (WRONG_METRES, WRONG_DEGREES)
    config: EstimatorConfig = EstimatorConfig()
    fine_head: Path | None = None
    through_ros: bool = False
    rate: float = 1.0
    parameters: dict[str, str] = field(default_factory=dict)
    baselines: tuple[str, ...] = ()
    map_images: Path | None = None
    map_depth: Path | None = None
    worst: int = 10
    force: bool = False
    progress: bool = True
