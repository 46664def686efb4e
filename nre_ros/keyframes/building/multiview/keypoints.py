# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""SIFT keypoints of posed images (Lowe, IJCV 2004; OpenCV's) and their matches along known epipolar lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from nre_ros.geometry import Camera, invert
from nre_ros.keyframes.building.multiview.views import grey_image

MAX_KEYPOINT_IMAGE_SIDE = 1600
"""Longer side (pixels) to which larger images are reduced before keypoints are detected."""
_MAX_KEYPOINTS = 4000
_BAND = 0.003
"""Largest distance from the epipolar line, as a fraction of the focal length (2 pixels of 640)."""
_MAX_DISTANCE = 350.0
"""Largest distance of matching SIFT descriptors, whose length is 512."""
_RATIO = 0.8
"""Largest ratio of the distances to the best and the second best keypoint along the epipolar line."""
_SAME_PLACE = 3.0
"""Pixels within which two keypoints show the same place and do not compete."""
_BLOCK = 128
"""Keypoints that are compared with others at once."""
_SLACK = 1e-3
"""Radians by which rounding may move an epipolar plane."""


@dataclass(frozen=True)
class KeypointView:
    """The keypoints of a posed image.

    Attributes:
        pixels: [N, 2].
        descriptors: [N, 128] float32.
        rays: [N, 3] viewing directions in the camera's frame, with z = 1.
        camera: Camera of the image.
        T_map_cam: [4, 4] pose of the image.
    """

    pixels: npt.NDArray[np.float64]
    descriptors: torch.Tensor
    rays: npt.NDArray[np.float64]
    camera: Camera
    T_map_cam: npt.NDArray[np.float64]

    @classmethod
    def from_image(
        cls, image: npt.NDArray[np.uint8], camera: Camera, T_map_cam: npt.NDArray[np.float64]
    ) -> KeypointView:
        """Detects the keypoints of an image; keypoints without a viewing direction are left out.

        Args:
            image: BGR [H, W, 3] or grey [H, W], uint8, of the camera's size.
            camera: Its camera.
            T_map_cam: [4, 4] its pose.
        """
        grey = grey_image(image)
        scale = min(1.0, MAX_KEYPOINT_IMAGE_SIDE / max(grey.shape))
        if scale < 1:
            reduced = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            grey = np.asarray(reduced, dtype=np.uint8)
        # doubling the image must not shift the keypoints by half a pixel of it
        sift = cv2.SIFT.create(nfeatures=_MAX_KEYPOINTS, enable_precise_upscale=True)
        keypoints, descriptors = sift.detectAndCompute(grey, None)
        pixels = np.array([keypoint.pt for keypoint in keypoints], dtype=np.float64).reshape(-1, 2)
        pixels = (pixels + 0.5) / (grey.shape[1] / camera.width, grey.shape[0] / camera.height) - 0.5
        descriptors = np.zeros((0, 128), np.float32) if descriptors is None else descriptors
        rays = camera.rays(torch.from_numpy(pixels)).numpy()
        good = np.isfinite(rays).all(1) & (rays[:, 2] > 0.05)
        rays = rays[good] / rays[good][:, 2:]
        return cls(pixels[good], torch.from_numpy(descriptors[good]), rays, camera, np.asarray(T_map_cam, np.float64))

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return self.descriptors.nbytes + self.pixels.nbytes + self.rays.nbytes


def match_keypoints(a: KeypointView, b: KeypointView) -> npt.NDArray[np.int64]:
    """Matches the keypoints of two views along their epipolar lines.

    Args:
        a: A view.
        b: Another view; a match must be clearly better than the second best keypoint of this view.

    Returns:
        Indices [M, 2] of keypoints in a and b that are each other's best match.
    """
    if min(len(a.pixels), len(b.pixels)) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    lines = _EpipolarLines.between(a, b)
    places = torch.from_numpy(b.pixels).T.contiguous()
    # SIFT's numbers are integers: their squared distances are exact in single precision, in any order of the sums
    squares_a, squares_b = (view.descriptors.square().sum(1) for view in (a, b))
    second, best = torch.full((2, len(a.pixels)), torch.inf).unbind(0)
    partner = torch.zeros(len(a.pixels), dtype=torch.int64)
    best_back = torch.full((len(b.pixels),), torch.inf)
    back = torch.full((len(b.pixels),), -1)
    for rows, columns in lines.blocks():
        square = torch.addmm(squares_b[columns], a.descriptors[rows], b.descriptors[columns].T, alpha=-2)
        square.add_(squares_a[rows, None]).clamp_min_(0)
        square.masked_fill_(~lines.are_near(rows, columns), torch.inf)
        lowest, row = square.min(0)
        better = torch.nonzero(lowest < best_back[columns])[:, 0]
        best_back[columns[better]], back[columns[better]] = lowest[better], rows[row[better]]
        best[rows], column = square.min(1)
        partner[rows] = columns[column]
        x, y = ((axis[partner[rows], None] - axis[columns]).square_() for axis in places)
        second[rows] = square.masked_fill_(x.add_(y) < _SAME_PLACE**2, torch.inf).min(1).values
    matched = (best < _MAX_DISTANCE**2) & (back[partner] == torch.arange(len(partner)))
    index = torch.nonzero(matched & (best.sqrt() < _RATIO * second.sqrt()))[:, 0]
    pairs: npt.NDArray[np.int64] = torch.stack([index, partner[index]], dim=1).numpy()
    return pairs


