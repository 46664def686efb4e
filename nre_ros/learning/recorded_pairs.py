# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Training pairs from recordings with poses, read by the importers of maps.

``RecordedPairs``        any recording: reads images, chooses pairs once
``DepthPairs``           ... with depth: the correspondences come from depth and poses

``track_pairs`` has the recordings without depth.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Collection
from copy import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch

from nre_ros.errors import NreError, TrainingError, UnreadableImageError
from nre_ros.geometry import Camera, invert
from nre_ros.images import check_image_size
from nre_ros.keyframes.building.point_selection import smooth_depth
from nre_ros.keyframes.importers.image_files import check_depth_size
from nre_ros.keyframes.importers.map_source import MapSource
from nre_ros.keyframes.importers.pose_agreement.check import check_poses
from nre_ros.learning.covisibility import PairSelection, ViewOverlap, choose_pairs, pose_candidates
from nre_ros.learning.pairs import PosedView, TrainingPair, choose_pixels, depth_correspondences, inside_image
from nre_ros.sampling import evenly_spaced_indices

DEPTH_TOLERANCE = 0.03
"""A point is visible if the measured depth of the other view agrees with the point's within this fraction."""
_CACHE_BYTES = 128 * 2**20
"""Memory for decoded views of one process."""
_CHECKED_IMAGES = 200
"""Images, evenly spaced among those of the pairs, that are read before the training begins."""
_POSE_ANCHORS = 6
"""Images, evenly spaced, whose matches with others are compared with the poses."""
_GRID_POINTS = 24
"""Points along the longer side of an image by which the overlap of two depth images is measured."""
_MAX_DRAWS = 50
"""So many pairs are drawn until the images of one can be read."""

if TYPE_CHECKING:
    from typing_extensions import Self

Source = TypeVar("Source", bound=MapSource)
_View = TypeVar("_View")


