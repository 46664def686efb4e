# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Small valid files for every reader of files that others write, and functions that read all of their contents."""

from __future__ import annotations

import json
import random
import sqlite3
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from mutations import FIELDS, NUMBERS, mutate

from nre_ros.errors import NreError
from nre_ros.evaluation.datasets.mat_files import MatReader
from nre_ros.geometry import Camera

Change = str | Callable[[bytes, random.Random], bytes]
"""Kind of a file for ``mutations.mutate``, or a function that damages it."""

WIDTH, HEIGHT = 48, 32
_NAMES = ("a.png", "sub/b.png", "c.png")
_POSES = ("0 0 0 0 0 0 1", "0.1 0.2 0.3 0 0.6 0 0.8", "-1 2 0.5 0.1 0.7 -0.1 0.7")
"""Position and quaternion x y z w of three images."""
_WXYZ = ("1 0 0 0 0 0 0", "0.8 0 0.6 0 0.1 0.2 0.3", "0.7 0.1 0.7 -0.1 -1 2 0.5")
"""Quaternion w x y z and position of the same images."""
_STAMP = 1_700_000_000
_CAMERA = f"{WIDTH} {HEIGHT} 40 40 24 16"


@dataclass(frozen=True)
class Sample:
    """Valid files and a reader of them.

    Attributes:
        name: Name of the reader.
        files: Name in a folder -> content.
        damaged: Name of a file that gets damaged -> how.
        read: Reads the files of a folder, with all that a command would read of them.
    """

    name: str
    files: dict[str, bytes]
    damaged: dict[str, Change]
    read: Callable[[Path], object]

    def write(self, folder: Path) -> None:
        """Writes the valid files into a folder."""
        for name, data in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)

    def leftovers(self, folder: Path) -> list[Path]:
        """Files in a folder that are none of the sample's."""
        known = {folder / name for name in self.files}
        return [path for path in folder.rglob("*") if path.is_file() and path not in known]


def _sample(name: str, files: dict[str, str | bytes], read: Callable[[Path], object], **kinds: Change) -> Sample:
    """A sample whose files are damaged by the endings of their names (``kinds``); others stay valid."""
    contents = {file: data.encode() if isinstance(data, str) else data for file, data in files.items()}
    damaged = {file: kinds[ending] for file in files if (ending := file.rpartition(".")[2]) in kinds}
    return Sample(name, contents, damaged, read)


def _image(ending: str, depth: bool = False) -> bytes:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = (1000 + 7 * x + y).astype(np.uint16) if depth else np.stack([3 * x, 5 * y, x + y], -1).astype(np.uint8)
    return _encoded(ending, pixels)


def _encoded(ending: str, pixels: np.ndarray) -> bytes:
    """A file of the pixels; nothing of a format that this OpenCV cannot write."""
    with suppress(cv2.error):
        written, data = cv2.imencode(ending, pixels)
        return bytes(np.asarray(data)) if written else b""
    return b""


def _read_source(source: Any) -> None:
    """Reads poses, cameras, pixels and depths of a source of a map."""
    source.describe()
    for name in source.names():
        for read in ("pose_and_camera", "camera_pose", "image_to_check", "depth_to_check", "observations"):
            if hasattr(source, read):
                with suppress(NreError):
                    getattr(source, read)(name)


def _changed(folder: Path, files: dict[str, str | bytes]) -> list[Path]:
    """The files that are not the sample's any more; all of them if there is none."""
    valid = {name: data.encode() if isinstance(data, str) else data for name, data in files.items()}
    found = [folder / name for name, data in valid.items() if (folder / name).read_bytes() != data]
    return found or [folder / name for name in valid]


def _read_dataset(queries: Any) -> None:
    """Reads the query images of a data set."""
    queries.describe()
    for query in queries.queries():
        with suppress(NreError):
            query.load()


# COLMAP


def _colmap_text() -> dict[str, str | bytes]:
    images = [
        f"{k} {pose} 1 {name}\n10.5 12.5 {k} 20 15 7 30.25 20 -1\n" for k, (pose, name) in enumerate(zip(_WXYZ, _NAMES))
    ]
    points = [f"{k} {k} 1.5 4 10 20 30 0.5 0 0 1 0\n" for k in (0, 1, 2, 7)]
    rigs = "# rigs\n1 2 CAMERA 1 CAMERA 2 1 1 0 0 0 0.1 0 0\n"
    frames = [f"{k} 1 {pose} 1 CAMERA 1 {k}\n" for k, pose in enumerate(_WXYZ)]
    return {
        "sparse/cameras.txt": f"# cameras\n1 PINHOLE {_CAMERA}\n2 OPENCV {_CAMERA} 0.1 0.01 0 0\n",
        "sparse/images.txt": "# images\n" + "".join(images),
        "sparse/points3D.txt": "".join(points),
        "sparse/rigs.txt": rigs,
        "sparse/frames.txt": "".join(frames),
        **{f"images/{name}": _image(".png") for name in _NAMES},
    }


