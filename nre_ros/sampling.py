# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Choice of a few evenly spaced elements among many."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def evenly_spaced_indices(count: int, most: int) -> npt.NDArray[np.int64]:
    """Chooses evenly spaced elements of a sequence, including the first and the last.

    Args:
        count: Length of the sequence.
        most: Largest number of elements to choose.

    Returns:
        Increasing indices [min(count, most)].
    """
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)
