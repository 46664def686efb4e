# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Opens training pairs by a name or a path: rooms, photographs, recordings, and public data sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nre_ros.errors import NreError, TrainingError
from nre_ros.geometry import Camera
from nre_ros.keyframes.importers.colmap.model_source import ColmapSource
from nre_ros.keyframes.importers.colmap.poses_source import ColmapPosesSource
from nre_ros.keyframes.importers.depth_source import DepthSource
from nre_ros.keyframes.importers.kapture import KaptureSource
from nre_ros.keyframes.importers.map_images import MapImagesSource
from nre_ros.keyframes.importers.rgbd.layouts import is_rgbd_folder, rgbd_folder_source
from nre_ros.keyframes.importers.text_files import IMAGE_ENDINGS
from nre_ros.keyframes.importers.triangulated_source import TriangulatedSource
from nre_ros.learning.covisibility import PairSelection
from nre_ros.learning.gallery_pairs import GalleryPairs
from nre_ros.learning.pair_sources import PairSource, PhotographPairs
from nre_ros.learning.photographs import folder_photographs, packaged_photographs, read_photographs
from nre_ros.learning.recorded_pairs import DepthPairs, RecordedPairs
from nre_ros.learning.track_pairs import MapPairs, TrackPairs, TriangulatedPairs

KINDS = ("rooms", "photographs", "rgbd", "colmap", "posed", "kapture", "bag", "map", "cambridge", "euroc")
"""What may stand before the colon of ``KIND:PATH``."""
_WITHOUT_PATH = ("rooms", "photographs")
_FOCAL_LENGTHS = (0.65, 0.8, 1.0)
"""Focal lengths of the cameras in rendered rooms, as fractions of the image's width: 75, 64 and 53 degrees wide."""
_HELD_OUT_PAIRS_PER_ROOM = 12
"""Validation takes few pairs, which shall come from several rooms."""
_MODEL_FILES = tuple(f"{stem}{ending}" for stem in ("cameras", "images") for ending in (".bin", ".txt"))


@dataclass(frozen=True)
class PairOptions:
    """What all kinds of pairs share.

    Attributes:
        size: Width and height of the views of rooms and photographs, pixels.
        max_side: Larger images of recordings are reduced to this longer side, pixels.
        points: Largest number of points a pair.
        selection: Which images of a recording make pairs.
        check: Whether the poses of a recording are compared with its images first.
        images: Folder of the images of a COLMAP model (None: images/ beside it), or folder or bag of those of a map (None:
            where they were when the map was built).
    """

    size: tuple[int, int] = (320, 240)
    max_side: int = 640
    points: int = 400
    selection: PairSelection = PairSelection()
    check: bool = True
    images: Path | str | None = None


@dataclass(frozen=True)
class OpenedPairs:
    """A source of pairs that was opened.

    Attributes:
        pairs: The pairs to train on.
        held_out: Pairs of other rooms, photographs or images, for validation; None if there are too few images.
        summary: One line for the log.
        about: What the pairs depend on, as plain JSON values.
        notes: What the user should know, one line each.
        credits: Photographs with their authors and licences, for the model card, one line each.
    """

    pairs: PairSource
    held_out: PairSource | None
    summary: str
    about: dict[str, Any]
    notes: tuple[str, ...] = ()
    credits: tuple[str, ...] = ()


