# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Keyframes a second of the importers, and the time of each stage.

The whole import is timed as the command runs it. The stages are timed inside it, by wrapping their functions, in CPU
time of the thread that makes the keyframe. The rest is point selection, coarse samples and the loop itself.
"""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from threading import Lock
from time import perf_counter, process_time, thread_time
from unittest import mock

from common import Options, Table

from nre_ros.features import load_backbone
from nre_ros.keyframes.building import builder as builder_module
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.importers import depth_source, triangulated_source
from nre_ros.keyframes.importers.build_map import build_map
from nre_ros.keyframes.importers.colmap import model_source as colmap
from nre_ros.keyframes.importers.colmap import poses_source
from nre_ros.keyframes.importers.rgbd import folder as rgbd
from nre_ros.keyframes.storage.store import KeyframeStore

_STAGES = (
    "image",
    "depth",
    "features",
    "support",
    "refinement",
    "keypoints",
    "matching",
    "triangulation",
    "global descriptor",
    "store",
)
GOALS = (8.0, 3.0)
"""Keyframes a second on two cores: of 640x480 with depth, refined, and of 1024x683 whose points are triangulated."""


def run(options: Options):
    """Yields the table of rates and the table of stages."""
    rates = Table(
        "Imports of the kitchen's map frames, 640x480, and of the fountain's photographs, 1024x683; 500 points each",
        (
            "source",
            "keyframes",
            "seconds",
            "keyframes a second",
            "CPU seconds a keyframe",
            "points",
            "size [MB]",
        ),
    )
    stages = Table("Their stages, mean CPU time of a keyframe [ms]", ("source", *_STAGES, "rest"))
    builder = KeyframeBuilder(load_backbone("xfeat", options.device), seed=options.seed)
    for title, make in (
        ("RGB-D folder", _rgbd),
        ("RGB-D folder, --no-refine", _raw_rgbd),
        ("COLMAP model", _colmap),
        ("posed images, 1024x683", _posed),
    ):
        source = make(options)
        make(options).keyframe(source.names()[0], builder)  # warms up, without views that the import would find made
        path = options.folder / "import.db"
        with _clocks(builder) as times:
            started, used = perf_counter(), process_time()
            report = build_map(source, builder, path, progress=False)
            seconds, used = perf_counter() - started, process_time() - used
        each = [1e3 * times[stage] / report.keyframes if stage in times else None for stage in _STAGES]
        rates.rows.append(
            (
                title,
                report.keyframes,
                seconds,
                report.keyframes / seconds,
                used / report.keyframes,
                report.points,
                report.file_bytes / 1e6,
            )
        )
        stages.rows.append((title, *each, 1e3 * (used - sum(times.values())) / report.keyframes))
        path.unlink()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    rates.notes.append(
        f"{options.threads} threads; to reach: {GOALS[0]:.0f} keyframes a second of the RGB-D folder, {GOALS[1]:.0f} of the large "
        f"posed images. Load of the machine over the last "
        f"1, 5, 15 minutes: {load} (this run itself counts {options.threads}); two busy cores make each other's CPU "
        "seconds longer, too."
    )
    yield rates
    yield stages


@contextmanager
def _clocks(builder: KeyframeBuilder):
    """Measures the CPU seconds of the stages while the context lasts."""
    times, lock = defaultdict(float), Lock()

    def clocked(stage, function):
        def call(*arguments, **options):
            started = thread_time()
            try:
                return function(*arguments, **options)
            finally:
                with lock:
                    times[stage] += thread_time() - started

        return call

    with ExitStack() as stack:
        for target, name, stage in (
            (builder.backbone, "extract", "features"),
            (builder_module, "global_descriptor", "global descriptor"),
            (KeyframeStore, "add", "store"),
            (depth_source, "depth_support", "support"),
            (depth_source, "refine_depth", "refinement"),
            (triangulated_source.KeypointView, "from_image", "keypoints"),
            (triangulated_source, "match_keypoints", "matching"),
            (triangulated_source, "triangulate", "triangulation"),
            (rgbd, "read_image", "image"),
            (poses_source, "read_image", "image"),
            (colmap, "read_image", "image"),
            (rgbd, "read_depth", "depth"),
        ):
            stack.enter_context(mock.patch.object(target, name, clocked(stage, getattr(target, name))))
        yield times


def _rgbd(options: Options) -> rgbd.RgbdFolderSource:
    kitchen = options.data("data/kitchen")
    return rgbd.RgbdFolderSource(
        kitchen / "images",
        kitchen / "depth",
        kitchen / "map_poses.txt",
        kitchen / "map.txt",
        kitchen / "sparse/cameras.txt",
    )


def _raw_rgbd(options: Options) -> rgbd.RgbdFolderSource:
    source = _rgbd(options)
    source.refine = False
    return source


def _colmap(options: Options) -> colmap.ColmapSource:
    kitchen = options.data("data/kitchen")
    return colmap.ColmapSource(kitchen / "sparse", kitchen / "images")


def _posed(options: Options) -> poses_source.ColmapPosesSource:
    fountain = options.data("data/fountain")
    return poses_source.ColmapPosesSource(fountain / "sparse", fountain / "images")
