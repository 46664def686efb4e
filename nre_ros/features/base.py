"""The interface between images and everything that works on features.

A backbone turns one image into two dense maps (coarse and fine) and says, in its class
attributes, what the estimator has to know about them.  It joins by a file in this folder and
a line in the registry of ``features/__init__.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from nre_ros.errors import ImageError


@dataclass(frozen=True)
class FeatureGrid:
    """Where the cells of a feature map lie in the image: the only place that knows.

    Cell i is centred at pixel ``stride * i + offset`` (pixel 0 is the centre of the first
    pixel).  ``offset`` is measured for each backbone, see ``docs/estimator.md``.
    """

    stride: float
    offset: float

    def to_cells(self, pixels):
        """Pixels [..., 2] (x, y) to cells [..., 2]."""
        return (pixels - self.offset) / self.stride

    def to_pixels(self, cells):
        """Cells [..., 2] (x, y) to pixels [..., 2]."""
        return cells * self.stride + self.offset


@dataclass(frozen=True)
class FeatureMap:
    """Dense features of one image: ``data`` [C, H, W] float32, ``grid`` its place in the image."""

    data: torch.Tensor
    grid: FeatureGrid

    def sample(self, pixels: torch.Tensor) -> torch.Tensor:
        """Bilinear samples [N, C] at pixels [N, 2]; outside the map the border is repeated."""
        channels, height, width = self.data.shape
        cells = self.grid.to_cells(pixels.to(self.data))
        size = cells.new_tensor([width - 1, height - 1]).clamp_min(1)
        normalised = cells / size * 2 - 1
        sampled = F.grid_sample(
            self.data[None], normalised[None, None], mode="bilinear", padding_mode="border", align_corners=True
        )
        return sampled[0, :, 0].T


@dataclass(frozen=True)
class ImageFeatures:
    """What one pass over an image gives.

    coarse, fine: dense maps, of unit length along the channels if the backbone's are.
    detection: [H, W] float32 at the image's resolution, how well a pixel can be found again
    (only when asked for; used to choose map points).
    """

    coarse: FeatureMap
    fine: FeatureMap
    detection: torch.Tensor | None = None


class FeatureBackbone(ABC):
    """Image -> dense features.

    Class attributes:
        name: what the database remembers.
        coarse_channels, fine_channels: descriptor lengths.
        coarse_temperature, fine_temperature: of the softmax over the features' dot products.
        unit_length: whether the features have unit length, and descriptors are kept so.
        weights_hash: of the parameters; with ``name`` it decides whether a map fits.
    """

    name: str
    coarse_channels: int
    fine_channels: int
    coarse_temperature: float
    fine_temperature: float
    unit_length: bool = True
    weights_hash: str

    @abstractmethod
    def extract(self, image: np.ndarray, detect: bool = False, fine: bool = True) -> ImageFeatures:
        """Features of ``image``, uint8 BGR [H, W, 3] or grey [H, W].

        Raises ``ImageError`` for other shapes or types and for images too small to carry a map.
        """


def check_image(image: np.ndarray, min_side: int = 32) -> np.ndarray:
    """The image as it came, or ``ImageError`` that says what is wrong with it."""
    if not isinstance(image, np.ndarray):
        raise ImageError(f"image is a {type(image).__name__}, not a numpy array")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ImageError(f"image has shape {image.shape}, expected [H, W] or [H, W, 3]")
    if image.dtype != np.uint8:
        raise ImageError(f"image has type {image.dtype}, expected uint8")
    if min(image.shape[:2]) < min_side:
        raise ImageError(f"image of {image.shape[1]}x{image.shape[0]} pixels is too small (at least {min_side})")
    return image
