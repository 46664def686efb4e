# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The interface of a baseline: keypoints of an image, and matches between the keypoints of two images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nre_ros.errors import NreError


class BaselineUnavailable(NreError):
    """A Python package that a baseline needs is not installed; the message names the package."""


@dataclass(frozen=True)
class Keypoints:
    """Keypoints of an image.

    Attributes:
        pixels: ``[N, 2]`` float64 pixels; the centre of the first pixel is (0, 0).
        descriptors: ``[N, C]`` descriptors as the baseline wants them (array or tensor), None without keypoints.
        size: Width and height of the image.
    """

    pixels: npt.NDArray[np.float64]
    descriptors: Any
    size: tuple[int, int]


class Baseline(ABC):
    """A method that matches images by keypoints. The constructor takes the device, ``cpu`` or ``cuda``.

    Attributes:
        label: Name of the method in tables and reports.
    """

    label: str

    @abstractmethod
    def __init__(self, device: str) -> None:
        """Loads the method.

        Args:
            device: ``cpu`` or ``cuda``.

        Raises:
            BaselineUnavailable: A Python package is not installed.
        """

    @abstractmethod
    def describe(self, image: npt.NDArray[np.uint8]) -> Keypoints:
        """Detects and describes the keypoints of an image.

        Args:
            image: uint8 BGR ``[H, W, 3]``.

        Returns:
            The keypoints; the same image gives the same keypoints.
        """

    @abstractmethod
    def match(self, a: Keypoints, b: Keypoints) -> npt.NDArray[np.int_]:
        """Matches the keypoints of two images.

        Args:
            a: Keypoints of the first image.
            b: Keypoints of the second image.

        Returns:
            ``[M, 2]`` indices into the keypoints of a and b.
        """


def image_tensor(image: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Converts an image to the input of a network.

    Args:
        image: uint8 BGR ``[H, W, 3]``.

    Returns:
        float32 RGB tensor ``[1, 3, H, W]`` in 0 to 1.
    """
    return torch.from_numpy(np.ascontiguousarray(image[..., ::-1])).permute(2, 0, 1)[None] / 255
