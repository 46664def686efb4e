# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The global descriptor: one vector for a whole image, for retrieval.

It is computed from the image's own coarse features, without a second network and without training: second-order pooling
with the matrix square root (Li et al., "Is Second-order Information Helpful for Large-scale Visual Recognition?", ICCV
2017; signed square root as in Lin et al., "Bilinear CNN Models", ICCV 2015). ``docs/maps.md`` compares it with mean, GeM,
pyramid and VLAD pooling, and compares lengths.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from nre_ros.features.base import FeatureMap

GLOBAL_DESCRIPTOR = "covariance-sqrt-1"
"""Name of the descriptor in a map's metadata; descriptors of different names cannot be compared."""

_MAX_CHANNELS = 64
"""1280 channels (a published network) would make 820,000 numbers a keyframe."""


def global_descriptor(features: FeatureMap) -> npt.NDArray[np.float32]:
    """Computes the global descriptor of an image: the covariance of its features' channels.

    The mean is left out, since it depends more on the light than on the place. The square root of the matrix keeps one
    strong direction, for example of a large textureless wall, from dominating the others. Features of more than 64
    channels are projected to 64 first.

    Args:
        features: The image's coarse features with C channels.

    Returns:
        [C (C + 1) / 2], unit length.
    """
    # Not with numpy: the threads of its BLAS keep spinning after the call and take the cores from torch's
    # (measured on two cores: the correspondence maps then take 2.5 times as long).
    values, vectors = torch.linalg.eigh(torch.cov(_compact(features.data.flatten(1)).double()))
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    rows, columns = torch.triu_indices(*root.shape, device=root.device)
    pooled = root[rows, columns] * torch.where(rows == columns, 1.0, math.sqrt(2.0))
    pooled = pooled.sign() * pooled.abs().sqrt()
    descriptor: npt.NDArray[np.float32] = (pooled / pooled.norm().clamp_min(1e-12)).float().cpu().numpy()
    return descriptor


def _compact(features: torch.Tensor) -> torch.Tensor:
    """Projects features [C, N] to [min(C, 64), N]; this approximates their inner products."""
    channels = len(features)
    return features if channels <= _MAX_CHANNELS else _signs(channels).to(features) @ features


@lru_cache(maxsize=4)
@torch.inference_mode(False)  # the result is kept, and training needs it too
def _signs(channels: int) -> torch.Tensor:
    """Returns [64, C] random signs (Achlioptas, "Database-friendly random projections", JCSS 2003).

    They are the same for every map: NumPy guarantees the numbers of this old generator.
    """
    bits = np.random.RandomState(0).randint(2, size=(_MAX_CHANNELS, channels), dtype=np.int64)
    return torch.from_numpy(2.0 * bits - 1) / math.sqrt(_MAX_CHANNELS)