@dataclass(frozen=True)
class _EpipolarLines:
    """The epipolar lines of the keypoints of two views.

    The planes through both centres form a pencil. A keypoint near another one's line lies in nearly the same plane, so
    keypoints that are sorted by the angle of their plane are compared with a few percent of the others.

    Attributes:
        lines_in_b: [N, 3] float32, lines of a's keypoints among b's rays.
        rays_b: [M, 3] float32.
        slopes: [N] and [M], norms of the lines' first two numbers, of a's keypoints and of b's.
        angles: [N] and [M] float64 radians in [0, pi), of the planes.
        reaches: [N] and [M] float64 radians: planes of keypoints near each other's line are no farther apart than the
            larger reach of the two keypoints.
    """

    lines_in_b: torch.Tensor
    rays_b: torch.Tensor
    slopes: tuple[torch.Tensor, torch.Tensor]
    angles: tuple[torch.Tensor, torch.Tensor]
    reaches: tuple[torch.Tensor, torch.Tensor]

    @classmethod
    def between(cls, a: KeypointView, b: KeypointView) -> _EpipolarLines:
        """Computes the lines of two views' keypoints."""
        T = invert(b.T_map_cam) @ a.T_map_cam
        t = T[:3, 3] / max(float(np.linalg.norm(T[:3, 3])), 1e-12)
        cross = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])
        essential = cross @ T[:3, :3]
        in_b, in_a = torch.from_numpy(a.rays @ essential.T), torch.from_numpy(b.rays @ essential)
        # both planes' normals in b, and two axes of the plane that contains all normals
        normals = in_b, torch.from_numpy(b.rays @ cross.T)
        first = np.cross(t, np.eye(3)[np.argmin(np.abs(t))])
        axes = torch.from_numpy(np.stack([first, np.cross(t, first)], axis=1))
        angles, reaches = [], []
        for normal in normals:
            x, y = (normal @ axes).unbind(1)
            angles.append(torch.atan2(y, x).remainder(torch.pi))
            # error = sin(angle between the planes) times both normals' lengths, and a slope is at most such a length
            sine = _BAND / torch.linalg.vector_norm(normal, dim=1).clamp_min(1e-9)
            reaches.append(sine.clamp_max(1).asin() + _SLACK)
        slopes = [torch.hypot(lines[:, 0], lines[:, 1]).float().clamp_min(1e-9) for lines in (in_b, in_a)]
        rays = torch.from_numpy(b.rays).float()
        return cls(in_b.float(), rays, (slopes[0], slopes[1]), (angles[0], angles[1]), (reaches[0], reaches[1]))

    def blocks(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yields indices of keypoints of a, each once, and of all keypoints of b that may lie near their lines."""
        in_a, in_b = self.angles
        order_b = in_b.argsort()  # neighbours in memory are read sooner
        in_b, reach_b = in_b[order_b], self.reaches[1][order_b]
        for rows in in_a.argsort().split(_BLOCK):
            lowest, highest = in_a[rows[0]], in_a[rows[-1]]
            # angles of planes are the same after half a turn
            apart = ((in_b - 0.5 * (lowest + highest) + torch.pi / 2).remainder(torch.pi) - torch.pi / 2).abs()
            reach = 0.5 * (highest - lowest) + torch.maximum(reach_b, self.reaches[0][rows].max())
            columns = order_b[apart <= reach]
            if len(columns):
                yield rows, columns

    def are_near(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Whether keypoints of a and b may show one point [R, C]: within ``_BAND`` of each other's line."""
        error = (self.lines_in_b[rows] @ self.rays_b[columns].T).abs_()
        slopes = torch.maximum(self.slopes[0][rows, None], self.slopes[1][columns])
        return error < slopes.mul_(_BAND)
