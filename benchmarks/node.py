# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The node over DDS: delay, memory and threads over minutes, and its poses on bags.

Player or camera, node and listener are processes of their own. ``stream`` sends one image at 30 Hz and measures the
time from an image's stamp to its pose in another process, without the time of the estimator. ``slow`` does the same
with an estimator that takes several times as long. The sets ``bag``, ``kidnap`` and ``rooms`` are in ``node_bags``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from common import ROOT, Options, Table
from node_bags import identical_rooms, kidnap_bag, kitchen_bag
from scenes import kitchen

from nre_ros.ros_environment import clean_environment, config_file

MINUTES = 10.0
"""Length of the stream."""
SETTLED = 1.0
"""Minutes after which memory is settled; it is compared with that at the end."""
SLOW = 25
"""Retrieved keyframes of the set ``slow``: five times as many as usual."""


def run(options: Options) -> Iterator[Table]:
    """Yields one table for each set."""
    for name in options.selected_sets(SETS):
        yield SETS[name](options)


# --- the stream -------------------------------------------------------------------------------------


def _stream(options: Options, **parameters) -> Table:
    from node_listener import listen

    scene = kitchen(options)
    query = next(iter(scene.queries()))
    picture = options.folder / "query.png"
    cv2.imwrite(str(picture), query.image)
    c = query.camera
    info = {
        "width": c.width,
        "height": c.height,
        "k": c.K.ravel().tolist(),
        "distortion_model": "plumb_bob",
        "d": [float(value) for value in c.distortion],
    }
    environment = clean_environment(
        ROS_DOMAIN_ID=os.environ.get("ROS_DOMAIN_ID", str(1 + os.getpid() % 100)),
        PYTHONPATH=str(ROOT),
        ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST",
        OMP_NUM_THREADS=str(options.threads),
    )
    os.environ.update({name: environment[name] for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE")})
    profile = {"FASTRTPS_DEFAULT_PROFILES_FILE": str(config_file("fastdds_large_images.xml"))}
    log = (options.folder / "stream_node.log").open("w")
    given = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    node = subprocess.Popen(
        [sys.executable, "-m", "nre_ros", "node", "--map", str(scene.map_path), "--ros-args", *given],
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    camera = subprocess.Popen(
        [sys.executable, str(ROOT / "benchmarks/node_camera.py"), str(picture), json.dumps(info)],
        env={**environment, **profile},
    )
    try:
        heard, usage = listen(60 * MINUTES, lambda: _usage(node.pid))
        began = time.monotonic()
        node.send_signal(signal.SIGINT)
        code = node.wait(30)
        ended = time.monotonic() - began
    finally:
        for process in (camera, node):
            if process.poll() is None:
                process.kill()
    settings = "".join(f", {name} {value}" for name, value in parameters.items())
    table = Table(f"{MINUTES:g} minutes of 640x480 at 30 Hz, raw, over DDS{settings}", ("", "median", "99%", "aim"))
    table.rows += _stream_rows(heard, usage, ended, code)
    return table


def _stream_rows(heard: list[dict], usage: list[tuple[float, float, int]], ended: float, code: int) -> list[tuple]:
    heard = heard[len(heard) // 20 :]  # the first images arrive while the node starts
    own = [line["delay"] - line["estimator"] for line in heard]
    rows = [
        ("stamp to pose, without the estimator [ms]", *_percentiles(own), "10, 99% 25"),
        ("estimator [ms]", *_percentiles([line["estimator"] for line in heard]), None),
        ("poses", len(heard), None, None),
    ]
    settled = [megabytes for seconds, megabytes, _ in usage if seconds >= 60 * min(SETTLED, MINUTES / 3)]
    threads = [count for seconds, _, count in usage if seconds >= 60 * min(SETTLED, MINUTES / 3)]
    window = max(1, len(settled) // 10)
    first, last = np.median(settled[:window]), np.median(settled[-window:])
    rows += [
        ("resident memory, settled [MB]", float(first), None, None),
        ("the same at the end, growth [%]", float(100 * (last / first - 1)), None, "2"),
        ("threads, fewest and most", min(threads), max(threads), "the same"),
        (f"shutdown by SIGINT [s], exit code {code}", ended, None, "2"),
    ]
    return rows


def _percentiles(values: list[float]) -> tuple[float, float]:
    return float(np.median(values)), float(np.percentile(values, 99))


def _usage(pid: int) -> tuple[float, int]:
    """Reads resident megabytes and number of threads of a process."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) / 1024, int(lines["Threads"])


SETS = {
    "stream": _stream,
    "slow": lambda options: _stream(options, retrieve=SLOW),
    "bag": kitchen_bag,
    "kidnap": kidnap_bag,
    "rooms": identical_rooms,
}
"""Name of each set -> the function that makes its table."""
