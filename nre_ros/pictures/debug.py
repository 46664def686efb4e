# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One query as the debug image shows it: the map points on it, and the keyframes that it was compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import cv2
import numpy as np

from nre_ros.localization.result import LocalizationResult
from nre_ros.pictures.query import draw_query

_MARGIN = 4
_GREY = (64, 64, 64)


def draw_debug(
    image: np.ndarray, result: LocalizationResult, thumbnail: Callable[[int], bytes], words: Iterable[str] = ()
) -> np.ndarray:
    """uint8 BGR [H', W', 3]: ``draw_query``'s picture, beside it a column of the retrieved keyframes, below it words.

    image: BGR or grey.  thumbnail: JPEG bytes of a keyframe's id, empty where there is none.
    """
    drawn = draw_query(image, result)
    lines = [_line(drawn.shape[1], text) for text in words]
    left = np.vstack([drawn, *lines])
    if not result.keyframes:
        return left
    return np.hstack([left, _column(left.shape[0], result.keyframes, thumbnail)])


def _column(height: int, ids: tuple[int, ...], thumbnail) -> np.ndarray:
    """The keyframes below each other, all of the same size, [height, W', 3]."""
    tall = height // max(len(ids), 3)
    wide = tall * 4 // 3
    column = np.full((height, wide, 3), 32, np.uint8)
    for i, keyframe_id in enumerate(ids):
        cell = column[i * tall : (i + 1) * tall]
        inner = cell[_MARGIN : tall - _MARGIN, _MARGIN : wide - _MARGIN]
        picture = _decoded(thumbnail(keyframe_id))
        if inner.size and picture is not None:
            scale = min(inner.shape[0] / picture.shape[0], inner.shape[1] / picture.shape[1])
            size = [max(1, int(scale * side)) for side in picture.shape[1::-1]]
            inner[: size[1], : size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        elif inner.size:
            inner[:] = _GREY
        cv2.putText(
            cell,
            str(keyframe_id),
            (2 * _MARGIN, tall - 2 * _MARGIN),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.4,
            (0, 220, 255),
            1,
            cv2.LINE_AA,
        )
    return column


def _decoded(jpeg: bytes) -> np.ndarray | None:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) if jpeg else None


def _line(width: int, text: str) -> np.ndarray:
    bar = np.full((22, width, 3), 32, np.uint8)
    (text_width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
    scale = min(0.45, 0.45 * (width - 12) / max(text_width, 1))
    cv2.putText(bar, text, (6, 15), cv2.FONT_HERSHEY_SIMPLEX, scale, (240, 240, 240), 1, cv2.LINE_AA)
    return bar
