# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Building a map file from a source.

The map is written to the resume file ``MAP.db.partial``, one transaction a keyframe, and gets its own name when it is
complete. An existing map stays as it is until then. After an interruption the same command continues the resume file.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from nre_ros.errors import ImportSourceError, MapError
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.building.culling import CullingRule, KeyframeCuller
from nre_ros.keyframes.importers.import_report import ImportReport
from nre_ros.keyframes.importers.map_source import MapSource
from nre_ros.keyframes.importers.parallel_import import import_images
from nre_ros.keyframes.importers.resume_file import open_resume_file, remove_map, resume_path, source_fingerprint
from nre_ros.keyframes.retrieval.descriptor_index import update_index
from nre_ros.keyframes.storage.map_file import check_replaceable
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.tools.info import describe_map


def build_map(
    source: MapSource,
    builder: KeyframeBuilder,
    path: Path | str,
    force: bool = False,
    progress: bool = True,
    culling: CullingRule | None = None,
    warning: str = "",
) -> ImportReport:
    """Imports a source into a map file.

    Images that cannot be imported are reported on stderr and counted; the others are imported.

    Args:
        source: Where the images come from.
        builder: Makes the keyframes.
        path: The map file to write.
        force: Whether an existing map may be replaced.
        progress: Whether a progress bar is shown.
        culling: Which views are near-duplicates; by default the source's rule.
        warning: Why the poses of the source are doubtful (``pose_agreement``); recorded in the map.

    Returns:
        What became of every image.

    Raises:
        MapError: The map exists and ``force`` is not set, there is a file that is no map, or the resume file of another
            import is in the way.
        ImportSourceError: No image could be imported.
    """
    started = time.monotonic()
    path = Path(path)
    check_replaceable(path)
    if path.exists() and not force:
        raise MapError(f"map {path} exists already, give --force to replace it")
    listed = source.names()
    names = list(dict.fromkeys(listed))
    if not names:
        raise ImportSourceError("there are no images to import")
    rule = source.culling_rule if culling is None else culling
    report = ImportReport(path, repeated=len(listed) - len(names))
    partial = resume_path(path)
    store = open_resume_file(partial, source_fingerprint(source, builder, rule), builder, source.frame_id, force)
    try:
        done = store.names()
        report.resumed = len(done.keys() & set(names))
        _import(names, done, source, builder, store, KeyframeCuller(rule), report, progress)
        update_index(store)
        info = describe_map(store)
        report.keyframes, report.points = info.keyframes, info.points
        warnings = [text for text in (warning, report.support_warning()) if text]
        if warnings:
            store.set_warning("; ".join(warnings))
    finally:
        store.close()
    if info.keyframes == 0:
        remove_map(partial)
        raise ImportSourceError(f"none of the {len(names)} images could be imported, map {path} is not written")
    remove_map(path, sidecars_only=True)  # a log of the replaced map must not be read into the new one
    os.replace(partial, path)
    report.file_bytes = path.stat().st_size
    report.seconds = time.monotonic() - started
    return report


def _import(
    names: list[str],
    done: Mapping[str, int],
    source: MapSource,
    builder: KeyframeBuilder,
    store: KeyframeStore,
    culler: KeyframeCuller,
    report: ImportReport,
    progress: bool,
) -> None:
    """Adds the keyframes of all images that are not in the store yet."""
    if report.resumed:
        print(f"continuing {store.path}: {report.resumed} of {len(names)} keyframes exist already", file=sys.stderr)
    todo = [name for name in names if name not in done]
    if culler.rule.motion > 0:
        wanted = set(names)
        for name in (name for name in done if name in wanted):  # in the map's order, the same each time
            keyframe = store.get(done[name])
            culler.add(name, keyframe.T_map_cam, keyframe.points)
    # a bar that is redrawn fills a log file: there, one line now and then
    interval = 0.2 if sys.stderr.isatty() else 5.0
    with tqdm(
        total=len(names),
        initial=report.resumed,
        unit="image",
        desc="import",
        mininterval=interval,
        disable=not progress,
    ) as bar:
        for image in import_images(todo, source, builder, culler):
            if image.keyframe is not None:
                store.add(image.keyframe)
                report.points_of_run += len(image.keyframe.points)
                culler.add(image.name, image.keyframe.T_map_cam, image.keyframe.points)
                report.tally += image.tally
            elif image.duplicate_of is not None:
                report.near_duplicates[image.name] = image.duplicate_of
            else:
                report.skipped[image.name] = str(image.error)
                bar.write(f"skipped {image.name}: {image.error}", file=sys.stderr)
            bar.update()
