# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The interface between images and everything that works on features.

A backbone turns one image into two dense maps (coarse and fine) and says, in its attributes, what the estimator
has to know about the maps. ``docs/new_backbone.md`` lists what a new backbone needs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from nre_ros.errors import ImageError
from nre_ros.geometry import Camera

ArrayOrTensor = TypeVar("ArrayOrTensor", "npt.NDArray[np.float64]", torch.Tensor)

MAX_IMSIZE = 1024
"""Images whose longer side has more pixels are reduced to it before the network."""


@dataclass(frozen=True)
class FeatureGrid:
    """Where the cells of a feature map lie in the image.

    Cell i is centred at pixel ``stride * i + offset``; pixel 0 is the centre of the first pixel.

    Attributes:
        stride: Pixels from cell to cell.
        offset: Pixel of cell 0, measured for each backbone (``docs/estimator.md``).
    """

    stride: float
    offset: float

    def to_cells(self, pixels: ArrayOrTensor) -> ArrayOrTensor:
        """Converts pixels to cells.

        Args:
            pixels: ``[..., 2]`` (x, y).

        Returns:
            ``[..., 2]``, in cells of the map.
        """
        return (pixels - self.offset) / self.stride

    def to_pixels(self, cells: ArrayOrTensor) -> ArrayOrTensor:
        """Converts cells to pixels.

        Args:
            cells: ``[..., 2]`` (x, y).

        Returns:
            ``[..., 2]``, in pixels of the image.
        """
        return cells * self.stride + self.offset


@dataclass(frozen=True)
class FeatureMap:
    """Dense features of one image.

    Attributes:
        data: ``[C, H, W]`` float32.
        grid: Where the cells lie in the image.
    """

    data: torch.Tensor
    grid: FeatureGrid

    def sample(self, pixels: torch.Tensor) -> torch.Tensor:
        """Samples the map by cubic convolution; outside the map the border is repeated.

        Bilinear samples are smoother than the cells around them, which moves the minima of a loss map towards the
        cells' centres (docs/estimator.md has the difference in accuracy).

        Args:
            pixels: ``[N, 2]`` (x, y).

        Returns:
            ``[N, C]``.
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


def network_focal_length(camera: Camera) -> float:
    """Computes the focal length in the image that the network gets, as the geometric mean of both axes.

    Images whose longer side exceeds ``MAX_IMSIZE`` are reduced before the network.

    Args:
        camera: The camera of the image before it is reduced.

    Returns:
        Pixels.
    """
    return math.sqrt(camera.fx * camera.fy) * min(1.0, MAX_IMSIZE / max(camera.width, camera.height))


def cubic_convolution(distance: torch.Tensor) -> torch.Tensor:
    """Weighs cells by their distance: Catmull-Rom, exact for linear functions.

    Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981, with a = -1/2 (torch's own bicubic takes
    -3/4, which bends straight lines).

    Args:
        distance: In cells, any shape and sign.

    Returns:
        Weights of the same shape; 0 from a distance of two cells on.
    """
    d = distance.abs()
    near = 1.5 * d**3 - 2.5 * d**2 + 1
    far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return torch.where(d < 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


@dataclass(frozen=True)
class ImageFeatures:
    """The features of one image.

    Attributes:
        coarse: Map for retrieval and the coarse stage, of unit length along the channels if the backbone's features
            are.
        fine: Map for the fine stage, of unit length likewise.
        detection: ``[H, W]`` float32 at the image's resolution, how well a pixel can be found again; None unless asked
            for. Map points are chosen on it.
    """

    coarse: FeatureMap
    fine: FeatureMap
    detection: torch.Tensor | None = None


def sample_descriptors(features: FeatureMap, pixels: torch.Tensor, unit_length: bool) -> torch.Tensor:
    """Samples descriptors.

    Args:
        features: The map.
        pixels: ``[N, 2]`` (x, y).
        unit_length: Whether to normalise; an interpolated descriptor is shorter than those of the cells around it.

    Returns:
        ``[N, C]``.
    """
    descriptors = features.sample(pixels)
    return F.normalize(descriptors, dim=1) if unit_length else descriptors


class FeatureBackbone(ABC):
    """A network that turns an image into dense features.

    ``extract`` may be called from several threads at once: the node's estimator and its keyframe thread share one
    backbone. It therefore must not change the backbone. An object of this class stays on its device; another device
    needs another object.

    Attributes:
        name: Name in ``BACKBONES`` and in the map file.
        weights_hash: Of the parameters and of how they are used; a map fits if name and hash are the same.
        coarse_channels: Length of a coarse descriptor.
        coarse_temperature: Of the softmax over the dot products of coarse features.
        fine_channels: Length of a fine descriptor.
        fine_temperature: Of the softmax over the dot products of fine features.
        fine_enlarge: Fine cells per cell of the fine map; correlations are enlarged by it. ``window_size`` of the
            estimator must be a multiple of twice this number.
        unit_length: Whether features and descriptors have unit length.
        former_features: ``weights_hash`` of features that this backbone had in earlier versions -> what they were, for
            messages about maps of those versions.
    """

    name: str
    weights_hash: str
    coarse_channels: int
    coarse_temperature: float
    fine_channels: int
    fine_temperature: float
    fine_enlarge: int = 1
    unit_length: bool = True
    former_features: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def extract(self, image: npt.NDArray[np.uint8], detect: bool = False, fine: bool = True) -> ImageFeatures:
        """Computes the features of an image.

        Args:
            image: BGR ``[H, W, 3]`` or grey ``[H, W]``, uint8.
            detect: Whether the detection map is wanted.
            fine: Whether the fine features are wanted. Without them ``fine`` may hold anything.

        Raises:
            ImageError: The image has another shape or type, or is too small.
        """


def check_image(image: object, min_side: int = 32) -> npt.NDArray[np.uint8]:
    """Checks that something is an image.

    Args:
        image: What should be uint8, ``[H, W, 3]`` or ``[H, W]``.
        min_side: Fewest pixels along a side.

    Returns:
        The image as it came.

    Raises:
        ImageError: It is none; the message says why.
    """
    if not isinstance(image, np.ndarray):
        raise ImageError(f"image is a {type(image).__name__}, not a numpy array")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ImageError(f"image has shape {image.shape}, expected [H, W] or [H, W, 3]")
    if image.dtype != np.uint8:
        raise ImageError(f"image has type {image.dtype}, expected uint8")
    if min(image.shape[:2]) < min_side:
        raise ImageError(f"image of {image.shape[1]}x{image.shape[0]} pixels is too small (at least {min_side})")
    return image
