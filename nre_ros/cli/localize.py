# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros localize``: image files in, one line of JSON each out; no ROS involved."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import webbrowser
from pathlib import Path

from nre_ros.cli.arguments import count
from nre_ros.errors import NreError

_DESCRIPTION = """\
Localizes image files in a map and writes one JSON object a line:

  image        the name from LIST
  success      whether there is a pose
  position     [x, y, z] of the camera in the map, metres
  quaternion   [x, y, z, w] of the camera (optical frame: z forward, x right, y down) in the map
  covariance   6x6 of (x, y, z, rotation about x, y, z) in the map's axes
  confidence   0 to 1
  seconds      taken for this image
  reason       why there is no pose

and points_used, points_considered, keyframes, cost and the milliseconds of each stage.
An image that cannot be read or localized has success false and the reason; the rest goes on.
"""

_EXAMPLE = """\
example:
  nre_ros localize --map kitchen.db --images images --list query.txt --camera cameras.txt -o result.jsonl
"""


def add_parser(subparsers) -> None:
    """Registers the sub-command."""
    parser = subparsers.add_parser(
        "localize",
        help="localize image files in a map",
        description=_DESCRIPTION,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--map", required=True, metavar="MAP.db", help="map made by `nre_ros map build`")
    parser.add_argument("--images", required=True, metavar="DIR", help="folder that the names in LIST are relative to")
    parser.add_argument("--list", metavar="LIST", help="file of image names, one a line (default: all images in DIR)")
    parser.add_argument(
        "--camera",
        required=True,
        metavar="CAMERAS.txt",
        help="COLMAP's cameras.txt; of several cameras each image takes the one of its size",
    )
    parser.add_argument("-o", "--output", metavar="RESULT.jsonl", help="where to write (default: standard output)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")
    parser.add_argument("--seed", type=int, default=0, help="of the random draws: same seed, same poses (default 0)")
    parser.add_argument("--retrieve", type=count, default=5, metavar="K", help="keyframes a query (default 5)")
    parser.add_argument(
        "--min-confidence",
        type=float,
        default=0.5,
        metavar="P",
        help="poses of less confidence are not given (default 0.5)",
    )
    parser.add_argument("--config", metavar="FILE.yml", help="settings of the estimator, under their published names")
    parser.add_argument(
        "--draw",
        metavar="DIR",
        help="write a sheet about each image (map points on it, loss maps, "
        "the camera from above) and space.html, all poses in 3D",
    )
    parser.add_argument("--show", action="store_true", help="draw, and open the poses in 3D in the web browser")
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Localizes all images; 0 when the command did its work, whatever the images showed."""
    from tqdm import tqdm

    from nre_ros.keyframes.importers.colmap.cameras import read_cameras_txt
    from nre_ros.keyframes.importers.text_files import check_folder, image_names
    from nre_ros.localization.localizer import Localizer
    from nre_ros.nre import EstimatorConfig, load_config

    folder = check_folder(arguments.images)
    names = image_names(folder, arguments.list)
    cameras = list(read_cameras_txt(arguments.camera).values())
    config = load_config(arguments.config) if arguments.config else EstimatorConfig()
    seconds, poses = [], {}
    with (
        Localizer(
            arguments.map, arguments.device, arguments.seed, arguments.retrieve, arguments.min_confidence, config
        ) as localizer,
        _output(arguments.output) as lines,
    ):
        drawings = _Drawings(localizer.store, arguments.draw, arguments.show)
        localizer.warm_up()
        for name in tqdm(names, unit="image", desc="localize", disable=not sys.stderr.isatty()):
            result = _localize(localizer, folder, name, cameras, drawings)
            lines.write(json.dumps({"image": name, **result.to_json()}) + "\n")
            lines.flush()
            seconds.append(sum(result.milliseconds.values()) / 1e3)
            if result.success:
                poses[name] = result.T_map_cam
        drawings.finish(poses)
    print(
        f"{len(poses)} of {len(names)} images localized, median {statistics.median(seconds):.2f} s an image",
        file=sys.stderr,
    )
    return 0


class _Drawings:
    """What --draw and --show ask for: a sheet an image, and in the end all poses in space."""

    def __init__(self, store, folder: str | None, show: bool):
        self.folder = Path(folder) if folder else Path(tempfile.mkdtemp(prefix="nre_ros_")) if show else None
        self._show, self._store, self._keyframes = show, store, {}
        if self.folder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise NreError(f"--draw {self.folder} cannot be a folder: {error.strerror}") from error
            ids, poses, _ = store.global_descriptors()
            self._keyframes = dict(zip(ids.tolist(), poses))

    def sheet(self, name: str, image, result) -> None:
        if self.folder is not None:
            from nre_ros.pictures.sheet import write_sheet

            write_sheet(self.folder / _flat(name), image, result, self._keyframes)

    def finish(self, poses: dict) -> None:
        if self.folder is None:
            return
        import numpy as np

        from nre_ros.pictures.space import write_space

        points = [keyframe.points for keyframe in self._store.load(self._keyframes)]
        path = self.folder / "space.html"
        write_space(
            path,
            np.concatenate(points or [np.zeros((0, 3))]),
            np.array(list(self._keyframes.values())).reshape(-1, 4, 4),
            poses,
            f"{len(poses)} images in {self._store.path.name}",
        )
        print(f"drawn in {self.folder}: a sheet an image, and {path.name}", file=sys.stderr)
        if self._show:
            webbrowser.open(path.resolve().as_uri())


def _flat(name: str) -> str:
    """Name of an image's sheet: images of several folders are drawn into one."""
    return str(Path(name).with_suffix(".jpg")).strip("/").replace("/", "_")


def _localize(localizer, folder: Path, name: str, cameras, drawings: _Drawings):
    from nre_ros.errors import CameraError, ImageError
    from nre_ros.keyframes.importers.colmap.cameras import camera_of_size
    from nre_ros.keyframes.importers.image_files import read_image
    from nre_ros.localization.result import LocalizationResult

    try:
        image = read_image(folder / name)
        result = localizer.localize(image, camera_of_size(cameras, image))
    except (ImageError, CameraError) as error:
        return LocalizationResult(reason=str(error))
    drawings.sheet(name, image, result)
    return result


def _output(path: str | None):
    """The stream to write to; standard output stays open after use."""
    from contextlib import nullcontext

    if path is None:
        return nullcontext(sys.stdout)
    try:
        return open(path, "w", encoding="utf-8")
    except OSError as error:
        raise NreError(f"{path} cannot be written: {error.strerror}") from error
