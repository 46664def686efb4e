# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A small network that makes fine features from what XFeat's first pass computes anyway.

The published network computes maps at 1/2, 1/4 and 1/8 of the image's resolution on its way to the coarse map. The
head brings them all to 1/4, reduces them with a 1x1 convolution, passes them through two residual 3x3 convolutions,
and ends with a 1x1 convolution. The fine early maps know where an edge lies; the coarse ones know which edge it is.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

from nre_ros.features.base import FeatureMap
from nre_ros.features.head import FirstPass, Head

PACKAGED_HEAD = Path(__file__).with_name("fine_head.safetensors")
"""The head that ships with the package."""
STACKED_CHANNELS = 4 * 8 + 24 + 24 + 64 + 64
"""Channels of ``stack_maps``."""


def stack_maps(maps: FirstPass) -> torch.Tensor:
    """Brings the maps of a first pass to cells of 4 pixels.

    Args:
        maps: Of ``XFeatBackbone.first_pass``.

    Returns:
        ``[1, STACKED_CHANNELS, rows, columns]``, without the cells of the padding: the half-resolution map with the
        four cells of a block as channels, the first two blocks, and the third block and the coarse map enlarged twice.
    """
    rows, columns = maps.size
    side = maps.early.shape[2:]
    enlarged = (F.interpolate(x, size=side, mode="bilinear") for x in (maps.middle, maps.coarse))
    stacked = torch.cat([F.pixel_unshuffle(maps.half, 2), maps.joined, maps.early, *enlarged], dim=1)
    return stacked[:, :, :rows, :columns].contiguous()


class FineHead(Head):
    """The head, on the maps of ``stack_maps``.

    Args:
        channels: Of the fine features.
        width: Channels between the convolutions.
        seed: Decides the weights at the start.

    Attributes:
        enlarge: Fine cells per cell of the features: the correlations are enlarged by it, in training and in use.

    Raises:
        WeightsError: A number of channels is out of its range.
    """

    kind = "fine head"
    enlarge = 2

    def __init__(self, channels: int = 32, width: int = 32, seed: int = 0):
        super().__init__(channels, width)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.reduce = torch.nn.Conv2d(STACKED_CHANNELS, width, 1)
            self.residuals = torch.nn.ModuleList(torch.nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
            self.expand = torch.nn.Conv2d(width, channels, 1)

    def forward(self, stacked: torch.Tensor) -> torch.Tensor:
        """Computes the features of images of one size.

        Args:
            stacked: ``[B, STACKED_CHANNELS, rows, columns]``.

        Returns:
            ``[B, channels, rows, columns]``. The mean over the image, which follows the light, is subtracted, and then
            each cell's features have unit length.
        """
        return self._finish(self.reduce(stacked))

    def feature_map(self, maps: FirstPass) -> FeatureMap:
        """Computes the fine features of one image: those of ``forward`` with the stacked maps.

        The first convolution is 1x1 and linear, as is enlarging. The coarse maps are therefore reduced before they are
        enlarged, and the maps are never stacked: a third of the time.

        Args:
            maps: Of ``XFeatBackbone.first_pass``.

        Returns:
            ``[channels, rows, columns]`` features with cells of 4 pixels of the network's input. The channels are
            innermost in memory.
        """
        rows, columns = maps.size
        weight, (deep, shallow) = self.reduce.weight, (len(maps.middle[0]), len(maps.early[0]))
        of_half, of_early, of_coarse = weight.split([4 * len(maps.half[0]), 2 * shallow, 2 * deep], dim=1)
        coarse = F.conv2d(torch.cat([maps.middle, maps.coarse], dim=1), of_coarse)
        x = F.interpolate(coarse, size=maps.early.shape[2:], mode="bilinear")
        x = x + F.conv2d(torch.cat([maps.joined, maps.early], dim=1), of_early, self.reduce.bias)
        # pixel_unshuffle puts the four cells of a block of each channel side by side: a convolution with stride 2
        x = x + F.conv2d(maps.half, of_half.reshape(self.width, -1, 2, 2), stride=2)
        return FeatureMap(self._finish(x[:, :, :rows, :columns])[0], maps.grid)

    def _finish(self, x: torch.Tensor) -> torch.Tensor:
        """What follows the first convolution."""
        x = F.relu(x)
        for convolution in self.residuals:
            x = F.relu(x + convolution(x))
        x = self.expand(x).float()  # of mixed precision
        return F.normalize(x - x.mean((2, 3), keepdim=True), dim=1)
