# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A map for other programs: a COLMAP model as text, a trajectory as TUM has it, the points as PLY."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from nre_ros.errors import MapError
from nre_ros.geometry import invert, position_quaternion
from nre_ros.keyframes.importers.cameras import HALF_PIXEL, write_cameras_txt
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.types import Keyframe
from nre_ros.messages.stamps import seconds_text


@dataclass
class ExportReport:
    """keyframes and points written; ``unseen``: points outside their own keyframe's image, left out;
    ``renamed``: names with spaces, which COLMAP cannot read, written with underscores."""

    keyframes: int = 0
    points: int = 0
    unseen: int = 0
    renamed: int = 0


def export_colmap(store: KeyframeStore, folder, progress: bool = True) -> ExportReport:
    """Writes cameras.txt, images.txt and points3D.txt, in COLMAP's pixel convention, into a folder.

    A keyframe's observations are its points projected with its pose.  Points of several keyframes
    with the same id and place are one point with a longer track.  Points have no colour (grey) and
    no error (0).  Raises ``MapError`` when the folder holds a model already or cannot be written.
    """
    folder, report = Path(folder), ExportReport()
    files = [folder / f"{stem}.txt" for stem in ("cameras", "images", "points3D")]
    for file in files:
        if file.exists():
            raise MapError(f"{file} exists already, it is not overwritten")
    points = _Points()
    with _writing(folder) as unfinished:
        unfinished.mkdir(parents=True)
        files = [unfinished / file.name for file in files]
        cameras = dict(enumerate(store.cameras(), start=1))
        camera_ids = {camera: number for number, camera in cameras.items()}
        write_cameras_txt(files[0], cameras)
        with open(files[1], "w", encoding="utf-8") as images:
            print("# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then X Y POINT3D_ID of its points", file=images)
            for keyframe in _keyframes(store, progress, "export"):
                _write_image(images, keyframe, camera_ids[keyframe.camera], points, report)
        with open(files[2], "w", encoding="utf-8") as file:
            print("# POINT3D_ID X Y Z R G B ERROR, then IMAGE_ID POINT2D_IDX of its track", file=file)
            for number, (place, track) in enumerate(zip(points.places, points.tracks), start=1):
                print(number, *map(str, place), "128 128 128 0", *track, file=file)
    report.points = len(points.places)
    return report


def export_tum(store: KeyframeStore, path, list_path=None) -> ExportReport:
    """Writes 't x y z qx qy qz qw' of every keyframe, camera to map, by stamp, t in seconds.

    Of maps without stamps t counts the keyframes (0, 1, 2, ...).  list_path: their names, in the same order.
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
    with _writing(path) as unfinished:
        unfinished.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if list_path is not None:
        with _writing(list_path) as unfinished:
            unfinished.write_text("".join(f"{name}\n" for _, name, _ in rows), encoding="utf-8")
    return ExportReport(keyframes=len(rows))


def export_ply(store: KeyframeStore, path, progress: bool = True) -> ExportReport:
    """Writes the points, float32 x y z in the map's frame, as a binary PLY; points of one id and place once."""
    seen, count, keyframes = set(), 0, 0
    with _writing(path) as unfinished, open(unfinished, "wb") as file:
        file.write(_ply_header(0))
        for keyframe in _keyframes(store, progress, "export"):
            new = [k for k, key in enumerate(_keys(keyframe)) if key is None or not (key in seen or seen.add(key))]
            file.write(keyframe.points[new].astype("<f4").tobytes())
            count, keyframes = count + len(new), keyframes + 1
        file.seek(0)
        file.write(_ply_header(count))
    return ExportReport(keyframes, count)


class _Points:
    """The 3D points so far: places, and tracks as texts 'IMAGE_ID POINT2D_IDX'."""

    def __init__(self):
        self.places: list[np.ndarray] = []
        self.tracks: list[list[str]] = []
        self._numbers: dict[tuple[int, bytes], int] = {}

    def add(self, key, place: np.ndarray, observation: str) -> int:
        """The number of a point, from 1; of one that is there already, if it has the same key."""
        number = self._numbers.get(key) if key is not None else None
        if number is None:
            self.places.append(place)
            self.tracks.append([])
            number = len(self.places)
            if key is not None:
                self._numbers[key] = number
        self.tracks[number - 1].append(observation)
        return number


def _write_image(file, keyframe: Keyframe, camera_id: int, points: _Points, report: ExportReport) -> None:
    T = invert(keyframe.T_map_cam)
    (x, y, z), (qx, qy, qz, qw) = position_quaternion(T)
    name = "_".join(keyframe.name.split())
    report.renamed += name != keyframe.name
    report.keyframes += 1
    print(keyframe.id, *map(str, (qw, qx, qy, qz, x, y, z)), camera_id, name, file=file)
    in_camera = torch.from_numpy(keyframe.points.astype(np.float64) @ T[:3, :3].T + T[:3, 3])
    pixels, valid, _ = keyframe.camera.project(in_camera)
    size = pixels.new_tensor([keyframe.camera.width, keyframe.camera.height])
    seen = (valid & (pixels >= -HALF_PIXEL).all(-1) & (pixels <= size - HALF_PIXEL).all(-1)).numpy()
    report.unseen += int((~seen).sum())
    keys, words = _keys(keyframe), []
    for place, k in enumerate(np.flatnonzero(seen)):
        number = points.add(keys[k], keyframe.points[k], f"{keyframe.id} {place}")
        words += [*map(str, pixels[k].numpy() + HALF_PIXEL), str(number)]
    print(*words, file=file)


def _keys(keyframe: Keyframe) -> list[tuple[int, bytes] | None]:
    """What tells a point apart: its id in the source and its place; None of one without an id."""
    if keyframe.point_ids is None:
        return [None] * len(keyframe.points)
    return [
        None if number < 0 else (number, place.tobytes())
        for number, place in zip(keyframe.point_ids.tolist(), keyframe.points)
    ]


def _keyframes(store: KeyframeStore, progress: bool, what: str) -> Iterator[Keyframe]:
    with tqdm(total=len(store), unit="keyframe", desc=what, disable=not progress) as bar:
        for scan in store.scan():
            for keyframe_id in scan.ids:
                yield store.load([keyframe_id])[0]
                bar.update()


def _ply_header(count: int) -> bytes:
    lines = (
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {count:012d}",
        "property float x",
        "property float y",
        "property float z",
        "end_header",
    )
    return "".join(f"{line}\n" for line in lines).encode()


@contextmanager
def _writing(path):
    """What is to become the file, or the files of the folder, ``path``: only when all of it is written.

    Turns the system's errors about it into one of ours.
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
