# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Writes views of a gallery as an RGB-D folder, the input of ``nre_ros map build rgbd``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImageError, NreError
from nre_ros.gallery.render import Gallery
from nre_ros.gallery.sensor import Sensor
from nre_ros.gallery.trajectory import START_STAMP
from nre_ros.geometry import Camera, position_quaternion
from nre_ros.keyframes.importers.colmap.cameras import write_cameras_txt


@dataclass(frozen=True)
class RgbdFolder:
    """Paths of what was written; line i of ``list`` and line i of ``poses`` belong together.

    Attributes:
        images: Folder of the colour images.
        depth: Folder of the depth images.
        list: File of image names.
        poses: File of poses, camera to map.
        camera: File with the camera.
    """

    images: Path
    depth: Path
    list: Path
    poses: Path
    camera: Path


def write_rgbd(
    folder: Path | str,
    gallery: Gallery,
    camera: Camera,
    T_map_cam: npt.NDArray[np.float64],
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
    """Renders views into images/, depth/, list.txt, poses.txt and cameras.txt.

    Depth images are 16-bit PNGs with the names of the images. poses.txt has TUM's format (seconds, position and
    quaternion x y z w of the camera in the map), cameras.txt has COLMAP's.

    Args:
        folder: Where to write.
        gallery: What is rendered.
        camera: Camera of the views.
        T_map_cam: Poses of the views [N, 4, 4], camera (optical frame) to map.
        image_format: ``jpg`` or ``png``.
        jpeg_quality: Quality of JPEGs, 0 to 100.
        depth_scale: Value of a depth image at one metre; 0 means no depth.
        sensor: What the camera adds to the images.
        seed: Seed of the sensor's noise.
        start_stamp: Stamp of the first image, nanoseconds.
        rate: Images a second, for the stamps.
        progress: Called with (done, total) after every image.

    Returns:
        The paths of what was written.

    Raises:
        NreError: The folder has such files already.
    """
    folder = Path(folder)
    out = RgbdFolder(*(folder / name for name in ("images", "depth", "list.txt", "poses.txt", "cameras.txt")))
    if image_format not in ("jpg", "png"):
        raise ValueError(f"image format must be jpg or png, got {image_format!r}")
    for path in (out.images, out.depth, out.list, out.poses, out.camera):
        if path.exists():
            raise NreError(f"{path}: exists already, not overwritten (choose another folder)")
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


def _write(path: Path, image: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], options: list[int]) -> None:
    if not cv2.imwrite(str(path), image, options if path.suffix == ".jpg" else []):
        raise ImageError(f"image {path}: could not be written")


def _tum_line(stamp: int, T: npt.NDArray[np.float64]) -> str:
    position, quaternion = position_quaternion(T)
    numbers = " ".join(f"{value:.9f}" for value in (*position, *quaternion))
    return f"{stamp // 10**9}.{stamp % 10**9:09d} {numbers}\n"
