# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The camera of a sensor_msgs/CameraInfo message, of rclpy or read from a bag; no ROS in here."""

from __future__ import annotations

import numpy as np

from nre_ros.errors import CameraError
from nre_ros.geometry import EQUIDISTANT, PINHOLE, RADIAL_TANGENTIAL, Camera

_DISTORTION_MODELS = {
    "plumb_bob": RADIAL_TANGENTIAL,
    "rational_polynomial": RADIAL_TANGENTIAL,
    "equidistant": EQUIDISTANT,
    "fisheye": EQUIDISTANT,
}


def camera_of(info, rectified: bool = False) -> Camera:
    """The camera of the images that come with this CameraInfo.

    Region of interest and binning are applied (they describe the image, K the full sensor).
    rectified: the images are undistorted, so P counts instead of K and D.
    Raises ``CameraError``.
    """
    matrix = np.reshape(info.p, (3, 4))[:, :3] if rectified else np.reshape(info.k, (3, 3))
    name = "P" if rectified else "K"
    if not np.any(matrix):
        raise CameraError(f"camera_info of frame {info.header.frame_id!r} is not calibrated: {name} is all zeros")
    if rectified and (info.p[3] or info.p[7]):
        raise CameraError(
            f"camera_info of frame {info.header.frame_id!r} is of the second camera of a stereo pair (P has the offsets "
            f"{info.p[3]:g} and {info.p[7]:g}), whose rectified image is told in the first one's frame: take that one's"
        )
    if matrix[0, 1] != 0:
        raise CameraError(f"camera_info has a skew of {matrix[0, 1]}, which no camera model here knows")
    model, distortion = (PINHOLE, ()) if rectified else _distortion(info)
    roi = info.roi
    full = roi.width == 0 or roi.height == 0  # as the message's definition has it
    x, y, width, height = (
        (0, 0, info.width, info.height) if full else (roi.x_offset, roi.y_offset, roi.width, roi.height)
    )
    bx, by = max(info.binning_x, 1), max(info.binning_y, 1)
    # the centre of a binned pixel lies between the centres of those it sums up
    return Camera(
        width // bx,
        height // by,
        matrix[0, 0] / bx,
        matrix[1, 1] / by,
        (matrix[0, 2] - x + 0.5) / bx - 0.5,
        (matrix[1, 2] - y + 0.5) / by - 0.5,
        model,
        distortion,
    )


def _distortion(info) -> tuple[str, tuple[float, ...]]:
    coefficients, name = tuple(float(value) for value in info.d), info.distortion_model
    model = _DISTORTION_MODELS.get(name)
    if model == EQUIDISTANT:
        return model, coefficients
    if not any(coefficients):
        return PINHOLE, ()
    if model is None:
        raise CameraError(f"unknown distortion model {name!r}, known: {', '.join(_DISTORTION_MODELS)}")
    if len(coefficients) > 8 and not any(coefficients[8:]):  # OpenCV's thin prism and tilt, not used
        coefficients = coefficients[:8]
    return model, coefficients
