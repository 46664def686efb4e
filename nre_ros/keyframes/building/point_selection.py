# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Selection of the pixels that become map points: easy to find again, and distributed over the image."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch

_DEPTH_WINDOW = 5
"""Side of the neighbourhood (pixels) in which depth must be complete and without an edge."""
_MAX_STEP = 0.03
"""Largest range of the smoothed depth in the window, as a fraction of the depth."""
_CELLS_PER_POINT = 0.5
"""Grid cells for each wanted point: every cell gives its best candidate before any cell gives a second."""


def select_distributed(
    pixels: npt.NDArray[np.floating] | npt.NDArray[np.int64],
    scores: npt.NDArray[np.floating],
    count: int,
    width: int,
    height: int,
) -> npt.NDArray[np.intp]:
    """Selects the best candidates, distributed over the image.

    The image is divided into square cells. The first round takes the best candidate of every cell, the second round
    the second best, and so on. Within a round the better scores come first. Of several candidates on one pixel only the
    best is taken.

    Args:
        pixels: [N, 2] the candidates.
        scores: [N] the higher, the better.
        count: Largest number of candidates to select.
        width: Width of the image in pixels.
        height: Height of the image in pixels.

    Returns:
        Indices of the selected candidates, at most ``count``.
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
    selected: npt.NDArray[np.intp] = order[np.argsort(rank, kind="stable")[:count]]
    return selected


def smooth_depth(depth: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Smooths a depth image and removes depth that is not reliable.

    A point on a depth edge lands on the wrong surface when the pixel is off by one.

    Args:
        depth: [H, W] metres; 0 or not finite where there is none.

    Returns:
        [H, W] metres, median-filtered; 0 where depth is missing nearby or has an edge.
    """
    depth = np.nan_to_num(depth, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)
    kernel = np.ones((_DEPTH_WINDOW, _DEPTH_WINDOW), np.uint8)
    complete = cv2.erode((depth > 0).astype(np.uint8), kernel, borderType=cv2.BORDER_REPLICATE) > 0
    median = cv2.medianBlur(depth, _DEPTH_WINDOW)
    highest = cv2.dilate(median, kernel, borderType=cv2.BORDER_REPLICATE)
    lowest = cv2.erode(median, kernel, borderType=cv2.BORDER_REPLICATE)
    return np.where(complete & (highest - lowest <= _MAX_STEP * median), median, 0.0).astype(np.float32)


def candidate_pixels(detection: torch.Tensor) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Finds the local maxima of a detection map.

    Args:
        detection: [H, W] probability or score of a keypoint at each pixel.

    Returns:
        Pixels [N, 2] (x, y) and their scores [N].
    """
    scores = detection.detach().cpu().numpy().astype(np.float32)
    maxima = scores >= cv2.dilate(scores, np.ones((5, 5), np.uint8))
    y, x = np.nonzero(maxima & (scores > 0))
    return np.stack([x, y], axis=1), scores[y, x]
