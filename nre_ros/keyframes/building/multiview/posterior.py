# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The most likely depth among evenly spaced hypotheses, and its precision."""

from __future__ import annotations

import torch


def posterior_peak(posterior: torch.Tensor, relative: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Fits a parabola to the maximum and its two neighbours.

    Args:
        posterior: [N, D] log-probabilities of the hypotheses, up to a constant; D >= 3.
        relative: [D] the hypotheses, evenly spaced.

    Returns:
        Place [N] and standard deviation [N] of the maximum.
    """
    step = float(relative[1] - relative[0])
    top = posterior.argmax(dim=1).clamp(1, len(relative) - 2)
    before, peak, after = (posterior.gather(1, (top + k)[:, None])[:, 0] for k in (-1, 0, 1))
    curvature = (2 * peak - before - after).clamp_min(1e-9)
    offset = (0.5 * (after - before) / curvature).clamp(-1, 1)
    return relative[top] + offset * step, step / curvature.sqrt()