def _colmap_binary() -> dict[str, str | bytes]:
    cameras = struct.pack("<Q", 2)
    for number, model, parameters in ((1, 1, (40, 40, 24, 16)), (2, 4, (40, 40, 24, 16, 0.1, 0.01, 0, 0))):
        cameras += struct.pack(f"<IiQQ{len(parameters)}d", number, model, WIDTH, HEIGHT, *parameters)
    images = struct.pack("<Q", len(_NAMES))
    for k, (pose, name) in enumerate(zip(_WXYZ, _NAMES)):
        images += struct.pack("<I7dI", k, *map(float, pose.split()), 1) + name.encode() + b"\0"
        images += struct.pack("<Q2dq2dq", 2, 10.5, 12.5, 7, 20.0, 15.0, -1)
    points = struct.pack("<Q", 2)
    for k in (1, 7):
        points += struct.pack("<Q3d3BdQ2i", k, k, 1.5, 4.0, 10, 20, 30, 0.5, 1, 0, 0)
    rigs = struct.pack("<QIIiIiIB7d", 1, 1, 2, 0, 1, 0, 2, 1, 1.0, 0, 0, 0, 0.1, 0, 0)
    frames = struct.pack("<Q", len(_NAMES))
    for k, pose in enumerate(_WXYZ):
        frames += struct.pack("<II7dIiIQ", k, 1, *map(float, pose.split()), 1, 0, 1, k)
    files = {"cameras": cameras, "images": images, "points3D": points, "rigs": rigs, "frames": frames}
    return {
        **{f"sparse/{name}.bin": data for name, data in files.items()},
        **{f"images/{name}": _image(".png") for name in _NAMES},
    }


def _read_colmap(folder: Path) -> None:
    from nre_ros.keyframes.importers.colmap.model_source import ColmapSource
    from nre_ros.keyframes.importers.colmap.poses_source import ColmapPosesSource

    with suppress(NreError):
        _read_source(ColmapSource(folder / "sparse", folder / "images"))
    _read_source(ColmapPosesSource(folder / "sparse", folder / "images"))


def _read_image_list(folder: Path) -> None:
    from nre_ros.evaluation.inputs import ImageListInput
    from nre_ros.evaluation.options import EvaluationOptions
    from nre_ros.keyframes.importers.colmap.cameras import only_camera

    with suppress(NreError):
        only_camera(folder / "cameras.txt")
    queries = ImageListInput(folder / "images", folder / "list.txt", folder / "cameras.txt")
    _read_dataset(queries)
    options = EvaluationOptions(folder / "map.db", folder / "out", ground_truth=str(folder / "truth.txt"))
    names = [query.name for query in queries.queries()]
    queries.ground_truth(options, "map").lookup(names, np.zeros(len(names), dtype=np.int64))


# Poses in text files


def _trajectory(separator: str = " ", header: str = "# t x y z qx qy qz qw\n", unit: int = 0) -> str:
    stamps = [f"{_STAMP + k}{'0' * unit}" if unit else f"{_STAMP + k}.25" for k in range(len(_POSES))]
    return header + "".join(f"{stamp} {pose}\n".replace(" ", separator) for stamp, pose in zip(stamps, _POSES))


def _trajectories() -> dict[str, str | bytes]:
    euroc_header = "#timestamp [ns],p_x [m],p_y [m],p_z [m],q_x [],q_y [],q_z [],q_w []\n"
    return {
        "tum.txt": _trajectory(),
        "euroc.txt": _trajectory(",", euroc_header, unit=9),
        "plain.txt": _trajectory("\t", ""),
    }


def _read_trajectories(folder: Path) -> None:
    from nre_ros.evaluation.ground_truth import read_tum, read_tum_of_list
    from nre_ros.keyframes.importers.pose_columns import PoseConvention

    for convention in (PoseConvention(), PoseConvention("wxyz", "map-to-camera")):
        for path in _changed(folder, _trajectories()):
            with suppress(NreError):
                read_tum(path, convention).at(np.array([_STAMP * 10**9 + 500_000_000]), 10.0)
            with suppress(NreError):
                read_tum_of_list(path, _NAMES, convention)


# RGB-D folders


