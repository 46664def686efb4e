# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A network that improves XFeat's coarse map for matching over whole images.

It sees the third block's map and the coarse map, both at 1/8 of the image's resolution, and adds a correction to the
coarse map. The dilated convolutions reach seven cells (56 pixels) to each side. The correction is zero at the start:
an untrained head gives XFeat's own coarse map, so that training begins where the published features are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from nre_ros.errors import WeightsError
from nre_ros.features.base import FeatureMap
from nre_ros.features.head import FirstPass, Head

_CHANNELS = 64
_START_TEMPERATURE = 0.03
"""Those of XFeat's own coarse map."""
_DILATIONS = (1, 2, 4)


class CoarseHead(Head):
    """The head, on the maps of ``coarse_maps``.

    Args:
        channels: Of the coarse features; only XFeat's 64 are possible, to which the correction is added.
        width: Channels between the convolutions.
        seed: Decides the weights at the start.

    Raises:
        WeightsError: A number of channels is out of its range.
    """

    kind = "coarse head"

    def __init__(self, channels: int = _CHANNELS, width: int = 64, seed: int = 0):
        super().__init__(channels, width, _START_TEMPERATURE)
        if channels != _CHANNELS:
            raise WeightsError(f"a coarse head of {channels} channels: XFeat's coarse map has {_CHANNELS}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.reduce = torch.nn.Conv2d(2 * _CHANNELS, width, 1)
            self.residuals = torch.nn.ModuleList(
                torch.nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation) for dilation in _DILATIONS
            )
        self.expand = torch.nn.Conv2d(width, _CHANNELS, 1)
        for parameter in self.expand.parameters():
            torch.nn.init.zeros_(parameter)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Computes the features of images of one size.

        Args:
            maps: ``[B, 128, rows, columns]``, the third block's map and the coarse map.

        Returns:
            ``[B, 64, rows, columns]``, each cell of unit length.
        """
        x = F.relu(self.reduce(maps))
        for convolution in self.residuals:
            x = F.relu(x + convolution(x))
        return F.normalize(maps[:, -_CHANNELS:] + self.expand(x).float(), dim=1)

    def feature_map(self, maps: FirstPass) -> FeatureMap:
        """Computes the coarse features of one image.

        Args:
            maps: Of ``XFeatBackbone.first_pass``.

        Returns:
            ``[64, rows, columns]`` features with cells of 8 pixels of the network's input.
        """
        return FeatureMap(self(coarse_maps(maps))[0], maps.coarse_grid)


def coarse_maps(maps: FirstPass) -> torch.Tensor:
    """Joins the maps of a first pass that have cells of 8 pixels.

    Args:
        maps: Of ``XFeatBackbone.first_pass``.

    Returns:
        ``[1, 128, rows, columns]``, without the cells of the padding: the third block's map and the coarse map.
    """
    rows, columns = maps.coarse_size
    return torch.cat([maps.middle, maps.coarse], dim=1)[:, :, :rows, :columns].contiguous()
