# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Makes keyframes from images, poses and 3D points; all sources and the node use this module."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable
from copy import copy

import cv2
import numpy as np
import numpy.typing as npt
import torch

from nre_ros.errors import ImageError
from nre_ros.features.base import FeatureBackbone, FeatureMap, ImageFeatures, sample_descriptors
from nre_ros.geometry import Camera
from nre_ros.images import check_image_size
from nre_ros.keyframes.building.depth_support import support_weights
from nre_ros.keyframes.building.multiview.depth_refinement import RefinedDepth
from nre_ros.keyframes.building.point_selection import candidate_pixels, select_distributed, smooth_depth
from nre_ros.keyframes.global_descriptor import global_descriptor
from nre_ros.keyframes.types import Keyframe, compact_points

_THUMBNAIL_SIDE = 160
"""Longer side of the thumbnails in pixels."""
_REFINEMENT_CANDIDATES = 1.5
"""Depths are refined at this many times the number of wanted points."""

WITHOUT_DEPTH, WITHOUT_SUPPORT = "without depth", "without support"
"""Keys of ``KeyframeBuilder.tally``: points that were wanted but left out for lack of depth; points of the map that no
other view confirms."""

PointSupport = Callable[[npt.NDArray[np.float64]], tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]
"""Points [N, 3] of the map -> numbers [N] of other views that confirm and that contradict each."""
DepthRefinement = Callable[[npt.NDArray[np.float64], npt.NDArray[np.float32], npt.NDArray[np.float64]], RefinedDepth]
"""Pixels [N, 2], smoothed depth [H, W] and points [N, 3] of the map -> the depths refined by other views."""


DEPTH_RANGE = (0.03, 500.0)
"""Smallest and largest median depth of an image in metres; beyond them the unit is another one."""


def check_depth_unit(depth: npt.NDArray[np.float32]) -> None:
    """Refuses a depth image whose values are probably not metres.

    Args:
        depth: [H, W] metres along z; 0 where there is none.

    Raises:
        ImageError: The median depth is impossible.
    """
    known = depth[depth > 0]
    median = float(np.median(known)) if len(known) else DEPTH_RANGE[0]
    if not DEPTH_RANGE[0] <= median <= DEPTH_RANGE[1]:
        raise ImageError(
            f"median depth of {median:.3g} m: the depth values are probably in another unit (--depth-scale)"
        )


