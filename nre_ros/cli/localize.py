# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros localize``: image files in, one JSON object a line out, without ROS."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np
import numpy.typing as npt

from nre_ros.cli.arguments import Subparsers, add_command, add_localizer_options
from nre_ros.errors import CameraError, ImageError, NreError
from nre_ros.packages import ESTIMATOR, VIEWS_3D, require

if TYPE_CHECKING:
    from nre_ros.geometry import Camera
    from nre_ros.keyframes.storage.store import KeyframeStore
    from nre_ros.localization.localizer import Localizer
    from nre_ros.localization.result import LocalizationResult

_DESCRIPTION = """\
Localizes image files in a map and writes one JSON object a line:

  image        name of the image, as in LIST
  success      whether a pose was found
  position     [x, y, z] of the camera in the map, metres
  quaternion   [x, y, z, w] of the camera (optical frame: z forward, x right, y down) in the map
  covariance   6x6 of (x, y, z, rotation about x, y, z) in the map's axes
  confidence   probability that the pose is right, 0 to 1
  seconds      time that this image took
  reason       why no pose was found

and depth (with --depth), alternatives, points_used, points_considered, keyframes, search_cut, cost and the milliseconds of each stage.
An image that cannot be read or localized has success false and a reason; the command continues with the next one.
"""
_EXAMPLE = """\
  nre_ros localize --map kitchen.db --images images --list query.txt --camera cameras.txt -o result.jsonl
  nre_ros localize --map kitchen.db --images images --camera cameras.txt --show
"""


def add_parser(subparsers: Subparsers) -> None:
    """Registers the command.

    Args:
        subparsers: The commands of ``nre_ros``.
    """
    parser = add_command(subparsers, "localize", "localize image files, without ROS", _DESCRIPTION, _EXAMPLE)
    parser.add_argument("--map", required=True, metavar="MAP.db", help="map to localize in")
    parser.add_argument("--images", required=True, metavar="DIR", help="folder that the names in LIST are relative to")
    parser.add_argument("--list", metavar="LIST", help="file of image names, one a line (default: all images in DIR)")
    parser.add_argument(
        "--camera",
        required=True,
        metavar="CAMERAS.txt",
        help="COLMAP's cameras.txt; if it has several cameras, each image takes the camera of its size",
    )
    parser.add_argument("-o", "--output", metavar="RESULT.jsonl", help="file to write (default: standard output)")
    parser.add_argument(
        "--depth",
        metavar="DIR",
        help="folder of depth images, registered to the images: 16-bit PNGs with the images' names (a/1.jpg: a/1.png); a "
        "pose that the depth contradicts is refused",
    )
    parser.add_argument("--depth-scale", type=float, metavar="N", help="depth value of one metre (default: 1000)")
    add_localizer_options(parser)
    parser.add_argument(
        "--config", metavar="FILE.yml", help="settings of the estimator, under the names of the published code"
    )
    parser.add_argument(
        "--draw",
        metavar="DIR",
        help="write a sheet for each image (projected map points, loss maps, the camera from above) and space.html, "
        "all poses in 3D",
    )
    parser.add_argument("--show", action="store_true", help="draw, and open the poses in 3D in the web browser")
    parser.set_defaults(func=run, packages=(*ESTIMATOR, "tqdm"))


def run(arguments: argparse.Namespace) -> int:
    """Localizes all images and writes one JSON object a line.

    Args:
        arguments: Parsed arguments.

    Returns:
        The exit code, 0 when every image was processed, with or without a pose.
    """
    if arguments.draw or arguments.show:
        require(*VIEWS_3D)
    from tqdm import tqdm

    from nre_ros.geometry import describe_unusual_cameras
    from nre_ros.keyframes.importers.colmap.cameras import read_cameras_txt
    from nre_ros.keyframes.importers.text_files import check_folder, image_names
    from nre_ros.localization.localizer import Localizer
    from nre_ros.nre import EstimatorConfig, load_config

    folder, depths = check_folder(arguments.images), _depth_folder(arguments)
    names = image_names(folder, arguments.list)
    cameras = list(read_cameras_txt(arguments.camera).values())
    for line in describe_unusual_cameras((arguments.camera, camera) for camera in cameras):
        print(f"warning: {line}", file=sys.stderr)
    config = load_config(arguments.config) if arguments.config else EstimatorConfig()
    seconds: list[float] = []
    poses: dict[str, npt.NDArray[np.float64]] = {}
    with (
        Localizer(
            arguments.map, arguments.device, arguments.seed, arguments.retrieve, arguments.min_confidence, config
        ) as localizer,
        _open_output(arguments.output) as lines,
    ):
        drawings = _make_drawings(localizer.store, arguments.draw, arguments.show)
        localizer.warm_up()
        for name in tqdm(names, unit="image", desc="localize", disable=not sys.stderr.isatty()):
            result = _localize(localizer, folder / name, depths, name, cameras, drawings)
            lines.write(json.dumps({"image": name, **result.to_json()}) + "\n")
            lines.flush()
            seconds.append(sum(result.milliseconds.values()) / 1e3)
            if result.T_map_cam is not None:
                poses[name] = result.T_map_cam
        if drawings is not None:
            drawings.write_3d_view(poses, arguments.show)
    print(
        f"{len(poses)} of {len(names)} images localized, median {statistics.median(seconds):.2f} s an image",
        file=sys.stderr,
    )
    if depths is not None and (missing := sum(not depths.path(name).exists() for name in names)):
        print(f"{missing} of {len(names)} images have no depth image in {depths.folder}", file=sys.stderr)
    return 0


