# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Time of one query beside other work, for numbers of threads and ways in which OpenMP's threads wait.

As many processes as the machine has cores, of the same priority and with one thread each, compute all the time while a
query is localized beside them. They are stopped while the same queries are localized alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from common import Options, Table
from scenes import kitchen
from turns import BLOCK, Method, described, running

CASES: tuple[tuple[str, dict[str, str | None]], ...] = (
    ("as the package sets it", {"OMP_WAIT_POLICY": None, "GOMP_SPINCOUNT": None}),
    ("OMP_WAIT_POLICY=PASSIVE", {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": None}),
    ("GOMP_SPINCOUNT=1000", {"OMP_WAIT_POLICY": None, "GOMP_SPINCOUNT": "1000"}),
    ("GOMP_SPINCOUNT=10000", {"OMP_WAIT_POLICY": None, "GOMP_SPINCOUNT": "10000"}),
    ("GOMP_SPINCOUNT=300000, OpenMP's own choice", {"OMP_WAIT_POLICY": None, "GOMP_SPINCOUNT": "300000"}),
    ("OMP_WAIT_POLICY=ACTIVE", {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": None}),
)
"""Label, and variables of the process that localizes."""
THREADS = (1, 2)
BUSY = 2
"""Busy processes, as many as the goal's machine has cores."""
AIM = 2.5
"""Largest ratio of the time beside other work to the time alone, to reach."""
_QUERIES = 24
_COMPUTE = "while True: sum(range(1000))"


def beside_other_work(options: Options) -> Iterator[Table]:
    """Yields the table of times alone and beside other work."""
    images = options.data("data/kitchen") / "images"
    scene = kitchen(options)
    queries = [described(query, images / query.name) for query in scene.queries()]
    queries = queries[:: max(1, len(queries) // _QUERIES)]
    task = {"kind": "localizer", "map": str(scene.map_path)}
    methods = [
        Method(label, {**task, "threads": threads}, environment=environment)
        for label, environment in CASES
        for threads in THREADS
    ]
    with running(methods, options), other_work(BUSY) as work:
        for method in methods:
            method.ask(queries, range(2), keep=False)
        times = measure(methods, queries, work)
    table = Table(
        f"One query beside {BUSY} busy processes of one thread each, {os.cpu_count()} cores",
        (
            "waiting threads",
            "threads",
            "alone, median [ms]",
            "beside, median [ms]",
            "ratio",
            "beside, 90 % below [ms]",
            "beside, 99 % below [ms]",
        ),
    )
    for method, (alone, beside) in zip(methods, times):
        median, *slow = (float(np.quantile(beside, q)) for q in (0.5, 0.9, 0.99))
        ratio = median / float(np.median(alone))
        table.rows.append((method.label, method.task["threads"], float(np.median(alone)), median, ratio, *slow))
    table.notes.append(
        f"{len(queries)} queries against 5 keyframes, in turns. To reach: at most {AIM:g} times as long as alone with what "
        "the package sets. A fair share of two cores is half of them."
    )
    yield table


def measure(methods: list[Method], queries: list[dict[str, Any]], work: OtherWork) -> list[tuple[list, list]]:
    """Localizes the queries with each method in turns, alone and beside other work.

    Args:
        methods: the methods, whose processes run.
        queries: the queries.
        work: the busy processes, which stand still.

    Returns:
        For each method the milliseconds of the queries alone, and beside other work.
    """
    times: list[tuple[list, list]] = [([], []) for _ in methods]
    for begin in range(0, len(queries), BLOCK):
        numbers = range(begin, min(begin + BLOCK, len(queries)))
        for method, (alone, beside) in zip(methods, times):
            alone += [1e3 * answer["seconds"] for answer in method.ask(queries, numbers, keep=False)]
            with work.running():
                beside += [1e3 * answer["seconds"] for answer in method.ask(queries, numbers, keep=False)]
    return times


class OtherWork:
    """Busy processes that can stand still."""

    def __init__(self, processes: list[subprocess.Popen[bytes]]) -> None:
        """Keeps the processes, which must stand still."""
        self._processes = processes

    @contextmanager
    def running(self) -> Iterator[None]:
        """Lets the processes compute while the context lasts."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes:
            process.send_signal(number)


@contextmanager
def other_work(count: int) -> Iterator[OtherWork]:
    """Starts busy processes, which stand still until they are asked to compute, and ends them."""
    processes = [subprocess.Popen([sys.executable, "-c", _COMPUTE]) for _ in range(count)]
    try:
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        yield OtherWork(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