class RecordedPairs(ABC, Generic[Source]):
    """Two images of one recording with known poses.

    Pairs are chosen once, when the object is made. A pair then reads its two images. Where one of them cannot be read,
    another pair is drawn, and ``TrainingPair.left_out`` names the image.

    Args:
        open_source: Opens the recording. Another process opens it again if the recording keeps files open.
        name: Name of the recording, for messages.
        max_side: Larger images are reduced to this longer side, pixels.
        points: Largest number of points a pair.
        selection: Which images make pairs.
        check: Whether matches between images are compared with the poses first, as ``map build`` does.
        source: The recording, if it was opened before.

    Attributes:
        names: Names of the images with pose and camera.
        image_pairs: Indices of the images that make pairs.
        notes: What the user should know of the recording, one line each.

    Raises:
        TrainingError: The recording cannot be read, its poses disagree with its images, its depths disagree between the
            views, or no two images overlap.
    """

    def __init__(
        self,
        open_source: Callable[[], Source],
        name: str,
        max_side: int = 640,
        points: int = 400,
        selection: PairSelection = PairSelection(),
        check: bool = True,
        source: Source | None = None,
    ):
        if max_side < 32 or points < 1:
            raise TrainingError(f"{name}: max_side={max_side} must be at least 32, points={points} at least 1")
        self._open, self.name, self._max_side, self._points = open_source, name, max_side, points
        self._source, self._process = source, os.getpid()
        self._left_out: dict[str, str] = {}
        self._reset_caches()
        self.notes: tuple[str, ...] = self.source.notes
        self.names, self.poses, self.cameras = self._read_poses()
        if check:  # first, since it names the likely cause of a disagreement
            self._check_poses()
        self.image_pairs = self._choose_pairs(selection)
        self._check_images()

    @property
    def source(self) -> Source:
        """The recording, opened in this process if it keeps files open.

        Raises:
            TrainingError: The recording cannot be read.
        """
        keeps_files = self._source is not None and type(self._source).close is not MapSource.close
        if self._source is None or (keeps_files and self._process != os.getpid()):
            try:
                self._source, self._process = self._open(), os.getpid()
            except NreError as error:
                raise TrainingError(f"{self.name}: {error}") from error
        return self._source

    def pair(self, seed: int, index: int) -> TrainingPair:
        """Makes one pair (see ``PairSource``).

        Args:
            seed: Of all pairs.
            index: Number of the pair.

        Raises:
            TrainingError: No pair of many can be read.
        """
        rng = np.random.default_rng([seed, index, 5])
        for _ in range(_MAX_DRAWS):
            try:
                pair = self._draw(rng)
            except UnreadableImageError:
                continue
            left_out = {f"{self.name}, {name}": f"{self.name}: {why}" for name, why in self._left_out.items()}
            self._left_out = {}
            return replace(pair, left_out=left_out) if left_out else pair
        name, reason = next(iter(self._left_out.items()))
        raise TrainingError(
            f"{self.name}: none of {_MAX_DRAWS} image pairs in a row can be read, the first image: {name}: {reason} (is "
            "the recording still there?)"
        )

    def describe(self) -> dict[str, Any]:
        """Returns what the pairs depend on, as plain JSON values."""
        contents = hashlib.sha256("\n".join(self.names).encode() + self.poses.tobytes()).hexdigest()
        return {
            **self.source.describe(),
            "names_and_poses": contents,
            "image_pairs": len(self.image_pairs),
            "max_side": self._max_side,
        }

    def summary(self) -> str:
        """Returns one line about the pairs, for the log."""
        images = len({i for pair in self.image_pairs for i in pair})
        return f"{self.name}: {len(self.image_pairs)} pairs of {images} images ({len(self.names)} have poses)"

    def split(self, every: int = 10) -> tuple[Self, Self | None]:
        """Holds out images for validation.

        Args:
            every: One of so many images is held out, evenly spaced among those of the pairs.

        Returns:
            The pairs of the other images, and the pairs of which at least one image is held out; None where either
            would be empty.
        """
        used = sorted({i for pair in self.image_pairs for i in pair})
        held_out = set(used[every // 2 :: every])
        parts = [[pair for pair in self.image_pairs if held_out.isdisjoint(pair) == kept] for kept in (True, False)]
        if not all(parts):
            return self, None
        training, validation = copy(self), copy(self)
        for copied, pairs in zip((training, validation), parts):
            copied.image_pairs, copied._left_out = pairs, dict(self._left_out)
            copied._reset_caches()
        return training, validation

    @abstractmethod
    def _choose_pairs(self, selection: PairSelection) -> list[tuple[int, int]]:
        """The pairs of images [P] to train on; raises as the class does."""

    def _draw(self, rng: np.random.Generator) -> TrainingPair:
        """Makes one pair; raises UnreadableImageError where one of its images cannot be read."""
        first, second = self.image_pairs[int(rng.integers(len(self.image_pairs)))]
        if rng.integers(2):
            first, second = second, first
        return self._make_pair(first, second, rng)

    @abstractmethod
    def _make_pair(self, first: int, second: int, rng: np.random.Generator) -> TrainingPair:
        """The correspondences of two images."""

    def _reset_caches(self) -> None:
        """Makes the caches of this process empty."""

    def __getstate__(self) -> dict[str, Any]:
        """A recording that is sent to another process is opened there again."""
        return {**self.__dict__, "_source": None}

    def _label(self, first: int, second: int) -> str:
        return f"{self.name}, {self.names[first]} and {self.names[second]}"

    def _read_poses(self) -> tuple[list[str], npt.NDArray[np.float64], list[Camera]]:
        """Names, poses [V, 4, 4] and cameras of the images that have both."""
        names, poses, cameras = [], [], []
        unusable: dict[str, str] = {}
        for name in dict.fromkeys(self.source.names()):
            try:
                known = self.source.pose_and_camera(name)
                if known is None:
                    raise TrainingError("no pose is known before its features are extracted")
            except NreError as error:
                unusable[name] = str(error)
                continue
            names.append(name)
            poses.append(known[0])
            cameras.append(known[1])
        self._note_unusable(unusable, "have no pose or camera", len(names))
        return names, np.array(poses), cameras

    def _note_unusable(self, unusable: dict[str, str], what: str, usable: int) -> None:
        """Adds a note on images that cannot be used, or refuses a recording of which fewer than two can."""
        if usable < 2:
            first = next((f", the first: {name}: {reason}" for name, reason in unusable.items()), "")
            raise TrainingError(
                f"{self.name}: only {usable} of {usable + len(unusable)} images can be used; {len(unusable)} "
                f"{what}{first}"
            )
        if unusable:
            self._left_out = {name: reason for name, reason in self._left_out.items() if name not in unusable}
            name, reason = next(iter(unusable.items()))
            self.notes += (f"{self.name}: {len(unusable)} images {what}, the first: {name}: {reason}",)

    def _check_images(self) -> None:
        """Reads images of the pairs; pairs of those that cannot be read are left out."""
        unreadable = self._unreadable_images({i for pair in self.image_pairs for i in pair})
        pairs = [pair for pair in self.image_pairs if unreadable.isdisjoint(pair)]
        if not pairs:
            raise TrainingError(
                f"{self.name}: none of {len(self.image_pairs)} image pairs can be read: {self.notes[-1]}"
            )
        self.image_pairs = pairs

    def _unreadable_images(self, used: Collection[int]) -> set[int]:
        """Reads images, evenly spaced among the used ones, and notes those that cannot be read."""
        found: dict[int, str] = {}
        checked = [sorted(used)[k] for k in evenly_spaced_indices(len(used), _CHECKED_IMAGES)]
        for i in checked:
            try:
                self._read_image(i)
            except UnreadableImageError as error:
                found[i] = str(error)
        unusable = {self.names[i]: reason for i, reason in found.items()}
        self._note_unusable(unusable, "cannot be read", len(checked) - len(found))
        return set(found)

    def _check_poses(self) -> None:
        """Refuses poses, cameras and depths that disagree with the images."""
        result = check_poses(self.source, _POSE_ANCHORS)
        if result.refused:
            raise TrainingError(f"{self.name}: {'; '.join(result.lines())}")
        self.notes += tuple(f"{self.name}: {line}" for line in result.lines())

    def _read_image(self, index: int) -> tuple[npt.NDArray[np.uint8], Camera]:
        """BGR [H, W, 3] of an image, reduced, and its camera."""
        name, camera, source = self.names[index], self.cameras[index], self.source
        try:
            image = source.image_to_check(name)
            check_image_size(image, camera)
        except NreError as error:
            raise self._unreadable(name, f"image {name}: {error}") from error
        if image.ndim == 2:
            image = np.repeat(image[:, :, None], 3, axis=2)
        camera = self._reduced(camera)
        if image.shape[:2] != (camera.height, camera.width):
            size = camera.width, camera.height
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        return image, camera

    def _unreadable(self, name: str, reason: str) -> UnreadableImageError:
        """The error of an image that cannot be read, which is counted as left out."""
        self._left_out[name] = reason
        return UnreadableImageError(f"{self.name}: {reason}")

    def _reduced(self, camera: Camera) -> Camera:
        """The camera of the reduced image."""
        scale = min(1.0, self._max_side / max(camera.width, camera.height))
        if scale == 1.0:
            return camera
        return camera.resized(max(1, round(camera.width * scale)), max(1, round(camera.height * scale)))


class DepthPairs(RecordedPairs[MapSource]):
    """Two images of a recording with depth: RGB-D folders, TUM RGB-D, 7-Scenes, and bags with depth.

    Points lie where the depth is smooth. Points whose place in the other image has no depth are left out, since
    nothing is known of their visibility. Raises as ``RecordedPairs``.
    """

    def _reset_caches(self) -> None:
        self._views: ViewCache[PosedView] = ViewCache()

    def _choose_pairs(self, selection: PairSelection) -> list[tuple[int, int]]:
        samples: dict[int, _DepthSample | None] = {}
        unusable: dict[str, str] = {}

        def sample(index: int) -> _DepthSample | None:
            if index not in samples:
                try:
                    samples[index] = _DepthSample(self._read_depth(index), self.cameras[index], self.poses[index])
                except UnreadableImageError as error:
                    samples[index], unusable[self.names[index]] = None, str(error)
            return samples[index]

        few = [sample(int(i)) for i in evenly_spaced_indices(len(self.names), _POSE_ANCHORS)]
        depths = [float(np.median(found.depths)) for found in few if found is not None and len(found.depths)]
        if not depths:
            reason = next((f", the first: {text}" for text in unusable.values()), ": their depth is empty")
            raise TrainingError(f"{self.name}: none of {len(few)} images has usable depth{reason}")
        candidates = pose_candidates(self.poses, float(np.median(depths)), selection)

        def overlap_of(first: int, second: int) -> ViewOverlap | None:
            a, b = sample(first), sample(second)
            if a is None or b is None:
                return None
            found, back = a.overlap(b), b.overlap(a)
            # a surface that is too far in one view hides points rightly, it seems, until the other view is asked
            return replace(found, agreement=min(found.agreement, back.agreement))

        chosen = choose_pairs(candidates, overlap_of, selection, self.name)
        self._note_unusable(unusable, "have no usable depth", len(samples) - len(unusable))
        return chosen

    def _make_pair(self, first: int, second: int, rng: np.random.Generator) -> TrainingPair:
        a, b = (self._views.get(i, partial(self._read_view, i)) for i in (first, second))
        a = replace(a, depth=smooth_depth(a.depth))
        pixels = choose_pixels(a.image, self._points, rng, a.depth > 0)
        places, visible = depth_correspondences(a, b, pixels, DEPTH_TOLERANCE)
        known = visible | ~inside_image(places, b.camera.width, b.camera.height)
        x, y = (np.rint(places[:, k]).clip(0, b.depth.shape[1 - k] - 1).astype(np.int64) for k in (0, 1))
        known |= b.depth[y, x] > 0
        return TrainingPair(
            a.image,
            b.image,
            pixels[known].astype(np.float64),
            places[known],
            visible[known],
            self._label(first, second),
        )

    def _read_view(self, index: int) -> PosedView:
        image, camera = self._read_image(index)
        depth = self._read_depth(index)
        if depth.shape != image.shape[:2]:
            depth = np.asarray(
                cv2.resize(depth, (camera.width, camera.height), interpolation=cv2.INTER_NEAREST_EXACT), np.float32
            )
        return PosedView(image, depth, camera, self.poses[index])

    def _read_depth(self, index: int) -> npt.NDArray[np.float32]:
        """Depth [H, W] of an image at its full size."""
        name, camera, source = self.names[index], self.cameras[index], self.source
        try:
            depth = source.depth_to_check(name)
            if depth is None:
                raise TrainingError("the recording has no depth")
            check_depth_size(depth, camera.width, camera.height, "its camera has")
        except NreError as error:
            raise self._unreadable(name, f"depth of {name}: {error}") from error
        wrong = int((~np.isfinite(depth) | (depth < 0)).sum())
        if wrong:
            raise self._unreadable(name, f"depth of {name}: {wrong} of {depth.size} values are negative or not finite")
        return depth


class ViewCache(Generic[_View]):
    """Views that were used last, within a memory bound.

    A view is an object whose attributes are arrays; it is sent to no other process.
    """

    def __init__(self) -> None:
        self._views: OrderedDict[int, _View] = OrderedDict()

    def get(self, index: int, read: Callable[[], _View]) -> _View:
        """Returns a view.

        Args:
            index: Number of the view.
            read: Reads the view if it is not kept.
        """
        if index in self._views:
            self._views.move_to_end(index)
            return self._views[index]
        view = self._views[index] = read()
        size = sum(getattr(value, "nbytes", 0) for value in vars(view).values())
        while len(self._views) > max(4, _CACHE_BYTES // max(size, 1)):
            self._views.popitem(last=False)
        return view

    def __getstate__(self) -> dict[str, Any]:
        """No view is sent to another process."""
        return {"_views": OrderedDict()}


class _DepthSample:
    """Points of a depth image on a coarse grid, and the depth image itself, reduced."""

    def __init__(self, depth: npt.NDArray[np.float32], camera: Camera, T_map_cam: npt.NDArray[np.float64]):
        step = max(1, max(depth.shape) // _GRID_POINTS)
        smooth = smooth_depth(depth)[step // 2 :: step, step // 2 :: step]
        y, x = np.nonzero(smooth)
        self.depths = smooth[y, x].astype(np.float64)
        self._pixels = np.stack([x, y], -1) * step + step // 2
        rays = camera.rays(torch.from_numpy(self._pixels.astype(np.float64))).numpy()
        self._points = rays / rays[:, 2:] * self.depths[:, None] @ T_map_cam[:3, :3].T + T_map_cam[:3, 3]
        # single pixels, since a mean over an edge lies on no surface
        self._step = max(1, step // 4)
        self._depth = np.ascontiguousarray(depth[self._step // 2 :: self._step, self._step // 2 :: self._step])
        self._camera, self._T_map_cam = camera, T_map_cam

    def overlap(self, other: _DepthSample) -> ViewOverlap:
        """What another view shows of this one's points."""
        T = invert(other._T_map_cam)
        local = self._points @ T[:3, :3].T + T[:3, 3]
        projected, front, _ = other._camera.project(torch.from_numpy(local))
        places = projected.numpy()
        inside = front.numpy() & inside_image(places, other._camera.width, other._camera.height)
        if not inside.any():
            return ViewOverlap(0.0, 0.0)
        motion = np.linalg.norm(places[inside] - self._pixels[inside], axis=1) / self._camera.width
        rows, columns = other._depth.shape
        x = (places[inside, 0] / other._step).astype(np.int64).clip(0, columns - 1)
        y = (places[inside, 1] / other._step).astype(np.int64).clip(0, rows - 1)
        ratio = other._depth[y, x] / local[inside, 2]
        measured = ratio > 0
        agrees = measured & (np.abs(ratio - 1) <= 2 * DEPTH_TOLERANCE)
        through = measured & (ratio > 1 + 2 * DEPTH_TOLERANCE)
        compared = int(agrees.sum() + through.sum())
        agreement = float(agrees.sum() / compared) if compared else 1.0
        return ViewOverlap(float(agrees.sum() / len(self._points)), float(np.median(motion)), agreement)
