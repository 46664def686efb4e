# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Shared by the benchmarks: options, tables, timing, child processes, and the description of the machine."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import cv2
import torch

from nre_ros.nre import operators
from nre_ros.process import keep_memory

ROOT = Path(__file__).resolve().parents[1]
MIN_CONFIDENCE = 0.5
"""Of a pose that counts in the tables of accuracy, whatever the default of the localizer is."""
_Value = TypeVar("_Value")


class Skip(Exception):
    """A benchmark, or a part of one, cannot run here; the message gives the reason."""


class UsageError(Exception):
    """An option names something that does not exist."""


@dataclass
class Options:
    """The options of the command line; see ``run.py``.

    Attributes:
        shared: folder of shared data.
        folder: folder for maps and rendered views.
        device: cpu or cuda.
        threads: CPU threads.
        seed: seed of all random draws.
        queries: number of evenly spaced queries of a set; 0 for all.
        sets: names of the sets to run; empty for all.
        methods: names of the methods to run; empty for all.
        write: whether fitted numbers are written into the package.
        descriptor_head: file of a learned global descriptor to compare.
        steps: steps of each training; 0 for the benchmark's own number.
        before: revision of the previous release, for ``speed``; empty for the newest tag of a release.
        pictures: folder for plots; None if none are kept.
    """

    shared: Path
    folder: Path
    device: str = "cpu"
    threads: int = 2
    seed: int = 0
    queries: int = 0
    sets: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    write: bool = False
    descriptor_head: Path | None = None
    steps: int = 0
    before: str = ""
    pictures: Path | None = None

    def data(self, name: str) -> Path:
        """Returns a file or folder below ``shared``; raises ``Skip`` if it is absent."""
        path = self.shared / name
        if not path.exists():
            raise Skip(f"needs {name} in the folder of shared data ({self.shared}), absent here")
        return path

    def selected_sets(self, known: Collection[str]) -> list[str]:
        """Returns the names of the sets to run; raises ``UsageError`` for a name that is not among the known ones."""
        check_names("set", self.sets, known)
        return list(self.sets or known)

    def run_in_child(self, script: str, task: Mapping[str, Any]) -> dict[str, Any]:
        """Runs a task in a process of its own, so that its memory and start are its own.

        Args:
            script: the benchmark's file, which gets the task as JSON and prints its result as the last line.
            task: the task; the options are added to it.

        Returns:
            The result.
        """
        options = {"threads": self.threads, "seed": self.seed, "queries": self.queries}
        folders = {"shared": str(self.shared), "folder": str(self.folder)}
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, script, json.dumps({**options, **folders, **task})]
        child = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        result: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
        return result


def child_options(task: Mapping[str, Any]) -> Options:
    """Returns the options that ``run_in_child`` added to a task."""
    return Options(
        Path(task["shared"]),
        Path(task["folder"]),
        threads=task["threads"],
        seed=task["seed"],
        queries=task["queries"],
    )


def check_names(kind: str, names: Iterable[str], known: Collection[str]) -> None:
    """Raises ``UsageError`` if a name is not among the known ones."""
    for name in names:
        if name not in known:
            raise UsageError(f"{kind} {name!r}: unknown (known: {', '.join(known)})")


@dataclass
class Table:
    """Rows of text and numbers, and notes below them.

    Attributes:
        title: heading.
        columns: heads of the columns, units in brackets.
        rows: the cells of each row; None is shown as a dash.
        notes: lines below the table.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_text(self) -> str:
        """Formats the table in Markdown with aligned columns."""
        lines = [self.columns, *([_cell(value) for value in row] for row in self.rows)]
        widths = [max(len(line[k]) for line in lines) for k in range(len(self.columns))]
        texts = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines]
        texts.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
        return "\n".join([f"### {self.title}", "", *texts, *([""] if self.notes else []), *self.notes, ""])

    def to_json(self) -> dict[str, Any]:
        """Converts the table for a JSON file."""
        return asdict(self)


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return "-" if value is None else str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:.2f}" if 100 <= abs(value) else f"{value:.3g}"
    return f"{value:.2g}"


def timed(function: Callable[..., _Value], *arguments: Any) -> tuple[float, _Value]:
    """Measures one call: its seconds and its result. It waits for the GPU if there is one."""
    _wait_for_gpu()
    started = perf_counter()
    result = function(*arguments)
    _wait_for_gpu()
    return perf_counter() - started, result


def median_seconds(function: Callable[[], object], times: int = 7) -> float:
    """Measures the median time of several calls, after a first one that is not counted."""
    function()
    return statistics.median(timed(function)[0] for _ in range(times))


def _wait_for_gpu() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def prepare_process(threads: int) -> None:
    """Sets the threads of torch and OpenCV, and memory management as the node has it."""
    keep_memory()
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def environment() -> dict[str, str]:
    """Describes where and with what the figures were measured."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes"),
        "commit": commit("nre_ros", "benchmarks"),
        "processor": _processor(),
        "torch threads": f"{torch.get_num_threads()} (OMP_WAIT_POLICY {os.environ.get('OMP_WAIT_POLICY', 'not set')})",
        "operators": operators.implementation(),
        "gpu": gpu,
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}, OpenCV {cv2.__version__}",
    }


def commit(*folders: str) -> str:
    """Returns the last commit that changed these folders, and whether they have uncommitted changes."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", *folders)
        return git("log", "-1", "--format=%h", "--", *folders) + (" with uncommitted changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {len(names) or '?'} cores"
