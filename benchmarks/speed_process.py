# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A process that localizes queries and reports their times: ``python speed_process.py TASK``, see ``turns.py``.

The process imports nre_ros from PYTHONPATH, which may be another version. It therefore uses only what all versions have.
Each line on standard input is a request in JSON, and each line on standard output is the answer. What libraries print
goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from nre_ros import process

_Image = Any
_Camera = Any
_Localize = Callable[[_Image, _Camera, dict[str, Any]], dict[str, Any]]
"""Image, camera and query -> the seconds of the method's own work, and what else is known."""


def main(task: dict[str, Any]) -> None:
    """Answers requests until standard input ends.

    A request has ``queries``, each with the path ``image``, ``camera`` (width, height, fx, fy, cx, cy, model,
    distortion) and, for the other methods, the names ``keyframes`` to match with; and ``retrieve``, the number of
    keyframes of ours. The answer has a list with the ``seconds`` of each query, and ``peak``, the megabytes of memory
    so far.

    Args:
        task: ``kind`` (localizer, network or the name of a baseline), ``threads``, ``seed``, ``device`` and what the
            kind needs.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if task["kind"] in ("localizer", "network"):
        process.prepare()  # before torch is imported, as the package does; other methods have their libraries' defaults
    else:
        process.keep_memory()
    import cv2
    import torch

    torch.set_num_threads(task["threads"])
    cv2.setNumThreads(task["threads"])
    localize = {"localizer": _localizer, "network": _network}.get(task["kind"], _baseline)(task)
    print(json.dumps({"pid": os.getpid()}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        found = [_answer(localize, query, request) for query in request["queries"]]
        print(json.dumps({"queries": found, "peak": peak_megabytes(), **_gpu(task)}), file=answers, flush=True)


def _answer(localize: _Localize, query: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """Reads and localizes one image; reading is not timed."""
    import cv2

    from nre_ros.geometry import Camera

    image = cv2.imread(query["image"], cv2.IMREAD_COLOR)
    *intrinsics, distortion = query["camera"]
    return localize(image, Camera(*intrinsics, tuple(distortion)), {**query, "retrieve": request["retrieve"]})


def _localizer(task: dict[str, Any]) -> _Localize:
    """The whole way of nre_ros: features, retrieval, estimation and verdict."""
    from nre_ros.localization.localizer import Localizer

    localizer = Localizer(task["map"], task["device"], seed=task["seed"])
    localizer.warm_up()

    def localize(image: _Image, camera: _Camera, query: dict[str, Any]) -> dict[str, Any]:
        localizer.retrieve = query["retrieve"]  # an argument of `localize` in later versions only
        started = perf_counter()
        result = localizer.localize(image, camera)
        seconds = perf_counter() - started
        return {
            "seconds": seconds,
            "stages": dict(result.milliseconds),
            "posed": bool(result.success),
            "points": result.points_considered,
            "keyframes": [localizer.store.get(number).name for number in result.keyframes],
        }

    return localize


def _network(task: dict[str, Any]) -> _Localize:
    """The network alone: no method that uses these features can be faster."""
    import torch

    from nre_ros.features import load_backbone

    backbone = load_backbone("xfeat", torch.device(task["device"]))

    def localize(image: _Image, camera: _Camera, query: dict[str, Any]) -> dict[str, Any]:
        started = perf_counter()
        backbone.extract(image)
        if task["device"] == "cuda":
            torch.cuda.synchronize()
        return {"seconds": perf_counter() - started}

    return localize


def _baseline(task: dict[str, Any]) -> _Localize:
    """Another method on the same keyframes, whose keypoints and points are not part of the time."""
    from common import Options
    from scenes import kitchen

    from nre_ros.evaluation.baselines import make_baseline
    from nre_ros.evaluation.baselines.localizer import BaselineLocalizer

    scene = kitchen(Options(Path(task["shared"]), Path(task["folder"])))
    baseline = make_baseline(task["kind"], task["device"])
    localizer = BaselineLocalizer(baseline, scene.image, scene.lifter(baseline), task["seed"])

    def localize(image: _Image, camera: _Camera, query: dict[str, Any]) -> dict[str, Any]:
        found = localizer.localize(image, camera, query["keyframes"])
        return {
            "seconds": found.seconds,
            "stages": found.milliseconds,
            "posed": found.T_map_cam is not None,
            "points": found.matches,
        }

    return localize


def peak_megabytes() -> float:
    """Reads the peak resident memory of this process; getrusage would count its parent's, too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("/proc/self/status has no VmHWM")


def _gpu(task: dict[str, Any]) -> dict[str, float]:
    if task["device"] != "cuda":
        return {}
    import torch

    return {"gpu": torch.cuda.max_memory_allocated() / 1e6}


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
