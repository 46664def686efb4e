# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Endless seeded training pairs: homographies of photographs and views of rendered rooms.

Pair i of a source depends on the source's settings, the seed and i alone. Training can therefore be resumed at any
pair, and the number of processes that make pairs changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.transform import Rotation

from nre_ros.errors import ImageError, TrainingError
from nre_ros.features.base import check_image
from nre_ros.gallery import Gallery, build_room, camera_pose
from nre_ros.geometry import Camera
from nre_ros.learning.augmentation import Augmentation
from nre_ros.learning.pairs import PosedView, TrainingPair, homography_pair, posed_pair

_MAX_TRIES = 25
"""Pairs of poses that are tried until two views overlap."""
_ROOM_LENGTHS, _ROOM_WIDTHS, _ROOM_HEIGHTS = (4.0, 9.0), (3.5, 7.0), (2.5, 3.5)
"""Smallest and largest sides of a room, metres."""


class PairSource(Protocol):
    """Something that makes training pairs."""

    def pair(self, seed: int, index: int) -> TrainingPair:
        """Makes one pair.

        Args:
            seed: Of all pairs.
            index: Number of the pair.

        Returns:
            The pair: for the same arguments, always the same.
        """


class PhotographPairs:
    """Two views of one photograph, as of a poster that is seen at a slant, from nearer or farther, and rotated.

    Args:
        photographs: Name -> BGR ``[h, w, 3]`` or grey ``[h, w]``, uint8.
        size: Width and height of the views, pixels.
        points: Largest number of points a pair.
        max_zoom: Largest ratio of the two views' scales.
        max_rotation: Largest rotation of the second view, radians.
        max_slant: Largest shift of a corner by perspective, as a fraction of the view.

    Raises:
        TrainingError: There is no photograph, or one cannot be used.
    """

    def __init__(
        self,
        photographs: Mapping[str, npt.NDArray[np.uint8]],
        size: tuple[int, int] = (320, 240),
        points: int = 400,
        max_zoom: float = 1.4,
        max_rotation: float = math.radians(25.0),
        max_slant: float = 0.12,
    ):
        if not photographs:
            raise TrainingError("no photographs to make training pairs of")
        self._photographs = {}
        for name, image in sorted(photographs.items()):
            try:
                image = check_image(image)
            except ImageError as error:
                raise TrainingError(f"photograph {name}: {error}") from error
            self._photographs[name] = image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
        self._size, self._points = size, points
        self._max_zoom, self._max_rotation, self._max_slant = max_zoom, max_rotation, max_slant

    def pair(self, seed: int, index: int) -> TrainingPair:
        """Makes one pair (see ``PairSource``).

        Args:
            seed: Of all pairs.
            index: Number of the pair.
        """
        rng = np.random.default_rng([seed, index, 1])
        names = list(self._photographs)
        name = names[int(rng.integers(len(names)))]
        photograph = self._photographs[name]
        height, width = photograph.shape[:2]
        # a view is a part of the photograph with the view's shape; the part is 0.5 to 0.9 of the largest
        largest = min(width / self._size[0], height / self._size[1])
        scale = largest * rng.uniform(0.5, 0.9)
        part = np.array(self._size) * scale
        centre = part / 2 + rng.uniform(size=2) * (np.array([width, height]) - part)
        first = self._view(centre, scale, rng.uniform(-0.2, 0.2) * self._max_rotation, rng)
        zoom = math.exp(rng.uniform(-1, 1) * math.log(self._max_zoom))
        shift = rng.uniform(-0.2, 0.2, size=2) * part
        second = self._view(centre + shift, scale * zoom, rng.uniform(-1, 1) * self._max_rotation, rng)
        return homography_pair(photograph, first, second, self._size, self._points, rng, f"photograph {name}")

    def _view(
        self, centre: npt.NDArray[np.float64], scale: float, rotation: float, rng: np.random.Generator
    ) -> npt.NDArray[np.float64]:
        """Homography [3, 3] from a view to the photograph, whose corners are shifted at random."""
        sides = np.array(self._size, dtype=np.float64)
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * sides / 2
        moved = corners + rng.uniform(-1, 1, size=(4, 2)) * self._max_slant * sides
        c, s = math.cos(rotation), math.sin(rotation)
        on_photograph = centre + scale * moved @ np.array([[c, s], [-s, c]])
        H = cv2.getPerspectiveTransform(
            (corners + (sides - 1) / 2).astype(np.float32), on_photograph.astype(np.float32)
        )
        return np.asarray(H, dtype=np.float64)


