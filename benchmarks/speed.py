# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Time and memory of one query: ours, other methods on the same keyframes, the previous release, the network alone.

Each method has a process of its own, and all localize the kitchen's queries in turns (``turns.py``). A process's peak
memory is the kernel's (VmHWM) and includes everything that is loaded.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import regression
import torch
from common import ROOT, Options, Table
from scenes import POINTS, kitchen
from turns import Method, described, ratio_of_medians, running, take_turns

from nre_ros.evaluation.baselines import make_baseline
from nre_ros.evaluation.baselines.base import BaselineUnavailable

CONFIGURATIONS = (
    ("ours", 1, 5),
    ("ours, map of 7 keyframes", 9, 5),
    ("ours, 20 keyframes", 1, 20),
)
"""Label, n where every nth map frame is a keyframe, and how many keyframes of 500 points are retrieved."""
OTHERS = {"sift": "1", "xfeat": "0.5", "lighterglue": "1/15"}
"""Baseline -> largest ratio of our median to its median, to reach."""
_SPARSE = ("lighterglue",)
"""Methods that take seconds for a query."""
ROUNDS = 3
"""How often all queries are localized."""
AIMS = (
    "To reach on two cores: 5 keyframes 100 ms, 99 % below 150 ms, 600 MB; 20 keyframes 250 ms. "
    "GPU 8 ms, 99 % below 12 ms, 1000 MB."
)
SWEEP_KEYFRAMES = (1, 2, 5, 10, 20)
SWEEP_POINTS = (125, 250, 1000)
"""Points of a keyframe, besides the usual number."""
_USUAL_KEYFRAMES = 5
_SWEEP_QUERIES = 16


def run(options: Options) -> Iterator[Table]:
    """Yields the tables of each set."""
    from busy import beside_other_work

    sets = {"query": one_query, "sweep": sweep, "busy": beside_other_work}
    for name in options.selected_sets(sets):
        yield from sets[name](options)


# --- one query --------------------------------------------------------------------------------------


def one_query(options: Options) -> Iterator[Table]:
    """Yields the tables of totals, of ratios and of stages."""
    queries = _queries(options)
    notes: list[str] = []
    with ExitStack() as stack:
        ours = _ours(options)
        others = _available(options, notes)
        before = _before(options, stack, notes)
        floor = Method("network alone", {"kind": "network"})
        methods = [*ours, *before, floor, *others.values()]
        stack.enter_context(running(methods, options))
        everything = range(len(queries))
        for query, answer in zip(queries, ours[0].ask(queries, everything, keep=False)):
            query["keyframes"] = answer["keyframes"][: ours[0].retrieve]
        for method in methods:
            method.ask(queries, everything[:1], keep=False)
        take_turns(methods, queries, ROUNDS)
    yield _totals(options, methods, notes)
    yield _ratios(ours[0], others, before, floor)
    yield _stages(methods)


def _queries(options: Options) -> list[dict[str, Any]]:
    images = options.data("data/kitchen") / "images"
    return [described(query, images / query.name) for query in kitchen(options).queries()]


def _ours(options: Options) -> list[Method]:
    """Our configurations on each device."""
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    return [
        Method(
            label + (", GPU" if device == "cuda" else ""),
            {"kind": "localizer", "map": str(kitchen(options, every).map_path), "device": device},
            retrieved,
        )
        for device in devices
        for label, every, retrieved in CONFIGURATIONS
    ]


def _available(options: Options, notes: list[str]) -> dict[str, Method]:
    """The other methods that are installed."""
    found = {}
    for name in OTHERS:
        try:
            label = make_baseline(name, "cpu").label
        except BaselineUnavailable as reason:
            notes.append(f"{name} skipped: {reason}")
            continue
        found[name] = Method(f"{label} + PoseLib", {"kind": name}, sparse=name in _SPARSE)
    return found


def _before(options: Options, stack: ExitStack, notes: list[str]) -> list[Method]:
    """The previous release, with its own sources, kernels and map; none if there is no such release."""
    revision = options.before or newest_release()
    if not revision:
        notes.append(
            "Previous release skipped: this repository has no tag of a release (--before REV names a revision)."
        )
        return []
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nre_ros_before_")))
    try:
        checkout = stack.enter_context(regression.checkout_of(revision, folder))
        map_path = options.folder / f"kitchen_1_{_commit(checkout)}.db"
        if not map_path.exists():
            inputs = regression.kitchen(options.shared, folder)[0]
            regression.build(checkout, inputs, map_path)
    except (regression.Failure, subprocess.SubprocessError) as error:
        notes.append(f"Previous release ({revision}) skipped: {error}")
        return []
    return [
        Method(
            f"version {_version(checkout)} ({revision})", {"kind": "localizer", "map": str(map_path)}, sources=checkout
        )
    ]


def newest_release(repository: Path = ROOT) -> str:
    """Returns the newest tag vX.Y.Z before the present commit; empty if there is none."""
    command = ["git", "tag", "--list", "v*", "--merged", "HEAD", "--no-contains", "HEAD", "--sort=-version:refname"]
    try:
        tags = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return ""
    return next((tag for tag in tags if re.fullmatch(r"v\d+\.\d+\.\d+", tag)), "")


def _commit(checkout: Path) -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True).stdout.strip()


def _version(checkout: Path) -> str:
    found = re.search(r'__version__ = "(.+)"', (checkout / "nre_ros/__init__.py").read_text(encoding="utf-8"))
    return found[1] if found else "unknown"


