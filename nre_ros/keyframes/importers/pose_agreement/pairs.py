# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Pairs of images that show the same scene, matched without using their poses.

SIFT keypoints are matched by their descriptors. An essential matrix that RANSAC fits to the matches verifies them, so
that a wrong pose cannot hide wrong matches, nor remove right ones.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from nre_ros.errors import NreError
from nre_ros.geometry import Camera, rotation_angle
from nre_ros.images import check_image_size
from nre_ros.keyframes.building.multiview.views import grey_image, likely_neighbours
from nre_ros.keyframes.importers.image_files import check_depth_size
from nre_ros.keyframes.importers.map_source import MapSource
from nre_ros.sampling import evenly_spaced_indices

ANCHORS = 12
"""Images, evenly distributed over the source, for which partners are sought."""
DIAGNOSIS_ANCHORS = 48
"""The same where the user asks for a diagnosis."""
_MAX_SIDE = 800
"""Longer side (pixels) to which larger images are reduced."""
_MAX_KEYPOINTS = 1500
_RATIO = 0.8
"""Largest ratio of the distances to the best and to the second best descriptor."""
_RANSAC_ERROR = 0.003
"""Largest distance of a verified match from its epipolar line, as a fraction of the focal length."""
_MIN_MATCHES = 30
"""Least number of verified matches of a pair."""
_RANSAC_ITERATIONS = 300
"""Enough for the least share of right matches that a verified pair has."""
_MIN_VERIFIED = 0.4
"""Least share of the matches that the essential matrix verifies; of unrelated images about a tenth is."""
_MAX_MATCHES = 200
"""Matches of a pair that are compared with the poses."""
_MIN_MOTION = 0.06
"""Median motion of the matches (radians) from which a pair shows whether poses are right (3.5 degrees)."""
_LEAST_MOTION = 0.03
"""Motion that a pair must have in the image or in its poses to count at all; a standing camera shows nothing."""
_MAX_STEP = 64
"""Largest step in the sequence that is tried to find this motion."""
_CACHED = 64
"""Images whose keypoints are kept."""


@dataclass(frozen=True)
class ImagePair:
    """Verified matches of two images.

    Attributes:
        first: Index of the first image in the source's names.
        second: Index of the second image.
        rays: [2, M, 3] viewing directions in the two cameras' frames, of unit length.
        depths: [2, M] depths along z in the two images in metres; 0 where there is none.
    """

    first: int
    second: int
    rays: npt.NDArray[np.float64]
    depths: npt.NDArray[np.float64]

    def motion(self) -> float:
        """Returns the median angle between the two directions of a match in radians."""
        return float(np.median(np.arccos(np.clip((self.rays[0] * self.rays[1]).sum(1), -1, 1))))


@dataclass(frozen=True)
class _Keypoints:
    """Keypoints of an image: directions [N, 3], descriptors [N, 128] and depths [N]."""

    rays: npt.NDArray[np.float64]
    descriptors: npt.NDArray[np.float32]
    depths: npt.NDArray[np.float64]


