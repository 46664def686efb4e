# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How opening a map, finding keyframes and a whole query grow with the map, from 1,000 to 100,000 keyframes.

Each size is opened in a process of its own; its memory is the kernel's peak (VmHWM).  For the
whole query two maps take turns image by image, so that both see the same machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from common import ROOT, Options, Table, prepare_process, timed
from grown import grown_map
from scenes import kitchen
from speed import peak_megabytes

SIZES = (1_000, 10_000, 100_000)
NEAREST = 10
_QUERIES = 200


def run(options: Options):
    """Yields the table of sizes, and plots it into the benchmark's folder."""
    table = Table(
        "Maps grown from real keyframes",
        (
            "keyframes",
            "file [GB]",
            "index [MB]",
            "open [s]",
            f"{NEAREST} nearest [ms]",
            "with a prior [ms]",
            "with a local look [ms]",
            "recall [%]",
            "whole query [ms]",
            "to 1,000's [-]",
            "peak memory [MB]",
        ),
    )
    for size in SIZES:
        path = grown_map(options, size)
        measured = _in_child(options, "retrieval", [path])
        whole = _in_child(options, "whole", [grown_map(options, SIZES[0]), path])
        table.rows.append(
            (
                size,
                path.stat().st_size / 1e9,
                measured["index"],
                measured["open"],
                *measured["milliseconds"],
                measured["recall"],
                whole["milliseconds"][1],
                whole["milliseconds"][1] / whole["milliseconds"][0],
                whole["peak"] if size == SIZES[0] else _in_child(options, "whole", [path])["peak"],
            )
        )
    table.notes += [
        f"Medians with {options.threads} threads. Recall: share of the {NEAREST} most similar keyframes, by looking "
        f"through all, that are among the {NEAREST} found; of {_QUERIES} queries near keyframes of the map. "
        "Opening reads the index, the file is in the system's cache. Whole query: kitchen images of 640x480 against 5 "
        "keyframes of 100 points.",
        "To reach with 100,000: open 1 s, ten nearest 10 ms, whole query 1.2 times that of 1,000, memory 1000 MB.",
    ]
    _plot(table, options.folder / "scale.png")
    table.notes.append(f"Plot: {options.folder / 'scale.png'}")
    yield table


def _in_child(options: Options, what: str, paths: list[Path]) -> dict:
    task = {
        "what": what,
        "paths": [str(path) for path in paths],
        "threads": options.threads,
        "seed": options.seed,
        "queries": options.queries,
        "shared": str(options.shared),
        "folder": str(options.folder),
    }
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, json.dumps(task)]
    child = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(child.stdout.splitlines()[-1])


def _retrieval(task: dict) -> dict:
    """Opening, and the time and recall of queries, of one map."""
    from nre_ros.features.base import FeatureGrid, FeatureMap
    from nre_ros.keyframes.retrieval.pose_prior import PosePrior
    from nre_ros.keyframes.retrieval.retriever import RetrievalConfig, Retriever
    from nre_ros.keyframes.storage.store import KeyframeStore

    path = task["paths"][0]

    def opened():
        store = KeyframeStore.open(path)
        return store, Retriever(store)

    seconds, (store, retriever) = timed(opened)
    queries, poses = _queries(store, np.random.default_rng(task["seed"]))
    features = torch.nn.functional.normalize(torch.randn(64, 60, 80, generator=torch.Generator().manual_seed(0)), dim=0)
    look = dict(features=FeatureMap(features, FeatureGrid(8.0, 3.25)), temperature=0.03)
    priors = [PosePrior(T, np.diag([0.25] * 3 + [0.03] * 3)) for T in poses]
    ways = [
        [timed(lambda: retriever.query(query, NEAREST, **extra)) for query, extra in zip(queries, extras)]
        for extras in ([{}] * len(queries), [{"prior": prior} for prior in priors], [look] * len(queries))
    ]
    nearest = Retriever(store, RetrievalConfig(diversity=0.0))
    recall = np.mean(
        [
            len(exact.intersection(nearest.query(query, NEAREST)[0])) / NEAREST
            for exact, query in zip(_exhaustive(store, queries), queries)
        ]
    )
    return {
        "open": seconds,
        "milliseconds": [1e3 * float(np.median([s for s, _ in way])) for way in ways],
        "recall": 100 * float(recall),
        "index": len(store.read_index() or b"") / 1e6,
    }


def _queries(store, rng) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors as far from those of keyframes of the map as a made-up one is, and the poses of these keyframes."""
    from nre_ros.keyframes.storage.blobs import dequantise

    ids = rng.integers(1, len(store) + 1, (_QUERIES, 3))
    known = {}
    for scan in store.scan_ids(ids.ravel()):
        known.update(zip(scan.ids.tolist(), zip(dequantise(scan.descriptors, scan.scales), scan.poses)))
    rows = np.stack([known[a][0] + 0.1 * (known[b][0] - known[c][0]) for a, b, c in ids.tolist()])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), np.stack([known[a][1] for a in ids[:, 0].tolist()])


def _exhaustive(store, queries: np.ndarray) -> list[set]:
    """Ids of the most similar keyframes of each query, by looking through all."""
    from nre_ros.keyframes.storage.blobs import dequantise

    ids, similarity = np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32)
    for scan in store.scan():
        found = queries @ dequantise(scan.descriptors, scan.scales).T
        similarity = np.concatenate([similarity, found], axis=1)
        ids = np.concatenate([ids, np.broadcast_to(scan.ids, found.shape)], axis=1)
        best = np.argsort(-similarity, axis=1, kind="stable")[:, :NEAREST]
        similarity, ids = np.take_along_axis(similarity, best, 1), np.take_along_axis(ids, best, 1)
    return [set(row) for row in ids.tolist()]


def _whole(task: dict) -> dict:
    """Median time of a whole query on each of the maps, in turns, and the memory of all."""
    from nre_ros.localization.localizer import Localizer

    options = Options(Path(task["shared"]), Path(task["folder"]), queries=task["queries"])
    localizers = [Localizer(path, "cpu", seed=task["seed"]) for path in task["paths"]]
    seconds = []
    for query in kitchen(options).queries():
        seconds.append([timed(localizer.localize, query.image, query.camera)[0] for localizer in localizers])
    return {"milliseconds": (1e3 * np.median(seconds, axis=0)).tolist(), "peak": peak_megabytes()}


def _plot(table: Table, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = dict(zip(table.columns, zip(*table.rows)))
    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    panels = (
        ("Time of one query [ms]", ("whole query [ms]", "with a local look [ms]", f"{NEAREST} nearest [ms]")),
        ("Opening the map [s]", ("open [s]",)),
        ("Peak memory [MB]", ("peak memory [MB]",)),
    )
    for axis, (title, names) in zip(axes, panels):
        for name in names:
            axis.plot(columns["keyframes"], columns[name], "o-", label=name.split(" [")[0])
        axis.set(title=title, xlabel="keyframes", xscale="log", ylim=(0, None))
        axis.grid(alpha=0.3)
        if len(names) > 1:
            axis.set(yscale="log", ylim=(1, None))
            axis.legend(fontsize="small")
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


if __name__ == "__main__":
    task = json.loads(sys.argv[1])
    prepare_process(task["threads"])
    print(json.dumps({"retrieval": _retrieval, "whole": _whole}[task["what"]](task)))