def _tum_sequence() -> dict[str, str | bytes]:
    lists = {
        kind: f"# {kind}\n" + "".join(f"{_STAMP + k}.25 {kind}/{k}.png\n" for k in range(3))
        for kind in ("rgb", "depth")
    }
    return {
        "rgbd_freiburg3/rgb.txt": lists["rgb"],
        "rgbd_freiburg3/depth.txt": lists["depth"],
        "rgbd_freiburg3/groundtruth.txt": _trajectory(),
        **{f"rgbd_freiburg3/rgb/{k}.png": _image(".png") for k in range(3)},
        **{f"rgbd_freiburg3/depth/{k}.png": _image(".png", depth=True) for k in range(3)},
    }


def _rgbd_folder() -> dict[str, str | bytes]:
    return {
        "poses.txt": _trajectory(),
        "list.txt": "\n".join(_NAMES) + "\n",
        "cameras.txt": f"1 PINHOLE {_CAMERA}\n",
        **{f"images/{name}": _image(".png") for name in _NAMES},
        **{f"depth/{name}": _image(".png", depth=True) for name in _NAMES},
    }


def _read_rgbd(folder: Path) -> None:
    from nre_ros.keyframes.importers.rgbd.layouts import rgbd_folder_source

    inner = folder / "rgbd_freiburg3"
    _read_source(rgbd_folder_source(inner if inner.is_dir() else folder))


def _seven_scenes() -> dict[str, str | bytes]:
    pose = "1.0 0.0 0.0 0.5\t\n0.0 1.0 0.0 0.1\t\n0.0 0.0 1.0 0.2\t\n0.0 0.0 0.0 1.0\t\n"
    return {
        "TrainSplit.txt": "sequence1\nsequence2\n",
        **{f"seq-0{s}/frame-00000{k}.pose.txt": pose for s in (1, 2) for k in range(2)},
        **{f"seq-0{s}/frame-00000{k}.color.png": _image(".png") for s in (1, 2) for k in range(2)},
        **{f"seq-0{s}/frame-00000{k}.depth.png": _image(".png", depth=True) for s in (1, 2) for k in range(2)},
    }


# Data sets


def _kapture() -> dict[str, str | bytes]:
    trajectories = [f"{_STAMP + k}, rig, {pose.replace(' ', ', ')}\n" for k, pose in enumerate(_WXYZ)]
    records = [f"{_STAMP + k}, cam{k % 2}, {name}\n" for k, name in enumerate(_NAMES)]
    head = "# kapture format: 1.1\n"
    return {
        "sensors/sensors.txt": f"{head}cam0, left, camera, PINHOLE, {_CAMERA.replace(' ', ', ')}\n"
        f"cam1, , camera, SIMPLE_RADIAL, {WIDTH}, {HEIGHT}, 40, 24, 16, 0.1\ngps, , gnss, EPSG:4326\n",
        "sensors/rigs.txt": f"{head}rig, cam0, 1, 0, 0, 0, 0, 0, 0\nrig, cam1, 1, 0, 0, 0, 0.1, 0, 0\n",
        "sensors/trajectories.txt": head + "".join(trajectories),
        "sensors/records_camera.txt": head + "".join(records),
        **{f"sensors/records_data/{name}": _image(".png") for name in _NAMES},
    }


def _read_kapture(folder: Path) -> None:
    from nre_ros.keyframes.importers.kapture import KaptureSource

    _read_source(KaptureSource(folder))


def _euroc() -> dict[str, str | bytes]:
    stamps = [_STAMP * 10**9 + k * 50_000_000 for k in range(3)]
    truth = [f"{stamp},{','.join(f'{pose} 0 0 0'.split())}\n" for stamp, pose in zip(stamps, _POSES)]
    sensor = (
        "sensor_type: camera\nT_BS:\n  cols: 4\n  rows: 4\n"
        "  data: [1.0, 0.0, 0.0, 0.1, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]\n"
        f"rate_hz: 20\nresolution: [{WIDTH}, {HEIGHT}]\nintrinsics: [40.0, 40.0, 24.0, 16.0]\n"
        "distortion_model: radial-tangential\ndistortion_coefficients: [0.1, 0.0, 0.0, 0.0]\n"
    )
    return {
        "mav0/cam0/sensor.yaml": sensor,
        "mav0/cam0/data.csv": "#timestamp [ns],filename\n" + "".join(f"{stamp},{stamp}.png\n" for stamp in stamps),
        "mav0/state_groundtruth_estimate0/data.csv": "#timestamp, x\n" + "".join(truth),
        **{f"mav0/cam0/data/{stamp}.png": _image(".png") for stamp in stamps},
    }


