# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The numbers of a replay: how many images were localized, how far off the poses are, and how long an image took."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nre_ros.geometry import pose_error, pose_matrix
from nre_ros.replay.session import Session

_REASONS = 5
"""The most frequent reasons that are counted."""


@dataclass(frozen=True)
class ReplaySummary:
    """The numbers of a replay.

    Attributes:
        sent: Images that the player sent.
        received: Images that reached the node.
        processed: Images that the node processed, each with a status. The others were replaced by newer ones.
        localized: Images with an accepted pose.
        with_ground_truth: Processed images with a true pose.
        position_errors: Errors of the accepted poses that have a true pose [N], metres.
        rotation_errors: The same [N], radians.
        latencies: Time from sending an image until the listener received its pose [M], milliseconds.
        images_per_second: Images that the node can process in a second, NaN if it processed none.
        stages: Stage -> median time, milliseconds, over the localized images.
        reasons: Reason -> number of images that have no pose for it.
    """

    sent: int
    received: int
    processed: int
    localized: int
    with_ground_truth: int
    position_errors: npt.NDArray[np.float64] = field(repr=False)
    rotation_errors: npt.NDArray[np.float64] = field(repr=False)
    latencies: npt.NDArray[np.float64] = field(repr=False)
    images_per_second: float
    stages: dict[str, float]
    reasons: dict[str, int]

    def rows(self) -> list[tuple[str, str]]:
        """Makes the rows of the table that the command line prints.

        Returns:
            Label and value of each row.
        """
        rows = [
            ("images sent", f"{self.sent}"),
            ("images received", f"{self.received}"),
            ("images processed", f"{self.processed} (while one is processed, only the newest waits)"),
            ("images localized", f"{self.localized}"),
        ]
        if self.with_ground_truth:
            rows += [
                ("with ground truth", f"{len(self.position_errors)} localized of {self.with_ground_truth} processed"),
                ("position error", _median_and_percentile(self.position_errors * 100, "cm", 90)),
                ("rotation error", _median_and_percentile(np.degrees(self.rotation_errors), "deg", 90)),
            ]
        rows += [
            ("time from image to pose", _median_and_percentile(self.latencies, "ms", 99, 0)),
            ("possible rate", f"{self.images_per_second:.1f} images a second"),
            ("time of each stage", ", ".join(f"{name} {value:.0f}" for name, value in self.stages.items()) + " ms"),
        ]
        return rows + [("no pose", f"{count} x {reason}") for reason, count in self.reasons.items()]


def summarize(session: Session, ground_truth: Mapping[int, npt.NDArray[np.float64]]) -> ReplaySummary:
    """Computes the numbers of a session.

    Args:
        session: What the three processes logged.
        ground_truth: Stamp (nanoseconds) -> true pose [4, 4] of the camera in the map; may be empty.

    Returns:
        The numbers.
    """
    localized = [status for status in session.statuses if status["success"]]
    errors = np.array(
        [
            pose_error(recorded_pose(status), ground_truth[status["stamp"]])
            for status in localized
            if status["stamp"] in ground_truth
        ]
    ).reshape(-1, 2)
    latencies = [
        (pose["monotonic"] - session.sent[pose["stamp"]]) * 1e3
        for pose in session.poses
        if pose["stamp"] in session.sent
    ]
    stages = dict.fromkeys(name for status in localized for name in status["milliseconds"])
    busy = [sum(status["milliseconds"].values()) for status in session.statuses if status["milliseconds"]]
    reasons = Counter(status["reason"] for status in session.statuses if not status["success"])
    return ReplaySummary(
        sent=len(session.sent),
        received=max((status["images_received"] for status in session.statuses), default=0),
        processed=len(session.statuses),
        localized=len(localized),
        with_ground_truth=sum(status["stamp"] in ground_truth for status in session.statuses),
        position_errors=errors[:, 0],
        rotation_errors=errors[:, 1],
        latencies=np.array(latencies),
        images_per_second=1e3 / float(np.mean(busy)) if busy else math.nan,
        stages={name: float(np.median([s["milliseconds"].get(name, 0.0) for s in localized])) for name in stages},
        reasons=dict(reasons.most_common(_REASONS)),
    )


def recorded_pose(event: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """Makes the pose of a status, pose or transform that the listener wrote.

    Args:
        event: The listener's record, with ``position`` and ``quaternion``.

    Returns:
        [4, 4].
    """
    return pose_matrix(event["position"], event["quaternion"])


def _median_and_percentile(values: npt.NDArray[np.float64], unit: str, percentile: int, digits: int = 2) -> str:
    if not len(values):
        return "-"
    high = f"{np.percentile(values, percentile):.{digits}f}"
    return f"median {np.median(values):.{digits}f} {unit}, {percentile} % below {high} {unit}"
