# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Training pairs from recordings with poses and without depth: the correspondences come from 3D points.

``TrackPairs``           points of a COLMAP model, by its tracks
``MapPairs``             points of a map file, with the images that the map was built from
``TriangulatedPairs``    points triangulated from the matches of two images

Both places of a point are its projections, which the poses make consistent. A point that the other image may show or
not is left out; a point that lies outside the other image is not visible.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from nre_ros.errors import TrainingError, UnreadableImageError
from nre_ros.geometry import Camera, invert
from nre_ros.keyframes.building.multiview.keypoints import KeypointView, match_keypoints
from nre_ros.keyframes.building.multiview.triangulation import triangulate
from nre_ros.keyframes.building.multiview.views import likely_neighbours
from nre_ros.keyframes.importers.colmap.model_source import ColmapSource
from nre_ros.keyframes.importers.map_images import MapImagesSource
from nre_ros.keyframes.importers.map_source import MapSource
from nre_ros.learning.covisibility import PairSelection, ViewOverlap, choose_pairs, pose_candidates
from nre_ros.learning.pairs import TrainingPair, inside_image
from nre_ros.learning.recorded_pairs import RecordedPairs, ViewCache
from nre_ros.sampling import evenly_spaced_indices

if TYPE_CHECKING:
    from typing_extensions import Self

_MIN_SHARED = 24
"""Smallest number of points that two images share."""
_MAX_ERROR = 0.003
"""Largest distance of an observation from the point's projection, as a fraction of the focal length (2 pixels of 640)."""
_MAX_WRONG = 0.5
"""A model is refused if more than this share of its observations is farther from the projections."""
_SAME_DEPTH = 0.03
"""A map's points near each other in an image lie on one surface if their depths agree within this fraction."""
_MIN_TRIANGULATED = 40
"""Smallest number of triangulated points that two images share; of fewer, many are wrong."""
_MIN_VIEWS = 3
"""Smallest number of views that confirm a triangulated point."""
_TRIED_ANCHORS = 8
"""Images, evenly spaced, that are matched with their partners before the training begins."""
_MIN_USABLE = 0.2
"""A recording is refused if less than this share of the pairs of these images has enough points."""
_MAX_TRIES = 25
"""Pairs of images that are drawn until two share enough points; then a pair that is known to do is drawn."""


@dataclass(frozen=True)
class _Projections:
    """Points in one image: places [N, 2], depths [N], and whether the image can show them [N]."""

    pixels: npt.NDArray[np.float64]
    depths: npt.NDArray[np.float64]
    inside: npt.NDArray[np.bool_]


def _project(points: npt.NDArray[np.float64], camera: Camera, T_map_cam: npt.NDArray[np.float64]) -> _Projections:
    T = invert(T_map_cam)
    local = points @ T[:3, :3].T + T[:3, 3]
    projected, front, _ = camera.project(torch.from_numpy(local))
    pixels = projected.numpy()
    usable = front.numpy() & np.isfinite(pixels).all(-1)
    pixels = np.where(usable[:, None], pixels, 0.0)
    return _Projections(pixels, local[:, 2], usable & inside_image(pixels, camera.width, camera.height))


