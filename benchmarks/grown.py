# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Maps of any size grown from real keyframes, to see how retrieval behaves when a map is large.

The keyframes are those of the kitchen and of the rooms, and after these, until there are enough,
made-up ones.  The descriptor of such a one lies on the way from a real keyframe's to that of one
of its five most similar ones, drawn from the first half of the way, plus a tenth of the difference
between those of two other keyframes, at unit length again.  It has the points of the real one (its
first 100, and 32 background descriptors, so that 100,000 keyframes take 2.6 GB), and of the
kitchen also its pose; a room's stands in another storey, 4 m above the last.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from common import Options
from rooms import rooms
from scenes import kitchen

from nre_ros.keyframes.retrieval.descriptor_index import update_index
from nre_ros.keyframes.storage.blobs import encode_array, quantise
from nre_ros.keyframes.storage.rows import point_columns
from nre_ros.keyframes.storage.store import KeyframeStore

_POINTS, _BACKGROUND = 100, 32
_NEIGHBOURS = 5
_FOREIGN = 0.1
_STOREY = 4.0


def grown_map(options: Options, size: int) -> Path:
    """A map of ``size`` keyframes with its index; from the benchmark's folder if it lies there."""
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
            _grow(store, size, sources, descriptors, neighbours, kitchens, rng)
        print(update_index(store), flush=True)
    partial.rename(path)
    return path


def _grow(store, size, sources, descriptors, neighbours, kitchens, rng) -> None:
    """Writes rows as ``KeyframeStore.add`` does, without encoding the same points again and again."""
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
            found += [_thinned(store.load([i])[0]) for i in store.names().values()]
    return found


def _thinned(keyframe):
    """Its first points and some of its background; the descriptor as the map's int8 give it back."""
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