class PairFinder:
    """Finds pairs of images of a source.

    Args:
        source: Where the images come from.
        names: Names of the images, in the source's order.
        poses: [V, 4, 4] their poses; nan for an image without a pose.

    Attributes:
        unusable: Name of an image that cannot be compared -> the reason.
    """

    def __init__(self, source: MapSource, names: Sequence[str], poses: npt.NDArray[np.float64]) -> None:
        self._source, self._names, self._poses = source, names, poses
        self.unusable: dict[str, str] = {}
        self._keypoints: OrderedDict[int, _Keypoints | None] = OrderedDict()
        self._sift = cv2.SIFT.create(nfeatures=_MAX_KEYPOINTS)

    def find(self, anchors: int = ANCHORS) -> list[ImagePair]:
        """Finds up to two pairs of each of some images: with the next images of the sequence, and with near poses.

        A pair of the sequence shows the scene from other places even where the poses are wrong; a pair of near poses
        does where images are not in the order of a recording.

        Args:
            anchors: Number of images for which partners are sought.

        Returns:
            The pairs, each once.
        """
        usable = np.flatnonzero(np.isfinite(self._poses).all((1, 2)))
        pairs: dict[tuple[int, int], ImagePair] = {}
        step = 1
        for place in evenly_spaced_indices(len(usable), anchors) if len(usable) > 1 else ():
            found, step = self._in_sequence(usable, int(place), step)
            near = self._near_pose(usable, int(place), found)
            for pair in (found, near):
                if pair is not None and self._shows_motion(pair):
                    pairs.setdefault((min(pair.first, pair.second), max(pair.first, pair.second)), pair)
        return list(pairs.values())

    def _shows_motion(self, pair: ImagePair) -> bool:
        relative = self._poses[pair.first, :3, :3].T @ self._poses[pair.second, :3, :3]
        return pair.motion() >= _LEAST_MOTION or rotation_angle(relative) >= 2 * _LEAST_MOTION

    def _in_sequence(self, usable: npt.NDArray[np.intp], place: int, step: int) -> tuple[ImagePair | None, int]:
        """The pair with a later image (at the end: an earlier one) with enough motion, and the step to it."""
        best, best_step = None, 1
        while 1 <= step <= _MAX_STEP:
            partner = place + step if place + step < len(usable) else place - step
            pair = self.match(int(usable[place]), int(usable[partner])) if 0 <= partner < len(usable) else None
            if pair is None:
                if best is not None or step == 1:
                    break
                step //= 2
                continue
            best, best_step = pair, step
            if pair.motion() >= _MIN_MOTION:
                break
            step *= 2
        return best, best_step

    def _near_pose(self, usable: npt.NDArray[np.intp], place: int, found: ImagePair | None) -> ImagePair | None:
        """The pair with an image that was taken near by in a similar direction, if the poses are right."""
        own = int(usable[place])
        others = np.delete(usable, place)
        for i in likely_neighbours(self._poses[own], self._poses[others], 3):
            partner = int(others[i])
            if found is not None and partner in (found.first, found.second):
                continue
            pair = self.match(own, partner)
            if pair is not None and pair.motion() >= _MIN_MOTION:
                return pair
        return None

    def match(self, first: int, second: int) -> ImagePair | None:
        """Matches two images.

        Args:
            first: Index of an image.
            second: Index of another.

        Returns:
            The pair; None if it has too few verified matches, or an image cannot be used.
        """
        a, b = self._of(first), self._of(second)
        if a is None or b is None or min(len(a.rays), len(b.rays)) < _MIN_MATCHES:
            return None
        matches = _mutual_matches(a.descriptors, b.descriptors)
        if len(matches) < _MIN_MATCHES:
            return None
        u, v = a.rays[matches[:, 0]], b.rays[matches[:, 1]]
        cv2.setRNGSeed(0)
        _, inliers = cv2.findEssentialMat(
            u[:, :2] / u[:, 2:], v[:, :2] / v[:, 2:], np.eye(3), cv2.RANSAC, 0.999, _RANSAC_ERROR, _RANSAC_ITERATIONS
        )
        if inliers is None:
            return None
        verified = matches[inliers.ravel().astype(bool)]
        if len(verified) < max(_MIN_MATCHES, _MIN_VERIFIED * len(matches)):
            return None
        verified = verified[:: -(-len(verified) // _MAX_MATCHES)]
        i, j = verified.T
        return ImagePair(first, second, np.stack([a.rays[i], b.rays[j]]), np.stack([a.depths[i], b.depths[j]]))

    def _of(self, index: int) -> _Keypoints | None:
        """The keypoints of an image; None if it cannot be used (the import itself reports why)."""
        if index not in self._keypoints:
            try:
                self._keypoints[index] = self._detect(self._names[index])
            except NreError as error:
                self._keypoints[index] = None
                self.unusable[self._names[index]] = str(error)
            while len(self._keypoints) > _CACHED:
                self._keypoints.popitem(last=False)
        return self._keypoints[index]

    def _detect(self, name: str) -> _Keypoints:
        known = self._source.pose_and_camera(name)
        assert known is not None  # images without are not usable
        camera, image = known[1], self._source.image_to_check(name)
        check_image_size(image, camera)
        depth = self._source.depth_to_check(name)
        if depth is not None:
            check_depth_size(depth, camera.width, camera.height, "its camera has")
        grey = grey_image(image)
        scale = min(1.0, _MAX_SIDE / max(grey.shape))
        if scale < 1:
            grey = np.asarray(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
        keypoints, descriptors = self._sift.detectAndCompute(grey, None)
        pixels = np.array([keypoint.pt for keypoint in keypoints], dtype=np.float64).reshape(-1, 2)
        pixels = (pixels + 0.5) * (camera.width / grey.shape[1], camera.height / grey.shape[0]) - 0.5
        rays = _unit_rays(camera, pixels)
        good = np.isfinite(rays).all(1) & (rays[:, 2] > 0.05)
        described = np.zeros((len(pixels), 128), np.float32)
        if descriptors is not None:
            described[:] = descriptors
        return _Keypoints(rays[good], described[good], _depth_at(depth, pixels)[good])


def _mutual_matches(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Indices [M, 2] of descriptors that are each other's best match, and clearly so."""
    distance = torch.cdist(torch.from_numpy(a), torch.from_numpy(b))
    (best, second), (partner, _) = (part.T for part in distance.topk(2, dim=1, largest=False))
    back = distance.argmin(0)
    mutual = back[partner] == torch.arange(len(partner))
    index = torch.nonzero(mutual & (best < _RATIO * second))[:, 0]
    pairs: npt.NDArray[np.int64] = torch.stack([index, partner[index]], dim=1).numpy()
    return pairs


def _unit_rays(camera: Camera, pixels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    rays = camera.rays(torch.from_numpy(pixels)).numpy()
    unit: npt.NDArray[np.float64] = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    return unit


def _depth_at(depth: npt.NDArray[np.float32] | None, pixels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Depths [N] at the pixels; 0 where there is none."""
    if depth is None:
        return np.zeros(len(pixels))
    x = np.rint(pixels[:, 0]).astype(int).clip(0, depth.shape[1] - 1)
    y = np.rint(pixels[:, 1]).astype(int).clip(0, depth.shape[0] - 1)
    values: npt.NDArray[np.float64] = np.nan_to_num(depth[y, x].astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    return values
