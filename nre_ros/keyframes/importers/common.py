"""What all importers share: lists, images, and the loop that turns a source into a map file.

The map is built in ``MAP.db.partial`` beside its destination, one transaction a keyframe, and
takes its name only when it is complete: an existing map stays as it is until then.  An
interrupted import leaves the partial file, and the same command goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from nre_ros.errors import ImageError, ImportSourceError, MapError, MapFormatError, NreError
from nre_ros.keyframes.builder import KeyframeBuilder
from nre_ros.keyframes.database import sidecars
from nre_ros.keyframes.index import update_index
from nre_ros.keyframes.retrieval import GLOBAL_DESCRIPTOR
from nre_ros.keyframes.store import KeyframeStore
from nre_ros.keyframes.types import Keyframe


class MapSource(ABC):
    """Where keyframes come from.  Constructors raise ``ImportSourceError`` when nothing fits together."""

    @abstractmethod
    def names(self) -> list[str]:
        """The images to import, in order."""

    @abstractmethod
    def keyframe(self, name: str, builder: KeyframeBuilder) -> Keyframe:
        """One keyframe.  An ``NreError`` says why this one is left out."""

    @abstractmethod
    def describe(self) -> dict:
        """What the keyframes depend on (folders, options), as plain JSON values."""


@dataclass
class ImportReport:
    """What an import did; ``skipped``: image name -> reason; ``resumed``: keyframes there before."""

    path: Path
    keyframes: int = 0
    points: int = 0
    resumed: int = 0
    file_bytes: int = 0
    seconds: float = 0.0
    skipped: dict[str, str] = field(default_factory=dict)


def build_map(
    source: MapSource, builder: KeyframeBuilder, path, force: bool = False, progress: bool = True
) -> ImportReport:
    """Imports a source into the map file ``path`` and says what became of every image.

    Images that cannot be imported are told on stderr and counted, the rest goes on.  Raises
    ``MapError`` if the map exists and ``force`` is not set, or if another import's partial file
    is in the way; ``ImportSourceError`` if no image could be imported.
    """
    started = time.monotonic()
    path = Path(path)
    if path.is_dir():
        raise MapError(f"map {path} is a folder")
    if path.exists() and not force:
        raise MapError(f"map {path} exists already, give --force to replace it")
    names = list(dict.fromkeys(source.names()))
    if not names:
        raise ImportSourceError("there are no images to import")
    report = ImportReport(path)
    partial = path.with_name(path.name + ".partial")
    store = _open_partial(partial, _fingerprint(source, names, builder), builder, force)
    try:
        done = store.names()
        report.resumed = len(done.keys() & set(names))
        _import(names, done, source, builder, store, report, progress)
        update_index(store)
        info = store.info()
    finally:
        store.close()
    if info.keyframes == 0:
        _remove(partial)
        raise ImportSourceError(f"none of the {len(names)} images could be imported, map {path} is not written")
    _remove(path, sidecars_only=True)  # a log of the replaced map must not be read into the new one
    os.replace(partial, path)
    report.keyframes, report.points = info.keyframes, info.points
    report.file_bytes = path.stat().st_size
    report.seconds = time.monotonic() - started
    return report


def _import(names, done, source, builder, store, report, progress) -> None:
    if report.resumed:
        print(f"going on with {store.path}: {report.resumed} of {len(names)} keyframes are there", file=sys.stderr)
    # a bar that is redrawn fills a log file: there, one line now and then
    interval = 0.2 if sys.stderr.isatty() else 5.0
    with tqdm(
        total=len(names), initial=report.resumed, unit="keyframe", desc="import", mininterval=interval,
        disable=not progress,
    ) as bar:
        for name in names:
            if name in done:
                continue
            try:
                keyframe = source.keyframe(name, builder)
            except NreError as error:
                report.skipped[name] = str(error)
                bar.write(f"skipped {name}: {error}", file=sys.stderr)
            else:
                store.add(keyframe)
            bar.update()


def _fingerprint(source: MapSource, names: list[str], builder: KeyframeBuilder) -> str:
    """What the keyframes depend on: an import is continued with the same only."""
    made_of = {
        **source.describe(), "images": [len(names), zlib.crc32("\n".join(names).encode())],
        "points": builder.points_per_keyframe, "background": builder.background, "seed": builder.seed,
        "backbone": builder.backbone.name, "weights": builder.backbone.weights_hash, "retrieval": GLOBAL_DESCRIPTOR,
    }
    return json.dumps(made_of, sort_keys=True)


def _open_partial(partial: Path, fingerprint: str, builder: KeyframeBuilder, force: bool) -> KeyframeStore:
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
        partial, backbone.name, backbone.weights_hash, overwrite=True, source=fingerprint, exclusive=True
    )


def _remove(path: Path, sidecars_only: bool = False) -> None:
    for file in sidecars(path) + ([] if sidecars_only else [path]):
        file.unlink(missing_ok=True)


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
    # OpenCV decodes what there is of a truncated file and fills the rest with grey
    torn_jpeg = data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    torn_png = data.startswith(b"\x89PNG") and b"IEND" not in data[-64:]
    if torn_jpeg or torn_png:
        raise ImageError(f"image {path} is truncated")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if image is None:
        raise ImageError(f"image {path} cannot be decoded ({len(data)} bytes)")
    return image


def read_list(path) -> list[str]:
    """File names of a list, one a line; empty lines and lines that start with # are left out."""
    return [line for line in read_lines(path) if not line.startswith("#")]


def read_lines(path) -> list[str]:
    """Stripped, non-empty lines of a text file; ``ImportSourceError`` if it cannot be read as text."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ImportSourceError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ImportSourceError(f"{path} is not a text file") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


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
