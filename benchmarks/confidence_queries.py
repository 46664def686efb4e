# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Queries with known answers, to fit and to validate the confidence: hard queries, and images of other places.

Fitting and validation share no image. They take every second query of the kitchen each and different rendered rooms.
Fountain, lund_door and virtual_gallery are used for validation only; other places are for the fit those that travel with
the package.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from common import Options
from rendered_rooms import CAMERA, View, place_of, write_map
from scenes import degrade, fountain, kitchen

from nre_ros.features import load_backbone
from nre_ros.gallery.render import Gallery
from nre_ros.gallery.room import build_room
from nre_ros.gallery.sensor import Sensor
from nre_ros.gallery.trajectory import CameraMount, mapping_poses, robot_loop
from nre_ros.geometry import Camera
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.importers.build_map import build_map
from nre_ros.keyframes.importers.image_files import read_image
from nre_ros.keyframes.importers.kapture import KaptureSource
from nre_ros.keyframes.importers.text_files import read_list
from nre_ros.localization.other_places import negative_images

FIT, TEST = "fit", "test"
_SENSOR = Sensor(gain=0.8, gamma=1.1, blur=0.7, noise=4.0)
_SIZE = (6.5, 5.0, 3.0)
_ROOM_SEEDS = {FIT: 9000, TEST: 7000}
_ROOMS = {FIT: 3, TEST: 4}
_KEYFRAMES = 50
_VIEWS = {FIT: 30, TEST: 25}
"""Queries in each room."""
_PIECES = 18
"""Pieces taken of each photograph of another place, for validation."""
_TRAVELLING = 60
"""Images of other places for the fit, in each map."""


@dataclass(frozen=True)
class Trial:
    """A query with a known answer.

    Attributes:
        name: name of the query.
        image: uint8 BGR [H, W, 3].
        camera: the camera that the localizer is given, which is wrong for some queries.
        T_map_cam: true pose [4, 4]; None if the image shows nothing of the map.
    """

    name: str
    image: np.ndarray
    camera: Camera
    T_map_cam: np.ndarray | None = None


@dataclass(frozen=True)
class Trials:
    """A set of queries.

    Attributes:
        map_path: makes the map.
        queries: makes the queries.
        mixed: whether these are easy and hard queries that the map shows.
    """

    map_path: Callable[[Options], Path]
    queries: Callable[[Options], Iterator[Trial]]
    mixed: bool = False


# --- changes of images ------------------------------------------------------------------------------------------


