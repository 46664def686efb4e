# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Maps made of other maps: written beside their destination, in place only when they are complete."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager, suppress
from pathlib import Path

from nre_ros.errors import MapError
from nre_ros.keyframes.retrieval.descriptor_index import update_index
from nre_ros.keyframes.storage.database import is_map, read_header, sidecars
from nre_ros.keyframes.storage.store import KeyframeStore


def check_replaceable(path: Path) -> None:
    """Raises ``MapError`` where something lies at ``path`` that is no map: it would be lost for good."""
    try:
        if not path.name:
            raise MapError(f"map {path} is no file's name")
        if path.is_dir():
            raise MapError(f"map {path} is a folder")
        if not path.exists():
            return
    except OSError as error:
        raise MapError(f"map {path} cannot be written: {error.strerror}") from error
    try:
        header = read_header(path)
    except MapError as error:
        raise MapError(f"{error}, it is not replaced") from error
    if header and not is_map(header):
        raise MapError(f"{path} is a file of another kind, it is not replaced")


@contextmanager
def new_map(path, metadata: dict[str, str], made_of: dict, force: bool = False):
    """A map to copy keyframes into; it takes its name ``path`` at the end, and nothing is left of a failure.

    metadata: of the map that it is made of (frame, features, retrieval); made_of: what it is made
    of, as plain JSON values, which the map remembers.  Raises ``MapError`` if the map exists and
    ``force`` is not set.
    """
    path = Path(path)
    check_replaceable(path)
    if path.exists() and not force:
        raise MapError(f"map {path} exists already, give --force to replace it")
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        with KeyframeStore.create(
            unfinished,
            metadata["backbone"],
            metadata["weights_hash"],
            metadata["frame_id"],
            overwrite=True,
            retrieval=metadata.get("retrieval", ""),
            source=json.dumps(made_of, sort_keys=True),
            exclusive=True,
        ) as store:
            yield store
            update_index(store)
        try:
            for old in sidecars(path):  # a log of the replaced map must not be read into the new one
                old.unlink(missing_ok=True)
            os.replace(unfinished, path)
        except OSError as error:
            raise MapError(f"map {path} cannot be replaced: {error.strerror}") from error
    finally:
        for file in (unfinished, *sidecars(unfinished)):
            file.unlink(missing_ok=True)


def origin(store: KeyframeStore) -> dict:
    """What a map that is made of this one remembers of it."""
    source = store.metadata().get("source", "")
    try:
        source = json.loads(source)
    except ValueError:
        pass
    return {"map": str(store.path.resolve()), "source": source}


def save_copy(store: KeyframeStore, path, overwrite: bool = False) -> None:
    """Writes the open map, as it is now, into another file; nothing is left of a failure.

    The copy is as small as its keyframes and complete however the map is being changed meanwhile,
    also when the map's own file has been removed.  Raises ``MapError`` if there is a file of that
    name and ``overwrite`` is not set, and for a path that cannot be written or is the map itself.
    """
    path = Path(path)
    check_replaceable(path)
    if path.exists() and store.path.exists() and path.samefile(store.path):
        raise MapError(f"map {path} is the open map itself")
    if path.exists() and not overwrite:
        raise MapError(f"map {path} exists already")
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        unfinished.unlink(missing_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise MapError(f"map {path} cannot be written: its folder is missing or read-only")
        store.tables.rows("VACUUM INTO ?", (str(unfinished),))
        for old in sidecars(path):
            old.unlink(missing_ok=True)
        os.replace(unfinished, path)
    except OSError as error:
        raise MapError(f"map {path} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):  # told already, where the path itself cannot be
            unfinished.unlink(missing_ok=True)
