# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A gallery of several rooms: 2,000 rendered keyframes, queries by a robot, and exact truth.

All rooms hang the same photographs, in other orders, places and frames: what tells them apart is
how things stand together.  Rendering takes minutes, so all that the benchmarks need lies in one
folder afterwards and is taken from there when it is complete.
"""

from __future__ import annotations

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

ROOMS, KEYFRAMES, QUERIES = 8, 250, 25
"""Rooms, and keyframes and queries in each."""
CAMERA = Camera(320, 240, 260.0, 260.0, 159.5, 119.5)
_QUERY_SENSOR = Sensor(gain=0.8, gamma=1.1, blur=0.7, noise=4.0)
_APART = 12.0
"""Metres between the middles of neighbouring rooms."""


@dataclass(frozen=True)
class Views:
    """Views with their truth: coarse features [V, C, H, W] float16, T_map_cam [V, 4, 4], depth [V, h, w] mm."""

    coarse: np.ndarray
    poses: np.ndarray
    depth: np.ndarray


@dataclass(frozen=True)
class Rooms:
    """The map file, and the views of its keyframes (in the order of their ids) and of the queries."""

    map_path: Path
    keyframes: Views
    queries: Views
    camera: Camera = CAMERA


def rooms(options: Options) -> Rooms:
    """The gallery, rendered if it does not lie in the benchmark's folder yet."""
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


def map_of_views(path: Path, views, camera: Camera, options: Options) -> None:
    """A map file of rendered views: names, galleries, poses in the gallery's frame and in the map's, one after the other.

    It takes its name when it is complete.
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
                        image = _QUERY_SENSOR(image, np.random.default_rng([options.seed, room, i]))
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
    """A room at its place in the map, and the poses [V, 4, 4] of its keyframes and queries."""
    rng = np.random.default_rng([seed, number])
    size = tuple(rng.uniform((5.0, 4.0, 2.8), (8.0, 6.5, 3.4)))
    T = np.eye(4)
    T[:2, 3] = _APART * (number % 3), _APART * (number // 3)
    room_seed = 1000 * seed + number
    way = robot_loop(size, 30.0, room_seed).T_map_base(np.linspace(0, 30, QUERIES, endpoint=False))
    poses = {"keyframes": mapping_poses(size, KEYFRAMES, room_seed), "queries": way @ CameraMount().T_base_cam}
    gallery = Gallery(build_room(room_seed, size, T, pixels_per_metre=200))
    return gallery, {part: T @ Ts for part, Ts in poses.items()}
