# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: tables, options, medians of timings, and on which machine they were measured."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter

import cv2
import torch

from nre_ros.process import keep_memory

ROOT = Path(__file__).resolve().parents[1]


class Skip(Exception):
    """A benchmark, or a part of one, that cannot run here; the message says why."""


class UsageError(Exception):
    """Options that ask for what there is not."""


@dataclass
class Options:
    """What the command line asks for; see ``run.py``."""

    shared: Path
    folder: Path
    device: str = "cpu"
    threads: int = 2
    seed: int = 0
    queries: int = 0
    sets: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    write: bool = False

    def data(self, name: str) -> Path:
        """A file or folder below ``shared``, or ``Skip`` where it is absent."""
        path = self.shared / name
        if not path.exists():
            raise Skip(f"needs {name} in the folder of shared data ({self.shared}), absent here")
        return path


@dataclass
class Table:
    """Rows of text and numbers under column heads (units in brackets), and notes below them."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_text(self) -> str:
        """The table in markdown, its columns aligned."""
        lines = [self.columns, *([_cell(value) for value in row] for row in self.rows)]
        widths = [max(len(line[k]) for line in lines) for k in range(len(self.columns))]
        texts = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines]
        texts.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
        return "\n".join([f"### {self.title}", "", *texts, *([""] if self.notes else []), *self.notes, ""])

    def to_json(self) -> dict:
        return asdict(self)


def _cell(value) -> str:
    if not isinstance(value, float):
        return "-" if value is None else str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:.2f}" if 100 <= abs(value) else f"{value:.3g}"
    return f"{value:.2g}"


def timed(function, *arguments):
    """Seconds of one call, and its result; waits for the GPU where there is one."""
    _wait()
    started = perf_counter()
    result = function(*arguments)
    _wait()
    return perf_counter() - started, result


def median_seconds(function, times: int = 7) -> float:
    """Median over several calls, after one that warms up."""
    function()
    return statistics.median(timed(function)[0] for _ in range(times))


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def prepare_process(threads: int) -> None:
    """Threads of torch and OpenCV in this process, and its memory kept as ``nre_ros`` and the node keep it."""
    keep_memory()
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def environment() -> dict[str, str]:
    """Where and with what the figures were measured."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes"),
        "commit": commit("nre_ros", "benchmarks"),
        "processor": _processor(),
        "torch threads": f"{torch.get_num_threads()} (OMP_WAIT_POLICY {os.environ.get('OMP_WAIT_POLICY', 'not set')})",
        "gpu": gpu,
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}, OpenCV {cv2.__version__}",
    }


def commit(*folders: str) -> str:
    """The last one that changed these folders of the repository, and whether they have changed since."""

    def git(*arguments):
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
