# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The output folder of an evaluation: its files, what it may be reused for, and reading it back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nre_ros.errors import EvaluationError
from nre_ros.evaluation.metrics.query_results import QueryResults
from nre_ros.evaluation.result_files import read_csv

ABOUT = "run.json"
RECORDS = "records.jsonl"
OUTCOMES = "outcomes.csv"
SUMMARY = "summary.json"
POSES = "poses.tum"
REPORT = "report.html"

_RENAMED_KEYS = {"peers": "baselines"}
"""Keys of run.json and summary.json as version 0.1 wrote them, and their present names."""
_ADDED_KEYS = ("weights_hash", "confidence_model")
"""Keys that an older run.json lacks: such an evaluation is continued, and then has the present values."""


def baseline_records(folder: Path, name: str) -> Path:
    """Returns the record file of a baseline.

    Args:
        folder: Output folder.
        name: Name of the baseline, a key of ``BASELINES``.

    Returns:
        The path, whether or not the file exists.
    """
    return folder / f"{name}.jsonl"


def prepare_output_folder(folder: Path, about: dict[str, Any], force: bool = False) -> None:
    """Creates the output folder of an evaluation, or checks that an interrupted evaluation can be continued there.

    Baselines may be added to an evaluation and left out again.

    Args:
        folder: Output folder.
        about: Everything that the records depend on, as plain JSON values. The key ``baselines`` contains what the
            records of the baselines depend on, or None without baselines.
        force: Whether the records of another evaluation are removed. No other file is removed.

    Raises:
        EvaluationError: The folder contains another evaluation and ``force`` is not set, the folder contains records
            but no ``run.json`` that describes them, or the folder cannot be written.
    """
    path = folder / ABOUT
    about = json.loads(json.dumps(about))
    records = _record_files(folder)
    earlier: dict[str, Any] | None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        earlier = _with_present_names(dict(json.loads(path.read_text(encoding="utf-8")))) if path.exists() else None
    except OSError as error:
        raise EvaluationError(f"{folder}: cannot be used as output folder ({error.strerror})") from error
    except (ValueError, TypeError):
        earlier = {}
    if earlier is None and records:
        raise EvaluationError(
            f"{folder} contains {records[0].name} but no {ABOUT} that describes these records: use another folder"
        )
    if earlier is not None and not force:
        earlier = {**{key: about[key] for key in _ADDED_KEYS if key in about}, **earlier}
        about = {**about, "baselines": about.get("baselines") or earlier.get("baselines")}
        earlier = {**earlier, "baselines": earlier.get("baselines") or about["baselines"]}
        if earlier != about:
            difference = _first_difference(earlier, about)
            raise EvaluationError(f"{folder} contains another evaluation ({difference}): --force replaces it")
    if force:
        for file in records:
            file.unlink()
    path.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def read_evaluations(folders: Sequence[Path]) -> tuple[dict[str, QueryResults], dict[str, dict[str, Any]]]:
    """Reads evaluations back from their output folders, for a comparison.

    Args:
        folders: Output folders of ``nre_ros evaluate``, of this version or of version 0.1.

    Returns:
        The results and the summaries of all runs. A run has the name of its folder, made unique.

    Raises:
        EvaluationError: A folder does not contain an evaluation.
    """
    runs: dict[str, QueryResults] = {}
    summaries: dict[str, dict[str, Any]] = {}
    for folder in folders:
        path = folder / SUMMARY
        try:
            summary = _with_present_names(json.loads(path.read_text(encoding="utf-8")))
            limits = summary["wrong_beyond"]
            wrong_beyond = float(limits["metres"]), float(limits["degrees"])
        except OSError as error:
            raise EvaluationError(f"{folder}: no evaluation found, {path} cannot be read ({error.strerror})") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise EvaluationError(f"{path}: not a summary of an evaluation") from error
        name = folder.resolve().name
        while name in runs:
            name += "'"
        runs[name], summaries[name] = read_csv(folder / OUTCOMES, wrong_beyond), summary
    return runs, summaries


def _record_files(folder: Path) -> list[Path]:
    """The record files that an evaluation left in its folder."""
    from nre_ros.evaluation.baselines import BASELINES

    files = [folder / RECORDS, *(baseline_records(folder, name) for name in BASELINES)]
    return [path for path in files if path.exists()]


def _with_present_names(values: dict[str, Any]) -> dict[str, Any]:
    """The content of a JSON file with the keys of version 0.1 renamed, at the top and below ``about``."""
    renamed = {_RENAMED_KEYS.get(key, key): value for key, value in values.items()}
    if isinstance(renamed.get("about"), dict):
        renamed["about"] = _with_present_names(renamed["about"])
    return renamed


def _first_difference(earlier: dict[str, Any], now: dict[str, Any]) -> str:
    for key in sorted(set(earlier) | set(now)):
        a, b = earlier.get(key), now.get(key)
        if a != b:
            if isinstance(a, dict) and isinstance(b, dict):
                return f"{key}: {_first_difference(a, b)}"
            return f"{key} {_shortened(a)}, now {_shortened(b)}"
    return f"{ABOUT} is damaged"


def _shortened(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
