# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Export of a map for other programs: a COLMAP model as text, a trajectory in TUM's format, a point cloud as PLY."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from nre_ros.errors import MapError
from nre_ros.geometry import invert, position_quaternion
from nre_ros.keyframes.importers.colmap.cameras import HALF_PIXEL, write_cameras_txt
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.types import Keyframe
from nre_ros.messages.stamps import seconds_text

_PointKey = tuple[int, bytes]
"""What identifies a point of several keyframes: its id in the source and its position."""


@dataclass
class ExportReport:
    """What was written.

    Attributes:
        keyframes: Number of keyframes.
        points: Number of points.
        outside_image: Number of points that project outside of their own keyframe's image, which are left out.
        renamed: Number of names with spaces, which COLMAP cannot read; they are written with underscores.
    """

    keyframes: int = 0
    points: int = 0
    outside_image: int = 0
    renamed: int = 0


def export_colmap(store: KeyframeStore, folder: Path | str, progress: bool = True) -> ExportReport:
    """Writes cameras.txt, images.txt and points3D.txt in COLMAP's pixel convention.

    The observations of a keyframe are its points projected with its pose. Points of several keyframes with the same id
    and position are one point with a longer track. Points have no colour (grey) and no error (0).

    Args:
        store: The map.
        folder: Where to write the files.
        progress: Whether to show a progress bar.

    Returns:
        What was written and left out.

    Raises:
        MapError: The folder contains a model already or cannot be written.
    """
    folder, report = Path(folder), ExportReport()
    files = [folder / f"{stem}.txt" for stem in ("cameras", "images", "points3D")]
    for file in files:
        if file.exists():
            raise MapError(f"{file} exists already, it is not overwritten")
    points = _PointTable()
    with _write_then_rename(folder) as unfinished:
        unfinished.mkdir(parents=True)
        files = [unfinished / file.name for file in files]
        cameras = dict(enumerate(store.cameras(), start=1))
        camera_ids = {camera: number for number, camera in cameras.items()}
        write_cameras_txt(files[0], cameras)
        with open(files[1], "w", encoding="utf-8") as images:
            print("# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then X Y POINT3D_ID of its points", file=images)
            for keyframe in _keyframes(store, progress):
                _write_image(images, keyframe, camera_ids[keyframe.camera], points, report)
        with open(files[2], "w", encoding="utf-8") as points3d:
            print("# POINT3D_ID X Y Z R G B ERROR, then IMAGE_ID POINT2D_IDX of its track", file=points3d)
            for number, (position, track) in enumerate(zip(points.positions, points.tracks), start=1):
                print(number, *map(str, position), "128 128 128 0", *track, file=points3d)
    report.points = len(points.positions)
    return report


def export_tum(store: KeyframeStore, path: Path | str, list_path: Path | str | None = None) -> ExportReport:
    """Writes the pose of every keyframe as a line ``t x y z qx qy qz qw``, camera to map, sorted by stamp.

    Args:
        store: The map.
        path: The file to write. t is in seconds, or counts the keyframes (0, 1, 2, ...) of a map without stamps.
        list_path: File for the keyframes' names in the same order.

    Returns:
        What was written.

    Raises:
        MapError: A file cannot be written.
    """
    rows = [
        (stamp, name, pose) for scan in store.scan() for stamp, name, pose in zip(scan.stamps, scan.names, scan.poses)
    ]
    stamped = any(stamp for stamp, _, _ in rows)
    rows.sort(key=lambda row: row[0])  # stable: those without a stamp keep their order
    lines = ["# t x y z qx qy qz qw, camera (z forward, x right, y down) to map"]
    for number, (stamp, _, pose) in enumerate(rows):
        position, quaternion = position_quaternion(pose)
        seconds = seconds_text(stamp) if stamped else f"{number}"
        lines.append(" ".join([seconds, *map(str, (*position, *quaternion))]))
    with _write_then_rename(path) as unfinished:
        unfinished.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if list_path is not None:
        with _write_then_rename(list_path) as unfinished:
            unfinished.write_text("".join(f"{name}\n" for _, name, _ in rows), encoding="utf-8")
    return ExportReport(keyframes=len(rows))


