# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One vector for a whole image, to find keyframes by.

It comes from the query's own coarse features, without a second network and without trained
data: second-order pooling with the matrix square root (Li et al., "Is Second-order Information
Helpful for Large-scale Visual Recognition?", ICCV 2017; signed square root as in Lin et al.,
"Bilinear CNN Models", ICCV 2015).  ``docs/maps.md`` has the comparison with mean, GeM, pyramid
and VLAD pooling, and of lengths.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch

from nre_ros.features.base import FeatureMap

GLOBAL_DESCRIPTOR = "covariance-sqrt-1"
"""Name of the descriptor below; a map remembers it, and another one cannot be compared with it."""

_MAX_CHANNELS = 64
"""1280 channels (a published network) would make 820,000 numbers a keyframe."""


def global_descriptor(features: FeatureMap) -> np.ndarray:
    """[C (C + 1) / 2] float32 unit-length descriptor of a dense map: its channels' covariance.

    The mean is left out (it follows the light more than the place); the square root of the
    matrix keeps one strong direction, a large textureless wall say, from ruling the rest.
    Features of more than 64 channels are projected to 64 first.
    """
    # Not with numpy: its BLAS has threads of its own, which go on spinning after the call and take
    # the cores from torch's (measured on two cores: the correspondence maps then take 2.5 times as long).
    values, vectors = torch.linalg.eigh(torch.cov(_compact(features.data.flatten(1)).double()))
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    rows, columns = torch.triu_indices(*root.shape, device=root.device)
    pooled = root[rows, columns] * torch.where(rows == columns, 1.0, math.sqrt(2.0))
    pooled = pooled.sign() * pooled.abs().sqrt()
    return (pooled / pooled.norm().clamp_min(1e-12)).float().cpu().numpy()


def _compact(features: torch.Tensor) -> torch.Tensor:
    """Features [C, N] as [min(C, 64), N], which approximates their inner products."""
    channels = len(features)
    return features if channels <= _MAX_CHANNELS else _signs(channels).to(features) @ features


@lru_cache(maxsize=4)
def _signs(channels: int) -> torch.Tensor:
    """[64, C] random signs (Achlioptas, "Database-friendly random projections", JCSS 2003).

    The same for every map: NumPy keeps the numbers of this old generator as they are for good.
    """
    bits = np.random.RandomState(0).randint(2, size=(_MAX_CHANNELS, channels), dtype=np.int64)
    return torch.from_numpy(2.0 * bits - 1) / math.sqrt(_MAX_CHANNELS)
