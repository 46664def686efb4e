# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""SIFT keypoints of posed images (Lowe, IJCV 2004; OpenCV's) and their matches along known epipolar lines."""

from __future__ import annotations

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
    squares = a.descriptors.square().sum(1)[:, None] + b.descriptors.square().sum(1)
    distance = (squares - 2 * a.descriptors @ b.descriptors.T).clamp_min_(0).sqrt_()
    distance[~_on_epipolar_lines(a, b)] = torch.inf
    best, partner = distance.min(1)
    back = distance.argmin(0)
    index = torch.nonzero((best < _MAX_DISTANCE) & (back[partner] == torch.arange(len(partner))))[:, 0]
    places = torch.from_numpy(b.pixels)
    competitors = distance[index]
    competitors[torch.cdist(places[partner[index]], places) < _SAME_PLACE] = torch.inf
    index = index[best[index] < _RATIO * competitors.min(1).values]
    pairs: npt.NDArray[np.int64] = torch.stack([index, partner[index]], dim=1).numpy()
    return pairs


def _on_epipolar_lines(a: KeypointView, b: KeypointView) -> torch.Tensor:
    """Whether keypoints of a and b may show one point [N, M]: within ``_BAND`` of each other's line."""
    T = invert(b.T_map_cam) @ a.T_map_cam
    t = T[:3, 3] / max(float(np.linalg.norm(T[:3, 3])), 1e-12)
    essential = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]]) @ T[:3, :3]
    in_b = torch.from_numpy(a.rays @ essential.T).float()  # lines [N, 3]
    in_a = torch.from_numpy(b.rays @ essential).float()
    error = (in_b @ torch.from_numpy(b.rays).float().T).abs()
    slope = torch.maximum(in_b[:, :2].norm(dim=1)[:, None], in_a[:, :2].norm(dim=1))
    return error < _BAND * slope.clamp_min(1e-9)
