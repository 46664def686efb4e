# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Bytes of a keyframe, time to add one, and accuracy with stored and with float32 descriptors on the kitchen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from accuracy import RETRIEVED, summary
from common import MIN_CONFIDENCE, Options, Skip, Table, timed
from scenes import kitchen

from nre_ros.features import load_backbone
from nre_ros.geometry import Camera
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.storage.keyframe_cache import keyframe_bytes
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.tools.info import describe_map
from nre_ros.keyframes.types import Keyframe
from nre_ros.localization.localizer import Localizer

LIMIT = 64 * 1024
"""Bytes a keyframe of 500 points may take, without its thumbnail."""
_KEYFRAMES = 200


def run(options: Options):
    """Yields the sizes, the speed of adding, and the accuracies of both kinds of descriptor."""
    path = options.folder / "storage.db"
    keyframes = [_keyframe(i, options.seed) for i in range(_KEYFRAMES)]
    speed = Table("Adding keyframes", ("keyframes a transaction", "ms a keyframe"))
    for batch in (1, 8, 64):
        speed.rows.append((batch, 1e3 * timed(_write, path, keyframes, batch)[0] / len(keyframes)))
    speed.notes.append("Each transaction waits for the disk (synchronous = FULL).")
    yield _sizes(path)
    yield speed
    try:
        yield _accuracy(options)
    except Skip as reason:
        skipped = Table("Accuracy of stored descriptors (seven bits) against float32", ("skipped",))
        skipped.rows.append((str(reason),))
        yield skipped


def _keyframe(number: int, seed: int) -> Keyframe:
    """Random numbers in the sizes of a real keyframe of 500 points with ids, of XFeat's channels."""
    rng = np.random.default_rng([seed, number])

    def unit(*shape):
        rows = rng.normal(size=shape)
        return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)

    return Keyframe(
        name=f"sequence/frame-{number:06d}.jpg",
        stamp=1_700_000_000_000_000_000 + number,
        T_map_cam=np.eye(4),
        camera=Camera(640, 480, 525.0, 525.0, 319.5, 239.5),
        points=rng.normal(size=(500, 3)).astype(np.float32),
        coarse=unit(500, 64),
        fine=unit(500, 32),
        background=unit(128, 64),
        background_cells=4800,
        global_descriptor=unit(2080),
        point_ids=rng.integers(0, 1 << 24, 500),
        thumbnail=rng.bytes(5000),
    )


def _write(path, keyframes: list[Keyframe], batch: int) -> None:
    with KeyframeStore.create(path, "xfeat", "0" * 64, overwrite=True) as store:
        for start in range(0, len(keyframes), batch):
            with store.batch():
                for keyframe in keyframes[start : start + batch]:
                    store.add(keyframe)


def _sizes(path) -> Table:
    table = Table("Size of a keyframe of 500 points", ("part", "bytes a keyframe"))
    with KeyframeStore.open(path) as store:
        info = describe_map(store)
        held = keyframe_bytes(store.load([1])[0])
    for name in ("points", "keyframes"):
        table.rows.append((f"table {name}", info.table_bytes[name] / info.keyframes))
    table.rows.append(("file, without thumbnails", info.bytes_per_keyframe))
    table.rows.append(("limit (64 KiB)", LIMIT))
    table.rows.append(("in memory, as float32", held))
    table.notes.append(f"Map of {info.keyframes} keyframes of random numbers; thumbnails of 5000 bytes are left out.")
    return table


class _Recorder(KeyframeBuilder):
    """Keeps the keyframes that it builds, as they are before they are stored."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.made: dict[str, Keyframe] = {}

    def build(self, name, *arguments, **options) -> Keyframe:
        self.made[name] = super().build(name, *arguments, **options)
        return self.made[name]


def _accuracy(options: Options) -> Table:
    """Localizes in one map with the descriptors of its file, and with the same descriptors before quantisation."""
    builder = _Recorder(load_backbone("xfeat", options.device), seed=options.seed)
    scene = kitchen(options, builder=builder)
    queries = list(scene.queries())
    table = Table(
        "Accuracy of stored descriptors (seven bits) against float32, kitchen",
        (
            "descriptors",
            "queries",
            "median [cm]",
            "median [deg]",
            "90 % below [cm]",
            "within 5 cm and 5 deg [%]",
            "within 25 cm and 5 deg [%]",
            "time [s]",
        ),
    )
    with Localizer(
        scene.map_path, device=options.device, seed=options.seed, retrieve=RETRIEVED, min_confidence=MIN_CONFIDENCE
    ) as localizer:
        exact = {i: replace(builder.made[name], id=i) for name, i in localizer.store.names().items()}
        localizer.warm_up()
        replaced = []

        def load_exact(ids):
            replaced.extend(ids)
            return [exact[i] for i in ids]

        for label in ("as stored", "float32"):
            if label == "float32":
                localizer.store.load_readable = load_exact
            outcomes = []
            for query in queries:
                seconds, result = timed(localizer.localize, query.image, query.camera)
                outcomes.append((result.T_map_cam, seconds))
            table.rows.append((label, len(queries), *summary(outcomes, queries)))
        if not replaced:
            raise RuntimeError("the localizer did not take the float32 descriptors")
    changes = [100 * (table.rows[0][k] / table.rows[1][k] - 1) for k in (2, 4)]
    table.notes.append(
        f"as stored against float32: median {changes[0]:+.1f} %, 90 % below {changes[1]:+.1f} % (to reach: at most +3 % of "
        "the median). Both take the keyframes that the file's own global descriptors retrieve."
    )
    return table
