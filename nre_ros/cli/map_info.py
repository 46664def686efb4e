# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros map info``: description of a map."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from nre_ros.cli.arguments import Subparsers
from nre_ros.cli.output import print_table
from nre_ros.geometry import Camera
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.tools.info import MapInfo, describe_map
from nre_ros.localization.map_quality import MapQuality, load_quality


def add_parser(commands: Subparsers) -> None:
    """Adds the command ``map info``.

    Args:
        commands: The commands of ``nre_ros map``.
    """
    info = commands.add_parser("info", help="describe a map", description="Describe a map in figures.")
    info.add_argument("map", metavar="MAP.db")
    info.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    info.set_defaults(func=_info)


def _info(args: argparse.Namespace) -> int:
    with KeyframeStore.open(args.map) as store:
        info = describe_map(store)
        quality = load_quality(store)
        changed = 0 if quality is None else _changed_keyframes(store, quality)
    if args.json:
        print(json.dumps({**_info_json(info), "quality": _quality_json(quality, changed)}, indent=2))
        return 0
    extent = "-"
    if info.positions is not None:
        extent = " x ".join(f"{side:.2f}" for side in info.positions[1] - info.positions[0]) + " (cameras, map units)"
    print_table(
        ("map", info.path),
        ("warning", info.warning or None),
        ("frame", info.frame_id),
        ("features", f"{info.backbone} {info.weights_hash[:12]}"),
        ("retrieval", info.retrieval),
        ("made by", _source_line(info.source)),
        ("keyframes", info.keyframes),
        ("points", info.points),
        ("bytes a keyframe", f"{info.bytes_per_keyframe:,} (without thumbnail)" if info.keyframes else None),
        ("size", f"{info.file_bytes / 2**20:.1f} MiB"),
        *((f"  {table}", f"{size / 2**20:.1f} MiB") for table, size in info.table_bytes.items() if size),
        ("extent", extent),
        ("origin", " ".join(f"{value:.0f}" for value in info.origin) if info.origin.any() else None),
        *(("camera", _camera_line(camera)) for camera in info.cameras),
        *_quality_rows(quality, changed),
        ("created", info.created),
        ("schema version", info.schema_version),
    )
    return 0


def _changed_keyframes(store: KeyframeStore, quality: MapQuality) -> int:
    """Returns how many keyframes were added, changed or removed since the map was checked."""
    changes = store.changes(quality.position)
    # a copy of the map with other keyframes has a change log of its own
    return max(len({*changes.added, *changes.changed, *changes.removed}), abs(len(store) - quality.keyframes))


def _quality_rows(quality: MapQuality | None, changed: int) -> list[tuple[str, object]]:
    """Returns what `nre_ros map check` found, for the table."""
    if quality is None:
        return [("quality", "not known: run `nre_ros map check`")]
    unknown = "unknown: the check had too few views"
    since = f"{changed} keyframe{'s' if changed > 1 else ''}: run `nre_ros map check` again"
    return [
        ("expected of an image", unknown if quality.expected is None else quality.expected.text()),
        ("errors of the poses", quality.noise.text()),
        ("suspicious keyframes", len(quality.suspicious)),
        ("checked with", f"{quality.views} views of {quality.keyframes} keyframes"),
        ("changed since", since if changed else None),
    ]


def _quality_json(quality: MapQuality | None, changed: int) -> dict[str, Any] | None:
    if quality is None:
        return None
    return {
        "views": quality.views,
        "keyframes": quality.keyframes,
        "expected": None if quality.expected is None else asdict(quality.expected),
        "position_noise": quality.noise.position,
        "rotation_noise": quality.noise.rotation,
        "suspicious": list(quality.suspicious),
        "changed_keyframes": changed,
    }


def _source_line(source: str) -> str | None:
    """Returns the importer and its folders from the map's source, which is JSON, or free text of another program."""
    try:
        made_of = json.loads(source)
        importer = made_of.pop("importer")
    except (ValueError, AttributeError, KeyError, TypeError):
        return source[:120] or None
    paths = [str(value) for value in made_of.values() if isinstance(value, str) and "/" in value]
    return " ".join([f"import from {importer}" if paths else str(importer), *paths])


def _camera_line(camera: Camera) -> str:
    numbers = " ".join(f"{value:.6g}" for value in (camera.fx, camera.fy, camera.cx, camera.cy, *camera.distortion))
    return f"{camera.width}x{camera.height} {camera.model} {numbers}"


def _info_json(info: MapInfo) -> dict[str, Any]:
    return {
        **asdict(info),
        "path": str(info.path),
        "cameras": [asdict(camera) for camera in info.cameras],
        "origin": info.origin.tolist(),
        "positions": None if info.positions is None else info.positions.tolist(),
        "thumbnail_bytes": info.thumbnail_bytes,
        "bytes_per_keyframe": info.bytes_per_keyframe,
    }
