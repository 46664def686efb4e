# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Time and memory of opening a map, of retrieval and of a whole query, for 1,000 to 100,000 keyframes.

Each map is opened in a process of its own, whose memory is the kernel's peak (VmHWM). For the whole query two maps
alternate image by image, so that the load of the machine is the same for both.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from common import Options, Table, child_options, prepare_process, timed
from scenes import kitchen
from speed_process import peak_megabytes
from synthetic_maps import synthetic_map

SIZES = (1_000, 10_000, 100_000)
NEAREST = 10
_QUERIES = 200


def run(options: Options):
    """Yields the table of sizes, and plots it into the benchmark's folder."""
    table = Table(
        "Synthetic maps made of real keyframes",
        (
            "keyframes",
            "file [GB]",
            "index [MB]",
            "open [s]",
            f"{NEAREST} nearest [ms]",
            "with a prior [ms]",
            "with re-ranking [ms]",
            "recall [%]",
            "whole query [ms]",
            "relative to 1,000 [-]",
            "peak memory [MB]",
        ),
    )
    for size in SIZES:
        path = synthetic_map(options, size)
        measured = _measure(options, "retrieval", [path])
        whole = _measure(options, "whole", [synthetic_map(options, SIZES[0]), path])
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
                whole["peak"] if size == SIZES[0] else _measure(options, "whole", [path])["peak"],
            )
        )
    table.notes += [
        f"Medians with {options.threads} threads. Recall: share of the {NEAREST} most similar keyframes, by exhaustive "
        f"search, that are among the {NEAREST} found; of {_QUERIES} queries near keyframes of the map. "
        "Opening reads the index, the file is in the system's cache. Whole query: kitchen images of 640x480 against 5 "
        "keyframes of 100 points.",
        "To reach with 100,000: open 1 s, ten nearest 10 ms, whole query 1.2 times that of 1,000, memory 1000 MB.",
    ]
    _plot(table, options.folder / "scale.png")
    table.notes.append(f"Plot: {options.folder / 'scale.png'}")
    yield table


def _measure(options: Options, what: str, paths: list[Path]) -> dict:
    return options.run_in_child(__file__, {"what": what, "paths": [str(path) for path in paths]})


def _retrieval(task: dict) -> dict:
    """Measures opening one map, and time and recall of its retrieval."""
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
    reranking = dict(features=FeatureMap(features, FeatureGrid(8.0, 3.25)), temperature=0.03)
    priors = [PosePrior(T, np.diag([0.25] * 3 + [0.03] * 3)) for T in poses]
    variants = [
        [timed(lambda: retriever.query(query, NEAREST, **extra)) for query, extra in zip(queries, extras)]
        for extras in ([{}] * len(queries), [{"prior": prior} for prior in priors], [reranking] * len(queries))
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
        "milliseconds": [1e3 * float(np.median([s for s, _ in variant])) for variant in variants],
        "recall": 100 * float(recall),
        "index": len(store.read_index() or b"") / 1e6,
    }


def _queries(store, rng) -> tuple[np.ndarray, np.ndarray]:
    """Makes query descriptors near those of keyframes of the map, and returns the poses of these keyframes."""
    from nre_ros.keyframes.storage.blobs import dequantise

    ids = rng.integers(1, len(store) + 1, (_QUERIES, 3))
    known = {}
    for scan in store.scan_ids(ids.ravel()):
        known.update(zip(scan.ids.tolist(), zip(dequantise(scan.descriptors, scan.scales), scan.poses)))
    rows = np.stack([known[a][0] + 0.1 * (known[b][0] - known[c][0]) for a, b, c in ids.tolist()])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), np.stack([known[a][1] for a in ids[:, 0].tolist()])


def _exhaustive(store, queries: np.ndarray) -> list[set]:
    """Finds the ids of the most similar keyframes of each query by exhaustive search."""
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
    """Measures the median time of a whole query on each of the maps, alternately, and the memory of all."""
    from nre_ros.localization.localizer import Localizer

    options = child_options(task)
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
        ("Time of one query [ms]", ("whole query [ms]", "with re-ranking [ms]", f"{NEAREST} nearest [ms]")),
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
