# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Image + pose + 3D points -> keyframe: where descriptors are made, whatever the source."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable
from copy import copy

import cv2
import numpy as np
import torch

from nre_ros.errors import ImageError
from nre_ros.features.base import FeatureBackbone, FeatureMap, ImageFeatures, sample_descriptors
from nre_ros.geometry import Camera
from nre_ros.images import check_image_size
from nre_ros.keyframes.building.depth_support import support_weights
from nre_ros.keyframes.building.multiview.refinement import Refined
from nre_ros.keyframes.building.point_selection import candidate_pixels, smooth_depth, spread
from nre_ros.keyframes.global_descriptor import global_descriptor
from nre_ros.keyframes.types import Keyframe

_THUMBNAIL_SIDE = 160
_CANDIDATES = 1.5
"""Times as many points as are wanted have their depths refined."""

WITHOUT_DEPTH, WITHOUT_SUPPORT = "without depth", "without support"
"""Names in ``KeyframeBuilder.tally``: points that were wanted and have no depth, hence are left out;
points of the map that no other view confirms."""


class KeyframeBuilder:
    """Makes keyframes with ``backbone``.

    points_per_keyframe: at most this many points; background: coarse cells drawn for the reverse
    direction of matching; seed: of that draw (same seed and name, same keyframe).
    tally: what the keyframes made so far lack, by the names above; importers count there, too.  Threads that make
    keyframes at the same time have a builder each (``with_own_tally``).
    """

    def __init__(self, backbone: FeatureBackbone, points_per_keyframe: int = 500, background: int = 128, seed: int = 0):
        self.backbone = backbone
        self.points_per_keyframe = points_per_keyframe
        self.background = background
        self.seed = seed
        self.tally: Counter[str] = Counter()

    def with_own_tally(self) -> KeyframeBuilder:
        """A builder of the same keyframes, with the same network, that counts for itself."""
        own = copy(self)
        own.tally = Counter()
        return own

    def build(
        self,
        name: str,
        stamp: int,
        image: np.ndarray,
        camera: Camera,
        T_map_cam: np.ndarray,
        pixels: np.ndarray,
        points: np.ndarray,
        point_ids: np.ndarray | None = None,
        features: ImageFeatures | None = None,
    ) -> Keyframe:
        """The keyframe of an image (uint8 BGR) in which ``points`` [N, 3] (map) are at ``pixels`` [N, 2].

        features: of this image, if they are there already.  Raises ``ImageError`` for an image
        that cannot be used or is not of the camera's size.
        """
        check_image_size(image, camera)
        features = self.backbone.extract(image) if features is None else features
        where = torch.as_tensor(np.asarray(pixels, dtype=np.float64).reshape(-1, 2))
        return Keyframe(
            name=name,
            stamp=stamp,
            T_map_cam=np.asarray(T_map_cam, dtype=np.float64),
            camera=camera,
            points=np.asarray(points, dtype=np.float32).reshape(-1, 3),
            point_ids=point_ids,
            coarse=_array(sample_descriptors(features.coarse, where, self.backbone.unit_length)),
            fine=_array(features.sample_fine(where, self.backbone.unit_length)),
            background=self._background(name, features.coarse),
            background_cells=features.coarse.data[0].numel(),
            global_descriptor=global_descriptor(features.coarse),
            thumbnail=_thumbnail(image),
        )

    def build_rgbd(
        self,
        name: str,
        stamp: int,
        image: np.ndarray,
        depth: np.ndarray,
        camera: Camera,
        T_map_cam: np.ndarray,
        support: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None,
        refine: Callable[[np.ndarray, np.ndarray, np.ndarray], Refined] | None = None,
    ) -> Keyframe:
        """The keyframe of an image and its depth [H, W] in metres along z (0: none), same size.

        support: points [N, 3] of the map -> how many other views confirm each and how many look
        through it (``depth_support``); confirmed ones are preferred.  refine: pixels
        [N, 2], smoothed depth [H, W], their points [N, 3] -> what other views make of the depths
        (``refine_depth``); those told precisely are preferred.
        """
        check_image_size(image, camera)
        if depth.shape != image.shape[:2]:
            size = f"{depth.shape[1]}x{depth.shape[0]}"
            raise ImageError(f"depth of {size} pixels, image of {image.shape[1]}x{image.shape[0]}")
        features = self.backbone.extract(image, detect=True)
        T_map_cam = np.asarray(T_map_cam, dtype=np.float64)
        pixels, points = self._choose(features.detection, depth, camera, T_map_cam, support, refine)
        return self.build(name, stamp, image, camera, T_map_cam, pixels, points, features=features)

    def _choose(self, detection, depth, camera, T_map_cam, support, refine) -> tuple[np.ndarray, np.ndarray]:
        """Pixels [N, 2] and their points [N, 3]: easy to find, with depth, spread, and seen by other views if told."""
        count, size = self.points_per_keyframe, (camera.width, camera.height)
        pixels, scores = candidate_pixels(detection)
        smooth = smooth_depth(depth)
        z = smooth[pixels[:, 1], pixels[:, 0]].astype(np.float64)
        self.tally[WITHOUT_DEPTH] += int((z[spread(pixels, scores, count, *size)] == 0).sum())
        pixels, scores, z = pixels[z > 0].astype(np.float64), scores[z > 0], z[z > 0]
        points = lift_pixels(pixels, z, camera, T_map_cam)
        confirmed = np.ones(len(points), dtype=int)
        if support is not None:
            confirmed, contradicted = support(points)
            scores = scores * support_weights(confirmed, contradicted)
        if refine is not None:
            candidates = spread(pixels, scores, int(_CANDIDATES * count), *size)
            refined = refine(pixels[candidates], smooth, points[candidates])
            pixels, confirmed = pixels[candidates], confirmed[candidates]
            scores = scores[candidates] * refined.weight
            points = lift_pixels(pixels, refined.depth, camera, T_map_cam)
        chosen = spread(pixels, scores, count, *size)
        self.tally[WITHOUT_SUPPORT] += int((confirmed[chosen] == 0).sum())
        return pixels[chosen], points[chosen]

    def _background(self, name: str, coarse: FeatureMap) -> np.ndarray:
        """[M, C] float32 of cells drawn evenly; the draw depends on the seed and the name alone."""
        cells = coarse.data[0].numel()
        rng = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        drawn = rng.choice(cells, self.background, replace=cells < self.background)
        return coarse.data.flatten(1)[:, torch.as_tensor(drawn).to(coarse.data.device)].T.cpu().numpy()


def lift_pixels(pixels: np.ndarray, z: np.ndarray, camera: Camera, T_map_cam: np.ndarray) -> np.ndarray:
    """Points [N, 3] in the map of pixels [N, 2] with depths [N] along the optical axis."""
    rays = camera.rays(torch.as_tensor(pixels)).numpy()
    return rays / rays[:, 2:] * z[:, None] @ T_map_cam[:3, :3].T + T_map_cam[:3, 3]


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.cpu().numpy().astype(np.float32)


def _thumbnail(image: np.ndarray) -> bytes:
    scale = _THUMBNAIL_SIDE / max(image.shape[:2])
    size = [max(1, round(side * scale)) for side in (image.shape[1], image.shape[0])]
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
