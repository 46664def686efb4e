# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Training pairs: how many a process makes in a second, and how far places without depth are from those of depth."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from common import Options, Table

from nre_ros.keyframes.importers.rgbd.folder import RgbdFolderSource
from nre_ros.learning.augmentation import Augmentation
from nre_ros.learning.open_pairs import open_pair_source
from nre_ros.learning.pair_sources import PairSource, TrainingPairs
from nre_ros.learning.recorded_pairs import DepthPairs
from nre_ros.learning.track_pairs import TriangulatedPairs

ROOM_PAIRS, OTHER_PAIRS = 288, 60
"""All pairs of four rooms, so that the time to build a room counts as often as in a training."""
_UNCHANGED = Augmentation(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def run(options: Options) -> Iterator[Table]:
    """Yields both tables."""
    columns = ("source", "pairs a CPU second", "and with augmentation", "visible points", "share visible")
    table = Table("Training pairs of one process with one thread", columns)
    table.rows.append(_speed("rendered rooms", open_pair_source("rooms").pairs, ROOM_PAIRS))
    table.rows.append(_speed("photographs", open_pair_source("photographs").pairs, OTHER_PAIRS))
    opener = _kitchen(options)
    table.rows.append(_speed("kitchen, depth", DepthPairs(opener, "kitchen", check=False), OTHER_PAIRS))
    triangulated = TriangulatedPairs(opener, "kitchen", check=False)
    table.rows.append(_speed("kitchen, triangulated matches", triangulated, OTHER_PAIRS))
    table.notes.append(
        "Rooms and views of photographs are of 320x240 pixels, recordings of 640x480. The first use of an"
    )
    table.notes.append("image is counted: rooms are built, keypoints are matched.")
    yield table
    yield _triangulated_errors(triangulated, opener())


def _kitchen(options: Options) -> partial[RgbdFolderSource]:
    folder = options.data("data/kitchen")
    files = (folder / name for name in ("images", "depth", "map_poses.txt", "map.txt", "sparse/cameras.txt"))
    return partial(RgbdFolderSource, *files)


def _speed(name: str, source: PairSource, count: int) -> tuple:
    torch.set_num_threads(1)
    rates = []
    for augmentation in (_UNCHANGED, Augmentation()):
        pairs = TrainingPairs([source], augmentation=augmentation, seed=len(rates))
        begun = time.process_time()
        made = [pairs.pair(index) for index in range(count)]
        rates.append(count / (time.process_time() - begun))
        visible = [pair.visible for pair in made]
    return name, *rates, float(np.mean([v.sum() for v in visible])), float(np.mean([v.mean() for v in visible]))


def _triangulated_errors(pairs: TriangulatedPairs, source: RgbdFolderSource) -> Table:
    """Distances between places by triangulation and places by the depth of the first image."""
    errors = []
    for index in range(OTHER_PAIRS):
        pair = pairs.pair(0, index)
        first, second = (pairs.names.index(name) for name in pair.source.partition(", ")[2].split(" and "))
        depth = source.depth(pairs.names[first])
        x, y = np.rint(pair.pixels_a).astype(int).T
        z = depth[y.clip(0, depth.shape[0] - 1), x.clip(0, depth.shape[1] - 1)].astype(float)
        rays = pairs.cameras[first].rays(torch.from_numpy(pair.pixels_a)).numpy()
        T_a, T_b = pairs.poses[first], pairs.poses[second]
        points = rays / rays[:, 2:] * z[:, None] @ T_a[:3, :3].T + T_a[:3, 3]
        local = (points - T_b[:3, 3]) @ T_b[:3, :3]
        places = pairs.cameras[second].project(torch.from_numpy(local))[0].numpy()
        errors.append(np.linalg.norm(places - pair.pixels_b, axis=1)[z > 0])
    found = np.concatenate(errors)
    columns = ("places", "median [pixels]", "within 2 pixels [%]", "within 5 pixels [%]")
    row = len(found), float(np.median(found)), 100 * float((found < 2).mean()), 100 * float((found < 5).mean())
    return Table("kitchen: places of triangulated matches against the depth sensor's", columns, [row])
