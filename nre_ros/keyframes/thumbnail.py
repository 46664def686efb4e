# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Decoding of the keyframes' thumbnails, which a map file of unknown origin may contain in any form."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

_MAX_BYTES = 256 << 10
"""Thumbnails have some kilobytes. Much more may become gigabytes of pixels."""


def decode_thumbnail(data: bytes) -> npt.NDArray[np.uint8] | None:
    """Decodes a thumbnail.

    Args:
        data: Content of an image file, as a keyframe has it.

    Returns:
        BGR [H, W, 3]; None if there is no thumbnail, or if it is damaged or too large.
    """
    if not data or len(data) > _MAX_BYTES:
        return None
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # more pixels than OpenCV allows
        return None
    return None if picture is None else picture.astype(np.uint8, copy=False)
