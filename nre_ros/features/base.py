# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The interface between images and everything that works on features.

A backbone turns one image into two dense maps (coarse and fine) and says, in its class
attributes, what the estimator has to know about them.  It joins by a file in this folder and
a line in the registry of ``features/__init__.py``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from nre_ros.errors import ImageError
from nre_ros.geometry import Camera

MAX_IMSIZE = 1024
"""Images whose longer side has more pixels are reduced to it before the network."""


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
        """Samples [N, C] at pixels [N, 2] by cubic convolution; outside the map the border is repeated.

        Bilinear samples are smoother than the cells around them, which moves the peaks of a map
        towards the cells' centres (docs/estimator.md has the difference in accuracy).
        """
        _, height, width = self.data.shape
        cells = self.grid.to_cells(pixels.to(self.data.device, torch.float64))
        first = cells.floor() - 1
        neighbours = first[..., None] + torch.arange(4, device=cells.device)  # [N, 2, 4]
        weights = cubic_convolution(cells[..., None] - neighbours).to(self.data)
        x = neighbours[:, 0].clamp(0, width - 1).long()
        y = neighbours[:, 1].clamp(0, height - 1).long()
        near = (y[:, :, None] * width + x[:, None, :]).flatten(1)  # [N, 16]
        weights = (weights[:, 1, :, None] * weights[:, 0, None, :]).flatten(1)
        rows = self.data.flatten(1).T.contiguous()  # [H W, C]: a sample reads 16 rows, not 16 C numbers apart
        return F.embedding_bag(near, rows, per_sample_weights=weights, mode="sum")


def focal_length_seen(camera: Camera) -> float:
    """Pixels, mean of both axes, in the image as the network gets it: not more than ``MAX_IMSIZE`` on its longer side."""
    return math.sqrt(camera.fx * camera.fy) * min(1.0, MAX_IMSIZE / max(camera.width, camera.height))


def cubic_convolution(distance: torch.Tensor) -> torch.Tensor:
    """Weight of a cell at ``distance`` cells (any sign): Catmull-Rom, exact for linear functions.

    Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981, with a = -1/2
    (torch's own bicubic takes -3/4, which bends straight lines).
    """
    d = distance.abs()
    near = 1.5 * d**3 - 2.5 * d**2 + 1
    far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return torch.where(d < 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


@dataclass(frozen=True)
class ImageFeatures:
    """What one pass over an image gives.

    coarse, fine: dense maps, of unit length along the channels if the backbone's are.
    detection: [H, W] float32 at the image's resolution, how well a pixel can be found again
    (only when asked for; used to choose map points).
    closer_look: of backbones that have one, gives a second fine map, which costs another pass over
    the image when it is first asked for.
    """

    coarse: FeatureMap
    fine: FeatureMap
    detection: torch.Tensor | None = None
    closer_look: Callable[[], FeatureMap] | None = None

    def sample_fine(self, pixels: torch.Tensor, unit_length: bool) -> torch.Tensor:
        """Fine descriptors [N, fine_channels + closer_channels] at pixels [N, 2], of both fine maps."""
        maps = [self.fine] + ([] if self.closer_look is None else [self.closer_look()])
        return torch.cat([sample_descriptors(features, pixels, unit_length) for features in maps], dim=1)


def sample_descriptors(features: FeatureMap, pixels: torch.Tensor, unit_length: bool) -> torch.Tensor:
    """Descriptors [N, C] at pixels [N, 2], of unit length if asked for: an interpolated one is shorter than its cells'."""
    descriptors = features.sample(pixels)
    return F.normalize(descriptors, dim=1) if unit_length else descriptors


class FeatureBackbone(ABC):
    """Image -> dense features.

    Class attributes:
        name: what the database remembers.
        coarse_channels, fine_channels: descriptor lengths.
        coarse_temperature, fine_temperature: of the softmax over the features' dot products.
        closer_channels, closer_temperature: the same of the fine map of a closer look, if there is one, which has
            as many cells.
        fine_enlarge: fine cells per cell of the fine map, by which correlations are enlarged.
        unit_length: whether the features have unit length, and descriptors are kept so.
        weights_hash: of the parameters; with ``name`` it decides whether a map fits.
    """

    name: str
    coarse_channels: int
    fine_channels: int
    coarse_temperature: float
    fine_temperature: float
    fine_enlarge: int = 1
    closer_channels: int = 0
    closer_temperature: float = 1.0
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