def _totals(options: Options, methods: Sequence[Method], notes: Sequence[str]) -> Table:
    table = Table(
        "One query of 640x480, everything included",
        (
            "method",
            "keyframes",
            "points or matches",
            "queries",
            "median [ms]",
            "90 % below [ms]",
            "99 % below [ms]",
            "peak memory [MB]",
            "peak GPU memory [MB]",
            "with a pose [%]",
        ),
    )
    for method in methods:
        milliseconds = method.milliseconds()
        kind = method.task["kind"]
        is_network = kind == "network"
        table.rows.append(
            (
                method.label,
                None if is_network else method.retrieve,
                None if is_network else int(np.median([answer["points"] for answer in method.answers])),
                len(milliseconds),
                *(float(np.quantile(milliseconds, q)) for q in (0.5, 0.9, 0.99)),
                method.peak if kind == "localizer" else None,
                method.gpu,
                None if is_network else 100 * float(np.mean([answer["posed"] for answer in method.answers])),
            )
        )
    table.notes += [
        f"{ROUNDS} rounds after a warm-up; CPU with {options.threads} threads. Each method has a process of its own, and "
        f"they take turns. {AIMS}",
        "Ours: features, retrieval, estimation and verdict. The others: features, matching with the keyframes that ours "
        "retrieved, and pose; their keyframes' keypoints and points are there beforehand.",
        *notes,
    ]
    if not torch.cuda.is_available():
        table.notes.append("cuda not run: torch finds no GPU here.")
    return table


def _ratios(ours: Method, others: dict[str, Method], before: Sequence[Method], floor: Method) -> Table:
    """Our median time relative to that of each other method."""
    table = Table("Our time relative to others, ratio of medians", ("other", "ratio", "to reach", "queries"))
    aims = {id(method): f"at most {OTHERS[name]}" for name, method in others.items()}
    for method in (*others.values(), *before, floor):
        queries = len(set(method.asked))
        table.rows.append((method.label, ratio_of_medians(ours, method), aims.get(id(method)), queries))
    table.notes.append(f"5 keyframes, the queries that both have localized, {ROUNDS} times.")
    return table


def _stages(methods: Sequence[Method]) -> Table:
    """The median time of each method's stages."""
    stages = {method.label: found for method in methods if (found := method.stages())}
    names = list(dict.fromkeys(name for found in stages.values() for name in found))
    table = Table("Stages of one query, medians [ms]", ("method", *names))
    table.rows += [(label, *(found.get(name) for name in names)) for label, found in stages.items()]
    return table


# --- points and keyframes ---------------------------------------------------------------------------


def sweep(options: Options) -> Iterator[Table]:
    """Yields the table of times for other numbers of keyframes and of points, and plots it."""
    usual = kitchen(options).map_path
    queries = _queries(options)
    queries = queries[:: max(1, len(queries) // _SWEEP_QUERIES)]
    by_keyframes = [
        Method(f"{count} keyframes", {"kind": "localizer", "map": str(usual)}, count) for count in SWEEP_KEYFRAMES
    ]
    by_points = [
        Method(
            f"{points} points",
            {"kind": "localizer", "map": str(kitchen(options, points=points).map_path)},
            _USUAL_KEYFRAMES,
        )
        for points in SWEEP_POINTS
    ]
    floor = Method("network alone", {"kind": "network"})
    methods = [*by_keyframes, *by_points, floor]
    with running(methods, options):
        for method in methods:
            method.ask(queries, range(1), keep=False)
        take_turns(methods, queries, ROUNDS)
    table = Table(
        "One query with other numbers of keyframes and points",
        ("keyframes", "points of a keyframe", "points", "median [ms]", "90 % below [ms]", "peak memory [MB]"),
    )
    rows = [(method, POINTS) for method in by_keyframes] + list(zip(by_points, SWEEP_POINTS))
    for method, points in rows:
        considered = int(np.median([answer["points"] for answer in method.answers]))
        times = [float(np.quantile(method.milliseconds(), q)) for q in (0.5, 0.9)]
        table.rows.append((method.retrieve, points, considered, *times, method.peak))
    network = float(np.median(floor.milliseconds()))
    table.notes.append(f"{len(queries)} queries, {ROUNDS} rounds in turns. The network alone takes {network:.3g} ms.")
    if options.pictures is not None:
        path = options.pictures / "speed.png"
        _plot(table, network, path)
        table.notes.append(f"![Time of one query against keyframes and points]({path.name})")
    yield table


def _plot(table: Table, network: float, path: Path) -> None:
    """Plots the times; a line of the network alone is the floor."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
    by_keyframes = [row for row in table.rows if row[1] == POINTS]
    by_points = sorted(row for row in table.rows if row[0] == _USUAL_KEYFRAMES)
    panels = (
        (f"keyframes of {POINTS} points", 0, by_keyframes),
        (f"points of each of {_USUAL_KEYFRAMES} keyframes", 1, by_points),
    )
    for axis, (label, column, rows) in zip(axes, panels):
        places = [row[column] for row in rows]
        axis.plot(places, [row[3] for row in rows], "o-", label="median")
        axis.plot(places, [row[4] for row in rows], ".--", color="C0", alpha=0.6, label="90 % below")
        axis.axhline(network, color="grey", linestyle=":", label="network alone")
        axis.set(xlabel=label, xlim=(0, None), ylim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("time of one query [ms]")
    axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=80)
    pyplot.close(figure)
