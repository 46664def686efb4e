# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Draws an image with the map points where its pose projects them."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from nre_ros.localization.result import LocalizationResult

NO_LOSS, OUTLIER_LOSS = np.array([80, 200, 60]), np.array([60, 60, 230])
"""BGR of a point with no loss, and of a point with the loss of a chance match (ln|Omega|)."""


def draw_query(image: npt.NDArray[np.uint8], result: LocalizationResult) -> npt.NDArray[np.uint8]:
    """Draws the projected map points on an image, and a line of text below it.

    The text has position, confidence, number of points and time, or the reason why there is no pose.

    Args:
        image: BGR [H, W, 3] or grey [H, W], uint8.
        result: What localizing the image gave.

    Returns:
        BGR [H + 28, W, 3], uint8.
    """
    drawn = draw_points(image, result)
    return np.vstack([drawn, text_bar(drawn.shape[1], _caption(result), height=28, scale=0.5)])


def draw_points(image: npt.NDArray[np.uint8], result: LocalizationResult, radius: int = 0) -> npt.NDArray[np.uint8]:
    """Draws the projected map points on an image.

    The colour goes from green (no loss: the image agrees with the pose) to red (the image does not show the point
    there). Points beyond the image or without any agreement are left out.

    Args:
        image: BGR [H, W, 3] or grey [H, W], uint8.
        result: What localizing the image gave; without a pose nothing is drawn.
        radius: Radius of a point, pixels; 0 takes one that suits the image.

    Returns:
        BGR [H, W, 3], uint8, a copy.
    """
    canvas = image.copy() if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
    if result.losses is None or result.pixels is None or not result.success:
        return canvas
    radius = radius or max(2, round(max(image.shape[:2]) / 320))
    # the points of high loss first, so that they do not hide those of low loss
    for i in np.argsort(-result.losses):
        loss = float(np.clip(result.losses[i], 0, 1))
        if loss < 1:
            colour = ((1 - loss) * NO_LOSS + loss * OUTLIER_LOSS).tolist()
            centre = tuple(int(v) for v in np.round(result.pixels[i]))
            cv2.circle(canvas, centre, radius, colour, -1, cv2.LINE_AA)
    return canvas


def text_bar(width: int, text: str, height: int = 22, scale: float = 0.45) -> npt.NDArray[np.uint8]:
    """Draws one line of light text on a dark bar.

    Args:
        width: Width of the bar, pixels; a long text is made smaller to fit.
        text: The text.
        height: Height of the bar, pixels.
        scale: Scale of OpenCV's font for a text that fits.

    Returns:
        BGR [height, width, 3], uint8.
    """
    bar = np.full((height, width, 3), 32, np.uint8)
    (text_width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    fitting = min(scale, scale * (width - 12) / max(text_width, 1))
    baseline = 6, round(0.68 * height)
    cv2.putText(bar, text, baseline, cv2.FONT_HERSHEY_SIMPLEX, fitting, (240, 240, 240), 1, cv2.LINE_AA)
    return bar


def _caption(result: LocalizationResult) -> str:
    if result.T_map_cam is None:
        return f"no pose: {result.reason}"
    x, y, z = result.T_map_cam[:3, 3]
    return (
        f"({x:.2f}, {y:.2f}, {z:.2f}) m   confidence {result.confidence:.2f}   {result.points_used} of "
        f"{result.points_considered} points   {sum(result.milliseconds.values()):.0f} ms"
    )
