# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Simulates what a camera adds to a perfect image."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Sensor:
    """Gain, gamma, blur and noise of a camera; the default changes nothing.

    Attributes:
        gain: Factor on the brightness.
        gamma: Exponent on the brightness: 1 is linear, below 1 is brighter.
        blur: Standard deviation of a Gaussian, pixels.
        noise: Standard deviation of Gaussian noise, grey values (0 to 255).
    """

    gain: float = 1.0
    gamma: float = 1.0
    blur: float = 0.0
    noise: float = 0.0

    def __call__(self, image: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """Simulates the camera.

        Args:
            image: Perfect image, uint8 [H, W, 3].
            rng: Source of the noise.

        Returns:
            [H, W, 3] uint8.
        """
        if (self.gain, self.gamma) != (1.0, 1.0):
            values = np.clip(self.gain * (np.arange(256) / 255) ** self.gamma, 0, 1)
            image = np.asarray(cv2.LUT(image, np.round(255 * values).astype(np.uint8)), dtype=np.uint8)
        if self.blur > 0:
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), self.blur), dtype=np.uint8)
        if self.noise > 0:
            noise = rng.standard_normal(image.shape, dtype=np.float32) * self.noise
            image = np.clip(np.round(image + noise), 0, 255).astype(np.uint8)
        return image
