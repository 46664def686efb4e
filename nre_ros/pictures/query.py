# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A query with the map points where its pose puts them."""

from __future__ import annotations

import cv2
import numpy as np

from nre_ros.localization.result import LocalizationResult

_GOOD, _BAD = np.array([80, 200, 60]), np.array([60, 60, 230])
"""BGR of a point with no loss and of one at the loss of chance."""


def draw_query(image: np.ndarray, result: LocalizationResult) -> np.ndarray:
    """The image with the projected map points on it, uint8 BGR [H, W, 3].

    Points go from green (the image agrees with the pose) to red (it knows nothing of the
    point); a bar below says confidence, support and time, or why there is no pose.
    """
    canvas = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image.copy()
    radius = max(2, round(max(image.shape[:2]) / 320))
    if result.success:
        # worst first, so that the points that carry the pose are not hidden
        for i in np.argsort(-result.losses):
            loss = float(np.clip(result.losses[i], 0, 1))
            if loss < 1:
                colour = ((1 - loss) * _GOOD + loss * _BAD).tolist()
                centre = tuple(int(v) for v in np.round(result.pixels[i]))
                cv2.circle(canvas, centre, radius, colour, -1, cv2.LINE_AA)
    return np.vstack([canvas, _caption(canvas.shape[1], result)])


def _caption(width: int, result: LocalizationResult) -> np.ndarray:
    if result.success:
        x, y, z = result.T_map_cam[:3, 3]
        text = (
            f"({x:.2f}, {y:.2f}, {z:.2f}) m   confidence {result.confidence:.2f}   {result.points_used} of "
            f"{result.points_considered} points   {sum(result.milliseconds.values()):.0f} ms"
        )
    else:
        text = f"no pose: {result.reason}"
    bar = np.full((28, width, 3), 32, np.uint8)
    (text_width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
    scale = min(0.5, 0.5 * (width - 12) / max(text_width, 1))
    cv2.putText(bar, text, (6, 19), cv2.FONT_HERSHEY_SIMPLEX, scale, (240, 240, 240), 1, cv2.LINE_AA)
    return bar
