# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Training pairs of rendered rooms, without end: every seed has rooms of its own.

A room takes longer to build than a view to render, and a view longer than a pair to be made of two views. A room
therefore serves many pairs, and a few views of one place make all the pairs that they can.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from nre_ros.errors import TrainingError
from nre_ros.gallery import Gallery, build_room, camera_pose
from nre_ros.geometry import Camera
from nre_ros.learning.pairs import PosedView, TrainingPair, depth_correspondences, posed_pair

_MAX_PLACES, _TRIES_A_VIEW = 25, 3
"""Places that are tried, and poses tried at a place for each of its views, until the views overlap."""
_ROOM_LENGTHS, _ROOM_WIDTHS, _ROOM_HEIGHTS = (4.0, 9.0), (3.5, 7.0), (2.5, 3.5)
"""Smallest and largest sides of a room, metres."""
_CLEARANCE = 0.3
"""Smallest distance of a camera from walls, floor and ceiling, metres."""
_OVERLAP_WIDTH = 40
"""Width of the depth images by which the overlap of two views is measured, pixels."""
_SHARP_FROM = 1.6
"""Distance in metres from which a wall has at least one texel a pixel."""

_T = TypeVar("_T")


@dataclass
class _Room:
    """A room, and its length, width and height."""

    gallery: Gallery
    size: npt.NDArray[np.float64]


@dataclass
class _Place:
    """The cameras and poses of the views of one place, and the views that were rendered."""

    cameras: list[Camera]
    poses: list[npt.NDArray[np.float64]]
    views: dict[int, PosedView] = field(default_factory=dict)


