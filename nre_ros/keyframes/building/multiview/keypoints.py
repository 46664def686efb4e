# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""SIFT keypoints of posed images (Lowe, IJCV 2004; OpenCV's) and their matches along known epipolar lines."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from nre_ros.geometry import Camera, invert

MAX_SIDE = 1600
"""Longer side (pixels) to which images are reduced before keypoints are sought."""
_MAX_KEYPOINTS = 4000
_BAND = 0.003
"""Largest distance from the epipolar line, as a fraction of the focal length (2 pixels of 640)."""
_MAX_DISTANCE = 350.0
"""Of SIFT descriptors, whose length is 512."""
_RATIO = 0.8
"""Of the distance to the best over that to the second best along the epipolar line."""
_SAME_PLACE = 3.0
"""Pixels within which a second keypoint is of the same place and no rival."""


@dataclass(frozen=True)
class KeypointView:
    """pixels: [N, 2] float64; descriptors: [N, 128] float32; rays: [N, 3] float64 with z = 1, in the camera's frame."""

    pixels: np.ndarray
    descriptors: torch.Tensor
    rays: np.ndarray
    camera: Camera
    T_map_cam: np.ndarray

    @classmethod
    def of(cls, image: np.ndarray, camera: Camera, T_map_cam: np.ndarray) -> KeypointView:
        """The keypoints of an image, uint8 BGR or grey of the camera's size; those without a ray are left out."""
        grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        scale = min(1.0, MAX_SIDE / max(grey.shape))
        if scale < 1:
            grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        # doubling the image must not shift the keypoints by half a pixel of it
        sift = cv2.SIFT_create(nfeatures=_MAX_KEYPOINTS, enable_precise_upscale=True)
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
        return self.descriptors.nbytes + self.pixels.nbytes + self.rays.nbytes


def match(a: KeypointView, b: KeypointView) -> np.ndarray:
    """Indices [M, 2] of keypoints that are each other's best along the epipolar lines, and clearly so in b."""
    if min(len(a.pixels), len(b.pixels)) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    squares = a.descriptors.square().sum(1)[:, None] + b.descriptors.square().sum(1)
    distance = (squares - 2 * a.descriptors @ b.descriptors.T).clamp_min_(0).sqrt_()
    distance[~_on_epipolar_lines(a, b)] = torch.inf
    best, partner = distance.min(1)
    back = distance.argmin(0)
    index = torch.nonzero((best < _MAX_DISTANCE) & (back[partner] == torch.arange(len(partner))))[:, 0]
    places = torch.from_numpy(b.pixels)
    rivals = distance[index]
    rivals[torch.cdist(places[partner[index]], places) < _SAME_PLACE] = torch.inf
    index = index[best[index] < _RATIO * rivals.min(1).values]
    return torch.stack([index, partner[index]], dim=1).numpy()


def _on_epipolar_lines(a: KeypointView, b: KeypointView) -> torch.Tensor:
    """[N, M] whether keypoints of a and b may show one point: within ``_BAND`` of each other's line."""
    T = invert(b.T_map_cam) @ a.T_map_cam
    t = T[:3, 3] / max(float(np.linalg.norm(T[:3, 3])), 1e-12)
    essential = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]]) @ T[:3, :3]
    in_b = torch.from_numpy(a.rays @ essential.T).float()  # lines [N, 3]
    in_a = torch.from_numpy(b.rays @ essential).float()
    error = (in_b @ torch.from_numpy(b.rays).float().T).abs()
    slope = torch.maximum(in_b[:, :2].norm(dim=1)[:, None], in_a[:, :2].norm(dim=1))
    return error < _BAND * slope.clamp_min(1e-9)
