# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Changes training images as light, cameras, motion and passing objects do; the true places move with the pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import cv2
import numpy as np
import numpy.typing as npt

from nre_ros.errors import TrainingError
from nre_ros.gallery.sensor import Sensor
from nre_ros.gallery.textures import smooth_noise
from nre_ros.learning.pairs import TrainingPair, inside_image

_MAX_ROLLING_SHUTTER, _MAX_OCCLUSION = 0.2, 0.9
_MAX_OBJECTS = 4
"""Largest number of objects that hide parts of an image."""


@dataclass(frozen=True)
class Augmentation:
    """Largest changes; each image draws its own between none and these. With zeros images stay as they are.

    Attributes:
        light: Standard deviation of the logarithm of uneven light over the image.
        exposure: Logarithm of the factor on the brightness, in both directions.
        gamma: Logarithm of the exponent on the brightness, in both directions.
        blur: Standard deviation of a Gaussian, pixels.
        noise: Standard deviation of Gaussian noise, grey values (0 to 255).
        rolling_shutter: Motion of the image while its rows are read out, as a fraction of its width, at most 0.2.
        occlusion: Share of the image that objects hide, at most 0.9.

    Raises:
        TrainingError: A value is negative, not finite or too large.
    """

    light: float = 0.25
    exposure: float = 0.4
    gamma: float = 0.3
    blur: float = 1.0
    noise: float = 8.0
    rolling_shutter: float = 0.005
    occlusion: float = 0.1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value >= 0):
                raise TrainingError(f"augmentation: {field.name}={value} must be at least 0")
        for name, most in (("rolling_shutter", _MAX_ROLLING_SHUTTER), ("occlusion", _MAX_OCCLUSION)):
            if getattr(self, name) > most:
                raise TrainingError(f"augmentation: {name}={getattr(self, name)} must be at most {most}")

    def __call__(self, image: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """Changes light and sensor of an image; no pixel moves.

        Args:
            image: BGR ``[H, W, 3]``, uint8.
            rng: Source of the changes.

        Returns:
            ``[H, W, 3]`` uint8.
        """
        light, blur, noise = rng.uniform(size=3) * (self.light, self.blur, self.noise)
        exposure, gamma = rng.uniform(-1, 1, size=2) * (self.exposure, self.gamma)
        if light > 0:
            image = _light(image, light, rng)
        image = Sensor(math.exp(exposure), math.exp(gamma), blur)(image, rng)
        return _noise(image, noise, rng) if noise > 0 else image

    def change_pair(self, pair: TrainingPair, rng: np.random.Generator) -> TrainingPair:
        """Changes both images of a pair, and with them the points.

        Args:
            pair: The pair.
            rng: Source of the changes.

        Returns:
            A pair without the points that the first image no longer shows. Points that the second image no longer
            shows are not visible.
        """
        images, places, shown = [], [], []
        for image, pixels in ((pair.image_a, pair.pixels_a), (pair.image_b, pair.pixels_b)):
            kept = np.ones(len(pixels), np.bool_)
            if self.rolling_shutter > 0:
                motion = rng.uniform(-1, 1, size=2) * self.rolling_shutter * image.shape[1]
                image, pixels = roll_shutter(image, motion), rolled_places(pixels, motion, image.shape[0])
            if self.occlusion > 0:
                image, hidden = occlude(image, rng.uniform() * self.occlusion, rng)
                kept &= ~_covered(hidden, pixels)
            images.append(self(image, rng))
            places.append(pixels)
            shown.append(kept & inside_image(pixels, image.shape[1], image.shape[0]))
        first, second = shown
        visible = pair.visible & second
        pixels_b = np.where(np.isfinite(places[1]), places[1], 0.0)
        return replace(
            pair,
            image_a=images[0],
            image_b=images[1],
            pixels_a=places[0][first],
            pixels_b=pixels_b[first],
            visible=visible[first],
        )


def roll_shutter(image: npt.NDArray[np.uint8], motion: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Simulates a rolling shutter whose image moves steadily while the rows are read out.

    The time of row v is t(v) = v / (H - 1) - 1/2: the middle row is read at the moment of the given image. Row v shows
    the image shifted by t(v) times the motion. What comes from beyond the image is mirrored at the border.

    Args:
        image: BGR ``[H, W, 3]``, uint8, as of a global shutter.
        motion: ``[2]`` motion (x, y) from the first row's time to the last row's, pixels, shorter than the image.

    Returns:
        ``[H, W, 3]`` uint8.
    """
    height, width = image.shape[:2]
    (mx, my), rows = motion, max(height - 1, 1)
    # from pixels of the result to those of the image
    back = np.array([[1.0, -mx / rows, mx / 2], [0.0, 1.0 - my / rows, my / 2]])
    rolled = cv2.warpAffine(
        image, back, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101
    )
    return np.asarray(rolled, dtype=np.uint8)


def rolled_places(
    pixels: npt.NDArray[np.float64], motion: npt.NDArray[np.float64], height: int
) -> npt.NDArray[np.float64]:
    """Computes where ``roll_shutter`` shows places of an image.

    Args:
        pixels: ``[N, 2]`` places (x, y) in the image of a global shutter.
        motion: ``[2]`` as for ``roll_shutter``.
        height: Of the image, pixels.

    Returns:
        ``[N, 2]``. The row solves v = y + t(v) my.
    """
    (mx, my), rows = motion, max(height - 1, 1)
    v = (pixels[:, 1] - my / 2) / (1 - my / rows)
    return np.stack([pixels[:, 0] + mx * (v / rows - 0.5), v], axis=-1)


def occlude(
    image: npt.NDArray[np.uint8], share: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Paints textured ellipses over an image, as of objects and persons that pass.

    Args:
        image: BGR ``[H, W, 3]``, uint8.
        share: Area of the ellipses, as a share of the image. They hide less where they overlap or end at the border.
        rng: Source of the ellipses.

    Returns:
        The image ``[H, W, 3]``, uint8, and ``[H, W]`` which pixels are painted over.
    """
    height, width = image.shape[:2]
    image, hidden = image.copy(), np.zeros((height, width), np.uint8)
    count = int(rng.integers(1, _MAX_OBJECTS + 1))
    for _ in range(count):
        aspect, angle = math.exp(rng.uniform(-0.9, 0.9)), rng.uniform(0, 180)
        radius = math.sqrt(share * height * width / (count * math.pi))
        axes = round(radius * math.sqrt(aspect)), round(radius / math.sqrt(aspect))
        centre = int(rng.integers(width)), int(rng.integers(height))
        colour, contrast = rng.uniform(20, 235, size=3), rng.uniform(0.05, 0.4)
        if min(axes) < 1:
            continue
        reach = max(axes)
        left, top = max(centre[0] - reach, 0), max(centre[1] - reach, 0)
        part = slice(top, centre[1] + reach + 1), slice(left, centre[0] + reach + 1)
        mask = np.zeros_like(hidden[part])
        cv2.ellipse(mask, (centre[0] - left, centre[1] - top), axes, angle, 0, 360, 1, cv2.FILLED)
        texture = (
            colour.astype(np.float32) * (1 + np.float32(contrast) * smooth_noise(mask.shape[:2], rng, 4, 32))[..., None]
        )
        np.copyto(image[part], np.clip(texture, 0, 255).astype(np.uint8), where=mask[..., None] > 0)
        hidden[part] |= mask
    return image, hidden > 0


def _light(image: npt.NDArray[np.uint8], spread: float, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Puts uneven light on an image; it is so smooth that an eighth of the resolution suffices."""
    height, width = image.shape[:2]
    small = max(8, height // 8), max(8, width // 8)
    field = np.exp(spread * smooth_noise(small, rng, 2, 4)).astype(np.float32)
    field = np.asarray(cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
    return np.asarray(cv2.multiply(image, cv2.merge([field] * 3), dtype=cv2.CV_8U), dtype=np.uint8)


def _noise(image: npt.NDArray[np.uint8], spread: float, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Adds Gaussian noise of one quarter of the image, four times: drawing it takes most of the time."""
    height, width = image.shape[:2]
    quarter = rng.standard_normal(((height + 1) // 2, (width + 1) // 2, 3), dtype=np.float32) * np.float32(spread)
    noise = np.tile(quarter, (2, 2, 1))[:height, :width]
    return np.asarray(cv2.add(image, np.ascontiguousarray(noise), dtype=cv2.CV_8U), dtype=np.uint8)


def _covered(hidden: npt.NDArray[np.bool_], pixels: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Whether the nearest pixel [N] of places is hidden."""
    height, width = hidden.shape
    x, y = (np.rint(pixels[:, k]).clip(0, size - 1).astype(np.int64) for k, size in ((0, width), (1, height)))
    covered: npt.NDArray[np.bool_] = hidden[y, x]
    return covered
