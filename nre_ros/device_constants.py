# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Numbers that stay on the device: a tensor made of Python numbers is a copy to a GPU, each time it is made."""

from __future__ import annotations

from functools import lru_cache

import torch


@lru_cache(maxsize=512)
@torch.inference_mode(False)  # the result is kept, and training needs it too
def device_constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Returns a tensor of numbers; the same tensor for the same arguments, so nothing may write to it.

    Args:
        values: The numbers.
        dtype: Of the tensor.
        device: Where the tensor lies.

    Returns:
        ``[len(values)]``.
    """
    return torch.tensor(values, dtype=dtype, device=device)