class GalleryPairs:
    """Two views of a rendered room.

    Several rooms take turns, so that pairs that follow each other differ, and processes that each make every n-th pair
    need not render the same rooms.

    Args:
        cameras: Each view draws one of them.
        points: Largest number of points a pair.
        pairs_per_room: Pairs until a room is replaced by a new one.
        rooms_at_once: Number of rooms that take turns.
        max_distance: Largest distance of the two views, metres.
        max_rotation: Largest rotation between the two views, radians.
        min_overlap: Smallest share of the first view's points that the second one shows.
        pixels_per_metre: Resolution of the walls.

    Raises:
        TrainingError: There is no camera, or a number is out of its range.
    """

    def __init__(
        self,
        cameras: Sequence[Camera],
        points: int = 400,
        pairs_per_room: int = 40,
        rooms_at_once: int = 4,
        max_distance: float = 0.8,
        max_rotation: float = math.radians(25.0),
        min_overlap: float = 0.25,
        pixels_per_metre: int = 300,
    ):
        if not cameras or pairs_per_room < 1 or rooms_at_once < 1 or not 0 <= min_overlap <= 1:
            raise TrainingError(
                f"gallery pairs: {len(cameras)} cameras, pairs_per_room={pairs_per_room}, "
                f"rooms_at_once={rooms_at_once}, min_overlap={min_overlap}"
            )
        self._cameras, self._points = list(cameras), points
        self._pairs_per_room, self._rooms_at_once = pairs_per_room, rooms_at_once
        self._max_distance, self._max_rotation, self._min_overlap = max_distance, max_rotation, min_overlap
        self._pixels_per_metre = pixels_per_metre
        self._rooms: dict[tuple[int, int], tuple[Gallery, npt.NDArray[np.float64]]] = {}

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
            TrainingError: No two views overlap enough.
        """
        gallery, size = self._room(seed, self.room_number(index))
        rng = np.random.default_rng([seed, index, 2])
        best = 0.0
        for _ in range(_MAX_TRIES):
            T_a = self._pose(size, rng)
            T_b = self._moved(T_a, rng)
            a, b = (self._render(gallery, T, rng) for T in (T_a, T_b))
            pair = posed_pair(a, b, self._points, rng, f"room {self.room_number(index)} of seed {seed}")
            overlap = float(pair.visible.mean()) if len(pair.visible) else 0.0
            if overlap > 0 and overlap >= self._min_overlap:
                return pair
            best = max(best, overlap)
        raise TrainingError(
            f"{pair.source}: of {_MAX_TRIES} pairs of views none overlaps by {self._min_overlap:.0%} (best {best:.0%})"
        )

    def views(self, seed: int, index: int, count: int, rng: np.random.Generator) -> list[PosedView]:
        """Renders views of the room that a pair is rendered in.

        Args:
            seed: Of all pairs.
            index: Number of the pair.
            count: Number of views.
            rng: Source of poses and cameras.
        """
        gallery, size = self._room(seed, self.room_number(index))
        return [self._render(gallery, self._pose(size, rng), rng) for _ in range(count)]

    def _room(self, seed: int, number: int) -> tuple[Gallery, npt.NDArray[np.float64]]:
        """A room and its size; those that were built last are kept."""
        found = self._rooms.pop((seed, number), None)
        if found is None:
            found = self._build(seed, number)
            while len(self._rooms) >= self._rooms_at_once:
                del self._rooms[next(iter(self._rooms))]
        self._rooms[seed, number] = found
        return found

    def _build(self, seed: int, number: int) -> tuple[Gallery, npt.NDArray[np.float64]]:
        rng = np.random.default_rng([seed, number, 3])
        length, width, height = (rng.uniform(*sides) for sides in (_ROOM_LENGTHS, _ROOM_WIDTHS, _ROOM_HEIGHTS))
        room_seed = int(rng.integers(2**31))
        quads = build_room(room_seed, (length, width, height), pixels_per_metre=self._pixels_per_metre)
        return Gallery(quads), np.array([length, width, height])

    def _pose(self, size: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
        """A pose on a ring between the middle of the room and its walls, in any direction."""
        angle, radius = rng.uniform(-math.pi, math.pi), rng.uniform(0.3, 0.65)
        x, y = radius * size[0] / 2 * math.cos(angle), radius * size[1] / 2 * math.sin(angle)
        height = rng.uniform(1.0, 1.7)
        return camera_pose([x, y, height], rng.uniform(-math.pi, math.pi), rng.normal(scale=0.12))

    def _moved(self, T: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
        direction, axis = (vector / np.linalg.norm(vector) for vector in rng.normal(size=(2, 3)))
        axis[2] *= 0.5  # mostly the directions in which a robot's camera turns
        moved = T.copy()
        moved[:3, 3] += direction * rng.uniform(0, self._max_distance)
        moved[:3, :3] = T[:3, :3] @ Rotation.from_rotvec(axis * rng.uniform(0, self._max_rotation)).as_matrix()
        return moved

    def _render(self, gallery: Gallery, T: npt.NDArray[np.float64], rng: np.random.Generator) -> PosedView:
        camera = self._cameras[int(rng.integers(len(self._cameras)))]
        rendering = gallery.render(camera, T)
        return PosedView(rendering.image, rendering.depth, camera, T)


class TrainingPairs(torch.utils.data.IterableDataset[TrainingPair]):
    """Augmented pairs of several sources, without end.

    With several workers of a ``DataLoader``, worker w of n makes the pairs w, w + n, ...; a ``DataLoader`` returns them
    in their order.

    Args:
        sources: Each pair draws one of them.
        shares: How often each source is drawn, any positive numbers; None: all alike.
        augmentation: Of both images.
        seed: Of all pairs.
        first: Number of the first pair of an iteration.

    Attributes:
        identity: What the pairs depend on besides the seed; a resumed training must have the same.

    Raises:
        TrainingError: There is no source, or a share is not positive.
    """

    identity: str = ""

    def __init__(
        self,
        sources: Sequence[PairSource],
        shares: Sequence[float] | None = None,
        augmentation: Augmentation = Augmentation(),
        seed: int = 0,
        first: int = 0,
    ):
        shares = [1.0] * len(sources) if shares is None else list(shares)
        if not sources or len(shares) != len(sources) or not all(math.isfinite(s) and s > 0 for s in shares):
            raise TrainingError(f"{len(sources)} sources of pairs with shares {shares}")
        if seed < 0 or first < 0:
            raise TrainingError(f"seed={seed} and first={first} must be at least 0")
        self._sources = list(sources)
        self._limits = np.cumsum(shares) / sum(shares)
        self._augmentation = augmentation
        self.seed, self.first = seed, first

    def starting_at(self, first: int) -> TrainingPairs:
        """Returns the same pairs from another number on.

        Args:
            first: Number of the first pair.
        """
        pairs = copy(self)
        pairs.first = first
        return pairs

    def pair(self, index: int) -> TrainingPair:
        """Makes one pair.

        Args:
            index: Number of the pair.

        Raises:
            TrainingError: The source cannot make the pair.
        """
        rng = np.random.default_rng([self.seed, index, 0])
        chosen = min(int(np.searchsorted(self._limits, rng.uniform(), side="right")), len(self._sources) - 1)
        return self._augmentation.change_pair(self._sources[chosen].pair(self.seed, index), rng)

    def __iter__(self) -> Iterator[TrainingPair]:
        worker = torch.utils.data.get_worker_info()
        index, step = (self.first, 1) if worker is None else (self.first + worker.id, worker.num_workers)
        while True:
            yield self.pair(index)
            index += step
