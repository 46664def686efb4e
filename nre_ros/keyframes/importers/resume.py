# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The file ``MAP.db.partial`` that an import writes, and whether an interrupted one is continued."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

from nre_ros.errors import MapError, MapFormatError
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.global_descriptor import GLOBAL_DESCRIPTOR
from nre_ros.keyframes.storage.map_file import sidecars
from nre_ros.keyframes.storage.store import KeyframeStore


def fingerprint(made_of: dict, names: list[str], builder: KeyframeBuilder) -> str:
    """What the keyframes depend on (``made_of``: of the source): an import is continued with the same only."""
    made_of = {
        **made_of,
        "images": [len(names), zlib.crc32("\n".join(names).encode())],
        "points": builder.points_per_keyframe,
        "background": builder.background,
        "seed": builder.seed,
        "backbone": builder.backbone.name,
        "weights": builder.backbone.weights_hash,
        "retrieval": GLOBAL_DESCRIPTOR,
    }
    return json.dumps(made_of, sort_keys=True)


def open_partial(
    partial: Path, fingerprint: str, builder: KeyframeBuilder, frame_id: str, force: bool
) -> KeyframeStore:
    """The partial file of the same import as an earlier process left it, or a new one.  Raises ``MapError``."""
    if partial.exists():
        try:
            store = KeyframeStore.open(partial, readonly=False, exclusive=True)
            if store.metadata().get("source") == fingerprint:
                return store
            store.close()
            problem = "of an import with other input or options"
        except MapFormatError as error:
            problem = f"and cannot be continued ({error})"
        if not force:
            raise MapError(f"{partial} is left {problem}: remove it, or give --force to start afresh")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MapError(f"folder {partial.parent} cannot be made: {error.strerror}") from error
    backbone = builder.backbone
    return KeyframeStore.create(
        partial, backbone.name, backbone.weights_hash, frame_id, overwrite=True, source=fingerprint, exclusive=True
    )


def remove_map(path: Path, sidecars_only: bool = False) -> None:
    """Removes a map file and what SQLite left beside it, or the latter alone."""
    for file in sidecars(path) + ([] if sidecars_only else [path]):
        file.unlink(missing_ok=True)
