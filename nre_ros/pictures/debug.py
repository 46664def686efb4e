# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The node's debug image: an image with its map points, and the keyframes that were retrieved for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from nre_ros.keyframes.thumbnail import decode_thumbnail
from nre_ros.localization.result import LocalizationResult
from nre_ros.pictures.query import draw_query, text_bar

_MARGIN = 4
_GREY = (64, 64, 64)


def draw_debug(
    image: npt.NDArray[np.uint8],
    result: LocalizationResult,
    thumbnail: Callable[[int], bytes],
    lines: Iterable[str] = (),
) -> npt.NDArray[np.uint8]:
    """Draws the debug image of one localized image.

    Args:
        image: BGR [H, W, 3] or grey [H, W], uint8.
        result: What localizing the image gave.
        thumbnail: Id of a keyframe -> its thumbnail (JPEG), empty if it has none.
        lines: Lines of text below the image.

    Returns:
        BGR [H', W', 3], uint8, with ``draw_query``'s picture and the text, and a column of the retrieved keyframes.
    """
    drawn = draw_query(image, result)
    left = np.vstack([drawn, *(text_bar(drawn.shape[1], text) for text in lines)])
    if not result.keyframes:
        return left
    return np.hstack([left, _column(left.shape[0], result.keyframes, thumbnail)])


def _column(height: int, ids: Sequence[int], thumbnail: Callable[[int], bytes]) -> npt.NDArray[np.uint8]:
    """Draws the keyframes below each other, all of the same size, as uint8 [height, W', 3]."""
    cell_height = height // max(len(ids), 3)
    cell_width = cell_height * 4 // 3
    column = np.full((height, cell_width, 3), 32, np.uint8)
    for i, keyframe_id in enumerate(ids):
        cell = column[i * cell_height : (i + 1) * cell_height]
        inner = cell[_MARGIN : cell_height - _MARGIN, _MARGIN : cell_width - _MARGIN]
        picture = decode_thumbnail(thumbnail(keyframe_id))
        if inner.size and picture is not None:
            scale = min(inner.shape[0] / picture.shape[0], inner.shape[1] / picture.shape[1])
            size = [max(1, int(scale * side)) for side in picture.shape[1::-1]]
            inner[: size[1], : size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        elif inner.size:
            inner[:] = _GREY
        place = 2 * _MARGIN, cell_height - 2 * _MARGIN
        cv2.putText(cell, str(keyframe_id), place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 220, 255), 1, cv2.LINE_AA)
    return column
