# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Time of one query alone and beside two busy processes, for numbers of threads and ways of waiting.

Threads of OpenMP that wait for each other by spinning take the cores from threads that have work. How they wait is decided
by the environment before torch is imported, so that each way has a process of its own. The busy processes count in an endless
loop, with the same priority.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter, sleep

import numpy as np
from common import Options, Table, child_options, prepare_process
from scenes import kitchen

BUSY = 2
"""Busy processes."""
LARGEST = 2.5
"""The ratio to reach."""
WAITING = (
    ("passive: the default of nre_ros", {"OMP_WAIT_POLICY": "PASSIVE"}),
    ("spins briefly", {"GOMP_SPINCOUNT": "1000"}),
    ("spins: the default of libgomp", {}),
)
"""How idle threads wait: title, environment."""


def run(options: Options) -> Iterator[Table]:
    """Yields the table."""
    map_path = kitchen(options, 1).map_path
    columns = (
        "threads",
        "idle threads",
        "alone [ms]",
        "90 % below [ms]",
        "busy [ms]",
        "90 % below [ms]",
        "ratio of medians",
    )
    table = Table(f"One query of 640x480 beside {BUSY} busy processes, 5 keyframes", columns)
    for threads, waiting in ((2, 0), (2, 1), (2, 2), (1, 0)):
        title, environment = WAITING[waiting]
        measured = _measure(options, {"map": str(map_path)}, threads, environment)
        table.rows.append(
            (threads, title, *measured["alone"], *measured["busy"], measured["busy"][0] / measured["alone"][0])
        )
    table.notes.append(
        f"All queries alone, and then beside {BUSY} endless loops of the same priority on {os.cpu_count()} cores. A fair share "
        f"would double the time. To reach: {LARGEST}."
    )
    yield table


def _measure(options: Options, task: dict, threads: int, environment: dict[str, str]) -> dict:
    kept = {name: os.environ.pop(name, None) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    os.environ.update(environment)
    try:
        return options.run_in_child(__file__, {**task, "threads": threads})
    finally:
        for name, value in kept.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Keeps processes busy, one thread each."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        sleep(0.5)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _child(task: dict) -> None:
    """Measures one way of waiting and prints one line of JSON."""
    from nre_ros.localization.localizer import Localizer

    prepare_process(task["threads"])
    queries = list(kitchen(child_options(task)).queries())
    with Localizer(task["map"], "cpu", seed=task["seed"]) as localizer:

        def quantiles() -> list[float]:
            seconds = []
            for query in queries:
                started = perf_counter()
                localizer.localize(query.image, query.camera)
                seconds.append(perf_counter() - started)
            return [float(1e3 * np.quantile(seconds, q)) for q in (0.5, 0.9)]

        localizer.warm_up()
        alone = quantiles()
        with busy_processes(BUSY):
            busy = quantiles()
    print(json.dumps({"alone": alone, "busy": busy}))


if __name__ == "__main__":
    _child(json.loads(sys.argv[1]))
