# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Writing of maps that are made of the keyframes of other maps: merged, pruned and repaired ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from nre_ros.errors import MapError
from nre_ros.keyframes.retrieval.descriptor_index import update_index
from nre_ros.keyframes.storage.map_file import check_replaceable, write_then_rename
from nre_ros.keyframes.storage.store import KeyframeStore

_KEYFRAMES_PER_TRANSACTION = 64
"""Each transaction waits for the disk, and an unfinished map is thrown away anyhow."""


@dataclass(frozen=True)
class KeyframeCopy:
    """A keyframe to copy into a derived map.

    Attributes:
        store: The map that has the keyframe.
        keyframe_id: Its id there.
        name: Its name in the derived map; empty for the same name.
        thumbnail: Whether to copy the thumbnail.
    """

    store: KeyframeStore
    keyframe_id: int
    name: str = ""
    thumbnail: bool = True


@contextmanager
def derived_map(
    path: Path | str, metadata: dict[str, str], source: dict[str, Any], force: bool = False
) -> Iterator[KeyframeStore]:
    """Creates a map for keyframes of other maps; after an error nothing is left of it.

    Args:
        path: The file to write. The map takes this name at the end of the context, with its retrieval index.
        metadata: Of the map that the keyframes come from (frame, features, retrieval).
        source: What the map is made of, as JSON values; stored in its metadata.
        force: Whether to replace an existing map.

    Yields:
        The empty map, open for writing and locked for other processes.

    Raises:
        MapError: The map exists and ``force`` is not set, or it cannot be written.
    """
    path = Path(path)
    check_replaceable(path)
    if path.exists() and not force:
        raise MapError(f"map {path} exists already, give --force to replace it")
    with write_then_rename(path) as unfinished:
        with KeyframeStore.create(
            unfinished,
            metadata["backbone"],
            metadata["weights_hash"],
            metadata["frame_id"],
            overwrite=True,
            retrieval=metadata.get("retrieval", ""),
            source=json.dumps(source, sort_keys=True),
            exclusive=True,
        ) as store:
            if metadata.get("warning"):
                store.set_warning(metadata["warning"])
            yield store
            update_index(store)


def copy_keyframes(target: KeyframeStore, copies: Iterable[KeyframeCopy]) -> None:
    """Copies keyframes as they are stored, without decoding their descriptors.

    Args:
        target: The map to write to.
        copies: The keyframes to copy.

    Raises:
        MapError: A keyframe does not fit the map, or has a name that the map has already.
    """
    remaining = iter(copies)
    while batch := list(islice(remaining, _KEYFRAMES_PER_TRANSACTION)):
        with target.batch():
            for copy in batch:
                target.copy_from(copy.store, copy.keyframe_id, copy.name, copy.thumbnail)


def provenance(store: KeyframeStore) -> dict[str, Any]:
    """Returns what a derived map records about a map that it was made of.

    Args:
        store: The other map.

    Returns:
        The path of the map file and the map's own source, as JSON values.
    """
    source: Any = store.metadata().get("source", "")
    try:
        source = json.loads(source)
    except ValueError:
        pass  # free text
    return {"map": str(store.path.resolve()), "source": source}
