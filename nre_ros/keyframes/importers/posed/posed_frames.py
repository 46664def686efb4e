# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Posed images without depth, wherever they come from: points triangulated between those that overlap."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from nre_ros.errors import ImportSourceError
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.building.multiview.keypoints import KeypointView, match
from nre_ros.keyframes.building.multiview.triangulation import Triangulated, triangulate
from nre_ros.keyframes.building.multiview.view_cache import ViewCache
from nre_ros.keyframes.building.point_selection import spread
from nre_ros.keyframes.importers.frames import Frames
from nre_ros.keyframes.types import Keyframe

_NEIGHBOURS = 8
"""Views that a keyframe is matched with."""
_MANY = 5
"""Views that see a point; more make it no better a choice."""


class PosedFrames(Frames):
    """Posed images without depth.

    A keyframe's points are those of its SIFT keypoints that the known poses confirm in other
    images, descriptors are the backbone's at these places.
    """

    def keyframe(self, name: str, builder: KeyframeBuilder) -> Keyframe:
        (stamp, T_map_cam), camera = self.pose(name), self.camera(name)
        image = self.image(name)
        pixels, found = self.triangulate(name, image)
        features = builder.backbone.extract(image, detect=True)
        x, y = np.rint(pixels).astype(int).T
        detection = features.detection.cpu().numpy()
        detection = detection[y.clip(0, camera.height - 1), x.clip(0, camera.width - 1)]
        # seen by many first; of equal ones, what the network finds again, too
        scores = np.minimum(found.views, _MANY) + detection / max(float(detection.max()), 1e-9)
        chosen = spread(pixels, scores, builder.points_per_keyframe, camera.width, camera.height)
        return builder.build(
            name, stamp, image, camera, T_map_cam, pixels[chosen], found.points[chosen], features=features
        )

    def triangulate(self, name: str, image: np.ndarray) -> tuple[np.ndarray, Triangulated]:
        """Pixels [N, 2] of an image's keypoints that others confirm, and their points.

        Matched first with views sampled by their poses alone, then with those that see the points found.
        Raises ``ImportSourceError`` if there is none.
        """
        view = self._views.view(name, image)
        matched: dict[str, tuple[KeypointView, np.ndarray]] = {}
        found = self._match(view, self._views.likely(name, _NEIGHBOURS), matched)
        if not len(found.index):
            raise ImportSourceError(
                f"no point of this image is confirmed by another: matched with {len(matched)} images"
            )
        found = self._match(view, self._views.neighbours(name, found.points, _NEIGHBOURS), matched)
        return view.pixels[found.index], found

    def _match(self, view: KeypointView, others: dict[str, KeypointView], matched: dict) -> Triangulated:
        for name, other in others.items():
            if name not in matched:
                matched[name] = other, match(view, other)
        return triangulate(view, *zip(*matched.values())) if matched else triangulate(view, [], [])

    @cached_property
    def _views(self) -> ViewCache:
        return ViewCache(self.names(), self.where, self.image, KeypointView.of)