def open_pair_source(name: Path | str, options: PairOptions = PairOptions()) -> OpenedPairs:
    """Opens training pairs by a name or a path.

    ``rooms`` and ``photographs`` (those of installed packages) need no path. ``rooms:photographs`` hangs the photographs
    of installed packages on the walls, ``rooms:PATH`` those of a folder. A path is recognised by its files: a folder
    of TUM RGB-D, of 7-Scenes or with the files that ``nre_ros demo`` writes; a COLMAP model with points, or without; a
    kapture folder; a bag; a map file whose images are at hand; a scene of Cambridge Landmarks; a sequence of
    EuRoC; any other folder of images is photographs. ``KIND:PATH`` says what a path is.

    Args:
        name: The name or the path.
        options: Settings of the pairs.

    Returns:
        The pairs.

    Raises:
        TrainingError: There is no such thing, or no pairs can be made of it.
    """
    text = str(name)
    kind, colon, rest = text.partition(":")
    if not (colon and kind in KINDS and not Path(text).exists()):
        kind, rest = (text, "") if text in _WITHOUT_PATH else (recognise(Path(text)), text)
    if kind == "rooms":
        return _rooms(rest, options)
    if kind == "photographs":
        return _photographs(rest, options)
    if not rest:
        raise TrainingError(f"{text}: a path is missing behind the colon")
    try:
        recording = _open_recording(kind, Path(rest), options)
        training, held_out = recording.split()
        return OpenedPairs(training, held_out, recording.summary(), recording.describe(), recording.notes)
    except TrainingError:
        raise
    except NreError as error:
        raise TrainingError(f"{rest}: {error}") from error


def recognise(path: Path) -> str:
    """Recognises what a path is, by the names of its files.

    Args:
        path: File or folder.

    Returns:
        One of ``KINDS``.

    Raises:
        TrainingError: The path does not exist, or is none of these.
    """
    if path.is_file():
        if path.suffix in (".mcap", ".db3"):
            return "bag"
        if path.suffix == ".db":
            return "map"
        raise TrainingError(f"{path}: neither a map (.db) nor a bag (.mcap, .db3)")
    if not path.is_dir():
        raise TrainingError(f"{path}: not found; known names are rooms and photographs, known kinds {', '.join(KINDS)}")
    for kind, fits in _LAYOUTS:
        if fits(path):
            return kind
    raise TrainingError(
        f"{path}: no recording that the importers read, no COLMAP model, and no photographs (known kinds: "
        f"{', '.join(KINDS)}; KIND:PATH says what a path is)"
    )


def _model_folder(folder: Path) -> Path | None:
    """The folder of a COLMAP model in a folder or its sparse/ and the folders of those."""
    for parent in (folder, folder / "sparse"):
        children = sorted(parent.iterdir()) if parent.is_dir() else []
        for candidate in (parent, *(child for child in children if child.is_dir())):
            if any((candidate / name).is_file() for name in _MODEL_FILES[:2]) and any(
                (candidate / name).is_file() for name in _MODEL_FILES[2:]
            ):
                return candidate
    return None


def _has_points(folder: Path) -> bool:
    model = _model_folder(folder)
    return model is not None and any((model / f"points3D{ending}").is_file() for ending in (".bin", ".txt"))


def _has_images(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_ENDINGS for path in folder.rglob("*"))


_LAYOUTS: Sequence[tuple[str, Callable[[Path], bool]]] = (
    ("rgbd", is_rgbd_folder),
    ("kapture", lambda folder: (folder / "sensors/records_camera.txt").is_file()),
    ("bag", lambda folder: any(folder.glob("*.mcap")) or any(folder.glob("*.db3"))),
    ("cambridge", lambda folder: (folder / "reconstruction.nvm").is_file()),
    ("euroc", lambda folder: (folder / "mav0").is_dir()),
    ("colmap", _has_points),
    ("posed", lambda folder: _model_folder(folder) is not None),
    ("photographs", _has_images),
)


def _rooms(pictures: str, options: PairOptions) -> OpenedPairs:
    width, height = options.size
    middle = (width - 1) / 2, (height - 1) / 2
    cameras = [Camera(width, height, f * width, f * width, *middle) for f in _FOCAL_LENGTHS]
    about = {"importer": "rooms", "size": list(options.size), "focal_lengths": list(_FOCAL_LENGTHS)}
    summary = f"rendered rooms of {width}x{height} pixels"
    found = None
    if pictures:
        found = _read("" if pictures == "photographs" else pictures)
        about["pictures"] = sorted(found.images)
        summary += f" with {len(found.images)} pictures of {found.where}"
    hung = None if found is None else list(found.images.values())
    pairs = GalleryPairs(cameras, options.points, pictures=hung)
    # other seeds have other rooms; an object of its own, so that validation does not replace the rooms of the training
    held_out = GalleryPairs(cameras, options.points, _HELD_OUT_PAIRS_PER_ROOM, pictures=hung)
    notes, credits = ((), ()) if found is None else (found.notes, found.credits)
    return OpenedPairs(pairs, held_out, summary, about, notes, credits)