def _read_euroc(folder: Path) -> None:
    from nre_ros.evaluation.datasets.euroc import EurocSource
    from nre_ros.evaluation.inputs import DatasetInput

    source = EurocSource(folder)
    _read_source(source)
    _read_dataset(DatasetInput.from_source(source, "sequence"))


def _cambridge() -> dict[str, str | bytes]:
    lines = [
        f"seq1/{name} {pose.split(maxsplit=4)[4]} {' '.join(pose.split()[:4])}" for name, pose in zip("abc", _WXYZ)
    ]
    cameras = [f"seq1/{name}.jpg 40 1 0 0 0 0 0 0 0 0 " for name in "abc"]
    listing = "Visual Landmark Dataset V1\nImageFile, Camera Position\n\n" + "\n".join(lines) + "\n"
    return {
        "dataset_train.txt": listing,
        "dataset_test.txt": listing,
        "reconstruction.nvm": "\n".join(["NVM_V3 ", "", "3", *cameras, "", "0", ""]),
        **{f"seq1/{name}": _image(".png") for name in "abc"},
    }


def _read_cambridge(folder: Path) -> None:
    from nre_ros.evaluation.datasets.cambridge import Cambridge

    scene = Cambridge().scenes(folder)[0]
    _read_source(scene.source)
    _read_dataset(scene.queries)


def _aachen() -> dict[str, str | bytes]:
    model = {f"3D-models/aachen_v_1_1/{name[7:]}": data for name, data in _colmap_text().items() if name[0] == "s"}
    return {
        **{name: data for name, data in model.items() if "rigs" not in name and "frames" not in name},
        **{f"images/images_upright/{name}": _image(".png") for name in _NAMES},
        **{
            f"queries/{time}_time_queries_with_intrinsics.txt": f"a.png PINHOLE {_CAMERA}\nc.png PINHOLE {_CAMERA}\n"
            for time in ("day", "night")
        },
    }


def _read_aachen(folder: Path) -> None:
    from nre_ros.evaluation.datasets.aachen import Aachen

    for scene in Aachen().scenes(folder):
        _read_dataset(scene.queries)