@dataclass(frozen=True)
class _DepthFolder:
    """The depth images of the images; ``scale`` is the value of one metre."""

    folder: Path
    scale: float

    def path(self, name: str) -> Path:
        return (self.folder / name).with_suffix(".png")

    def depth(self, name: str) -> npt.NDArray[np.float32] | None:
        """The depth image of an image, None where there is none."""
        from nre_ros.keyframes.importers.image_files import read_depth

        return read_depth(self.path(name), self.scale) if self.path(name).exists() else None


def _depth_folder(arguments: argparse.Namespace) -> _DepthFolder | None:
    from nre_ros.keyframes.importers.image_files import check_depth_scale
    from nre_ros.keyframes.importers.text_files import check_folder

    if arguments.depth is None:
        if arguments.depth_scale is not None:
            raise NreError("--depth-scale is of --depth, which is not given")
        return None
    scale = 1000.0 if arguments.depth_scale is None else check_depth_scale(arguments.depth_scale)
    return _DepthFolder(check_folder(arguments.depth), scale)


def _localize(
    localizer: Localizer,
    path: Path,
    depths: _DepthFolder | None,
    name: str,
    cameras: list[Camera],
    drawings: _Drawings | None,
) -> LocalizationResult:
    """Localizes one image file, and draws its sheet if that is asked for."""
    from nre_ros.keyframes.importers.colmap.cameras import camera_of_size
    from nre_ros.keyframes.importers.image_files import read_image
    from nre_ros.localization.result import LocalizationResult

    try:
        image = read_image(path)
        depth = None if depths is None else depths.depth(name)
        result = localizer.localize(image, camera_of_size(cameras, image), depth=depth)
    except (ImageError, CameraError) as error:
        return LocalizationResult(reason=str(error))
    if drawings is not None:
        drawings.write_sheet(name, image, result)
    return result


def _make_drawings(store: KeyframeStore, draw: str | None, show: bool) -> _Drawings | None:
    """What --draw and --show ask for; None without them."""
    if draw:
        return _Drawings(store, Path(draw))
    return _Drawings(store, Path(tempfile.mkdtemp(prefix="nre_ros_"))) if show else None


class _Drawings:
    """A sheet for each image and, at the end, all poses in 3D."""

    def __init__(self, store: KeyframeStore, folder: Path):
        self.folder = folder
        self._store = store
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NreError(f"--draw {folder}: cannot be a folder: {error.strerror}") from error
        ids, poses, _ = store.global_descriptors()
        self._keyframes = dict(zip(ids.tolist(), poses))

    def write_sheet(self, name: str, image: npt.NDArray[np.uint8], result: LocalizationResult) -> None:
        from nre_ros.pictures.sheet import write_sheet

        write_sheet(self.folder / _sheet_name(name), image, result, self._keyframes)

    def write_3d_view(self, poses: dict[str, npt.NDArray[np.float64]], show: bool) -> None:
        from nre_ros.pictures.view_3d import write_3d_view

        points = [keyframe.points for keyframe in self._store.load(list(self._keyframes))]
        path = self.folder / "space.html"
        write_3d_view(
            path,
            np.concatenate([np.zeros((0, 3), np.float32), *points]),
            np.array(list(self._keyframes.values())).reshape(-1, 4, 4),
            poses,
            f"{len(poses)} images in {self._store.path.name}",
        )
        print(f"drawn in {self.folder}: a sheet for each image, and {path.name}", file=sys.stderr)
        if show:
            webbrowser.open(path.resolve().as_uri())


def _sheet_name(name: str) -> str:
    """Name of an image's sheet; the images of several folders share one folder of sheets."""
    return str(Path(name).with_suffix(".jpg")).strip("/").replace("/", "_")


@contextmanager
def _open_output(path: str | None) -> Iterator[TextIO]:
    """Opens the file to write to; standard output stays open after use."""
    if path is None:
        yield sys.stdout
        return
    try:
        file = open(path, "w", encoding="utf-8")
    except OSError as error:
        raise NreError(f"{path}: cannot be written: {error.strerror}") from error
    with file:
        yield file
