# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Times of several methods on the same queries, each in a process of its own, in turns.

One method works at a time, on a few queries, then the next method on the same ones. What else the machine does
disturbs all methods alike.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, Options
from scenes import Query

BLOCK = 8
"""Queries that a method localizes before it is the next one's turn."""


@dataclass
class Method:
    """A method, its process and what was measured.

    Attributes:
        label: name in the tables.
        task: the task of ``speed_process.py``; the options are added to it.
        retrieve: number of keyframes.
        sparse: whether the method localizes only the first query of each block, because it takes seconds for one.
        sources: the checkout whose sources are measured.
        environment: variables of the process beside those of this process; None removes a variable.
        answers: what was reported for each query, in the order in which the queries were localized.
        asked: the numbers of these queries.
        peak: largest memory of the process in MB.
        gpu: largest memory on the GPU in MB; None without a GPU.
    """

    label: str
    task: dict[str, Any]
    retrieve: int = 5
    sparse: bool = False
    sources: Path = ROOT
    environment: Mapping[str, str | None] = field(default_factory=dict)
    answers: list[dict[str, Any]] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    peak: float | None = None
    gpu: float | None = None
    _process: subprocess.Popen[str] | None = None

    def start(self, options: Options) -> None:
        """Starts the process; raises ``RuntimeError`` with its last words if it fails."""
        threads = self.task.get("threads", options.threads)
        given = {"seed": options.seed, "shared": str(options.shared), "folder": str(options.folder), "device": "cpu"}
        environment: dict[str, str | None] = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": os.pathsep.join([str(self.sources), *_more_modules(self.sources)]),
            **self.environment,
        }
        script = Path(__file__).with_name("speed_process.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script), json.dumps({**given, **self.task, "threads": threads})],
            env={name: value for name, value in environment.items() if value is not None},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read()

    def ask(self, queries: Sequence[dict[str, Any]], numbers: Sequence[int], keep: bool = True) -> list[dict[str, Any]]:
        """Localizes queries.

        Args:
            queries: all queries, as ``speed_process.py`` takes them.
            numbers: which of them are localized.
            keep: whether the answers are kept.

        Returns:
            The answers.
        """
        assert self._process is not None and self._process.stdin is not None
        request = {"queries": [queries[number] for number in numbers], "retrieve": self.retrieve}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        found: list[dict[str, Any]] = answer["queries"]
        if keep:
            self.answers += found
            self.asked += numbers
            self.peak, self.gpu = answer["peak"], answer.get("gpu")
        return found

    def stop(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def milliseconds(self, queries: set[int] | None = None) -> np.ndarray:
        """Returns the times of the queries, or of some of them, in milliseconds."""
        return np.array(
            [
                1e3 * answer["seconds"]
                for number, answer in zip(self.asked, self.answers)
                if queries is None or number in queries
            ]
        )

    def stages(self) -> dict[str, float]:
        """Returns the median time of each stage in milliseconds, in the order of the stages."""
        names = max((answer.get("stages", {}) for answer in self.answers), key=len)
        return {
            name: float(np.nanmedian([answer["stages"].get(name, np.nan) for answer in self.answers])) for name in names
        }

    def _read(self) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.label}: the process ended with exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _more_modules(sources: Path) -> list[str]:
    """Further folders of Python modules: for this checkout those of the environment, kernels for example."""
    return [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry] if sources == ROOT else []


@contextmanager
def running(methods: Sequence[Method], options: Options) -> Iterator[None]:
    """Runs the processes of the methods while the context lasts."""
    try:
        for method in methods:
            method.start(options)
        yield
    finally:
        for method in methods:
            method.stop()


def take_turns(methods: Sequence[Method], queries: Sequence[dict[str, Any]], rounds: int) -> None:
    """Localizes all queries with all methods, block by block.

    Args:
        methods: the methods, whose processes run and have warmed up.
        queries: the queries, as ``speed_process.py`` takes them.
        rounds: how often all queries are localized. The method that begins a block changes.
    """
    turn = 0
    for _ in range(rounds):
        for begin in range(0, len(queries), BLOCK):
            numbers = range(begin, min(begin + BLOCK, len(queries)))
            for k in range(len(methods)):
                method = methods[(k + turn) % len(methods)]
                method.ask(queries, numbers[:1] if method.sparse else numbers)
            turn += 1


def described(query: Query, image: Path) -> dict[str, Any]:
    """Describes a query for ``speed_process.py``.

    Args:
        query: the query.
        image: the file of its image.
    """
    c = query.camera
    camera = [c.width, c.height, c.fx, c.fy, c.cx, c.cy, c.model, list(c.distortion)]
    return {"name": query.name, "image": str(image), "camera": camera}


def ratio_of_medians(ours: Method, other: Method) -> float:
    """Returns our median time relative to another method's, over the queries that both have localized."""
    common = set(ours.asked) & set(other.asked)
    return float(np.median(ours.milliseconds(common)) / np.median(other.milliseconds(common)))