def covered(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Covers a fifth to a half of an image with striped ellipses, like objects in front of the camera."""
    image, (height, width) = image.copy(), image.shape[:2]
    wanted, mask = rng.uniform(0.2, 0.5), np.zeros((height, width), np.uint8)
    while mask.mean() < 255 * wanted:
        centre = rng.uniform((0, 0), (width, height))
        radii = rng.uniform(0.1, 0.3, 2) * height
        blob = np.zeros_like(mask)
        cv2.ellipse(blob, (tuple(centre), tuple(2 * radii), rng.uniform(0, 180)), 255, -1)
        stripes = (np.arange(width) // int(rng.integers(6, 30)) % 2)[None, :, None] * rng.integers(10, 60)
        colour = np.clip(rng.integers(0, 200, 3) + np.broadcast_to(stripes, (height, width, 1)), 0, 255)
        image[blob > 0] = np.broadcast_to(colour, image.shape)[blob > 0].astype(np.uint8)
        mask |= blob
    return image


def _hard(trial: Trial, seed: int) -> Iterator[Trial]:
    """Yields a query as it is, and three hard variants: degraded, covered, with a wrong focal length."""
    rng = np.random.default_rng([seed, zlib.crc32(trial.name.encode())])
    yield trial
    yield replace(trial, name=f"{trial.name} degraded", image=degrade(trial.image, rng))
    yield replace(trial, name=f"{trial.name} covered", image=covered(trial.image, rng))
    factor = 1 + rng.choice([-1, 1]) * rng.uniform(0.01, 0.05)
    camera = replace(trial.camera, fx=trial.camera.fx * factor, fy=trial.camera.fy * factor)
    yield replace(trial, name=f"{trial.name} focal length {factor:.3f}", camera=camera)


def _altered(image: np.ndarray, count: int, seed: int, name: str) -> Iterator[np.ndarray]:
    """Yields random pieces of an image, some mirrored, with another gamma, 480 pixels wide."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    for _ in range(count):
        height, width = image.shape[:2]
        share = rng.uniform(0.5, 1.0)
        h, w = int(height * share), int(width * share)
        y, x = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
        piece = image[y : y + h, x : x + w]
        piece = piece[:, ::-1] if rng.random() < 0.5 else piece
        piece = cv2.resize(piece, (480, round(480 * h / w)), interpolation=cv2.INTER_AREA)
        yield np.rint(255 * (piece / 255.0) ** rng.uniform(0.6, 1.6)).astype(np.uint8)


# --- sets --------------------------------------------------------------------------------------------------------------


def _kitchen_queries(part: str, every: int) -> Trials:
    def queries(options: Options):
        for i, query in enumerate(kitchen(options, every).queries()):
            if i % 2 == (part == TEST):
                yield from _hard(Trial(query.name, query.image, query.camera, query.T_map_cam), options.seed)

    return Trials(lambda options: kitchen(options, every).map_path, queries, mixed=True)


def _fountain_queries(options: Options):
    for query in fountain(options).queries():
        yield from _hard(Trial(query.name, query.image, query.camera, query.T_map_cam), options.seed)


def _gallery(part: str, number: int, place: int) -> Gallery:
    return Gallery(build_room(_ROOM_SEEDS[part] + number, _SIZE, place_of(place), pixels_per_metre=200))


def gallery_map(options: Options, part: str, identical: bool = False) -> Path:
    """Returns a map of rooms with the same pictures in other orders, or of one room that exists twice."""
    path = options.folder / f"gallery_{part}{'_identical' if identical else ''}.db"
    if not path.exists():
        write_map(path, _mapped_views(part, identical), CAMERA, options)
    return path


def _mapped_views(part: str, identical: bool) -> Iterator[View]:
    for place in range(2 if identical else _ROOMS[part]):
        number = 0 if identical else place
        gallery = _gallery(part, number, place)
        for i, T in enumerate(mapping_poses(_SIZE, _KEYFRAMES, _ROOM_SEEDS[part] + number)):
            yield f"{place}/{i:03d}", gallery, place_of(place) @ T, place_of(place) @ T


def _gallery_views(part: str, number: int, place: int, count: int, mapped: bool) -> Iterator[Trial]:
    gallery = _gallery(part, number, place)
    base = robot_loop(_SIZE, 30.0, _ROOM_SEEDS[part] + number).T_map_base(np.linspace(0, 30, count, endpoint=False))
    for i, T in enumerate(place_of(place) @ base @ CameraMount().T_base_cam):
        image = _SENSOR(gallery.render(CAMERA, T).image, np.random.default_rng([number, i]))
        yield Trial(f"room {number} view {i}", image, CAMERA, T if mapped else None)


def _gallery_queries(part: str) -> Trials:
    def queries(options: Options):
        for room in range(_ROOMS[part]):
            for trial in _gallery_views(part, room, room, _VIEWS[part], mapped=True):
                yield from _hard(trial, options.seed)

    return Trials(lambda options: gallery_map(options, part), queries, mixed=True)


def _other_rooms(part: str) -> Trials:
    """Rooms that are not in the map, with the same pictures as the rooms of the map."""

    def queries(options: Options):
        for room in range(_ROOMS[part]):
            yield from _gallery_views(part, 100 + room, room, 2 * _VIEWS[part], mapped=False)

    return Trials(lambda options: gallery_map(options, part), queries)


def _identical_rooms(part: str) -> Trials:
    """A room that exists twice: the pose may be right, but the image cannot show it."""

    def queries(options: Options):
        for place in (0, 1):
            yield from _gallery_views(part, 0, place, _VIEWS[part], mapped=True)

    return Trials(lambda options: gallery_map(options, part, identical=True), queries)


def _photographs(options: Options) -> Iterator[tuple[str, np.ndarray]]:
    """Photographs of other places for validation: every second one of two sets, and all of the fountain."""
    folders = {"lund_door/images": "*.JPG", "virtual_gallery": "**/*.jpg", "fountain/images": "*.jpg"}
    for name, pattern in folders.items():
        paths = sorted(options.data(f"data/{name}").glob(pattern))
        for path in paths if name == "fountain/images" else paths[1::2]:
            yield f"{name}/{path.name}", read_image(path)


def _camera_of(image: np.ndarray) -> Camera:
    height, width = image.shape[:2]
    return Camera(width, height, 525.0 * width / 640, 525.0 * width / 640, (width - 1) / 2, (height - 1) / 2)


def _travelling(map_path: Callable[[Options], Path]) -> Trials:
    """The images of other places that travel with the package, for the fit."""

    def queries(options: Options):
        for place in negative_images(_TRAVELLING, options.seed):
            yield Trial(place.name, place.image, place.camera)

    return Trials(map_path, queries)


def _other_places() -> Trials:
    """Photographs of other places and rendered rooms, localized in the kitchen's map, for validation."""

    def queries(options: Options):
        for name, image in _photographs(options):
            for k, piece in enumerate(_altered(image, _PIECES, options.seed, name)):
                yield Trial(f"{name} {k}", piece, _camera_of(piece))
        yield from _unmapped_rooms(TEST, 8)

    return Trials(lambda options: kitchen(options).map_path, queries)


def _unmapped_rooms(part: str, rooms: int) -> Iterator[Trial]:
    for room in range(rooms):
        poses = mapping_poses(_SIZE, 100, _ROOM_SEEDS[part] + 200 + room)
        gallery = Gallery(build_room(_ROOM_SEEDS[part] + 200 + room, _SIZE, pixels_per_metre=200))
        for i, T in enumerate(poses):
            yield Trial(f"room {200 + room} view {i}", gallery.render(CAMERA, T).image, CAMERA)


def _kitchen_images(part: str) -> Iterator[Trial]:
    def queries(options: Options):
        folder = options.data("data/kitchen")
        names = sorted(read_list(folder / "map.txt") + read_list(folder / "query.txt"))
        for name in names[part == TEST :: 2]:
            image = read_image(folder / "images" / name)
            for k, piece in enumerate(_altered(image, 1 if part == FIT else 3, options.seed, name)):
                yield Trial(f"{name} {k}", piece, _camera_of(piece))

    return queries


def _gallery_of_kapture(options: Options) -> Path:
    path = options.folder / "virtual_gallery.db"
    if not path.exists():
        builder = KeyframeBuilder(load_backbone("xfeat", options.device), seed=options.seed)
        source = KaptureSource(options.data("data/virtual_gallery/mapping"))
        build_map(source, builder, path, progress=False)
    return path


def _without_content(part: str) -> Trials:
    """Noise, plain colours, ramps and strongly blurred images, localized in the kitchen's map."""

    def queries(options: Options):
        height, width = CAMERA.height, CAMERA.width
        rng = np.random.default_rng([options.seed, part == TEST])
        for i in range(20 if part == FIT else 60):
            yield Trial(f"noise {i}", rng.integers(0, 256, (height, width, 3)).astype(np.uint8), CAMERA)
            cloud = cv2.GaussianBlur(rng.normal(size=(height, width, 3)), (0, 0), rng.uniform(1, 12))
            yield Trial(f"cloud {i}", np.clip(128 + 50 * cloud / cloud.std(), 0, 255).astype(np.uint8), CAMERA)
            yield Trial(f"colour {i}", np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8), CAMERA)
            slopes = rng.uniform(-0.5, 0.5, 2)
            ramp = np.add.outer(slopes[0] * np.arange(height), slopes[1] * np.arange(width))
            ramp = np.repeat(np.clip(128 + ramp, 0, 255)[:, :, None], 3, axis=2)
            yield Trial(f"ramp {i}", ramp.astype(np.uint8), CAMERA)
        for name in read_list(options.data("data/kitchen") / "query.txt")[part == TEST :: 2]:
            image = read_image(options.data("data/kitchen") / "images" / name)
            for sigma in (15, 30):
                yield Trial(f"{name} blurred by {sigma}", cv2.GaussianBlur(image, (0, 0), sigma), _camera_of(image))

    return Trials(lambda options: kitchen(options).map_path, queries)


