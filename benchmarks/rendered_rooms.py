# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Several rendered rooms: 2,000 keyframes, the queries of a robot, and exact ground truth.

All rooms have the same photographs in other orders, places and frames; only their arrangement distinguishes the rooms.
Rendering takes minutes, so the result is kept in one folder and read from there the next time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import Options

from nre_ros.features import load_backbone
from nre_ros.gallery.render import Gallery
from nre_ros.gallery.room import build_room
from nre_ros.gallery.sensor import Sensor
from nre_ros.gallery.trajectory import CameraMount, mapping_poses, robot_loop
from nre_ros.geometry import Camera
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.storage.store import KeyframeStore

View = tuple[str, Gallery, np.ndarray, np.ndarray]
ROOMS, KEYFRAMES, QUERIES = 8, 250, 25
"""Rooms, and keyframes and queries in each."""
CAMERA = Camera(320, 240, 260.0, 260.0, 159.5, 119.5)
QUERY_SENSOR = Sensor(gain=0.8, gamma=1.1, blur=0.7, noise=4.0)
APART = 12.0
"""Metres between the middles of neighbouring rooms."""


@dataclass(frozen=True)
class Views:
    """Views with their ground truth: coarse features [V, C, H, W] float16, T_map_cam [V, 4, 4], depth [V, h, w] mm."""

    coarse: np.ndarray
    poses: np.ndarray
    depth: np.ndarray


@dataclass(frozen=True)
class Rooms:
    """The map file, the views of its keyframes (in the order of their ids), and those of the queries."""

    map_path: Path
    keyframes: Views
    queries: Views
    camera: Camera = CAMERA


def rooms(options: Options) -> Rooms:
    """Returns the rooms; they are rendered if the benchmark's folder does not contain them."""
    folder = options.folder / f"rooms_{ROOMS}x{KEYFRAMES}_{options.seed}"
    if not (folder / "complete").exists():
        folder.mkdir(exist_ok=True)
        _render(folder, options)
        (folder / "complete").touch()
    views = [
        Views(*(np.load(folder / f"{part}_{name}.npy", mmap_mode="r") for name in ("coarse", "poses", "depth")))
        for part in ("keyframes", "queries")
    ]
    return Rooms(folder / "map.db", *views)


def place_of(room: int) -> np.ndarray:
    """Computes the pose [4, 4] of a room in the map: rows of three rooms, 12 m apart."""
    T_map_room = np.eye(4)
    T_map_room[:2, 3] = APART * (room % 3), APART * (room // 3)
    return T_map_room


def write_map(path: Path, views: Iterable[View], camera: Camera, options: Options) -> None:
    """Builds a map file of rendered views; it gets its name when it is complete.

    Args:
        path: file to write.
        views: name, gallery, pose [4, 4] in the gallery's frame and pose [4, 4] in the map of each view.
        camera: camera of the views.
        options: options of the run.
    """
    backbone = load_backbone("xfeat", options.device)
    builder = KeyframeBuilder(backbone, seed=options.seed)
    partial = path.with_suffix(".making")
    with KeyframeStore.create(partial, backbone.name, backbone.weights_hash, overwrite=True, exclusive=True) as store:
        for name, gallery, T_gallery_cam, T_map_cam in views:
            view = gallery.render(camera, T_gallery_cam)
            store.add(builder.build_rgbd(name, 0, view.image, view.depth, camera, T_map_cam))
    partial.rename(path)


def _render(folder: Path, options: Options) -> None:
    backbone = load_backbone("xfeat", options.device)
    builder = KeyframeBuilder(backbone, seed=options.seed)
    views = {"keyframes": ([], [], []), "queries": ([], [], [])}
    path = folder / "map.db"
    with KeyframeStore.create(path, backbone.name, backbone.weights_hash, overwrite=True, exclusive=True) as store:
        for room in range(ROOMS):
            print(f"rendering room {room + 1} of {ROOMS}", flush=True)
            gallery, poses = _room(room, options.seed)
            for part, Ts in poses.items():
                for i, T in enumerate(Ts):
                    view = gallery.render(CAMERA, T)
                    image, name = view.image, f"room{room}/{i:04d}"
                    if part == "queries":
                        image = QUERY_SENSOR(image, np.random.default_rng([options.seed, room, i]))
                    else:
                        store.add(builder.build_rgbd(name, 0, image, view.depth, CAMERA, T))
                    coarse = backbone.extract(image, fine=False).coarse.data
                    depth = np.rint(1e3 * view.depth).clip(0, 65535).astype(np.uint16)
                    for values, value in zip(views[part], (coarse.cpu().numpy().astype(np.float16), T, depth)):
                        values.append(value)
    for part, arrays in views.items():
        for name, array in zip(("coarse", "poses", "depth"), arrays):
            np.save(folder / f"{part}_{name}.npy", np.array(array))


def _room(number: int, seed: int) -> tuple[Gallery, dict[str, np.ndarray]]:
    """Builds a room at its place in the map, and the poses [V, 4, 4] of its keyframes and queries."""
    rng = np.random.default_rng([seed, number])
    size = tuple(rng.uniform((5.0, 4.0, 2.8), (8.0, 6.5, 3.4)))
    T = place_of(number)
    room_seed = 1000 * seed + number
    base = robot_loop(size, 30.0, room_seed).T_map_base(np.linspace(0, 30, QUERIES, endpoint=False))
    poses = {"keyframes": mapping_poses(size, KEYFRAMES, room_seed), "queries": base @ CameraMount().T_base_cam}
    gallery = Gallery(build_room(room_seed, size, T, pixels_per_metre=200))
    return gallery, {part: T @ Ts for part, Ts in poses.items()}