def export_ply(store: KeyframeStore, path: Path | str, progress: bool = True) -> ExportReport:
    """Writes the points as a binary PLY with x y z in the map frame; a point of several keyframes once.

    The coordinates are float32, or float64 in a map that lies far from its frame's origin.

    Args:
        store: The map.
        path: The file to write.
        progress: Whether to show a progress bar.

    Returns:
        What was written.

    Raises:
        MapError: The file cannot be written.
    """
    written: set[_PointKey] = set()
    count = keyframes = 0
    far = bool(store.origin.any())
    with _write_then_rename(path) as unfinished, open(unfinished, "wb") as file:
        file.write(_ply_header(0, far))
        for keyframe in _keyframes(store, progress):
            new = []
            for k, key in enumerate(_point_keys(keyframe)):
                if key is None or key not in written:
                    new.append(k)
                if key is not None:
                    written.add(key)
            file.write(keyframe.points[new].astype("<f8" if far else "<f4").tobytes())
            count, keyframes = count + len(new), keyframes + 1
        file.seek(0)
        file.write(_ply_header(count, far))
    return ExportReport(keyframes, count)


class _PointTable:
    """The 3D points so far.

    Attributes:
        positions: A position [3] for each point.
        tracks: The observations of each point as texts ``IMAGE_ID POINT2D_IDX``.
    """

    def __init__(self) -> None:
        self.positions: list[npt.NDArray[np.floating]] = []
        self.tracks: list[list[str]] = []
        self._numbers: dict[_PointKey, int] = {}

    def add(self, key: _PointKey | None, position: npt.NDArray[np.floating], observation: str) -> int:
        """Adds an observation and returns the number of its point, from 1; the point is added if it is new."""
        number = self._numbers.get(key) if key is not None else None
        if number is None:
            self.positions.append(position)
            self.tracks.append([])
            number = len(self.positions)
            if key is not None:
                self._numbers[key] = number
        self.tracks[number - 1].append(observation)
        return number


def _write_image(file: TextIO, keyframe: Keyframe, camera_id: int, points: _PointTable, report: ExportReport) -> None:
    T = invert(keyframe.T_map_cam)
    (x, y, z), (qx, qy, qz, qw) = position_quaternion(T)
    name = "_".join(keyframe.name.split())
    report.renamed += name != keyframe.name
    report.keyframes += 1
    print(keyframe.id, *map(str, (qw, qx, qy, qz, x, y, z)), camera_id, name, file=file)
    in_camera = torch.from_numpy(keyframe.points.astype(np.float64) @ T[:3, :3].T + T[:3, 3])
    pixels, valid, _ = keyframe.camera.project(in_camera)
    size = pixels.new_tensor([keyframe.camera.width, keyframe.camera.height])
    inside = (valid & (pixels >= -HALF_PIXEL).all(-1) & (pixels <= size - HALF_PIXEL).all(-1)).numpy()
    report.outside_image += int((~inside).sum())
    keys, words = _point_keys(keyframe), []
    for index, k in enumerate(np.flatnonzero(inside)):
        number = points.add(keys[k], keyframe.points[k], f"{keyframe.id} {index}")
        words += [*map(str, pixels[k].numpy() + HALF_PIXEL), str(number)]
    print(*words, file=file)


def _point_keys(keyframe: Keyframe) -> list[_PointKey | None]:
    """Returns what identifies each point, None for one without an id."""
    if keyframe.point_ids is None:
        return [None] * len(keyframe.points)
    positions = keyframe.points
    if positions.dtype != np.float32:  # of maps with different origins, which round differently, to the millimetre
        positions = positions.round(3)
    return [
        None if number < 0 else (number, position.tobytes())
        for number, position in zip(keyframe.point_ids.tolist(), positions)
    ]


def _keyframes(store: KeyframeStore, progress: bool) -> Iterator[Keyframe]:
    with tqdm(total=len(store), unit="keyframe", desc="export", disable=not progress) as bar:
        for scan in store.scan():
            for keyframe_id in scan.ids:
                yield store.load([keyframe_id])[0]
                bar.update()


def _ply_header(count: int, double: bool) -> bytes:
    kind = "double" if double else "float"
    lines = (
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {count:012d}",
        *(f"property {kind} {axis}" for axis in "xyz"),
        "end_header",
    )
    return "".join(f"{line}\n" for line in lines).encode()


@contextmanager
def _write_then_rename(path: Path | str) -> Iterator[Path]:
    """Yields a path beside ``path`` for a file or a folder of files, which take their place when all is written.

    The system's errors about the path become ``MapError``.
    """
    path = Path(path).absolute()
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        _remove(unfinished)
        try:
            yield unfinished
            if unfinished.is_dir():
                path.mkdir(exist_ok=True)
                for file in unfinished.iterdir():
                    os.replace(file, path / file.name)
            else:
                os.replace(unfinished, path)
        finally:
            _remove(unfinished)
    except OSError as error:
        raise MapError(f"{path} cannot be written: {error.strerror}") from error


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
