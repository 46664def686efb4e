# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Reads evaluations back from their folders."""

from __future__ import annotations

import json
from pathlib import Path

from nre_ros.errors import EvaluationError
from nre_ros.evaluation.evaluate import OUTCOMES, SUMMARY
from nre_ros.evaluation.metrics.outcomes import Outcomes
from nre_ros.evaluation.metrics.summary import read_csv


def read_runs(folders: list[Path]) -> tuple[dict[str, Outcomes], dict[str, dict]]:
    """Name of the run (its folder's, made unique) -> outcomes, and -> summary.  Raises ``EvaluationError``."""
    runs, summaries = {}, {}
    for folder in folders:
        path = folder / SUMMARY
        try:
            summary = json.loads(path.read_text(encoding="utf-8"))
            wrong = summary["wrong_beyond"]
            limits = float(wrong["metres"]), float(wrong["degrees"])
        except OSError as error:
            raise EvaluationError(f"{folder} holds no evaluation: {path} cannot be read ({error.strerror})") from error
        except (ValueError, KeyError, TypeError) as error:
            raise EvaluationError(f"{path} is no summary of an evaluation") from error
        name = folder.resolve().name
        while name in runs:
            name += "'"
        runs[name], summaries[name] = read_csv(folder / OUTCOMES, limits), summary
    return runs, summaries
