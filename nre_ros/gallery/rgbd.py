# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Writes views of a gallery as an RGB-D folder, the input of ``nre_ros map build rgbd``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from nre_ros.errors import ImageError, NreError
from nre_ros.gallery.render import Gallery
from nre_ros.gallery.sensor import Sensor
from nre_ros.gallery.trajectory import START_STAMP
from nre_ros.geometry import Camera, position_quaternion
from nre_ros.keyframes.importers.colmap.cameras import write_cameras_txt


@dataclass(frozen=True)
class RgbdFolder:
    """What was written; line i of ``list`` and of ``poses`` belong together."""

    images: Path
    depth: Path
    list: Path
    poses: Path
    camera: Path


def write_rgbd(
    folder: Path | str,
    gallery: Gallery,
    camera: Camera,
    T_map_cam: np.ndarray,
    *,
    image_format: str = "jpg",
    jpeg_quality: int = 95,
    depth_scale: float = 1000.0,
    sensor: Sensor = Sensor(),
    seed: int = 0,
    start_stamp: int = START_STAMP,
    rate: float = 2.0,
    progress: Callable[[int, int], None] | None = None,
) -> RgbdFolder:
    """Renders the poses [N, 4, 4] into images/, depth/, list.txt, poses.txt and cameras.txt.

    image_format: ``jpg`` or ``png``; depth is a 16-bit PNG of the same stem, metres times
    ``depth_scale``, 0 where there is none.  poses.txt is TUM's format (seconds, position and
    quaternion x y z w of the camera in the map), cameras.txt COLMAP's.  rate: images a second,
    for the stamps.  progress(done, all) is called after every image.
    Raises ``NreError`` when the folder has such files already.
    """
    folder = Path(folder)
    out = RgbdFolder(*(folder / name for name in ("images", "depth", "list.txt", "poses.txt", "cameras.txt")))
    if image_format not in ("jpg", "png"):
        raise ValueError(f"image format must be jpg or png, got {image_format!r}")
    for path in (out.images, out.depth, out.list, out.poses, out.camera):
        if path.exists():
            raise NreError(f"{path} exists already, not overwriting it")
    out.images.mkdir(parents=True)
    out.depth.mkdir()
    names, lines = [], []
    for i, T in enumerate(T_map_cam):
        view = gallery.render(camera, T)
        name = f"frame-{i:06d}"
        image = sensor(view.image, np.random.default_rng([seed, i]))
        _write(out.images / f"{name}.{image_format}", image, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])
        depth = np.clip(np.round(view.depth.astype(np.float64) * depth_scale), 0, 65535)
        _write(out.depth / f"{name}.png", depth.astype(np.uint16), [])
        names.append(f"{name}.{image_format}\n")
        lines.append(_tum_line(start_stamp + round(i / rate * 1e9), T))
        if progress is not None:
            progress(i + 1, len(T_map_cam))
    out.list.write_text("".join(names))
    out.poses.write_text("# timestamp[s] tx ty tz qx qy qz qw (camera optical frame to map, metres)\n" + "".join(lines))
    write_cameras_txt(out.camera, {1: camera})
    return out


def _write(path: Path, image: np.ndarray, options: list[int]) -> None:
    if not cv2.imwrite(str(path), image, options if path.suffix == ".jpg" else []):
        raise ImageError(f"image {path} could not be written")


def _tum_line(stamp: int, T: np.ndarray) -> str:
    position, quaternion = position_quaternion(T)
    numbers = " ".join(f"{value:.9f}" for value in (*position, *quaternion))
    return f"{stamp // 10**9}.{stamp % 10**9:09d} {numbers}\n"