def _inloc() -> dict[str, str | bytes]:
    from scipy.io import savemat

    y, x = np.mgrid[:HEIGHT, :WIDTH]
    points = np.stack([(x - 23.5) / 40 * 3, (y - 15.5) / 40 * 3, 3 + 0.01 * x * y], -1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mat"
        savemat(path, {"XYZcut": points})
        matrix = path.read_bytes()
    rows = ["1 0 0 3", "0 1 0 -2", "0 0 1 1", "0 0 0 1"]
    name = "database/cutouts/DUC1/024/DUC_cutout_024_0_0.jpg"
    return {
        name: _image(".jpg"),
        f"{name}.mat": matrix,
        "database/alignments/DUC1/transformations/DUC_trans_024.txt": "\n".join(["before", "", *rows, "", *rows, ""]),
        "query/iphone7/IMG_1.JPG": _image(".jpg"),
    }


@cache
def _mat_reader() -> MatReader:
    return MatReader()


def _read_inloc(folder: Path) -> None:
    from nre_ros.evaluation.datasets.inloc import Inloc, InlocSource

    source = InlocSource(folder)
    source._mat_files = _mat_reader()  # a worker takes a second to start
    for name in source.names():
        with suppress(NreError):
            source.alignment(name)
        with suppress(NreError):
            source._scan(name)
    _read_dataset(Inloc().scenes(folder)[0].queries)


# Images and messages

_FORMATS = ("jpg", "png", "bmp", "tiff", "webp", "pgm", "pfm", "hdr", "jp2", "gif")


@cache
def _images() -> dict[str, str | bytes]:
    files: dict[str, str | bytes] = {"depth.png": _image(".png", depth=True), "depth.tiff": _image(".tiff", depth=True)}
    for ending in _FORMATS:
        grey = np.full((HEIGHT, WIDTH, 3), 0.5, np.float32)
        data = _encoded(f".{ending}", grey) if ending in ("pfm", "hdr") else _image(f".{ending}")
        if data:
            files[f"image.{ending}"] = data
    return files


def _read_images(folder: Path) -> None:
    from nre_ros.keyframes.importers.image_files import read_depth, read_image

    for path in _changed(folder, _images()):
        for read in (read_image, lambda path: read_depth(path, 1000.0)):
            with suppress(NreError):
                read(path)


def _messages() -> dict[str, str | bytes]:
    header = struct.pack("<iff", 0, 100.0, 1.0)
    return {
        "image.jpg": _image(".jpg"),
        "image.png": _image(".png"),
        "depth.png": _image(".png", depth=True),
        "compressed.depth": header + _image(".png", depth=True),
        "message.json": json.dumps(
            {
                "width": WIDTH,
                "height": HEIGHT,
                "encoding": "bgr8",
                "step": 3 * WIDTH,
                "is_bigendian": 0,
                "distortion_model": "plumb_bob",
                "d": [0.1, 0.0, 0.0, 0.0, 0.0],
                "k": [40.0, 0.0, 24.0, 0.0, 40.0, 16.0, 0.0, 0.0, 1.0],
                "p": [40.0, 0.0, 24.0, 0.0, 0.0, 40.0, 16.0, 0.0, 0.0, 0.0, 1.0, 0.0],
                "binning_x": 0,
                "binning_y": 0,
                "roi": [0, 0, 0, 0],
            }
        ),
    }


_ENCODINGS = (
    "mono8",
    "bgr8",
    "rgba8",
    "mono16",
    "bgra16",
    "bayer_rggb8",
    "yuyv",
    "nv12",
    "i420",
    "yv12",
    "16UC1",
    "32FC1",
)
_MODELS = ("", "plumb_bob", "rational_polynomial", "equidistant", "fisheye", "thin_prism")


def _change_message(data: bytes, rng: random.Random) -> bytes:
    """Other values of the types that the message's definition has: anything else cannot arrive."""
    fields = json.loads(data)
    for _ in range(rng.randrange(1, 4)):
        name = rng.choice(list(fields))
        if name == "encoding":
            fields[name] = rng.choice((*_ENCODINGS, "", "x"))
        elif name == "distortion_model":
            fields[name] = rng.choice(_MODELS)
        elif name == "d":
            fields[name] = [_number(rng) for _ in range(rng.choice((0, 1, 4, 5, 8, 12, 14, 20)))]
        elif name in ("k", "p"):
            fields[name][rng.randrange(len(fields[name]))] = _number(rng)
        elif name == "roi":
            fields[name] = [rng.choice((0, 1, 7, WIDTH, 2**32 - 1)) for _ in range(4)]
        else:
            fields[name] = rng.choice((*range(6), WIDTH, HEIGHT, 2 * WIDTH, *(n for n in NUMBERS if n < 2**32)))
    return json.dumps(fields).encode()


def _number(rng: random.Random) -> float:
    return rng.choice((0.0, 1.0, -1.0, 1e-300, 1e300, float("nan"), float("inf"), rng.gauss(0, 1), rng.gauss(0, 100)))


def _read_messages(folder: Path) -> None:
    from nre_ros.messages.camera_info import camera_from_info
    from nre_ros.messages.depth_images import depth_array
    from nre_ros.messages.images import image_array

    fields = json.loads((folder / "message.json").read_text())
    header = SimpleNamespace(frame_id="camera", stamp=SimpleNamespace(sec=0, nanosec=0))
    for file, kind in (
        *(("image.jpg", "jpeg"), ("image.png", "bgr8; png compressed"), ("depth.png", "16UC1; png")),
        *(("compressed.depth", "16UC1; compressedDepth png"), ("compressed.depth", "32FC1; compressedDepth")),
    ):
        message = SimpleNamespace(header=header, format=kind, data=(folder / file).read_bytes())
        for read in (image_array, depth_array):
            with suppress(NreError):
                read(message)
    x_offset, y_offset, width, height = fields.pop("roi")
    roi = SimpleNamespace(x_offset=x_offset, y_offset=y_offset, width=width, height=height)
    info = SimpleNamespace(header=header, roi=roi, data=bytes(3 * WIDTH * HEIGHT), **fields)
    for read in (image_array, depth_array, camera_from_info, lambda info: camera_from_info(info, rectified=True)):
        with suppress(NreError):
            read(info)


# Settings, checkpoints, results


def _config() -> dict[str, str | bytes]:
    return {
        "config.yml": "n_iter_p3p: 1000\ntop_n_p3p: 0.25\np3p_sigma_max: 1.0\np3p_sigma_min: 0.6\nwindow_size: 16\n"
        "fine_sigma_max: 2.0\nreciprocal: true\nskip_gnc: false\n",
        "extrinsics.txt": "0.1 0.2 0.3 0 0 0 1",
    }


def _read_config(folder: Path) -> None:
    from nre_ros.keyframes.importers.pose_frames import camera_in_pose_frame
    from nre_ros.nre import load_config

    with suppress(NreError):
        camera_in_pose_frame("body", (folder / "extrinsics.txt").read_bytes().decode("utf-8", "replace"))
    load_config(folder / "config.yml")


def _parameters() -> dict[str, str | bytes]:
    return {
        "parameters.yaml": "/**:\n  ros__parameters:\n    map_file: /maps/a.db\n    retrieve: 5\n    gate: {first_fixes: 3}\n"
        "/robot/localize_node:\n  ros__parameters:\n    min_confidence: 0.5\n    use_sim_time: true\n"
    }


def _read_parameters(folder: Path) -> None:
    from nre_ros.node.parameter_sources import files_for_other_nodes, given_parameters

    arguments = ["--ros-args", "--params-file", str(folder / "parameters.yaml")]
    given_parameters(arguments, "/robot/localize_node")
    files_for_other_nodes(arguments, "/robot/localize_node")


def _last_pose() -> dict[str, str | bytes]:
    from nre_ros.gate.last_pose import LastPose

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pose.json"
        LastPose(np.eye(4), np.eye(6), "map", "camera", _STAMP * 10**9).save(path)
        return {"pose.json": path.read_bytes()}


def _read_last_pose(folder: Path) -> None:
    from nre_ros.gate.last_pose import LastPose

    LastPose.load(folder / "pose.json")


@cache
def _checkpoint() -> dict[str, str | bytes]:
    import torch

    from nre_ros.features.inception import InceptionNetwork, layer_names

    layer = layer_names("fine")[0]
    state = {name: torch.zeros_like(tensor) for name, tensor in InceptionNetwork("fine", layer).state_dict().items()}
    content = {
        "epoch": 3,
        "state_dict": state,
        "hyper_parameters": {"level": "fine", "extraction_layer": layer, "image": {"resize": 32}},
    }
    files: dict[str, str | bytes] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, is_zip in (("new.ckpt", True), ("old.ckpt", False)):
            torch.save(content, Path(folder) / name, _use_new_zipfile_serialization=is_zip)
            files[name] = (Path(folder) / name).read_bytes()
    return files


def _read_checkpoint(folder: Path) -> None:
    from nre_ros.features.checkpoint import read_checkpoint

    for path in _changed(folder, _checkpoint()):
        with suppress(NreError):
            read_checkpoint(path).network()


def _evaluation() -> dict[str, str | bytes]:
    from nre_ros.evaluation.metrics.query_results import collect_results, without_ground_truth
    from nre_ros.evaluation.result_files import write_csv, write_json

    records = [
        {
            "image": name,
            "stamp": _STAMP * 10**9,
            "success": name != "c.png",
            "position": [1.0, 2.0, 3.0],
            "quaternion": [0.0, 0.6, 0.0, 0.8],
            "covariance": np.eye(6).tolist(),
            "confidence": 0.9,
            "points_used": 100,
            "keyframes": [1, 2],
            "milliseconds": {"features": 20.0},
            "reason": "" if name != "c.png" else "too few points",
        }
        for name in _NAMES
    ]
    with tempfile.TemporaryDirectory() as folder:
        results = collect_results(records, without_ground_truth, 0.5)
        write_csv(Path(folder) / "outcomes.csv", results)
        write_json(Path(folder) / "summary.json", {"wrong_beyond": {"metres": 0.5, "degrees": 5.0}, "about": {}})
        files = {f"run/{path.name}": path.read_bytes() for path in Path(folder).iterdir()}
    about = {"map": "a.db", "images": "list", "baselines": None, "options": {"seed": 0}}
    return {
        **files,
        "run/records.jsonl": "".join(json.dumps(record) + "\n" for record in records),
        "run/run.json": json.dumps(about),
    }


def _read_evaluation(folder: Path) -> None:
    from nre_ros.evaluation.metrics.query_results import collect_results, without_ground_truth
    from nre_ros.evaluation.output_folder import prepare_output_folder, read_evaluations
    from nre_ros.evaluation.records import RecordFile, read_records

    with suppress(NreError):
        collect_results(read_records(folder / "run/records.jsonl"), without_ground_truth, 0.5)
    with suppress(NreError), RecordFile(folder / "run/records.jsonl"):
        pass
    with suppress(NreError):
        prepare_output_folder(folder / "run", {"map": "a.db", "baselines": None})
    read_evaluations([folder / "run"])


# Map files


@cache
def _map_file() -> bytes:
    from nre_ros.keyframes.storage.store import KeyframeStore
    from nre_ros.keyframes.types import Keyframe

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.db"
        with KeyframeStore.create(path, "place", "0" * 64, source='{"importer": "posed"}') as store:
            for k, name in enumerate(_NAMES):
                T = np.eye(4)
                T[0, 3] = k
                store.add(
                    Keyframe(
                        name=name,
                        stamp=_STAMP * 10**9 + k,
                        T_map_cam=T,
                        camera=Camera(WIDTH, HEIGHT, 40, 40, 24, 16),
                        points=rng.normal(size=(6, 3)).astype(np.float32),
                        coarse=rng.normal(size=(6, 4)).astype(np.float32),
                        fine=rng.normal(size=(6, 4)).astype(np.float32),
                        background=rng.normal(size=(5, 4)).astype(np.float32),
                        background_cells=100,
                        global_descriptor=rng.normal(size=16).astype(np.float32),
                        point_ids=np.arange(6),
                        thumbnail=_image(".jpg"),
                    )
                )
        return path.read_bytes()


def _change_map(data: bytes, rng: random.Random) -> bytes:
    """Another value in a row, whose checksum is right again: what another program may have written."""
    from nre_ros.keyframes.storage.blobs import row_checksum

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.db"
        path.write_bytes(data)
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            table = rng.choice(("metadata", "cameras", "keyframes", "points", "thumbnails"))
            rows = db.execute(f"SELECT rowid, * FROM {table}").fetchall()
            names = [column[0] for column in db.execute(f"SELECT * FROM {table}").description]
            row_id, *columns = rng.choice(rows)
            column = rng.randrange(len(names) - 1)
            columns[column] = _other_value(columns[column], rng)
            with suppress(sqlite3.Error, OverflowError, UnicodeEncodeError):
                columns[-1] = row_checksum(*columns[:-1])
                values = ", ".join(f"{name} = ?" for name in names)
                db.execute(f"UPDATE OR REPLACE {table} SET {values} WHERE rowid = ?", (*columns, row_id))
        return path.read_bytes()


def _other_value(value: Any, rng: random.Random) -> Any:
    if rng.random() < 0.3:
        return rng.choice((None, 0, -1, 1.5, float("inf"), 2**62, "", "x", b"", b"|i1 \2\0\0\0", rng.choice(FIELDS)))
    if isinstance(value, bytes):
        return mutate(value, rng)
    if isinstance(value, str):
        return mutate(value.encode(), rng, "json").decode("utf-8", "replace")
    return rng.choice((0, 1, -value, value + 1, 2**40, -(2**63)))


def _read_map(folder: Path) -> None:
    from nre_ros.keyframes.storage.store import KeyframeStore
    from nre_ros.keyframes.tools.info import describe_map
    from nre_ros.keyframes.tools.verify import salvage_map, verify_map

    path = folder / "map.db"
    with suppress(NreError):
        check = verify_map(path, progress=False)
        if not check.good:
            salvage_map(check, folder / "repaired.db", force=True, progress=False)
    with KeyframeStore.open(path) as store:
        for read in (describe_map, KeyframeStore.cameras, KeyframeStore.global_descriptors, KeyframeStore.read_index):
            with suppress(NreError):
                read(store)
        for keyframe_id in store.names().values():
            with suppress(NreError):
                store.get(keyframe_id)
            with suppress(NreError):
                store.coarse_descriptors(keyframe_id, 3)


# Recordings


def _bag(storage: str) -> dict[str, str | bytes]:
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    from nre_ros.gallery.bag import camera_info_message, pose_message, tf_message

    types = get_typestore(Stores.ROS2_JAZZY)
    kinds = {
        "/tf_static": "tf2_msgs/msg/TFMessage",
        "/tf": "tf2_msgs/msg/TFMessage",
        "/image": "sensor_msgs/msg/CompressedImage",
        "/camera_info": "sensor_msgs/msg/CameraInfo",
        "/ground_truth": "geometry_msgs/msg/PoseStamped",
    }
    with tempfile.TemporaryDirectory() as folder:
        with Writer(Path(folder) / "bag", version=9, storage_plugin=StoragePlugin[storage.upper()]) as writer:
            connections = {topic: writer.add_connection(topic, kind, typestore=types) for topic, kind in kinds.items()}
            for k in range(2):
                stamp, T = _STAMP * 10**9 + k * 10**9, np.eye(4)
                T[0, 3] = k
                pose = pose_message(stamp, "map", T)
                image = types.types[kinds["/image"]](pose.header, "png", np.frombuffer(_image(".png"), np.uint8))
                image.header = types.types["std_msgs/msg/Header"](stamp=pose.header.stamp, frame_id="camera")
                messages = {
                    "/tf_static": tf_message(stamp, [("base", "camera", np.eye(4))]),
                    "/tf": tf_message(stamp, [("map", "base", T)]),
                    "/image": image,
                    "/camera_info": camera_info_message(stamp, "camera", Camera(WIDTH, HEIGHT, 40, 40, 24, 16)),
                    "/ground_truth": pose,
                }
                for topic, message in messages.items():
                    writer.write(connections[topic], stamp, types.serialize_cdr(message, kinds[topic]))
        return {f"bag/{path.name}": path.read_bytes() for path in (Path(folder) / "bag").iterdir()}


def _read_bag(folder: Path) -> None:
    from nre_ros.evaluation.bag_input import BagInput
    from nre_ros.evaluation.options import EvaluationOptions
    from nre_ros.keyframes.importers.bag.source import bag_source
    from nre_ros.replay.bag import find_topics, read_ground_truth, read_images

    path = folder / "bag"
    part = sum(len(file.read_bytes()) + zlib.crc32(file.read_bytes()) for file in path.iterdir()) % 3
    if part == 0:  # one of the three readers, for opening a bag takes most of the time
        _read_source(bag_source(path))
    elif part == 1:
        topics = find_topics(path)
        stamps = read_ground_truth(path, topics.ground_truth)
        list(read_images(path, topics.image, list(stamps)))
    else:
        queries = BagInput(path)
        names, stamps_of_queries = [], []
        for query in queries.queries():
            names.append(query.name)
            stamps_of_queries.append(query.stamp)
            with suppress(NreError):
                query.load()
        truth = queries.ground_truth(EvaluationOptions(folder / "map.db", folder / "out"), "map")
        truth.lookup(names, np.array(stamps_of_queries, dtype=np.int64))


def _samples() -> Iterator[tuple[str, Callable[[], Sample]]]:
    binary: Change = "binary"
    listed = {"cameras.txt": f"1 PINHOLE {_CAMERA}\n", "list.txt": "\n".join(_NAMES) + "\n", "truth.txt": _trajectory()}
    images = {f"images/{name}": _image(".png") for name in _NAMES}
    yield "colmap_text", lambda: _sample("colmap_text", _colmap_text(), _read_colmap, txt="text")
    yield "colmap_binary", lambda: _sample("colmap_binary", _colmap_binary(), _read_colmap, bin=binary)
    yield "image_list", lambda: _sample("image_list", {**listed, **images}, _read_image_list, txt="text")
    yield "trajectory", lambda: _sample("trajectory", _trajectories(), _read_trajectories, txt="text")
    yield "tum", lambda: _sample("tum", _tum_sequence(), _read_rgbd, txt="text")
    yield "rgbd_folder", lambda: _sample("rgbd_folder", _rgbd_folder(), _read_rgbd, txt="text", png=binary)
    yield "seven_scenes", lambda: _sample("seven_scenes", _seven_scenes(), _read_rgbd, txt="text")
    yield "kapture", lambda: _sample("kapture", _kapture(), _read_kapture, txt="text")
    yield "euroc", lambda: _sample("euroc", _euroc(), _read_euroc, csv="text", yaml="text")
    yield "cambridge", lambda: _sample("cambridge", _cambridge(), _read_cambridge, txt="text", nvm="text")
    yield "aachen", lambda: _sample("aachen", _aachen(), _read_aachen, txt="text")
    yield "inloc", lambda: _sample("inloc", _inloc(), _read_inloc, txt="text", mat=binary)
    yield "images", lambda: _sample("images", _images(), _read_images, **dict.fromkeys(_FORMATS, binary))
    message = {"json": _change_message, **dict.fromkeys(("jpg", "png", "depth"), binary)}
    yield "messages", lambda: _sample("messages", _messages(), _read_messages, **message)
    yield "config", lambda: _sample("config", _config(), _read_config, yml="text", txt="text")
    yield "parameters", lambda: _sample("parameters", _parameters(), _read_parameters, yaml="text")
    yield "last_pose", lambda: _sample("last_pose", _last_pose(), _read_last_pose, json="json")
    yield "checkpoint", lambda: _sample("checkpoint", _checkpoint(), _read_checkpoint, ckpt=binary)
    results: dict[str, Change] = {"json": "json", "jsonl": "json", "csv": "text"}
    yield "evaluation", lambda: _sample("evaluation", _evaluation(), _read_evaluation, **results)
    yield "map", lambda: _sample("map", {"map.db": _map_file()}, _read_map, db=binary)
    yield "map_rows", lambda: _sample("map_rows", {"map.db": _map_file()}, _read_map, db=_change_map)
    yield "bag_mcap", lambda: _sample("bag_mcap", _bag("mcap"), _read_bag, mcap=binary, yaml="text")
    yield "bag_sqlite", lambda: _sample("bag_sqlite", _bag("sqlite3"), _read_bag, db3=binary, yaml="text")


SAMPLES: dict[str, Callable[[], Sample]] = dict(_samples())
"""Name of a reader -> makes its sample."""
