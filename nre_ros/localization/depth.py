# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The depth image of a query as evidence for or against a pose, and as a measurement of the map's scale.

A pose predicts how far away its inliers are. The depth image measures it. A pose of another place has inliers by
accident, and their distances are wrong.

The measured depths do not move an accepted pose. They are smooth, so their errors of about one per cent have a common
cause and do not average out; the poses are more exact than that (docs/experiments.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from nre_ros.errors import ImageError
from nre_ros.geometry import Camera, invert

_METRES, _PER_METRE, _PER_SQUARE_METRE = 0.002, 0.015, 0.0025
"""Standard deviation a + b z + c z^2 of measured less predicted depth z: calibration of the camera and errors of the map's
points (b), and noise of the sensor (a, c; Kinect: Nguyen et al. 2012)."""
_TOLERANCE = 3.0
"""Deviations within which a point agrees."""
_FEWEST_POINTS = 20
"""With fewer inliers that have a measured depth the depth image says nothing."""
_AGREEING = 0.5
"""A pose with a smaller share of agreeing points is contradicted."""


@dataclass(frozen=True)
class DepthAgreement:
    """How the depth image and a pose agree.

    Attributes:
        measured: Number of inliers with a measured depth.
        agreeing: Number of these whose measured depth is the one that the pose predicts.
        ratio: Median of measured over predicted depth; NaN without a measured depth. It is the scale of the depth image
            relative to the map.
        agreeing_scaled: Number of points that would agree if all measured depths were divided by ``ratio``.
    """

    measured: int
    agreeing: int
    ratio: float
    agreeing_scaled: int

    @property
    def contradicts(self) -> bool:
        """Whether the depth image contradicts the pose."""
        return self.measured >= _FEWEST_POINTS and self.agreeing < _AGREEING * self.measured

    @property
    def confirms(self) -> bool:
        """Whether the depth image confirms the pose; false, too, where too little depth was measured."""
        return self.measured >= _FEWEST_POINTS and not self.contradicts

    @property
    def other_scale(self) -> bool:
        """Whether the pose is contradicted by one common factor of all depths alone: a wrong unit, or a wrong map scale."""
        return self.contradicts and self.agreeing_scaled > (1 - _AGREEING / 2) * self.measured

    def to_json(self) -> dict[str, float | None]:
        """Returns the numbers as plain values."""
        return {
            "measured": self.measured,
            "agreeing": self.agreeing,
            "ratio": self.ratio if np.isfinite(self.ratio) else None,
        }

    def __str__(self) -> str:
        if self.other_scale:
            return (
                f"measured depths are {self.ratio:.3g} times the expected ones: the pose is wrong, or the unit of the depth "
                "image, or the scale of the map"
            )
        return f"{self.agreeing} of {self.measured} inliers are as far away as the pose says"


class QueryDepth:
    """The depth image of one query.

    Args:
        depth: ``[H, W]`` metres along the optical axis, registered to the image; 0 or not finite where none was measured.
        camera: Intrinsics of the image, which the depth image shares.

    Raises:
        ImageError: The depth image has another shape than the image, or a type that is no floating-point number.
    """

    def __init__(self, depth: npt.NDArray[np.floating], camera: Camera):
        if not isinstance(depth, np.ndarray) or depth.ndim != 2 or depth.dtype.kind != "f":
            kind = f"{depth.dtype} {list(depth.shape)}" if isinstance(depth, np.ndarray) else type(depth).__name__
            raise ImageError(f"depth image is {kind}, expected floating-point metres [H, W]")
        if depth.shape != (camera.height, camera.width):
            raise ImageError(
                f"depth image of {depth.shape[1]}x{depth.shape[0]} pixels does not belong to an image of "
                f"{camera.width}x{camera.height}: register the depth to the image first"
            )
        self._depth, self._camera = depth, camera

    def compare(self, T_map_cam: npt.NDArray[np.float64], points: npt.NDArray[np.float64]) -> DepthAgreement:
        """Compares measured with predicted depths.

        Args:
            T_map_cam: ``[4, 4]`` the pose.
            points: ``[N, 3]`` its inliers, in the map.

        Returns:
            The agreement.
        """
        T_cam_map = invert(T_map_cam)
        inside = points @ T_cam_map[:3, :3].T + T_cam_map[:3, 3]
        pixels, valid, _ = self._camera.project(torch.from_numpy(inside))
        measured, predicted = self._at(pixels.numpy()), inside[:, 2]
        known = np.flatnonzero(valid.numpy() & (measured > 0))
        measured, predicted = measured[known], predicted[known]
        if not len(measured):
            return DepthAgreement(0, 0, float("nan"), 0)
        ratio = float(np.median(measured / predicted))
        return DepthAgreement(
            len(measured), _agreeing(measured, predicted), ratio, _agreeing(measured / ratio, predicted)
        )

    def _at(self, pixels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Depth ``[N]`` of the nearest pixels; 0 where it is not known, and outside of the image."""
        height, width = self._depth.shape
        nearest = np.rint(pixels)
        inside = np.all((nearest >= 0) & (nearest < (width, height)), axis=1)
        x, y = np.where(inside[:, None], nearest, 0).astype(int).T
        depth = self._depth[y, x].astype(np.float64)
        return np.where(inside & np.isfinite(depth) & (depth > 0), depth, 0.0)


def _agreeing(measured: npt.NDArray[np.float64], predicted: npt.NDArray[np.float64]) -> int:
    """Number of measured depths that agree with the predicted ones."""
    deviation = _METRES + _PER_METRE * predicted + _PER_SQUARE_METRE * predicted**2
    return int((np.abs(measured - predicted) < _TOLERANCE * deviation).sum())