def sets(part: str) -> dict[str, Trials]:
    """Returns the sets of one part (``FIT`` or ``TEST``), by name."""
    found = {
        "kitchen": _kitchen_queries(part, 1),
        "kitchen, 11 keyframes": _kitchen_queries(part, 6),
        "kitchen, 3 keyframes": _kitchen_queries(part, 21),
        "gallery": _gallery_queries(part),
        "other rooms": _other_rooms(part),
        "identical rooms": _identical_rooms(part),
        "kitchen in the gallery": Trials(lambda options: gallery_map(options, part), _kitchen_images(part)),
        "images without content": _without_content(part),
    }
    if part == FIT:
        found["other places in the kitchen"] = _travelling(lambda options: kitchen(options).map_path)
        found["rendered rooms in the kitchen"] = Trials(
            lambda options: kitchen(options).map_path, lambda options: _unmapped_rooms(FIT, 1)
        )
        found["other places in the kitchen, 3 keyframes"] = _travelling(lambda options: kitchen(options, 21).map_path)
    if part == TEST:
        found["other places in the kitchen"] = _other_places()
        images = _kitchen_images(part)
        found["fountain"] = Trials(lambda options: fountain(options).map_path, _fountain_queries, mixed=True)
        found["kitchen in fountain"] = Trials(lambda options: fountain(options).map_path, images)
        found["kitchen in virtual gallery"] = Trials(_gallery_of_kapture, images)
    return found
