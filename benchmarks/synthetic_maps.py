# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Synthetic maps of any size, made of real keyframes, to measure retrieval in large maps.

The first keyframes are those of the kitchen and of the rendered rooms; further ones are synthetic. The descriptor of a
synthetic keyframe lies between those of a real keyframe and of one of its five nearest neighbours, in the first half of
the line; a tenth of the difference of two other descriptors is added, and the sum is normalised. The points are those
of the real keyframe: its first 100, with 32 background descriptors, so that 100,000 keyframes take 2.6 GB. The pose is
that of the real keyframe; of the rooms it is moved up, one storey of 4 m a round.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from common import Options
from rendered_rooms import rooms
from scenes import kitchen

from nre_ros.keyframes.retrieval.descriptor_index import update_index
from nre_ros.keyframes.storage.blobs import encode_array, quantise
from nre_ros.keyframes.storage.rows import point_columns
from nre_ros.keyframes.storage.store import KeyframeStore

_POINTS, _BACKGROUND = 100, 32
_NEIGHBOURS = 5
_FOREIGN = 0.1
_STOREY = 4.0


def synthetic_map(options: Options, size: int) -> Path:
    """Returns a map of ``size`` keyframes with its index; it is made if the benchmark's folder does not contain it."""
    path = options.folder / f"grown_{size}_{options.seed}.db"
    if path.exists():
        return path
    sources = _sources(options)
    descriptors = np.stack([keyframe.global_descriptor for keyframe in sources])
    neighbours = np.argsort(-(descriptors @ descriptors.T), axis=1)[:, 1 : 1 + _NEIGHBOURS]
    kitchens = sum(keyframe.camera == sources[0].camera for keyframe in sources)
    rng = np.random.default_rng(options.seed)
    partial = path.with_suffix(".partial")
    with KeyframeStore.create(partial, *_made_with(options), overwrite=True, exclusive=True) as store:
        with store.batch():
            for keyframe in sources[:size]:
                store.add(keyframe)
            _add_synthetic(store, size, sources, descriptors, neighbours, kitchens, rng)
        print(update_index(store), flush=True)
    partial.rename(path)
    return path


def _add_synthetic(store, size, sources, descriptors, neighbours, kitchens, rng) -> None:
    """Writes rows as ``KeyframeStore.add`` does, but encodes the points of each real keyframe only once."""
    points = [point_columns(keyframe) for keyframe in sources]
    columns = [store.database.row("keyframes", "id", i + 1) for i in range(min(size, len(sources)))]
    for number in range(len(sources), size):
        i = int(rng.integers(len(sources)))
        j, (a, b) = rng.choice(neighbours[i]), rng.integers(len(sources), size=2)
        u = rng.uniform(0, 0.5)
        mixed = (1 - u) * descriptors[i] + u * descriptors[j] + _FOREIGN * (descriptors[a] - descriptors[b])
        pose = sources[i].T_map_cam.copy()
        pose[2, 3] += _STOREY * (number // len(sources)) * (i >= kitchens)
        values, scales = quantise(mixed[None] / np.linalg.norm(mixed))
        _, _, stamp, camera, _, _, _, count = columns[i]
        store.database.insert(
            "keyframes",
            number + 1,
            f"grown/{number:06d}",
            stamp,
            camera,
            encode_array(pose, "<f8"),
            encode_array(values[0], "|i1"),
            float(scales[0]),
            count,
        )
        store.database.insert("points", number + 1, *points[i])
    store.database.update("metadata", "keyframes", str(size))


def _sources(options: Options) -> list:
    found = []
    for path in (kitchen(options).map_path, rooms(options).map_path):
        with KeyframeStore.open(path, cache_bytes=0) as store:
            found += [_reduced(store.load([i])[0]) for i in store.names().values()]
    return found


def _reduced(keyframe):
    """Keeps a keyframe's first points and a part of its background descriptors."""
    rows = slice(_POINTS)
    return replace(
        keyframe,
        points=keyframe.points[rows],
        coarse=keyframe.coarse[rows],
        fine=keyframe.fine[rows],
        background=keyframe.background[:_BACKGROUND],
        point_ids=None,
        id=-1,
    )


def _made_with(options: Options) -> tuple[str, str]:
    with KeyframeStore.open(kitchen(options).map_path) as store:
        metadata = store.metadata()
    return metadata["backbone"], metadata["weights_hash"]
