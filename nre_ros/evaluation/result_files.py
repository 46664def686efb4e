# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The result files of a run: ``summary.json``, ``outcomes.csv`` (read back by ``nre_ros compare``), ``poses.tum``."""

from __future__ import annotations

import csv
import json
import math
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nre_ros.errors import EvaluationError, one_line
from nre_ros.evaluation.metrics.query_results import Interning, QueryResults, pose_matrices, pose_numbers
from nre_ros.messages.stamps import seconds_text

_POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")
_TEXT_COLUMNS = ("image", "stamp_ns", "keyframes", "reason")


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes JSON that every reader accepts: numbers that are not finite become null.

    Args:
        path: File to write.
        values: JSON values, which may contain numpy scalars.
    """
    path.write_text(json.dumps(_plain(values), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def write_tum(path: Path, results: QueryResults) -> None:
    """Writes the accepted poses in TUM format ``t x y z qx qy qz qw``, camera to map, in metres.

    The time is in seconds, or the index of an image without a stamp.

    Args:
        path: File to write.
        results: Results of a run.
    """
    lines = ["# t x y z qx qy qz qw (camera optical frame to map, metres)"]
    numbers = pose_numbers(results.poses)
    for k in np.flatnonzero(results.accepted):
        stamp = int(results.stamps[k])
        time = seconds_text(stamp) if stamp else str(k)
        lines.append(" ".join([time, *map(repr, numbers[k].tolist())]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_csv(path: Path, results: QueryResults) -> None:
    """Writes one row per image with the errors and with everything that ``read_csv`` needs.

    Args:
        path: File to write.
        results: Results of a run.
    """
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
        *(f"ms_{name}" for name in results.milliseconds),
        "keyframes",
        "reason",
    ]
    upper_rows, upper_columns = np.triu_indices(6)
    values = np.column_stack(
        [
            pose_numbers(results.poses),
            pose_numbers(results.ground_truth),
            results.position_errors,
            np.degrees(results.rotation_errors),
            results.confidence,
            results.points_used,
            results.covariances[:, upper_rows, upper_columns],
            *results.milliseconds.values(),
        ]
    )
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for k, name in enumerate(results.names):
            writer.writerow(
                [
                    name,
                    results.stamps[k],
                    int(results.posed[k]),
                    int(results.accepted[k]),
                    *("" if not math.isfinite(value) else repr(value) for value in values[k].tolist()),
                    " ".join(map(str, results.keyframe_ids[k])),
                    results.reasons[k],
                ]
            )


def read_csv(path: Path, wrong_beyond: tuple[float, float]) -> QueryResults:
    """Reads the results that ``write_csv`` wrote.

    Args:
        path: File to read.
        wrong_beyond: Error limits in metres and degrees.

    Returns:
        The results.

    Raises:
        EvaluationError: The file cannot be read or is not a table of results.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return _results_from_rows(csv.reader(file), wrong_beyond)
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read ({error.strerror})") from error
    except (KeyError, ValueError, TypeError, IndexError, OverflowError, StopIteration, csv.Error) as error:
        raise EvaluationError(f"{path}: not a table of evaluation results: {one_line(error)}") from error


def _results_from_rows(rows: Iterator[list[str]], wrong_beyond: tuple[float, float]) -> QueryResults:
    index = {name: k for k, name in enumerate(next(rows))}
    image, stamp, keyframe, reason = (index[name] for name in _TEXT_COLUMNS)
    numeric = [name for name in index if name not in _TEXT_COLUMNS]
    values, stamps = array("d"), array("q")
    intern_text, intern_id = Interning[str](), Interning[int]()
    names: list[str] = []
    reasons: list[str] = []
    keyframe_ids: list[tuple[int, ...]] = []
    for row in rows:
        names.append(row[image])
        stamps.append(int(row[stamp]))
        reasons.append(intern_text(row[reason]))
        keyframe_ids.append(tuple(intern_id(int(number)) for number in row[keyframe].split()))
        values.extend(float(row[index[name]] or math.nan) for name in numeric)
    columns = dict(zip(numeric, np.asarray(values).reshape(-1, len(numeric)).T))

    def poses(prefix: str) -> npt.NDArray[np.float64]:
        return pose_matrices(np.stack([columns[prefix + name] for name in _POSE], axis=1))

    covariances = np.full((len(names), 6, 6), np.nan)
    for i in range(6):
        for j in range(i, 6):
            covariances[:, i, j] = covariances[:, j, i] = columns[f"c{i}{j}"]
    return QueryResults(
        names=names,
        stamps=np.array(stamps, dtype=np.int64),
        posed=columns["posed"] == 1,
        accepted=columns["accepted"] == 1,
        poses=poses(""),
        covariances=covariances,
        ground_truth=poses("true_"),
        confidence=columns["confidence"].copy(),
        points_used=np.nan_to_num(columns["points_used"]).astype(int),
        milliseconds={name[3:]: columns[name].copy() for name in numeric if name.startswith("ms_")},
        reasons=reasons,
        keyframe_ids=keyframe_ids,
        wrong_beyond=wrong_beyond,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.floating, float)):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
