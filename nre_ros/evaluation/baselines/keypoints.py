# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a peer is: keypoints of an image and their matches with those of another; and SIFT, the oldest of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import cv2
import numpy as np

from nre_ros.errors import NreError


class PeerMissing(NreError):
    """A peer whose Python packages are not installed; the message names them."""


@dataclass(frozen=True)
class Keypoints:
    """pixels [N, 2] float64 (the centre of the first pixel is (0, 0)), descriptors [N, C], image size (w, h)."""

    pixels: np.ndarray
    descriptors: object
    size: tuple[int, int]


class Peer(ABC):
    """One way to match images.  device: cpu or cuda.  Raises ``PeerMissing`` when it is made."""

    label: str

    @abstractmethod
    def describe(self, image: np.ndarray) -> Keypoints:
        """Keypoints of an image, uint8 BGR [H, W, 3]."""

    @abstractmethod
    def match(self, a: Keypoints, b: Keypoints) -> np.ndarray:
        """Indices [M, 2] into the keypoints of a and b."""


class Sift(Peer):
    """SIFT, nearest neighbours with the ratio test (Lowe, IJCV 2004)."""

    label = "SIFT + ratio test"
    ratio = 0.8

    def __init__(self, device: str):
        self.sift = cv2.SIFT_create(enable_precise_upscale=True)
        self.matcher = cv2.BFMatcher(cv2.NORM_L2)

    def describe(self, image: np.ndarray) -> Keypoints:
        keypoints, descriptors = self.sift.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), None)
        pixels = np.array([keypoint.pt for keypoint in keypoints], dtype=np.float64).reshape(-1, 2)
        return Keypoints(pixels, descriptors, image.shape[1::-1])

    def match(self, a: Keypoints, b: Keypoints) -> np.ndarray:
        if min(len(a.pixels), len(b.pixels)) < 2:
            return np.zeros((0, 2), int)
        pairs = self.matcher.knnMatch(a.descriptors, b.descriptors, k=2)
        return np.array(
            [(p.queryIdx, p.trainIdx) for p, q in pairs if p.distance < self.ratio * q.distance], dtype=int
        ).reshape(-1, 2)
