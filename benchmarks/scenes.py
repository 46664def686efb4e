# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The real scenes: their maps, built by the package's importers, their queries, and the queries' true poses."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from common import Options
from rendered_rooms import CAMERA, QUERY_SENSOR, write_map
from scipy.spatial import cKDTree

from nre_ros.evaluation.baselines.base import Baseline, Keypoints
from nre_ros.evaluation.baselines.map_images import MapImages, lift_by_depth
from nre_ros.evaluation.baselines.sift import Sift
from nre_ros.evaluation.inputs import evenly_spaced
from nre_ros.features import load_backbone
from nre_ros.gallery.render import Gallery
from nre_ros.gallery.room import build_room
from nre_ros.gallery.trajectory import CameraMount, mapping_poses, robot_loop
from nre_ros.geometry import Camera
from nre_ros.keyframes.building.builder import KeyframeBuilder, lift_pixels
from nre_ros.keyframes.building.point_selection import smooth_depth
from nre_ros.keyframes.importers.build_map import build_map
from nre_ros.keyframes.importers.colmap.model_source import ColmapSource
from nre_ros.keyframes.importers.colmap.poses_source import ColmapPosesSource
from nre_ros.keyframes.importers.image_files import read_depth, read_image
from nre_ros.keyframes.importers.kapture import KaptureSource
from nre_ros.keyframes.importers.rgbd.folder import RgbdFolderSource
from nre_ros.keyframes.importers.text_files import read_lines, read_list
from nre_ros.keyframes.importers.text_trajectory import parse_tum_pose
from nre_ros.keyframes.importers.triangulated_source import TriangulatedSource
from nre_ros.keyframes.storage.store import KeyframeStore

POINTS = 500
"""Of a keyframe of the kitchen."""
THIN = 21
"""The sparse map has every 21st map frame."""
_ROOM_SEED, _ROOM_KEYFRAMES, _ROOM_QUERIES = 900, 25, 60


@dataclass(frozen=True)
class Query:
    """An image (uint8 BGR [H, W, 3]) with its camera and its true pose T_map_cam [4, 4]."""

    name: str
    image: np.ndarray
    camera: Camera
    T_map_cam: np.ndarray


@dataclass(frozen=True)
class Scene:
    """A map with its queries, and what the baselines need.

    Attributes:
        map_path: the map file.
        queries: makes the queries.
        image: name of a keyframe -> its image.
        lifter: baseline -> a function (name of a keyframe, keypoints) -> points [N, 3] in the map, and which of them
            are known [N].
    """

    map_path: Path
    queries: Callable[[], Iterator[Query]]
    image: Callable[[str], np.ndarray]
    lifter: Callable[[Baseline], Callable[[str, Keypoints], tuple[np.ndarray, np.ndarray]]]


def kitchen(
    options: Options,
    every: int = 1,
    degraded: bool = False,
    builder: KeyframeBuilder | None = None,
    points: int = POINTS,
) -> Scene:
    """RGB-D walk through a kitchen; map of every ``every``th frame; queries degraded or as they are.

    builder: makes the map anew, whether it is there already or not.
    points: largest number of points of a keyframe, without a builder.
    """
    folder = options.data("data/kitchen")
    map_path = options.folder / (f"kitchen_{every}.db" if points == POINTS else f"kitchen_{every}_{points}.db")
    source = _kitchen_source(folder, options.folder, every)
    if builder is not None or not map_path.exists():
        builder = builder or KeyframeBuilder(load_backbone("xfeat", options.device), points, seed=options.seed)
        build_map(source, builder, map_path, force=True, progress=False)

    def queries():
        names = read_list(folder / "query.txt")
        poses = [line for line in read_lines(folder / "query_poses.txt") if not line.startswith("#")]
        for name, pose in evenly_spaced(list(zip(names, poses)), options.queries):
            image = read_image(folder / "images" / name)
            if degraded:
                image = degrade(image, np.random.default_rng([options.seed, zlib.crc32(name.encode())]))
            yield Query(name, image, source.only_camera, parse_tum_pose(pose)[1])

    def lift(name, keypoints):
        pixels = keypoints.pixels
        # the importer's refinement of depth, for the keypoints of all methods
        depth = smooth_depth(read_depth((folder / "depth" / name).with_suffix(".png"), 1000.0))
        camera, (_, T_map_cam) = source.only_camera, source.pose(name)
        points, known = lift_by_depth(depth, pixels, camera, T_map_cam)
        refined = source.refine_depths(name, source.image(name), pixels[known], depth, points[known])
        points[known] = lift_pixels(pixels[known], refined.depth, camera, T_map_cam)
        return points, known

    return Scene(map_path, queries, lambda name: read_image(folder / "images" / name), lambda baseline: lift)