class KeyframeBuilder:
    """Makes keyframes with a backbone.

    Threads that make keyframes at the same time need a builder each (``with_own_tally``).

    Attributes:
        backbone: Extracts the features.
        points_per_keyframe: Largest number of points of a keyframe.
        background: Number of coarse cells drawn for the reverse direction of matching.
        seed: Seed of this draw; the same seed and name give the same keyframe.
        tally: Number of points that lack something, by ``WITHOUT_DEPTH`` and ``WITHOUT_SUPPORT``; importers add to it.
    """

    def __init__(
        self, backbone: FeatureBackbone, points_per_keyframe: int = 500, background: int = 128, seed: int = 0
    ) -> None:
        self.backbone = backbone
        self.points_per_keyframe = points_per_keyframe
        self.background = background
        self.seed = seed
        self.tally: Counter[str] = Counter()

    def with_own_tally(self) -> KeyframeBuilder:
        """Returns a builder with the same network and settings and a tally of its own."""
        own = copy(self)
        own.tally = Counter()
        return own

    def build(
        self,
        name: str,
        stamp: int,
        image: npt.NDArray[np.uint8],
        camera: Camera,
        T_map_cam: npt.NDArray[np.float64],
        pixels: npt.NDArray[np.floating],
        points: npt.NDArray[np.floating],
        point_ids: npt.NDArray[np.int64] | None = None,
        features: ImageFeatures | None = None,
    ) -> Keyframe:
        """Makes the keyframe of an image whose 3D points are known.

        Args:
            name: Name of the keyframe, unique in the map.
            stamp: Nanoseconds, 0 if there is none.
            image: BGR [H, W, 3] or grey [H, W], uint8.
            camera: Its camera.
            T_map_cam: [4, 4] its pose.
            pixels: [N, 2] where the image shows the points.
            points: [N, 3] the points in the map.
            point_ids: [N] ids of the points in the source.
            features: Features of the image, if they were extracted before.

        Returns:
            The keyframe.

        Raises:
            ImageError: The image cannot be used, or is not of the camera's size.
        """
        check_image_size(image, camera)
        features = self.backbone.extract(image) if features is None else features
        places = torch.as_tensor(np.asarray(pixels, dtype=np.float64).reshape(-1, 2))
        return Keyframe(
            name=name,
            stamp=stamp,
            T_map_cam=np.asarray(T_map_cam, dtype=np.float64),
            camera=camera,
            points=compact_points(points).reshape(-1, 3),
            point_ids=point_ids,
            coarse=_float32_array(sample_descriptors(features.coarse, places, self.backbone.unit_length)),
            fine=_float32_array(sample_descriptors(features.fine, places, self.backbone.unit_length)),
            background=self._background(name, features.coarse),
            background_cells=features.coarse.data[0].numel(),
            global_descriptor=global_descriptor(features.coarse),
            thumbnail=_thumbnail(image),
        )

    def build_rgbd(
        self,
        name: str,
        stamp: int,
        image: npt.NDArray[np.uint8],
        depth: npt.NDArray[np.float32],
        camera: Camera,
        T_map_cam: npt.NDArray[np.float64],
        support: PointSupport | None = None,
        refine: DepthRefinement | None = None,
    ) -> Keyframe:
        """Makes the keyframe of an image with depth.

        Points are chosen where the network detects keypoints and the depth is smooth.

        Args:
            name: Name of the keyframe, unique in the map.
            stamp: Nanoseconds, 0 if there is none.
            image: BGR [H, W, 3] or grey [H, W], uint8.
            depth: [H, W] metres along z, 0 where there is none.
            camera: Camera of both.
            T_map_cam: [4, 4] pose of both.
            support: Counts the views that confirm points; confirmed points are preferred.
            refine: Refines depths against other views; precise points are preferred.

        Returns:
            The keyframe; it has no points if no pixel has smooth depth.

        Raises:
            ImageError: The image or the depth cannot be used, or has another size than the camera.
        """
        check_image_size(image, camera)
        if depth.shape != image.shape[:2]:
            size = f"{depth.shape[1]}x{depth.shape[0]}"
            raise ImageError(f"depth of {size} pixels, image of {image.shape[1]}x{image.shape[0]}")
        check_depth_unit(depth)
        features = self.backbone.extract(image, detect=True)
        assert features.detection is not None  # since it was asked for
        T_map_cam = np.asarray(T_map_cam, dtype=np.float64)
        pixels, points = self._choose_points(features.detection, depth, camera, T_map_cam, support, refine)
        return self.build(name, stamp, image, camera, T_map_cam, pixels, points, features=features)

    def _choose_points(
        self,
        detection: torch.Tensor,
        depth: npt.NDArray[np.float32],
        camera: Camera,
        T_map_cam: npt.NDArray[np.float64],
        support: PointSupport | None,
        refine: DepthRefinement | None,
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Pixels [N, 2] and their points [N, 3]: detected, with smooth depth, distributed, confirmed and precise."""
        count, size = self.points_per_keyframe, (camera.width, camera.height)
        detected, detection_scores = candidate_pixels(detection)
        smoothed = smooth_depth(depth)
        z = smoothed[detected[:, 1], detected[:, 0]].astype(np.float64)
        self.tally[WITHOUT_DEPTH] += int((z[select_distributed(detected, detection_scores, count, *size)] == 0).sum())
        scores: npt.NDArray[np.floating] = detection_scores[z > 0]
        pixels, z = detected[z > 0].astype(np.float64), z[z > 0]
        points = lift_pixels(pixels, z, camera, T_map_cam)
        confirmed = np.ones(len(points), dtype=int)
        if support is not None:
            confirmed, contradicted = support(points)
            scores = scores * support_weights(confirmed, contradicted)
        if refine is not None:
            candidates = select_distributed(pixels, scores, int(_REFINEMENT_CANDIDATES * count), *size)
            refined = refine(pixels[candidates], smoothed, points[candidates])
            pixels, confirmed = pixels[candidates], confirmed[candidates]
            scores = scores[candidates] * refined.weight
            points = lift_pixels(pixels, refined.depth, camera, T_map_cam)
        chosen = select_distributed(pixels, scores, count, *size)
        self.tally[WITHOUT_SUPPORT] += int((confirmed[chosen] == 0).sum())
        return pixels[chosen], points[chosen]

    def _background(self, name: str, coarse: FeatureMap) -> npt.NDArray[np.float32]:
        """Descriptors [M, C] of cells drawn evenly; the draw depends on the seed and the name alone."""
        cells = coarse.data[0].numel()
        rng = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        drawn = rng.choice(cells, self.background, replace=cells < self.background)
        descriptors = coarse.data.flatten(1)[:, torch.as_tensor(drawn).to(coarse.data.device)].T
        background: npt.NDArray[np.float32] = descriptors.cpu().numpy()
        return background


def lift_pixels(
    pixels: npt.NDArray[np.float64],
    z: npt.NDArray[np.floating],
    camera: Camera,
    T_map_cam: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Lifts pixels with depth into the map.

    Args:
        pixels: [N, 2].
        z: [N] depths along the optical axis in metres.
        camera: Their camera.
        T_map_cam: [4, 4] its pose.

    Returns:
        Points [N, 3] in the map.
    """
    rays = camera.rays(torch.as_tensor(pixels)).numpy()
    points: npt.NDArray[np.float64] = rays / rays[:, 2:] * z[:, None] @ T_map_cam[:3, :3].T + T_map_cam[:3, 3]
    return points


def _float32_array(tensor: torch.Tensor) -> npt.NDArray[np.float32]:
    return tensor.cpu().numpy().astype(np.float32)


def _thumbnail(image: npt.NDArray[np.uint8]) -> bytes:
    scale = _THUMBNAIL_SIDE / max(image.shape[:2])
    size = [max(1, round(side * scale)) for side in (image.shape[1], image.shape[0])]
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
