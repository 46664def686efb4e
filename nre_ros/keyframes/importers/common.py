# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What all importers share: lists, images, and the loop that turns a source into a map file.

The map is built in ``MAP.db.partial`` beside its destination, one transaction a keyframe, and
takes its name only when it is complete: an existing map stays as it is until then.  An
interrupted import leaves the partial file, and the same command goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from nre_ros.errors import ImageError, ImportSourceError, MapError
from nre_ros.geometry import Camera
from nre_ros.images import decode_image
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.building.culling import STILL, Thinning, ThinningRule
from nre_ros.keyframes.importers.prefetch import outcomes
from nre_ros.keyframes.importers.resume import fingerprint, open_partial, remove_map
from nre_ros.keyframes.retrieval.descriptor_index import update_index
from nre_ros.keyframes.tools.info import describe_map
from nre_ros.keyframes.types import Keyframe

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


class MapSource(ABC):
    """Where keyframes come from.  Constructors raise ``ImportSourceError`` when nothing fits together.

    ``keyframe`` is called from several threads at once, the other methods from it and from the importing one.

    usual_thinning: which views count as duplicates, unless the user says otherwise.
    refine: whether the depths of its points are refined against other views.
    frame_id: name of the frame of the poses.  notes: what the user should know beforehand, a line each.
    """

    usual_thinning: ThinningRule = STILL
    refine: bool = False
    frame_id: str = "map"
    notes: tuple[str, ...] = ()

    @abstractmethod
    def names(self) -> list[str]:
        """The images to import, in order."""

    @abstractmethod
    def keyframe(self, name: str, builder: KeyframeBuilder) -> Keyframe:
        """One keyframe.  An ``NreError`` says why this one is left out."""

    @abstractmethod
    def describe(self) -> dict:
        """What the keyframes depend on (folders, options), as plain JSON values."""

    def where(self, name: str) -> tuple[np.ndarray, Camera] | None:
        """T_map_cam [4, 4] and camera of an image, if they are known without computing features.

        Duplicates are then told before the features are computed.  Raises as ``keyframe`` does.
        """
        return None


@dataclass
class ImportReport:
    """What an import did.

    skipped: image name -> reason; thinned: image name -> the keyframe that it repeats; resumed:
    keyframes there before; tally: what the keyframes lack (``KeyframeBuilder.tally``), those of this run.
    """

    path: Path
    keyframes: int = 0
    points: int = 0
    resumed: int = 0
    file_bytes: int = 0
    seconds: float = 0.0
    skipped: dict[str, str] = field(default_factory=dict)
    thinned: dict[str, str] = field(default_factory=dict)
    tally: Counter[str] = field(default_factory=Counter)


def build_map(
    source: MapSource,
    builder: KeyframeBuilder,
    path,
    force: bool = False,
    progress: bool = True,
    thinning: ThinningRule | None = None,
) -> ImportReport:
    """Imports a source into the map file ``path`` and says what became of every image.

    Images that cannot be imported are told on stderr and counted, the rest goes on.  thinning:
    which views are duplicates (default: as the source has it).  Raises ``MapError`` if the map
    exists and ``force`` is not set, or if another import's partial file is in the way;
    ``ImportSourceError`` if no image could be imported.
    """
    started = time.monotonic()
    path = Path(path)
    if path.is_dir():
        raise MapError(f"map {path} is a folder")
    if path.exists() and not force:
        raise MapError(f"map {path} exists already, give --force to replace it")
    names = _names(source)
    if not names:
        raise ImportSourceError("there are no images to import")
    rule = source.usual_thinning if thinning is None else thinning
    report = ImportReport(path)
    partial = path.with_name(path.name + ".partial")
    store = open_partial(partial, made_of(source, builder, rule), builder, source.frame_id, force)
    try:
        done = store.names()
        report.resumed = len(done.keys() & set(names))
        _import(names, done, source, builder, store, Thinning(rule), report, progress)
        update_index(store)
        info = describe_map(store)
    finally:
        store.close()
    if info.keyframes == 0:
        remove_map(partial)
        raise ImportSourceError(f"none of the {len(names)} images could be imported, map {path} is not written")
    remove_map(path, sidecars_only=True)  # a log of the replaced map must not be read into the new one
    os.replace(partial, path)
    report.keyframes, report.points = info.keyframes, info.points
    report.file_bytes = path.stat().st_size
    report.seconds = time.monotonic() - started
    return report


