# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Posed images without depth: keypoints are triangulated between images that overlap."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImportSourceError
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.building.multiview.keypoints import KeypointView, match_keypoints
from nre_ros.keyframes.building.multiview.triangulation import TriangulatedPoints, triangulate
from nre_ros.keyframes.building.multiview.view_cache import ViewCache
from nre_ros.keyframes.building.point_selection import select_distributed
from nre_ros.keyframes.importers.map_source import PosedImageSource
from nre_ros.keyframes.types import Keyframe

_NEIGHBOURS = 8
"""Views that a keyframe is matched with."""
_ENOUGH_VIEWS = 5
"""Number of views of a point beyond which more views do not raise its score."""


class TriangulatedSource(PosedImageSource):
    """Posed images without depth.

    A keyframe's points are its SIFT keypoints that the known poses confirm in other images. The descriptors are the
    backbone's at these places.
    """

    def keyframe(self, name: str, builder: KeyframeBuilder) -> Keyframe:
        """Makes the keyframe of an image; see ``MapSource``."""
        (stamp, T_map_cam), camera = self.camera_pose(name), self.camera(name)
        image = self.image(name)
        pixels, triangulated = self.triangulate(name, image)
        features = builder.backbone.extract(image, detect=True)
        assert features.detection is not None  # since it was asked for
        x, y = np.rint(pixels).astype(int).T
        detection = features.detection.cpu().numpy()
        detection = detection[y.clip(0, camera.height - 1), x.clip(0, camera.width - 1)]
        # points of many views first; among equal ones those that the network detects
        scores = np.minimum(triangulated.views, _ENOUGH_VIEWS) + detection / max(float(detection.max()), 1e-9)
        chosen = select_distributed(pixels, scores, builder.points_per_keyframe, camera.width, camera.height)
        return builder.build(
            name, stamp, image, camera, T_map_cam, pixels[chosen], triangulated.points[chosen], features=features
        )

    def triangulate(
        self, name: str, image: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.float64], TriangulatedPoints]:
        """Triangulates the keypoints of an image.

        The image is matched first with views chosen by their poses alone, then with views that see the points found.

        Args:
            name: Name of the image.
            image: Its pixels.

        Returns:
            Pixels [N, 2] of the keypoints that other images confirm, and their points.

        Raises:
            ImportSourceError: No keypoint is confirmed.
        """
        view = self._views.view(name, image)
        matched: dict[str, tuple[KeypointView, npt.NDArray[np.int64]]] = {}
        found = self._match(view, self._views.likely_neighbours(name, _NEIGHBOURS), matched)
        if not len(found.index):
            raise ImportSourceError(
                f"no point of this image is confirmed by another: matched with {len(matched)} images"
            )
        others = self._views.neighbours(name, found.points, _NEIGHBOURS)
        if others.keys() - matched.keys():
            found = self._match(view, others, matched)
        return view.pixels[found.index], found

    def _match(
        self,
        view: KeypointView,
        others: dict[str, KeypointView],
        matched: dict[str, tuple[KeypointView, npt.NDArray[np.int64]]],
    ) -> TriangulatedPoints:
        """Matches a view with others that it was not matched with before, and triangulates from all matches."""
        for name, other in others.items():
            if name not in matched:
                matched[name] = other, match_keypoints(view, other)
        return triangulate(view, [other for other, _ in matched.values()], [pairs for _, pairs in matched.values()])

    @cached_property
    def _views(self) -> ViewCache[KeypointView]:
        return ViewCache(self.names(), self.pose_and_camera, self.image, KeypointView.from_image)
