# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A learned global descriptor of an image, for retrieval, pooled from XFeat's coarse map.

The pooling is that of ``nre_ros.keyframes.global_descriptor``: the matrix square root of the covariance of the features'
channels. Before it, each cell's features are corrected, and each cell gets a weight: a plain wall says less than a
poster. The correction is zero and the weights are equal at the start, so that an untrained head gives the descriptor
that is computed without training.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from nre_ros.errors import WeightsError
from nre_ros.features.base import FeatureMap
from nre_ros.features.head import Head

_CHANNELS = 64
_START_TEMPERATURE = 0.05
_SMALLEST = 1e-6
"""Keeps the gradients of square roots finite."""


class DescriptorHead(Head):
    """The head, on XFeat's coarse map.

    Args:
        channels: Of the pooled features; only XFeat's 64 are possible, to which the correction is added.
        width: Channels between the convolutions.
        seed: Decides the weights at the start.

    Attributes:
        log_temperature: Logarithm of the temperature of the softmax over similarities, used in training only.

    Raises:
        WeightsError: A number of channels is out of its range.
    """

    kind = "descriptor head"

    def __init__(self, channels: int = _CHANNELS, width: int = 64, seed: int = 0):
        super().__init__(channels, width, _START_TEMPERATURE)
        if channels != _CHANNELS:
            raise WeightsError(f"a descriptor head of {channels} channels: XFeat's coarse map has {_CHANNELS}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.reduce = torch.nn.Conv2d(_CHANNELS, width, 1)
        self.expand = torch.nn.Conv2d(width, _CHANNELS, 1)
        self.weigh = torch.nn.Conv2d(width, 1, 1)
        for parameter in (*self.expand.parameters(), *self.weigh.parameters()):
            torch.nn.init.zeros_(parameter)

    def forward(self, coarse: torch.Tensor) -> torch.Tensor:
        """Computes the descriptors of images of one size.

        Args:
            coarse: ``[B, 64, rows, columns]``, each cell of unit length.

        Returns:
            ``[B, 2080]``, each of unit length.
        """
        x = F.relu(self.reduce(coarse))
        cells = (coarse + self.expand(x)).flatten(2).double()
        weights = F.softmax(self.weigh(x).flatten(2), dim=2).double()
        centred = cells - (weights * cells).sum(2, keepdim=True)
        root: torch.Tensor = _SquareRoot.apply((weights * centred) @ centred.mT)
        rows, columns = torch.triu_indices(_CHANNELS, _CHANNELS, device=root.device)
        pooled = root[:, rows, columns] * torch.where(rows == columns, 1.0, math.sqrt(2.0))
        return F.normalize(pooled / (pooled.abs() + _SMALLEST).sqrt(), dim=1).to(coarse.dtype)

    @torch.inference_mode()
    def describe(self, features: FeatureMap) -> npt.NDArray[np.float32]:
        """Computes the descriptor of one image.

        Args:
            features: XFeat's coarse features of the image.

        Returns:
            ``[2080]``, unit length.
        """
        descriptor: npt.NDArray[np.float32] = self(features.data[None])[0].cpu().numpy()
        return descriptor


class _SquareRoot(torch.autograd.Function):
    """Square roots of positive semidefinite matrices [B, C, C].

    The derivative X of the root S in the direction G solves S X + X S = G. In the eigenvectors of S, X is G divided by
    the sums of the eigenvalues, which stays finite where two eigenvalues are equal, unlike the derivative of the
    eigenvectors.
    """

    @staticmethod
    def forward(ctx: Any, matrices: torch.Tensor) -> torch.Tensor:
        values, vectors = torch.linalg.eigh(matrices)
        roots = values.clamp_min(0).sqrt()
        ctx.save_for_backward(roots, vectors)
        return (vectors * roots[:, None, :]) @ vectors.mT

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        roots, vectors = ctx.saved_tensors
        gradient = (gradients[0] + gradients[0].mT) / 2
        sums = (roots[:, :, None] + roots[:, None, :]).clamp_min(_SMALLEST)
        return vectors @ ((vectors.mT @ gradient @ vectors) / sums) @ vectors.mT