def made_of(source: MapSource, builder: KeyframeBuilder, thinning: ThinningRule | None = None) -> str:
    """What ``build_map`` with these writes into the map as its ``source``: another map has another."""
    rule = source.usual_thinning if thinning is None else thinning
    options = {"thinning": asdict(rule), "refine": source.refine}
    return fingerprint({**source.describe(), **options}, _names(source), builder)


def _names(source: MapSource) -> list[str]:
    return list(dict.fromkeys(source.names()))


def _import(names, done, source, builder, store, thinning, report, progress) -> None:
    if report.resumed:
        print(f"going on with {store.path}: {report.resumed} of {len(names)} keyframes are there", file=sys.stderr)
    todo = [name for name in names if name not in done]
    if thinning.rule.motion > 0:
        wanted = set(names)
        for name in (name for name in done if name in wanted):  # in the map's order, the same each time
            keyframe = store.get(done[name])
            thinning.keep(name, keyframe.T_map_cam, keyframe.points)
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
        for outcome in outcomes(todo, source, builder, thinning):
            if outcome.keyframe is not None:
                store.add(outcome.keyframe)
                thinning.keep(outcome.name, outcome.keyframe.T_map_cam, outcome.keyframe.points)
                report.tally += outcome.tally
            elif outcome.twin is not None:
                report.thinned[outcome.name] = outcome.twin
            else:
                report.skipped[outcome.name] = str(outcome.problem)
                bar.write(f"skipped {outcome.name}: {outcome.problem}", file=sys.stderr)
            bar.update()


def read_image(path: Path) -> np.ndarray:
    """uint8 BGR [H, W, 3] of an image file, not turned by its EXIF orientation (as COLMAP reads it).

    Raises ``ImageError`` for a file that is missing, truncated or no image.
    """
    return _decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)


def read_depth(path: Path, depth_scale: float) -> np.ndarray:
    """[H, W] float32 metres of a 16-bit image file: value / depth_scale, 0 where there is none."""
    depth = _decode(path, cv2.IMREAD_UNCHANGED)
    if depth.dtype != np.uint16 or depth.ndim != 2:
        raise ImageError(f"depth image {path} has shape {depth.shape} and type {depth.dtype}, expected 16-bit grey")
    return depth.astype(np.float32) / np.float32(depth_scale)


def _decode(path: Path, flags: int) -> np.ndarray:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"image {path} cannot be read: {error.strerror}") from error
    return decode_image(data, flags, f"image {path}")


def read_list(path) -> list[str]:
    """File names of a list, one a line; empty lines and lines that start with # are left out."""
    return [line for line in read_lines(path) if not line.startswith("#")]


def image_names(folder: Path, list_path=None) -> list[str]:
    """The images of a list, all of the folder without one, by name.  ``ImportSourceError`` if there is none."""
    if list_path is None:
        names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in IMAGE_ENDINGS)
    else:
        names = read_list(list_path)
    if not names:
        raise ImportSourceError(f"{list_path or folder} names no image")
    return names


def read_lines(path) -> list[str]:
    """Stripped, non-empty lines of a text file; ``ImportSourceError`` if it cannot be read as text."""
    return [line for _, line in numbered_lines(path)]


def numbered_lines(path) -> list[tuple[int, str]]:
    """The same, each with its number in the file, from 1."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ImportSourceError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ImportSourceError(f"{path} is not a text file") from error
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]


def digest(*paths) -> str:
    """SHA-256 of the files' contents, one after the other; ``ImportSourceError`` if one cannot be read."""
    sha = hashlib.sha256()
    for path in paths:
        try:
            sha.update(Path(path).read_bytes())
        except OSError as error:
            raise ImportSourceError(f"{path} cannot be read: {error.strerror}") from error
    return sha.hexdigest()


def check_folder(path) -> Path:
    """The folder as a Path; ``ImportSourceError`` if it is none."""
    if not Path(path).is_dir():
        raise ImportSourceError(f"{path} is not a folder")
    return Path(path)
