# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Everything that is said about one run in figures, and the files that hold it."""

from __future__ import annotations

import csv
import json
import math
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nre_ros.errors import EvaluationError
from nre_ros.evaluation.metrics.basic import basic
from nre_ros.evaluation.metrics.calibration import confidence_calibration, covariance_calibration
from nre_ros.evaluation.metrics.outcomes import Outcomes, Shared, pose_matrices, pose_numbers
from nre_ros.evaluation.metrics.systematic import delay, findings, offset
from nre_ros.evaluation.metrics.trajectory import by_evo, trajectory_errors
from nre_ros.messages.stamps import seconds_text

_POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")


def summarize(outcomes: Outcomes) -> dict:
    """All figures of a run, as plain JSON values (None where there is nothing to measure)."""
    judged = outcomes.accepted & outcomes.known
    estimate, truth = outcomes.poses[judged], outcomes.truth[judged]
    evo = by_evo(outcomes.seconds()[judged], estimate, truth)
    return {
        **basic(outcomes),
        "trajectory": {**trajectory_errors(estimate, truth), "evo": evo},
        "confidence": confidence_calibration(outcomes),
        "covariance": covariance_calibration(outcomes),
        "offset": offset(outcomes),
        "delay": delay(outcomes),
        "findings": findings(outcomes),
    }


def write_json(path: Path, values: dict) -> None:
    """Writes JSON; numbers that are not finite become null, which every reader of JSON knows."""
    Path(path).write_text(json.dumps(_plain(values), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def write_tum(path: Path, outcomes: Outcomes) -> None:
    """The accepted poses, ``t x y z qx qy qz qw``, camera to map, seconds; the place in the list without times."""
    lines = ["# t x y z qx qy qz qw (camera optical frame to map, metres)"]
    numbers = pose_numbers(outcomes.poses)
    for k in np.flatnonzero(outcomes.accepted):
        stamp = int(outcomes.stamps[k])
        time = seconds_text(stamp) if stamp else str(k)
        lines.append(" ".join([time, *map(repr, numbers[k].tolist())]))
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_csv(path: Path, outcomes: Outcomes) -> None:
    """One row an image with all that ``read_csv`` needs to make the outcomes again, and the errors."""
    stages = list(outcomes.milliseconds)
    columns = [
        "image",
        "stamp_ns",
        "posed",
        "accepted",
        *_POSE,
        *(f"true_{name}" for name in _POSE),
        "position_error_m",
        "rotation_error_deg",
        "confidence",
        "points_used",
        *(f"c{i}{j}" for i in range(6) for j in range(i, 6)),
        *(f"ms_{name}" for name in stages),
        "keyframes",
        "reason",
    ]
    rows, others = np.triu_indices(6)
    values = np.column_stack(
        [
            pose_numbers(outcomes.poses),
            pose_numbers(outcomes.truth),
            outcomes.position_errors,
            np.degrees(outcomes.rotation_errors),
            outcomes.confidence,
            outcomes.points_used,
            outcomes.covariances[:, rows, others],
            *outcomes.milliseconds.values(),
        ]
    )
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for k, name in enumerate(outcomes.names):
            writer.writerow(
                [
                    name,
                    outcomes.stamps[k],
                    int(outcomes.posed[k]),
                    int(outcomes.accepted[k]),
                    *("" if not math.isfinite(value) else repr(value) for value in values[k].tolist()),
                    " ".join(map(str, outcomes.keyframes[k])),
                    outcomes.reasons[k],
                ]
            )


def read_csv(path: Path, wrong_beyond: tuple[float, float]) -> Outcomes:
    """The outcomes that ``write_csv`` wrote; raises ``EvaluationError``."""
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            return _from_rows(csv.reader(file), wrong_beyond)
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read: {error.strerror}") from error
    except (KeyError, ValueError, TypeError, IndexError, StopIteration, csv.Error) as error:
        raise EvaluationError(f"{path} is no table of an evaluation: {' '.join(str(error).split())}") from error


_TEXTS = ("image", "stamp_ns", "keyframes", "reason")


def _from_rows(rows: Iterator[list[str]], wrong_beyond) -> Outcomes:
    place = {name: k for k, name in enumerate(next(rows))}
    image, stamp, keyframe, reason = (place[name] for name in _TEXTS)
    numeric = [name for name in place if name not in _TEXTS]
    numbers, stamps, shared = array("d"), array("q"), Shared()
    names, reasons, keyframes = [], [], []
    for row in rows:
        names.append(row[image])
        stamps.append(int(row[stamp]))
        reasons.append(shared(row[reason]))
        keyframes.append(tuple(shared(int(number)) for number in row[keyframe].split()))
        numbers.extend(float(row[place[name]] or math.nan) for name in numeric)
    columns = dict(zip(numeric, np.asarray(numbers).reshape(-1, len(numeric)).T))

    def poses(prefix: str) -> np.ndarray:
        return pose_matrices(np.stack([columns[prefix + name] for name in _POSE], axis=1))

    covariances = np.full((len(names), 6, 6), np.nan)
    for i in range(6):
        for j in range(i, 6):
            covariances[:, i, j] = covariances[:, j, i] = columns[f"c{i}{j}"]
    return Outcomes(
        names,
        np.array(stamps, dtype=np.int64),
        columns["posed"] == 1,
        columns["accepted"] == 1,
        poses(""),
        covariances,
        poses("true_"),
        columns["confidence"].copy(),
        np.nan_to_num(columns["points_used"]).astype(int),
        {name[3:]: columns[name].copy() for name in numeric if name.startswith("ms_")},
        reasons,
        keyframes,
        wrong_beyond,
    )


def _plain(value):
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.floating, float)):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
