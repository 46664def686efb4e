# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The resume file ``MAP.db.partial`` that an import writes, and whether an interrupted import continues."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict
from pathlib import Path

from nre_ros.errors import MapError, MapFormatError
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.building.culling import CullingRule
from nre_ros.keyframes.global_descriptor import GLOBAL_DESCRIPTOR
from nre_ros.keyframes.importers.map_source import MapSource, PosedImageSource
from nre_ros.keyframes.storage.map_file import sidecars
from nre_ros.keyframes.storage.store import KeyframeStore


def resume_path(path: Path) -> Path:
    """Returns the resume file of an import.

    Args:
        path: The map file that the import writes.
    """
    return path.with_name(path.name + ".partial")


def source_fingerprint(source: MapSource, builder: KeyframeBuilder, culling: CullingRule | None = None) -> str:
    """Describes everything that the keyframes of an import depend on.

    ``build_map`` writes the fingerprint into the map (metadata ``source``). Only an import of the same fingerprint
    continues a resume file.

    Args:
        source: Where the images come from.
        builder: Makes the keyframes.
        culling: Which views are near-duplicates; by default the source's rule.

    Returns:
        A JSON object with sorted keys.
    """
    names = list(dict.fromkeys(source.names()))
    rule = source.culling_rule if culling is None else culling
    depends_on = {
        **source.describe(),
        "thinning": asdict(rule),  # the key of maps made so far
        "refine": source.refine,
        "images": [len(names), zlib.crc32("\n".join(names).encode())],
        "points": builder.points_per_keyframe,
        "background": builder.background,
        "seed": builder.seed,
        "backbone": builder.backbone.name,
        "weights": builder.backbone.weights_hash,
        "retrieval": GLOBAL_DESCRIPTOR,
    }
    if isinstance(source, PosedImageSource) and source.T_pose_cam is not None:
        depends_on["T_pose_cam"] = source.T_pose_cam.tolist()
    return json.dumps(depends_on, sort_keys=True)


def open_resume_file(
    partial: Path, fingerprint: str, builder: KeyframeBuilder, frame_id: str, force: bool
) -> KeyframeStore:
    """Opens the resume file of an interrupted import, or creates a new one.

    Args:
        partial: The resume file.
        fingerprint: Of the import, see ``source_fingerprint``.
        builder: Its backbone is written into a new file.
        frame_id: Name of the frame that the poses are in.
        force: Whether the resume file of another import is replaced.

    Returns:
        The open file, with the keyframes of the interrupted import if there was one.

    Raises:
        MapError: The file belongs to another import and ``force`` is not set, or cannot be written.
    """
    if partial.exists():
        try:
            store = KeyframeStore.open(partial, readonly=False, exclusive=True)
            if store.metadata().get("source") == fingerprint:
                return store
            store.close()
            problem = "is left from an import with other input or options"
        except MapFormatError as error:
            problem = f"cannot be continued ({error})"
        if not force:
            raise MapError(f"{partial} {problem}: remove it, or give --force to start again")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MapError(f"folder {partial.parent} cannot be made: {error.strerror}") from error
    backbone = builder.backbone
    return KeyframeStore.create(
        partial, backbone.name, backbone.weights_hash, frame_id, overwrite=True, source=fingerprint, exclusive=True
    )


def remove_map(path: Path, sidecars_only: bool = False) -> None:
    """Removes a map file and the files that SQLite left beside it.

    Args:
        path: The map file.
        sidecars_only: Whether the map file itself stays.
    """
    for file in sidecars(path) + ([] if sidecars_only else [path]):
        file.unlink(missing_ok=True)
