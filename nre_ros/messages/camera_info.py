# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Camera models from sensor_msgs/CameraInfo messages; no ROS here."""

from __future__ import annotations

import numpy as np

from nre_ros.errors import CameraError
from nre_ros.geometry import EQUIDISTANT, PINHOLE, RADIAL_TANGENTIAL, Camera, check_camera, fitting_coefficients
from nre_ros.messages.protocols import CameraInfoMessage

_DISTORTION_MODELS = {
    "plumb_bob": RADIAL_TANGENTIAL,
    "rational_polynomial": RADIAL_TANGENTIAL,
    "equidistant": EQUIDISTANT,
    "fisheye": EQUIDISTANT,
}


def camera_from_info(info: CameraInfoMessage, rectified: bool = False) -> Camera:
    """Makes the camera model of the images that come with a CameraInfo.

    The region of interest and the binning are applied: K describes the full sensor, the result describes the image.

    Args:
        info: Message ``sensor_msgs/CameraInfo``.
        rectified: Whether the images are undistorted. If so, P is used in place of K and D.

    Returns:
        The camera model, with its principal point in the image's pixels.

    Raises:
        CameraError: The camera is not calibrated, has a model that is not supported or impossible intrinsics, or the
            images are rectified ones of the second camera of a stereo pair.
    """
    matrix = np.reshape(info.p, (3, 4))[:, :3] if rectified else np.reshape(info.k, (3, 3))
    name = "P" if rectified else "K"
    if not np.any(matrix):
        raise CameraError(f"camera_info of frame {info.header.frame_id!r} is not calibrated: {name} is all zeros")
    if rectified and (info.p[3] or info.p[7]):
        raise CameraError(
            f"camera_info of frame {info.header.frame_id!r} is of the second camera of a stereo pair (P has the offsets "
            f"{info.p[3]:g} and {info.p[7]:g}). Its rectified images belong to the first camera's frame: "
            "use the first camera"
        )
    if matrix[1, 0] or matrix[2, 0] or matrix[2, 1] or abs(matrix[2, 2] - 1) > 1e-6:
        raise CameraError(
            f"camera_info of frame {info.header.frame_id!r}: {name} is not of the form [fx 0 cx, 0 fy cy, 0 0 1] in the order "
            f"of rows: {np.round(matrix, 3).tolist()}"
        )
    if matrix[0, 1] != 0:
        raise CameraError(f"camera_info has a skew of {matrix[0, 1]}, which no supported camera model has")
    model, distortion = (PINHOLE, ()) if rectified else _distortion(info)
    roi = info.roi
    full = roi.width == 0 or roi.height == 0  # by the message's definition
    x, y, width, height = (
        (0, 0, info.width, info.height) if full else (roi.x_offset, roi.y_offset, roi.width, roi.height)
    )
    bx, by = max(info.binning_x, 1), max(info.binning_y, 1)
    # the centre of a binned pixel lies between the centres of the pixels that it sums up
    camera = Camera(
        width // bx,
        height // by,
        matrix[0, 0] / bx,
        matrix[1, 1] / by,
        (matrix[0, 2] - x + 0.5) / bx - 0.5,
        (matrix[1, 2] - y + 0.5) / by - 0.5,
        model,
        distortion,
    )
    return check_camera(camera)


def _distortion(info: CameraInfoMessage) -> tuple[str, tuple[float, ...]]:
    """Returns the camera model and its distortion coefficients."""
    coefficients, name = tuple(float(value) for value in info.d), info.distortion_model
    model = _DISTORTION_MODELS.get(name)
    if model == EQUIDISTANT and coefficients:
        return model, fitting_coefficients(model, coefficients)
    if not any(coefficients):  # without any, an equidistant camera too, as image_geometry takes it
        return PINHOLE, ()
    if model is None:
        raise CameraError(f"unknown distortion model {name!r}, known: {', '.join(_DISTORTION_MODELS)}")
    return model, fitting_coefficients(model, coefficients)