def rendered_room(options: Options) -> Scene:
    """A room that no training has seen, with exact depth; the queries of a robot that drives through it."""
    size = (6.5, 5.0, 3.0)
    room = Gallery(build_room(_ROOM_SEED, size, pixels_per_metre=200))
    Ts = {f"{i:03d}": T for i, T in enumerate(mapping_poses(size, _ROOM_KEYFRAMES, _ROOM_SEED))}
    map_path = options.folder / "rendered_room.db"
    if not map_path.exists():
        write_map(map_path, ((name, room, T, T) for name, T in Ts.items()), CAMERA, options)

    def queries():
        times = np.linspace(0, 30, _ROOM_QUERIES, endpoint=False)
        base = robot_loop(size, 30.0, _ROOM_SEED).T_map_base(times)
        for i, T in evenly_spaced(list(enumerate(base @ CameraMount().T_base_cam)), options.queries):
            image = QUERY_SENSOR(room.render(CAMERA, T).image, np.random.default_rng([_ROOM_SEED, i]))
            yield Query(f"view {i}", image, CAMERA, T)

    def lift(name, keypoints):
        return lift_by_depth(room.render(CAMERA, Ts[name]).depth, keypoints.pixels, CAMERA, Ts[name])

    return Scene(map_path, queries, lambda name: room.render(CAMERA, Ts[name]).image, lambda baseline: lift)


def kitchen_images(options: Options) -> Iterator[np.ndarray]:
    """The kitchen's query images, without a map."""
    folder = options.data("data/kitchen")
    for name in evenly_spaced(read_list(folder / "query.txt"), options.queries):
        yield read_image(folder / "images" / name)


def fountain(options: Options) -> Scene:
    """Photographs of a fountain with surveyed poses and no depth: points triangulated by the project's importer."""
    return _posed(options, "fountain", options.data("data/fountain/images"), *fountain_sources(options))


def fountain_sources(options: Options) -> list[TriangulatedSource]:
    """The fountain's map images and query images."""
    folder = options.data("data/fountain")
    return [ColmapPosesSource(folder / "sparse", folder / "images", folder / file) for file in ("map.txt", "query.txt")]


def lund_door(options: Options) -> Scene:
    """Photographs of a door from a COLMAP model without metric scale. Each query is the image of a keyframe."""
    folder = options.data("data/lund_door")
    source = ColmapSource(folder / "sparse", folder / "images")
    map_path = options.folder / "lund_door.db"
    if not map_path.exists():
        builder = KeyframeBuilder(load_backbone("xfeat", options.device), seed=options.seed)
        build_map(source, builder, map_path, progress=False)

    def image(name):
        return read_image(folder / "images" / name)

    def queries():
        for name in evenly_spaced(source.names(), options.queries):
            T_map_cam, camera = source.pose_and_camera(name)
            yield Query(name, image(name), camera, T_map_cam)

    return Scene(map_path, queries, image, lambda baseline: None)


def gallery(options: Options) -> Scene:
    """The rendered gallery from kapture: a rig of two cameras, queries of other focal lengths, partly covered."""
    images = options.data("data/virtual_gallery/mapping/sensors/records_data")
    return _posed(options, "gallery", images, *virtual_gallery_sources(options))


def virtual_gallery_sources(options: Options) -> list[TriangulatedSource]:
    """The virtual gallery's map images and query images."""
    folder = options.data("data/virtual_gallery")
    return [KaptureSource(folder / half) for half in ("mapping", "query")]


def _posed(
    options: Options, name: str, images: Path, source: TriangulatedSource, queries_source: TriangulatedSource
) -> Scene:
    """A map of posed images and queries of the same kind.

    SIFT has the points of the importer, which uses the same keypoints. The points of the other baselines are
    triangulated from their own matches between the map's images.
    """
    map_path = options.folder / f"{name}.db"
    if not map_path.exists():
        builder = KeyframeBuilder(load_backbone("xfeat", options.device), seed=options.seed)
        build_map(source, builder, map_path, progress=False)

    def queries():
        for name in evenly_spaced(queries_source.names(), options.queries):
            (_, T_map_cam), camera = queries_source.pose(name), queries_source.camera(name)
            yield Query(name, queries_source.image(name), camera, T_map_cam)

    def lift(name, keypoints):
        known, found = source.triangulate(name, source.image(name))
        distance, nearest = cKDTree(known).query(keypoints.pixels)
        return found.points[nearest], distance < 0.01

    def lifter(baseline):
        if isinstance(baseline, Sift):
            return lift
        with KeyframeStore.open(map_path) as store:
            return MapImages(store, images).lifter(baseline)

    return Scene(map_path, queries, source.image, lifter)


def _kitchen_source(folder: Path, work: Path, every: int) -> RgbdFolderSource:
    """The package's importer, on a list of every ``every``th map frame."""
    names = read_list(folder / "map.txt")[::every]
    poses = [line for line in read_lines(folder / "map_poses.txt") if not line.startswith("#")][::every]
    names_path, poses_path = work / f"map_{every}.txt", work / f"poses_{every}.txt"
    names_path.write_text("\n".join(names) + "\n")
    poses_path.write_text("\n".join(poses) + "\n")
    return RgbdFolderSource(folder / "images", folder / "depth", poses_path, names_path, folder / "sparse/cameras.txt")


def degrade(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Degrades an image: motion blur of 11 pixels in a random direction, gamma 2.2, half the brightness, noise of 0.02."""
    angle = rng.uniform(0, np.pi)
    direction = 5 * np.array([np.cos(angle), np.sin(angle)])
    kernel = np.zeros((11, 11), np.float32)
    ends = [tuple(int(round(value)) for value in 5 + sign * direction) for sign in (-1, 1)]
    cv2.line(kernel, *ends, 1.0, 1)
    blurred = cv2.filter2D(image.astype(np.float32) / 255, -1, kernel / kernel.sum())
    dark = 0.5 * blurred**2.2 + rng.normal(0, 0.02, image.shape)
    return np.rint(255 * dark.clip(0, 1)).astype(np.uint8)
