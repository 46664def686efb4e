# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Posed images without depth: keypoints are triangulated between images that overlap."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImportSourceError
from nre_ros.geometry import Camera
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.building.multiview.keypoints import MAX_KEYPOINT_IMAGE_SIDE, KeypointView, match_keypoints
from nre_ros.keyframes.building.multiview.point_refinement import refine_points
from nre_ros.keyframes.building.multiview.triangulation import TriangulatedPoints, triangulate
from nre_ros.keyframes.building.multiview.view_cache import ViewCache
from nre_ros.keyframes.building.multiview.views import View
from nre_ros.keyframes.building.point_selection import select_distributed
from nre_ros.keyframes.importers.map_source import PosedImageSource
from nre_ros.keyframes.types import Keyframe

_NEIGHBOURS = 8
"""Views that a keyframe is matched with."""
_COMPARED = 6
"""Views that the patches of a keyframe's points are compared with."""
_ENOUGH_VIEWS = 5
"""Number of views of a point beyond which more views do not raise its score."""
_TRUSTED_VIEWS = 3
"""Number of views whose keypoints agree from which a point is trusted, whatever the patches show."""
_DOUBTFUL = 1
"""Number of views of a doubtful point, whichever agree: these points are chosen last."""


@dataclass(frozen=True)
class _Photograph:
    """A posed image: its keypoints to find points with, and its pixels to verify them."""

    keypoints: KeypointView
    view: View

    @classmethod
    def from_image(
        cls, image: npt.NDArray[np.uint8], camera: Camera, T_map_cam: npt.NDArray[np.float64]
    ) -> _Photograph:
        return cls(
            KeypointView.from_image(image, camera, T_map_cam),
            View.from_image(image, camera, T_map_cam, MAX_KEYPOINT_IMAGE_SIDE),
        )

    @property
    def nbytes(self) -> int:
        return self.keypoints.nbytes + self.view.nbytes


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
        A point that only two keypoints agree on is left out if no other image shows its patch. It is doubtful if fewer
        than half of the images do that should. The depth of each point is refined by these patches.

        Args:
            name: Name of the image.
            image: Its pixels.

        Returns:
            Pixels [N, 2] of the keypoints that other images confirm, and their points, which lie on the rays of these
            pixels. Doubtful points have one view, others as many as have keypoints that agree.

        Raises:
            ImportSourceError: No keypoint is confirmed.
        """
        photograph = self._photographs.view(name, image)
        matched: dict[str, tuple[_Photograph, npt.NDArray[np.int64]]] = {}
        found = self._match(photograph, self._photographs.likely_neighbours(name, _NEIGHBOURS), matched)
        if len(found.index):
            found = self._match(photograph, self._photographs.neighbours(name, found.points, _NEIGHBOURS), matched)
            found = self._verify(name, photograph, found)
        if not len(found.index):
            raise ImportSourceError(
                f"no point of this image is confirmed by another: matched with {len(matched)} images"
            )
        return photograph.keypoints.pixels[found.index], found

    def _match(
        self,
        photograph: _Photograph,
        others: dict[str, _Photograph],
        matched: dict[str, tuple[_Photograph, npt.NDArray[np.int64]]],
    ) -> TriangulatedPoints:
        """Matches an image with others that it was not matched with before, and triangulates from all matches."""
        for name, other in others.items():
            if name not in matched:
                matched[name] = other, match_keypoints(photograph.keypoints, other.keypoints)
        views = [other.keypoints for other, _ in matched.values()]
        return triangulate(photograph.keypoints, views, [pairs for _, pairs in matched.values()])

    def _verify(self, name: str, photograph: _Photograph, found: TriangulatedPoints) -> TriangulatedPoints:
        """Refines points by their patches; leaves out those of two keypoints that no patch confirms."""
        view, keypoints = photograph.view, photograph.keypoints
        scale = np.array([view.camera.width, view.camera.height]) / (keypoints.camera.width, keypoints.camera.height)
        pixels = (keypoints.pixels[found.index] + 0.5) * scale - 0.5
        others = [other.view for other in self._photographs.neighbours(name, found.points, _COMPARED).values()]
        refined = refine_points(view, pixels, found.points, found.deviation, others)
        shown = 2 * refined.confirmed >= refined.visible
        trusted = found.views >= _TRUSTED_VIEWS
        # many keypoints on a point show that it is found again; patches, which only fit, do not
        views = np.where(shown | trusted, found.views, _DOUBTFUL)
        good = trusted | (refined.confirmed > 0)
        return TriangulatedPoints(found.index[good], refined.points[good], views[good], refined.deviation[good])

    @cached_property
    def _photographs(self) -> ViewCache[_Photograph]:
        return ViewCache(self.names(), self.pose_and_camera, self.image, _Photograph.from_image)
