# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Two maps that share a frame become one."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nre_ros.errors import MapError
from nre_ros.keyframes.storage.records import DIMENSIONS
from nre_ros.keyframes.storage.rewriting import new_map, origin
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.types import Keyframe

CLASHES = ("refuse", "first", "last", "both")
"""What becomes of different keyframes of one name: no map, the first map's, the last one's, or both
(the later ones under the name ``<map file's stem>/<name>``)."""
_FIELDS = ("T_map_cam", "points", "point_ids", "coarse", "fine", "background", "global_descriptor")
_COMMIT = 64
"""Keyframes a transaction: each waits for the disk, and an unfinished map is thrown away anyhow."""


@dataclass(frozen=True)
class MergeReport:
    """keyframes of the new map; ``same``: found twice and taken once; ``clashes``: names of different ones."""

    path: Path
    keyframes: int
    same: int
    clashes: tuple[str, ...]


def merge_maps(
    paths: list, output, on_clash: str = "refuse", force: bool = False, progress: bool = True
) -> MergeReport:
    """Writes the keyframes of several maps of one frame into the map ``output``, as they are stored.

    Keyframes of one name with the same content are taken once; different ones are treated as
    ``on_clash`` says (``CLASHES``).  Raises ``MapError`` when the maps' frames, features or
    shapes differ, when names clash and nothing was said about it, and if ``output`` exists and
    ``force`` is not set.  The maps themselves are not changed.
    """
    if on_clash not in CLASHES:
        raise MapError(f"names that clash cannot be treated as {on_clash!r}, only as one of {', '.join(CLASHES)}")
    with ExitStack() as stack:
        stores = [stack.enter_context(KeyframeStore.open(path, cache_bytes=0)) for path in paths]
        names = [store.names() for store in stores]
        _check_alike(stores)
        taken, same, clashes = _choose(stores, names, on_clash)
        made_of = {"importer": "map merge", "maps": [origin(store) for store in stores]}
        with new_map(output, stores[0].metadata(), made_of, force) as merged:
            with tqdm(total=len(taken), unit="keyframe", desc="merge", disable=not progress) as bar:
                for start in range(0, len(taken), _COMMIT):
                    part = taken[start : start + _COMMIT]
                    with merged.batch():
                        for store, keyframe_id, name in part:
                            merged.copy_from(store, keyframe_id, name)
                    bar.update(len(part))
    return MergeReport(Path(output), len(taken), same, tuple(clashes))


def _check_alike(stores: list[KeyframeStore]) -> None:
    first = stores[0].metadata()
    for store in stores[1:]:
        metadata = store.metadata()
        for key in ("frame_id", "backbone", "weights_hash", "retrieval", *DIMENSIONS):
            if key in DIMENSIONS and not (key in metadata and key in first):
                continue  # an empty map
            if metadata.get(key) != first.get(key):
                raise MapError(
                    f"maps {stores[0].path} and {store.path} cannot be merged: their {key} differ "
                    f"({first.get(key, 'none')[:40]!r}, {metadata.get(key, 'none')[:40]!r})"
                )


def _choose(stores, names, on_clash) -> tuple[list[tuple[KeyframeStore, int, str]], int, list[str]]:
    """(map, id there, name to be) of all keyframes to take, how many came twice, and the names that clash."""
    chosen: dict[str, tuple[KeyframeStore, int, str]] = {}
    same, clashes = 0, []
    for store, there in zip(stores, names):
        for name, keyframe_id in there.items():
            entry = (store, keyframe_id, name)
            if name not in chosen:
                chosen[name] = entry
            elif _same(chosen[name][0].get(chosen[name][1]), store.get(keyframe_id)):
                same += 1
            else:
                clashes.append(name)
                if on_clash == "last":
                    chosen[name] = entry
                elif on_clash == "both":
                    other = _free_name(f"{store.path.stem}/{name}", chosen, names)
                    chosen[other] = (store, keyframe_id, other)
    if clashes and on_clash == "refuse":
        few = ", ".join(map(repr, clashes[:3])) + (", ..." if len(clashes) > 3 else "")
        raise MapError(
            f"{len(clashes)} keyframes of other content have the same name ({few}): say with --on-clash which to take"
        )
    return list(chosen.values()), same, clashes


def _free_name(name: str, chosen: dict, names: list[dict]) -> str:
    tries = chain([name], (f"{name}#{k}" for k in count(2)))
    return next(tried for tried in tries if not (tried in chosen or any(tried in there for there in names)))


def _same(a: Keyframe, b: Keyframe) -> bool:
    plain = ("stamp", "camera", "background_cells", "thumbnail")
    return all(getattr(a, key) == getattr(b, key) for key in plain) and all(
        np.array_equal(getattr(a, key), getattr(b, key)) for key in _FIELDS
    )
