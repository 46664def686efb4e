# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a camera adds to a perfect picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Sensor:
    """Gain, gamma, blur and noise of a camera; the default changes nothing.

    gain: factor on the brightness.  gamma: exponent on it (1 is linear, below 1 brighter).
    blur: standard deviation in pixels.  noise: standard deviation in grey values (0 to 255).
    """

    gain: float = 1.0
    gamma: float = 1.0
    blur: float = 0.0
    noise: float = 0.0

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The image uint8 [H, W, 3] as this camera sees it; noise comes from ``rng``."""
        if (self.gain, self.gamma) != (1.0, 1.0):
            values = np.clip(self.gain * (np.arange(256) / 255) ** self.gamma, 0, 1)
            image = cv2.LUT(image, np.round(255 * values).astype(np.uint8))
        if self.blur > 0:
            image = cv2.GaussianBlur(image, (0, 0), self.blur)
        if self.noise > 0:
            noise = rng.standard_normal(image.shape, dtype=np.float32) * self.noise
            image = np.clip(np.round(image + noise), 0, 255).astype(np.uint8)
        return image
