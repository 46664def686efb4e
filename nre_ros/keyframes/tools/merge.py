# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Merging of maps that share a frame."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nre_ros.errors import MapError
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.storage.validation import DIMENSIONS
from nre_ros.keyframes.tools.derived_map import KeyframeCopy, copy_keyframes, derived_map, provenance
from nre_ros.keyframes.types import Keyframe

NAME_CLASH_RULES = ("refuse", "first", "last", "both")
"""What to do about different keyframes of one name: refuse to merge, take the keyframe of the first or the last map, or
take both (the later ones with the name ``<map file's stem>/<name>``)."""
_ARRAY_FIELDS = ("T_map_cam", "point_ids", "coarse", "fine", "background", "global_descriptor")
_POINT_ROUNDING = 2e-4
"""Largest difference of one point's coordinates in two maps with different origins, metres."""
_PLAIN_FIELDS = ("stamp", "camera", "background_cells", "thumbnail")


@dataclass(frozen=True)
class MergeReport:
    """Result of a merge.

    Attributes:
        path: The merged map.
        keyframes: Number of its keyframes.
        same: Number of keyframes that were in several maps with the same content.
        clashes: Names of keyframes that were in several maps with different content.
    """

    path: Path
    keyframes: int
    same: int
    clashes: tuple[str, ...]


def merge_maps(
    paths: Sequence[Path | str],
    output: Path | str,
    on_clash: str = "refuse",
    force: bool = False,
    progress: bool = True,
) -> MergeReport:
    """Writes the keyframes of several maps into a new map; the maps themselves are not changed.

    Nothing is aligned: the poses must be in one frame already. Keyframes with the same name and content are taken once.

    Args:
        paths: The maps.
        output: The map to write.
        on_clash: One of ``NAME_CLASH_RULES``, for keyframes with the same name and different content.
        force: Whether to replace an existing ``output``.
        progress: Whether to show a progress bar.

    Returns:
        The merged map's path and its numbers of keyframes.

    Raises:
        MapError: The maps differ in frame, features or dimensions, names clash under the rule ``refuse``, or ``output``
            exists and ``force`` is not set.
    """
    if on_clash not in NAME_CLASH_RULES:
        raise MapError(f"unknown rule {on_clash!r} for name clashes, known: {', '.join(NAME_CLASH_RULES)}")
    with ExitStack() as stack:
        stores = [stack.enter_context(KeyframeStore.open(path, cache_bytes=0)) for path in paths]
        _check_compatible(stores)
        copies, same, clashes = _choose_keyframes(stores, on_clash)
        source = {"importer": "map merge", "maps": [provenance(store) for store in stores]}
        warnings = dict.fromkeys(filter(None, (store.metadata().get("warning") for store in stores)))
        metadata = {**stores[0].metadata(), "warning": "; ".join(warnings)}
        with derived_map(output, metadata, source, force) as merged:
            copy_keyframes(merged, tqdm(copies, unit="keyframe", desc="merge", disable=not progress))
    return MergeReport(Path(output), len(copies), same, tuple(clashes))


def _check_compatible(stores: Sequence[KeyframeStore]) -> None:
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


def _choose_keyframes(stores: Sequence[KeyframeStore], on_clash: str) -> tuple[list[KeyframeCopy], int, list[str]]:
    """Returns the keyframes to copy, how many were found with the same content, and the names that clash."""
    names = [store.names() for store in stores]
    chosen: dict[str, KeyframeCopy] = {}
    same = 0
    clashes = []
    for store, ids in zip(stores, names):
        for name, keyframe_id in ids.items():
            copy = KeyframeCopy(store, keyframe_id, name)
            if name not in chosen:
                chosen[name] = copy
            elif _same_content(chosen[name].store.get(chosen[name].keyframe_id), store.get(keyframe_id)):
                same += 1
            else:
                clashes.append(name)
                if on_clash == "last":
                    chosen[name] = copy
                elif on_clash == "both":
                    free = _free_name(f"{store.path.stem}/{name}", chosen, names)
                    chosen[free] = replace(copy, name=free)
    if clashes and on_clash == "refuse":
        examples = ", ".join(map(repr, clashes[:3])) + (", ..." if len(clashes) > 3 else "")
        raise MapError(
            f"{len(clashes)} keyframes with the same name have different content ({examples}): "
            "choose which to take with --on-clash"
        )
    return list(chosen.values()), same, clashes


def _free_name(name: str, chosen: Collection[str], names: Sequence[Collection[str]]) -> str:
    candidates = chain([name], (f"{name}#{k}" for k in count(2)))
    return next(n for n in candidates if not (n in chosen or any(n in existing for existing in names)))


def _same_content(a: Keyframe, b: Keyframe) -> bool:
    if not all(getattr(a, key) == getattr(b, key) for key in _PLAIN_FIELDS):
        return False
    if not all(np.array_equal(getattr(a, key), getattr(b, key)) for key in _ARRAY_FIELDS):
        return False
    if a.points.dtype == b.points.dtype == np.float32:
        return np.array_equal(a.points, b.points)
    # far from the frame's origin; maps with different origins round the same point differently
    return a.points.shape == b.points.shape and bool((np.abs(a.points - b.points) <= _POINT_ROUNDING).all())
