# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Changes the look of training images as light and cameras do; no pixel moves."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from nre_ros.errors import TrainingError
from nre_ros.gallery.sensor import Sensor
from nre_ros.gallery.textures import smooth_noise


@dataclass(frozen=True)
class Augmentation:
    """Largest changes; each image draws its own between none and these. With zeros images stay as they are.

    Attributes:
        light: Standard deviation of the logarithm of uneven light over the image.
        exposure: Logarithm of the factor on the brightness, in both directions.
        gamma: Logarithm of the exponent on the brightness, in both directions.
        blur: Standard deviation of a Gaussian, pixels.
        noise: Standard deviation of Gaussian noise, grey values (0 to 255).

    Raises:
        TrainingError: A value is negative or not finite.
    """

    light: float = 0.25
    exposure: float = 0.4
    gamma: float = 0.3
    blur: float = 1.0
    noise: float = 8.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value >= 0):
                raise TrainingError(f"augmentation: {field.name}={value} must be at least 0")

    def __call__(self, image: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """Changes an image.

        Args:
            image: BGR ``[H, W, 3]``, uint8.
            rng: Source of the changes.

        Returns:
            ``[H, W, 3]`` uint8.
        """
        light, blur, noise = rng.uniform(size=3) * (self.light, self.blur, self.noise)
        exposure, gamma = rng.uniform(-1, 1, size=2) * (self.exposure, self.gamma)
        if light > 0:
            field = np.exp(light * smooth_noise((image.shape[0], image.shape[1]), rng, 2, 4))
            image = np.clip(np.round(image * field[..., None]), 0, 255).astype(np.uint8)
        return Sensor(math.exp(exposure), math.exp(gamma), blur, noise)(image, rng)
