# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Time and memory of one query, each configuration in a process of its own.

The process opens the map, warms up, and localizes the kitchen's queries one after the other. Its peak memory is the
kernel's (VmHWM) and includes everything that is loaded.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from common import Options, Table, child_options, prepare_process
from scenes import kitchen

CONFIGURATIONS = (
    ("63 keyframes, 5 retrieved", 1, 5),
    ("7 keyframes, 5 retrieved", 9, 5),
    ("63 keyframes, 20 retrieved", 1, 20),
)
"""Title, n where every nth map frame is a keyframe, and how many keyframes of 500 points are retrieved."""
ROUNDS = 3
"""How often all queries are localized."""


def run(options: Options):
    """Yields the table of totals and the one of stages."""
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    totals = Table(
        "One query of 640x480, everything included",
        (
            "map",
            "device",
            "points",
            "median [ms]",
            "90 % below [ms]",
            "99 % below [ms]",
            "peak memory [MB]",
            "peak GPU memory [MB]",
            "with a pose [%]",
        ),
    )
    stages = Table("Its stages, medians [ms]", ("map", "device"))
    for title, every, retrieved in CONFIGURATIONS:
        map_path = kitchen(options, every).map_path
        for device in devices:
            task = {"map": str(map_path), "device": device, "retrieved": retrieved}
            measured = options.run_in_child(__file__, task)
            totals.rows.append((title, device, *measured["totals"]))
            if not stages.rows:
                stages.columns += tuple(measured["stages"])
            stages.rows.append((title, device, *(measured["stages"].get(name) for name in stages.columns[2:])))
    totals.notes.append(
        f"{ROUNDS} times through the queries after a warm-up; CPU with {options.threads} threads. To reach: "
        "5 keyframes 250 ms and 1200 MB, 20 keyframes 4 times the time of 5; GPU 8 ms, 99 % below 12 ms, 1000 MB."
    )
    if len(devices) == 1:
        totals.notes.append("cuda not run: torch finds no GPU here.")
    yield totals
    yield stages


def _child(task: dict) -> None:
    """Measures one configuration and prints one line of JSON."""
    from nre_ros.localization.localizer import Localizer

    prepare_process(task["threads"])
    options = child_options(task)
    seconds, results = [], []
    with Localizer(task["map"], task["device"], seed=task["seed"], retrieve=task["retrieved"]) as localizer:
        localizer.warm_up()
        for _ in range(ROUNDS):
            for query in kitchen(options).queries():
                started = perf_counter()
                results.append(localizer.localize(query.image, query.camera))
                seconds.append(perf_counter() - started)
    names = max((result.milliseconds for result in results), key=len)
    stages = {name: float(np.median([result.milliseconds.get(name, np.nan) for result in results])) for name in names}
    gpu = torch.cuda.max_memory_allocated() / 1e6 if task["device"] == "cuda" else None
    share = 100 * float(np.mean([result.success for result in results]))
    points = int(np.median([result.points_considered for result in results]))
    times = [float(1e3 * np.quantile(seconds, q)) for q in (0.5, 0.9, 0.99)]
    print(json.dumps({"totals": [points, *times, peak_megabytes(), gpu, share], "stages": stages}))


def peak_megabytes() -> float:
    """Reads the peak resident memory of this process; getrusage would count its parent's, too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("/proc/self/status has no VmHWM")


if __name__ == "__main__":
    _child(json.loads(sys.argv[1]))
