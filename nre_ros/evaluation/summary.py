"""Everything that is said about one run in figures, and the files that hold it."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np

from nre_ros.errors import EvaluationError
from nre_ros.evaluation.calibration import confidence_calibration, covariance_calibration
from nre_ros.evaluation.metrics import basic
from nre_ros.evaluation.outcomes import Outcomes, pose_matrices, pose_numbers
from nre_ros.evaluation.systematic import delay, findings, offset
from nre_ros.evaluation.trajectory import by_evo, trajectory_errors
from nre_ros.messages.stamps import seconds_of

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
        time = seconds_of(stamp) if stamp else str(k)
        lines.append(" ".join([time, *map(repr, numbers[k].tolist())]))
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_csv(path: Path, outcomes: Outcomes) -> None:
    """One row an image with all that ``read_csv`` needs to make the outcomes again, and the errors."""
    stages = list(outcomes.milliseconds)
    columns = [
        "image", "stamp_ns", "posed", "accepted", *_POSE, *(f"true_{name}" for name in _POSE), "position_error_m",
        "rotation_error_deg", "confidence", "points_used", *(f"c{i}{j}" for i in range(6) for j in range(i, 6)),
        *(f"ms_{name}" for name in stages), "keyframes", "reason",
    ]
    rows, others = np.triu_indices(6)
    values = np.column_stack([
        pose_numbers(outcomes.poses), pose_numbers(outcomes.truth), outcomes.position_errors,
        np.degrees(outcomes.rotation_errors), outcomes.confidence, outcomes.points_used,
        outcomes.covariances[:, rows, others], *outcomes.milliseconds.values(),
    ])
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for k, name in enumerate(outcomes.names):
            writer.writerow([
                name, outcomes.stamps[k], int(outcomes.posed[k]), int(outcomes.accepted[k]),
                *("" if not math.isfinite(value) else repr(value) for value in values[k].tolist()),
                " ".join(map(str, outcomes.keyframes[k])), outcomes.reasons[k],
            ])


def read_csv(path: Path, wrong_beyond: tuple[float, float]) -> Outcomes:
    """The outcomes that ``write_csv`` wrote; raises ``EvaluationError``."""
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return _from_rows(rows, wrong_beyond)
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read: {error.strerror}") from error
    except (KeyError, ValueError, TypeError) as error:
        raise EvaluationError(f"{path} is no table of an evaluation: {' '.join(str(error).split())}") from error


def _from_rows(rows: list[dict], wrong_beyond) -> Outcomes:
    def column(name: str) -> np.ndarray:
        return np.array([float(row[name]) if row[name] else math.nan for row in rows])

    def poses(prefix: str) -> np.ndarray:
        return pose_matrices(np.stack([column(prefix + name) for name in _POSE], axis=1))

    covariances = np.full((len(rows), 6, 6), np.nan)
    for i in range(6):
        for j in range(i, 6):
            covariances[:, i, j] = covariances[:, j, i] = column(f"c{i}{j}")
    stages = [name for name in (rows[0] if rows else {}) if name.startswith("ms_")]
    return Outcomes(
        [row["image"] for row in rows], np.array([int(row["stamp_ns"]) for row in rows], dtype=np.int64),
        column("posed") == 1, column("accepted") == 1, poses(""), covariances, poses("true_"), column("confidence"),
        np.nan_to_num(column("points_used")).astype(int), {name[3:]: column(name) for name in stages},
        [row["reason"] for row in rows], [tuple(map(int, row["keyframes"].split())) for row in rows], wrong_beyond,
    )


def _plain(value):
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.floating, float)):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