class TrackPairs(RecordedPairs[ColmapSource]):
    """Two images of a COLMAP model that share tracks.

    Observations that lie far from the projections of their points are left out. Raises as ``RecordedPairs``; a model
    most of whose observations do so is refused.
    """

    def _choose_pairs(self, selection: PairSelection) -> list[tuple[int, int]]:
        observed = [self.source.observations(name) for name in self.names]
        rows = [self.source.points.find(ids) for _, ids in observed]
        self._rows = self._without_errors([pixels for pixels, _ in observed], rows)
        counts = np.array([len(part) for part in self._rows])
        shape = len(rows), len(self.source.points.xyz)
        columns = np.concatenate(self._rows)
        shows = csr_matrix((np.ones(len(columns), np.int32), columns, np.r_[0, np.cumsum(counts)]), shape=shape)
        candidates = []
        for i in evenly_spaced_indices(len(rows), selection.anchors):
            shared = (shows[i] @ shows.T).toarray()[0]
            shared[i] = 0
            enough = np.flatnonzero(shared >= _MIN_SHARED)
            near = enough[np.argsort(-shared[enough], kind="stable")]
            candidates += [(int(i), int(near[k])) for k in evenly_spaced_indices(len(near), 2 * selection.partners)]
        return choose_pairs(candidates, self._overlap, selection, self.name)

    def _without_errors(
        self, pixels: list[npt.NDArray[np.float64]], rows: list[npt.NDArray[np.int64]]
    ) -> list[npt.NDArray[np.int64]]:
        """The points of each image whose projections lie near the observations."""
        kept, errors = [], []
        for i, (places, points) in enumerate(zip(pixels, rows)):
            projected = _project(self.source.points.xyz[points], self.cameras[i], self.poses[i])
            focal = (self.cameras[i].fx * self.cameras[i].fy) ** 0.5
            error = np.where(projected.inside, np.linalg.norm(projected.pixels - places, axis=1) / focal, np.inf)
            kept.append(points[error <= _MAX_ERROR])
            errors.append(error)
        all_errors = np.concatenate(errors) if errors else np.zeros(0)
        wrong = int((all_errors > _MAX_ERROR).sum())
        if wrong > _MAX_WRONG * len(all_errors):
            raise TrainingError(
                f"{self.name}: {wrong} of {len(all_errors)} observations lie farther than {_MAX_ERROR:.1%} of the focal "
                "length from the projections of their points: poses, cameras and points are not of one model"
            )
        return kept

    def _shared(self, first: int, second: int) -> npt.NDArray[np.int64]:
        return np.intersect1d(self._rows[first], self._rows[second])

    def _overlap(self, first: int, second: int) -> ViewOverlap:
        shared = self._shared(first, second)
        fewer = max(1, min(len(self._rows[first]), len(self._rows[second])))
        if not len(shared):
            return ViewOverlap(0.0, 0.0)
        a, b = (_project(self.source.points.xyz[shared], self.cameras[i], self.poses[i]) for i in (first, second))
        motion = np.linalg.norm(a.pixels - b.pixels, axis=1) / self.cameras[first].width
        return ViewOverlap(len(shared) / fewer, float(np.median(motion)))

    def _make_pair(self, first: int, second: int, rng: np.random.Generator) -> TrainingPair:
        (image_a, camera_a), (image_b, camera_b) = self._read_image(first), self._read_image(second)
        rows = self._rows[first]
        shared = np.isin(rows, self._rows[second])
        a = _project(self.source.points.xyz[rows], camera_a, self.poses[first])
        b = _project(self.source.points.xyz[rows], camera_b, self.poses[second])
        known = a.inside & (shared | ~b.inside)
        label = self._label(first, second)
        return _pair_of_points(image_a, image_b, a, b, known, shared, self._points, rng, label)


class MapPairs(RecordedPairs[MapImagesSource]):
    """Two images that a map was built from, with the map's points.

    A map file contains no images and no depth, only points. A point of one image is visible in another image if a point
    of that image, which lies near it there, has the same depth. Other points within the image are left out. Raises as
    ``RecordedPairs``.
    """

    def _choose_pairs(self, selection: PairSelection) -> list[tuple[int, int]]:
        points = [self.source.map_points(name) for name in self.names]
        depths = [_project(p, c, T).depths for p, c, T in zip(points, self.cameras, self.poses) if len(p)]
        if not depths:
            raise TrainingError(f"{self.name}: none of {len(self.names)} images has a point")
        candidates = pose_candidates(self.poses, float(np.median(np.concatenate(depths))), selection)
        return choose_pairs(candidates, self._overlap, selection, self.name)

    def _correspond(
        self, first: int, second: int, camera_a: Camera, camera_b: Camera
    ) -> tuple[_Projections, _Projections, npt.NDArray[np.bool_]]:
        """The first image's points in both images, and which of them the second image shows [N]."""
        points, others = (self.source.map_points(self.names[i]) for i in (first, second))
        a = _project(points, camera_a, self.poses[first])
        b = _project(points, camera_b, self.poses[second])
        own = _project(others, camera_b, self.poses[second])
        visible = np.zeros(len(points), np.bool_)
        if own.inside.any():
            spacing = (camera_b.width * camera_b.height / own.inside.sum()) ** 0.5
            distance, nearest = cKDTree(own.pixels[own.inside]).query(b.pixels)
            ratio = own.depths[own.inside][nearest] / np.where(b.depths > 0, b.depths, 1.0)
            visible = a.inside & b.inside & (distance <= spacing) & (np.abs(ratio - 1) <= _SAME_DEPTH)
        return a, b, visible

    def _overlap(self, first: int, second: int) -> ViewOverlap:
        camera = self.cameras[first]
        a, b, visible = self._correspond(first, second, camera, self.cameras[second])
        if visible.sum() < _MIN_SHARED:
            return ViewOverlap(float(visible.sum()) / max(1, len(visible)), 0.0)
        motion = np.linalg.norm(a.pixels[visible] - b.pixels[visible], axis=1) / camera.width
        return ViewOverlap(float(visible.mean()), float(np.median(motion)))

    def _make_pair(self, first: int, second: int, rng: np.random.Generator) -> TrainingPair:
        (image_a, camera_a), (image_b, camera_b) = self._read_image(first), self._read_image(second)
        a, b, visible = self._correspond(first, second, camera_a, camera_b)
        known = a.inside & (visible | ~b.inside)
        label = self._label(first, second)
        return _pair_of_points(image_a, image_b, a, b, known, visible, self._points, rng, label)