@dataclass(frozen=True)
class _Photographs:
    """Photographs [h, w, 3] by name, and what is told of them."""

    images: dict[str, npt.NDArray[np.uint8]]
    where: str
    notes: tuple[str, ...]
    credits: tuple[str, ...]


def _read(folder: str) -> _Photographs:
    """Reads the photographs of a folder; empty: those of installed packages."""
    if folder:
        images, notes = read_photographs(folder_photographs(folder))
        return _Photographs(images, str(Path(folder).resolve()), notes, ())
    packaged = packaged_photographs()
    if not packaged:
        raise TrainingError("photographs: no package with photographs is installed (pip install scikit-image)")
    images, notes = read_photographs((photo.name, photo.path) for photo in packaged)
    return _Photographs(images, "installed packages", notes, tuple(photo.credit() for photo in packaged))


def _photographs(folder: str, options: PairOptions) -> OpenedPairs:
    found = _read(folder)
    names = sorted(found.images)
    held_out = names[5::10]
    training = {name: found.images[name] for name in names if name not in held_out}
    pairs = PhotographPairs(training, options.size, options.points)
    validation = None
    if held_out:
        validation = PhotographPairs({name: found.images[name] for name in held_out}, options.size, options.points)
    about = {"importer": "photographs", "folder": found.where, "photographs": names, "size": list(options.size)}
    summary = f"{len(names)} photographs of {found.where}, {len(held_out)} held out"
    return OpenedPairs(pairs, validation, summary, about, found.notes, found.credits)


def _open_recording(kind: str, path: Path, options: PairOptions) -> RecordedPairs[Any]:
    settings: dict[str, Any] = {
        "max_side": options.max_side,
        "points": options.points,
        "selection": options.selection,
        "check": options.check,
    }
    name = str(path)
    if kind == "rgbd":
        return DepthPairs(partial(rgbd_folder_source, path), name, **settings)
    if kind == "bag":
        # not imported above, since it needs rosbags
        from nre_ros.keyframes.importers.bag.source import bag_source

        source = bag_source(path)
        pairs = DepthPairs if isinstance(source, DepthSource) else TriangulatedPairs
        return pairs(partial(bag_source, path), name, source=source, **settings)
    if kind == "map":
        return MapPairs(partial(MapImagesSource, path, options.images), name, **settings)
    if kind in ("colmap", "posed"):
        model = _model_folder(path)
        if model is None:
            raise TrainingError(f"{path}: no COLMAP model (cameras and images, .bin or .txt)")
        images = _images_folder(path, options.images)
        if kind == "colmap":
            return TrackPairs(partial(ColmapSource, model, images), name, **settings)
        return TriangulatedPairs(partial(ColmapPosesSource, model, images), name, **settings)
    return TriangulatedPairs(_opener(kind, path), name, **settings)


def _opener(kind: str, path: Path) -> Callable[[], TriangulatedSource]:
    """Opens a recording without depth, of a kind of its own."""
    if kind == "kapture":
        return partial(KaptureSource, path)
    # not imported above: the data sets bring the whole evaluation
    from nre_ros.evaluation.datasets.cambridge import CambridgeSource
    from nre_ros.evaluation.datasets.euroc import EurocSource

    return partial(CambridgeSource, path, "train") if kind == "cambridge" else partial(EurocSource, path)


def _images_folder(path: Path, images: Path | str | None) -> Path:
    """The folder of a model's images: the given one, else images/ beside or below the model."""
    if images is not None:
        return Path(images)
    for folder in (path / "images", path.parent / "images", path.parent.parent / "images"):
        if folder.is_dir():
            return folder
    raise TrainingError(f"{path}: the folder of the model's images is not known (no images/ beside it): name it")