class GalleryPairs:
    """Two views of a rendered room.

    Several rooms take turns, so that pairs that follow each other differ. Processes that each make every n-th pair render
    different rooms if ``rooms_at_once`` is a multiple of their number.

    Args:
        cameras: Each view draws one of them.
        points: Largest number of points a pair.
        pairs_per_room: Pairs until a room is replaced by a new one.
        rooms_at_once: Number of rooms that take turns.
        views_per_place: Number of views of one place; V views make V (V - 1) / 2 pairs. With 2, no view is used twice.
        max_distance: Largest distance of two views, metres.
        max_rotation: Largest rotation between two views, radians.
        min_overlap: Smallest share of one view that the other one shows.
        pixels_per_metre: Resolution of the walls; None: a texel a pixel from 1.6 m on, for the longest focal length.
        pictures: BGR ``[h, w, 3]`` of the pictures on the walls, at least one; None: those of scikit-image.

    Raises:
        TrainingError: There is no camera, or a number is out of its range.
    """

    def __init__(
        self,
        cameras: Sequence[Camera],
        points: int = 400,
        pairs_per_room: int = 72,
        rooms_at_once: int = 4,
        views_per_place: int = 4,
        max_distance: float = 1.2,
        max_rotation: float = math.radians(38.0),
        min_overlap: float = 0.25,
        pixels_per_metre: int | None = None,
        pictures: Sequence[npt.NDArray[np.uint8]] | None = None,
    ):
        if not cameras or pairs_per_room < 1 or rooms_at_once < 1 or views_per_place < 2 or not 0 <= min_overlap <= 1:
            raise TrainingError(
                f"gallery pairs: {len(cameras)} cameras, pairs_per_room={pairs_per_room}, "
                f"rooms_at_once={rooms_at_once}, views_per_place={views_per_place}, min_overlap={min_overlap}"
            )
        self._cameras, self._points = list(cameras), points
        self._pairs_per_room, self._rooms_at_once = pairs_per_room, rooms_at_once
        self._pairs_of_views = list(combinations(range(views_per_place), 2))
        self._views_per_place = views_per_place
        self._max_distance, self._max_rotation, self._min_overlap = max_distance, max_rotation, min_overlap
        if pixels_per_metre is None:
            pixels_per_metre = round(min(max(max(camera.fx for camera in cameras) / _SHARP_FROM, 100), 400))
        self._pixels_per_metre = pixels_per_metre
        self._pictures = None if pictures is None else list(pictures)
        self._rooms: dict[tuple[int, ...], _Room] = {}
        self._places: dict[tuple[int, ...], _Place] = {}

    def room_number(self, index: int) -> int:
        """Returns the number of the room that a pair is rendered in.

        Args:
            index: Number of the pair.
        """
        turn, place = divmod(index, self._rooms_at_once)
        return turn // self._pairs_per_room * self._rooms_at_once + place

    def pair(self, seed: int, index: int) -> TrainingPair:
        """Makes one pair (see ``PairSource``).

        Args:
            seed: Of all pairs.
            index: Number of the pair.

        Raises:
            TrainingError: No views overlap enough.
        """
        number = self.room_number(index)
        turn = index // self._rooms_at_once % self._pairs_per_room
        place_number, which = divmod(turn, len(self._pairs_of_views))
        room = self._kept(self._rooms, (seed, number), lambda: self._build(seed, number))
        key = (seed, number, place_number)
        place = self._kept(self._places, key, lambda: self._find_place(room, *key))
        rng = np.random.default_rng([seed, index, 2])
        first, second = rng.permutation(self._pairs_of_views[which])
        a, b = (self._view(room, place, int(i)) for i in (first, second))
        return posed_pair(a, b, self._points, rng, f"room {number} of seed {seed}")

    def views(self, seed: int, index: int, count: int, rng: np.random.Generator) -> list[PosedView]:
        """Renders views of the room that a pair is rendered in.

        Args:
            seed: Of all pairs.
            index: Number of the pair.
            count: Number of views.
            rng: Source of poses and cameras.
        """
        number = self.room_number(index)
        room = self._kept(self._rooms, (seed, number), lambda: self._build(seed, number))
        found = []
        for _ in range(count):
            pose = self._pose(room.size, rng)
            camera = self._cameras[int(rng.integers(len(self._cameras)))]
            rendering = room.gallery.render(camera, pose)
            found.append(PosedView(rendering.image, rendering.depth, camera, pose))
        return found

    def __getstate__(self) -> dict[str, Any]:
        """No room is sent to another process."""
        return {**self.__dict__, "_rooms": {}, "_places": {}}

    def _kept(self, kept: dict[tuple[int, ...], _T], key: tuple[int, ...], make: Callable[[], _T]) -> _T:
        """What was made before, else what ``make`` returns; the last ones used are kept, as many as rooms take turns."""
        found = kept.pop(key, None)
        if found is None:
            found = make()
            while len(kept) >= self._rooms_at_once:
                del kept[next(iter(kept))]
        kept[key] = found
        return found

    def _build(self, seed: int, number: int) -> _Room:
        rng = np.random.default_rng([seed, number, 3])
        length, width, height = (rng.uniform(*sides) for sides in (_ROOM_LENGTHS, _ROOM_WIDTHS, _ROOM_HEIGHTS))
        room_seed = int(rng.integers(2**31))
        size = length, width, height
        quads = build_room(room_seed, size, pixels_per_metre=self._pixels_per_metre, pictures=self._pictures)
        return _Room(Gallery(quads), np.array(size))

    def _find_place(self, room: _Room, seed: int, number: int, place_number: int) -> _Place:
        """Views of which each two overlap."""
        rng = np.random.default_rng([seed, number, place_number, 6])
        best = 0.0
        for _ in range(_MAX_PLACES):
            T = self._pose(room.size, rng)
            place, coarse = _Place([], []), list[PosedView]()
            for _ in range(_TRIES_A_VIEW * self._views_per_place):
                camera = self._cameras[int(rng.integers(len(self._cameras)))]
                pose = self._moved(T, room.size, rng)
                view = _depth_view(room.gallery, camera, pose)
                overlap = min((min(_overlap(view, other), _overlap(other, view)) for other in coarse), default=1.0)
                best = max(best, overlap if coarse else 0.0)
                if overlap > 0 and overlap >= self._min_overlap and view.depth.any():
                    place.cameras.append(camera)
                    place.poses.append(pose)
                    coarse.append(view)
                if len(coarse) == self._views_per_place:
                    return place
        raise TrainingError(
            f"room {number} of seed {seed}: at {_MAX_PLACES} places no {self._views_per_place} views overlap by "
            f"{self._min_overlap:.0%} (best {best:.0%})"
        )

    def _pose(self, size: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
        """A pose on a ring between the middle of the room and its walls, in any direction."""
        angle, radius = rng.uniform(-math.pi, math.pi), rng.uniform(0.3, 0.65)
        x, y = radius * size[0] / 2 * math.cos(angle), radius * size[1] / 2 * math.sin(angle)
        height = rng.uniform(1.0, 1.7)
        return camera_pose([x, y, height], rng.uniform(-math.pi, math.pi), rng.normal(scale=0.12))

    def _moved(
        self, T: npt.NDArray[np.float64], size: npt.NDArray[np.float64], rng: np.random.Generator
    ) -> npt.NDArray[np.float64]:
        """A pose at most half the largest distance and rotation away, so that two of them keep to the largest."""
        direction, axis = (vector / np.linalg.norm(vector) for vector in rng.normal(size=(2, 3)))
        axis[2] *= 0.5  # mostly the directions in which a robot's camera turns
        moved = T.copy()
        place = T[:3, 3] + direction * rng.uniform(0, self._max_distance / 2)
        low, high = np.array([-size[0] / 2, -size[1] / 2, 0.0]), np.array([size[0] / 2, size[1] / 2, size[2]])
        moved[:3, 3] = place.clip(low + _CLEARANCE, high - _CLEARANCE)
        moved[:3, :3] = T[:3, :3] @ Rotation.from_rotvec(axis * rng.uniform(0, self._max_rotation / 2)).as_matrix()
        return moved

    def _view(self, room: _Room, place: _Place, index: int) -> PosedView:
        """A view of a place, rendered when it is first used."""
        if index not in place.views:
            camera, pose = place.cameras[index], place.poses[index]
            rendering = room.gallery.render(camera, pose)
            place.views[index] = PosedView(rendering.image, rendering.depth, camera, pose)
        return place.views[index]


def _depth_view(gallery: Gallery, camera: Camera, T_map_cam: npt.NDArray[np.float64]) -> PosedView:
    """The depth of a view at a low resolution, with a black image."""
    height = max(1, round(_OVERLAP_WIDTH * camera.height / camera.width))
    small = camera.resized(_OVERLAP_WIDTH, height)
    depth = gallery.render_depth(small, T_map_cam)
    return PosedView(np.zeros((*depth.shape, 3), np.uint8), depth, small, T_map_cam)


def _overlap(a: PosedView, b: PosedView) -> float:
    """The share of one view that the other one shows."""
    y, x = np.nonzero(a.depth)
    if not len(x):
        return 0.0
    _, visible = depth_correspondences(a, b, np.stack([x, y], axis=-1), tolerance=0.1)
    return float(visible.mean())