@dataclass(frozen=True)
class _MatchedView:
    """A reduced image and its keypoints."""

    image: npt.NDArray[np.uint8]
    keypoints: KeypointView


class TriangulatedPairs(RecordedPairs[MapSource]):
    """Two images of a recording with neither depth nor points: kapture, posed images, and bags without depth.

    SIFT keypoints of an image are matched with those of its partners along the epipolar lines, and triangulated. Points
    that at least three views confirm are the correspondences; of points that only two views confirm, up to a third are
    wrong. Partners are chosen by their poses; one with too few points is passed over when its turn comes. Some pairs
    are matched at once: a recording of which most of these have too few points is refused. Raises as ``RecordedPairs``.
    """

    def _reset_caches(self) -> None:
        self._views: ViewCache[_MatchedView] = ViewCache()
        self._found: dict[int, dict[int, npt.NDArray[np.float64]]] = {}

    def _draw(self, rng: np.random.Generator) -> TrainingPair:
        for _ in range(_MAX_TRIES):
            first, second = self.image_pairs[int(rng.integers(len(self.image_pairs)))]
            if second in self._points_of(first):
                return self._make_pair(first, second, rng)
        usable = self._usable_pairs()
        at = int(rng.integers(max(1, len(usable))))
        for first, second in (*usable[at:], *usable[:at]):
            if second in self._points_of(first):  # not where an image cannot be read any more
                return self._make_pair(first, second, rng)
        raise TrainingError(f"{self.name}: no pair of images with enough points is left")

    def split(self, every: int = 10) -> tuple[Self, Self | None]:
        """Holds out images for validation (see ``RecordedPairs``).

        Args:
            every: One of so many images is held out.

        Returns:
            Both parts; none is held out where either part would have no pair that is known to have enough points.
        """
        training, held_out = super().split(every)
        if held_out is None or not (training._usable_pairs() and held_out._usable_pairs()):
            return self, None
        return training, held_out

    def _usable_pairs(self) -> list[tuple[int, int]]:
        """The pairs that were matched when the recording was opened, and have enough points."""
        return [pair for pair in self.image_pairs if pair in self._usable]

    def _choose_pairs(self, selection: PairSelection) -> list[tuple[int, int]]:
        self._min_motion = selection.min_motion
        self._partners: dict[int, list[int]] = {}
        for i in evenly_spaced_indices(len(self.names), selection.anchors):
            others = np.delete(np.arange(len(self.names)), i)
            near = likely_neighbours(self.poses[i], self.poses[others], selection.partners)
            if len(near) > 1:  # two partners and the image itself are three views
                self._partners[int(i)] = [int(others[j]) for j in near]
        if self._partners:
            self._leave_out(self._unreadable_images({*self._partners, *chain(*self._partners.values())}))
        if not self._partners:
            raise TrainingError(
                f"{self.name}: no three of {len(self.names)} images look in a similar direction from different places"
            )
        anchors = list(self._partners)
        tried = [anchors[k] for k in evenly_spaced_indices(len(anchors), _TRIED_ANCHORS)]
        self._usable: set[tuple[int, int]] = set()
        for i in tried:
            with suppress(UnreadableImageError):  # which counts the image as left out
                self._usable |= {(i, j) for j in self._points_of(i)}
        if not self._usable:
            raise TrainingError(
                f"{self.name}: no two images overlap: of {len(tried)} images that were matched with others none has "
                f"{_MIN_TRIANGULATED} points that three views confirm (wrong poses or cameras?)"
            )
        count = sum(len(self._partners[i]) for i in tried)
        found = f"{len(self._usable)} of {count} image pairs that were matched have {_MIN_TRIANGULATED} points"
        if len(self._usable) < _MIN_USABLE * count:
            raise TrainingError(
                f"{self.name}: only {found} that three views confirm, needed {100 * _MIN_USABLE:.0f}% (poses that drift, "
                "as of odometry, or images that are blurred or show no texture?)"
            )
        if len(self._usable) < count:
            self.notes += (f"{self.name}: {found} that three views confirm",)
        return [(i, j) for i, partners in self._partners.items() for j in partners]

    def _leave_out(self, images: set[int]) -> None:
        """Leaves images out of the partners, before any are matched."""
        readable = {i: [j for j in near if j not in images] for i, near in self._partners.items() if i not in images}
        self._partners = {i: near for i, near in readable.items() if len(near) > 1}

    def _points_of(self, first: int) -> dict[int, npt.NDArray[np.float64]]:
        """Partner -> the points [N, 3] that it shares with an image; without partners that share too little."""
        if first not in self._found:
            self._found[first] = self._triangulate(first)
        return self._found[first]

    def _triangulate(self, first: int) -> dict[int, npt.NDArray[np.float64]]:
        view = self._view(first).keypoints
        readable: dict[int, KeypointView] = {}
        for j in self._partners[first]:
            with suppress(UnreadableImageError):
                readable[j] = self._view(j).keypoints
        others = list(readable.values())
        if len(others) + 1 < _MIN_VIEWS:
            return {}
        matches = [match_keypoints(view, other) for other in others]
        triangulated = triangulate(view, others, matches)
        confirmed = triangulated.views >= _MIN_VIEWS
        points, index = triangulated.points[confirmed], triangulated.index[confirmed]
        own = _project(points, view.camera, view.T_map_cam)
        found = {}
        for (j, other), pairs in zip(readable.items(), matches):
            places = np.full((len(view.pixels), 2), np.inf)
            places[pairs[:, 0]] = other.pixels[pairs[:, 1]]
            theirs = _project(points, other.camera, other.T_map_cam)
            focal = (other.camera.fx * other.camera.fy) ** 0.5
            shared = own.inside & theirs.inside
            shared &= np.linalg.norm(theirs.pixels - places[index], axis=1) <= _MAX_ERROR * focal
            if shared.sum() >= _MIN_TRIANGULATED:
                motion = np.linalg.norm(own.pixels[shared] - theirs.pixels[shared], axis=1)
                if np.median(motion) >= self._min_motion * view.camera.width:
                    found[j] = points[shared]
        return found

    def _make_pair(self, first: int, second: int, rng: np.random.Generator) -> TrainingPair:
        points = self._points_of(first)[second]
        views = self._view(first), self._view(second)
        a, b = (_project(points, view.keypoints.camera, view.keypoints.T_map_cam) for view in views)
        known = a.inside & b.inside
        label = self._label(first, second)
        return _pair_of_points(views[0].image, views[1].image, a, b, known, known, self._points, rng, label)

    def _view(self, index: int) -> _MatchedView:
        def read() -> _MatchedView:
            image, camera = self._read_image(index)
            return _MatchedView(image, KeypointView.from_image(image, camera, self.poses[index]))

        return self._views.get(index, read)


def _pair_of_points(
    image_a: npt.NDArray[np.uint8],
    image_b: npt.NDArray[np.uint8],
    a: _Projections,
    b: _Projections,
    known: npt.NDArray[np.bool_],
    visible: npt.NDArray[np.bool_],
    points: int,
    rng: np.random.Generator,
    label: str,
) -> TrainingPair:
    """A pair of at most ``points`` points of known visibility."""
    rows = np.flatnonzero(known)
    rows = np.sort(rng.choice(rows, points, replace=False)) if len(rows) > points else rows
    shown = visible[rows] & b.inside[rows]
    return TrainingPair(image_a, image_b, a.pixels[rows], b.pixels[rows], shown, label)
