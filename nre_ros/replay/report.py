# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A replay in figures: what was sent, answered and posed, how far off, and how fast."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from nre_ros.geometry import pose_error, pose_matrix
from nre_ros.replay.session import Session


@dataclass(frozen=True)
class ReplayFigures:
    """Lengths in metres, angles in radians, times in milliseconds; NaN where there is nothing to measure.

    sent, received, answered, posed: images played, images that reached the node, those it took (each
    has a status; the others were replaced by newer ones) and those with a pose.  with_truth,
    posed_with_truth: of the answered ones.  position_errors, rotation_errors: of the latter.
    image_to_pose: from playing an image to hearing its pose in another process.  per_second: images
    a second that the node answers when they never run out.  stages: median of each.  reasons: why
    there was no pose -> how often.
    """

    sent: int
    received: int
    answered: int
    posed: int
    with_truth: int
    position_errors: np.ndarray = field(repr=False)
    rotation_errors: np.ndarray = field(repr=False)
    image_to_pose: np.ndarray = field(repr=False)
    per_second: float
    stages: dict[str, float]
    reasons: dict[str, int]

    @property
    def posed_with_truth(self) -> int:
        return len(self.position_errors)

    def rows(self) -> list[tuple[str, str]]:
        """The table: what, and its value."""
        rows = [
            ("images sent", f"{self.sent}"),
            ("received", f"{self.received}"),
            ("taken by the node", f"{self.answered} (the newest wins)"),
            ("posed", f"{self.posed}"),
        ]
        if self.with_truth:
            rows += [
                ("with ground truth", f"{self.posed_with_truth} posed of {self.with_truth}"),
                ("position error", _spread(self.position_errors * 100, "cm", 90)),
                ("rotation error", _spread(np.degrees(self.rotation_errors), "deg", 90)),
            ]
        rows += [
            ("image to pose", _spread(self.image_to_pose, "ms", 99, 0)),
            ("the node sustains", f"{self.per_second:.1f} images a second"),
            ("stages (median ms)", ", ".join(f"{name} {value:.0f}" for name, value in self.stages.items())),
        ]
        return rows + [("no pose", f"{count} x {reason}") for reason, count in self.reasons.items()]


def figures(session: Session, truth: dict[int, np.ndarray]) -> ReplayFigures:
    """The figures of a session; truth: stamp -> true pose [4, 4] of the camera in the map."""
    posed = [status for status in session.statuses if status["success"]]
    errors = [pose_error(pose_of(status), truth[status["stamp"]]) for status in posed if status["stamp"] in truth]
    errors = np.array(errors).reshape(-1, 2)
    waits = [
        (pose["monotonic"] - session.sent[pose["stamp"]]) * 1e3
        for pose in session.poses
        if pose["stamp"] in session.sent
    ]
    names = dict.fromkeys(name for status in posed for name in status["milliseconds"])
    busy = [sum(status["milliseconds"].values()) for status in session.statuses if status["milliseconds"]]
    return ReplayFigures(
        sent=len(session.sent),
        received=max((status["images_received"] for status in session.statuses), default=0),
        answered=len(session.statuses),
        posed=len(posed),
        with_truth=sum(status["stamp"] in truth for status in session.statuses),
        position_errors=errors[:, 0],
        rotation_errors=errors[:, 1],
        image_to_pose=np.array(waits),
        per_second=1e3 / float(np.mean(busy)) if busy else math.nan,
        stages={name: float(np.median([s["milliseconds"].get(name, 0.0) for s in posed])) for name in names},
        reasons=dict(Counter(status["reason"] for status in session.statuses if not status["success"]).most_common(5)),
    )


def pose_of(line: dict) -> np.ndarray:
    """[4, 4] pose of a recorded status, pose or transform."""
    return pose_matrix(line["position"], line["quaternion"])


def print_table(rows: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"  {name:<{width}}  {value}")


def _spread(values: np.ndarray, unit: str, percentile: int, digits: int = 2) -> str:
    if not len(values):
        return "-"
    high = f"{np.percentile(values, percentile):.{digits}f}"
    return f"median {np.median(values):.{digits}f} {unit}, {percentile}% below {high} {unit}"
