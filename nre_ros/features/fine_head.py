# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A small network that makes fine features from what XFeat's first pass computes anyway.

The published network computes maps at 1/2, 1/4 and 1/8 of the image's resolution on its way to the coarse map. The
head brings them all to 1/4, reduces them with a 1x1 convolution, passes them through two residual 3x3 convolutions,
and ends with a 1x1 convolution. The fine early maps know where an edge lies; the coarse ones know which edge it is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from nre_ros.features import FeatureMap
from nre_ros.features.head import Head
from nre_ros.features.xfeat import FirstPass

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

    Raises:
        WeightsError: A number of channels is out of its range.
    """

    kind = "fine head"

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
        x = F.relu(self.reduce(stacked))
        for convolution in self.residuals:
            x = F.relu(x + convolution(x))
        x = self.expand(x).float()  # of mixed precision
        return F.normalize(x - x.mean((2, 3), keepdim=True), dim=1)

    def feature_map(self, maps: FirstPass) -> FeatureMap:
        """Computes the fine features of one image.

        Args:
            maps: Of ``XFeatBackbone.first_pass``.

        Returns:
            ``[channels, rows, columns]`` features with cells of 4 pixels of the network's input.
        """
        return FeatureMap(self(stack_maps(maps))[0], maps.grid)
