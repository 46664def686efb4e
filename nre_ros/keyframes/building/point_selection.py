# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which pixels of a keyframe become map points: easy to find again, and spread over the image."""

from __future__ import annotations

import cv2
import numpy as np
import torch

_WINDOW = 5
"""Side of the neighbourhood (pixels) in which depth must be complete and without an edge."""
_MAX_STEP = 0.03
"""Largest range of the smoothed depth in the window, as a fraction of the depth."""
_CELLS_PER_POINT = 0.5
"""Grid cells an asked-for point: each cell gives its best candidate before any gives a second."""


def spread(pixels: np.ndarray, scores: np.ndarray, count: int, width: int, height: int) -> np.ndarray:
    """Indices of at most ``count`` of the pixels [N, 2]: the best by score [N], cell by cell.

    Rounds over a grid of square cells: the best of every cell, then the second of every cell,
    and so on; within a round the better scores come first.  Of candidates on one and the same
    pixel only the best is taken.
    """
    order = np.lexsort((np.arange(len(scores)), -scores))
    # pairs as one number sort ten times faster
    rounded = np.rint(pixels[order]).astype(np.int64) @ np.array([1, 1 << 32])
    order = order[np.sort(np.unique(rounded, return_index=True)[1])]
    side = max(1.0, np.sqrt(width * height / (_CELLS_PER_POINT * max(count, 1))))
    cell = np.floor(pixels[order] / side).astype(np.int64) @ np.array([1, 1 << 20])
    by_cell = np.argsort(cell, kind="stable")  # within a cell still by score
    first = np.r_[True, np.diff(cell[by_cell]) != 0]
    start = np.maximum.accumulate(np.where(first, np.arange(len(cell)), 0))
    rank = np.empty(len(cell), dtype=np.int64)
    rank[by_cell] = np.arange(len(cell)) - start
    return order[np.argsort(rank, kind="stable")[:count]]


def smooth_depth(depth: np.ndarray) -> np.ndarray:
    """Depth [H, W] float32 metres, median-filtered; 0 where it is missing nearby or has an edge.

    A point on a depth edge lands on the wrong surface when the pixel is off by one.
    """
    depth = np.nan_to_num(depth, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)
    kernel = np.ones((_WINDOW, _WINDOW), np.uint8)
    border = {"borderType": cv2.BORDER_REPLICATE}
    complete = cv2.erode((depth > 0).astype(np.uint8), kernel, **border) > 0
    median = cv2.medianBlur(depth, _WINDOW)
    span = cv2.dilate(median, kernel, **border) - cv2.erode(median, kernel, **border)
    return np.where(complete & (span <= _MAX_STEP * median), median, 0.0).astype(np.float32)


def candidate_pixels(detection: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [N, 2] int64 (x, y) at local maxima of the detection [H, W], and their scores [N] float32."""
    scores = detection.detach().cpu().numpy().astype(np.float32)
    maxima = scores >= cv2.dilate(scores, np.ones((5, 5), np.uint8))
    y, x = np.nonzero(maxima & (scores > 0))
    return np.stack([x, y], axis=1), scores[y, x]
