# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""SIFT keypoints, matched by nearest neighbours with the ratio test (Lowe, IJCV 2004)."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from nre_ros.evaluation.baselines.base import Baseline, Keypoints


class Sift(Baseline):
    """OpenCV's SIFT with the ratio test."""

    label = "SIFT + ratio test"
    ratio = 0.8

    def __init__(self, device: str) -> None:
        self._sift = cv2.SIFT_create(enable_precise_upscale=True)  # type: ignore[attr-defined]  # missing in the stubs
        self._matcher = cv2.BFMatcher(cv2.NORM_L2)

    def describe(self, image: npt.NDArray[np.uint8]) -> Keypoints:
        keypoints, descriptors = self._sift.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), None)
        pixels = np.array([keypoint.pt for keypoint in keypoints], dtype=np.float64).reshape(-1, 2)
        return Keypoints(pixels, descriptors, (image.shape[1], image.shape[0]))

    def match(self, a: Keypoints, b: Keypoints) -> npt.NDArray[np.int_]:
        if min(len(a.pixels), len(b.pixels)) < 2:
            return np.zeros((0, 2), int)
        pairs = self._matcher.knnMatch(a.descriptors, b.descriptors, k=2)
        return np.array(
            [(p.queryIdx, p.trainIdx) for p, q in pairs if p.distance < self.ratio * q.distance], dtype=int
        ).reshape(-1, 2)
