# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One image and what is known about the camera that took it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nre_ros.geometry import Camera

if TYPE_CHECKING:
    from sensor_msgs.msg import CompressedImage, Image

IDENTITY: npt.NDArray[np.float64] = np.eye(4)
"""Extrinsics [4, 4] of a camera that is the moving body itself."""
IDENTITY.flags.writeable = False


@dataclass(eq=False)
class Observation:
    """One image of the robot, from its arrival to the decision about its pose.

    The gate needs ``stamp``, ``T_base_cam`` and ``T_odom_cam`` alone.  The node creates the observation when the
    message arrives, and completes it step by step on the worker's thread; only one thread holds it at a time.

    Attributes:
        stamp: Time of the image, nanoseconds; 0: the message has no stamp.
        camera_name: Name of the camera (parameter ``cameras``), empty for the only one.
        camera_frame: Name of the camera's optical frame.
        message: The image as it arrived, None without ROS.
        message_fault: Why ``message`` could not be deserialized, empty if it could.
        image: Pixels, uint8 BGR [H, W, 3] or grey [H, W]; None before they are decoded.
        camera: Intrinsics; None before they are known.
        T_base_cam: Extrinsics [4, 4], the camera's pose on the robot's body.  Needed when several cameras feed one
            gate; with the identity the camera itself is the body that moves.
        T_odom_cam: Pose [4, 4] of the camera in the odometry frame at ``stamp``; None without odometry.
        odometry_fault: Why ``T_odom_cam`` is not known although the robot has odometry; empty otherwise.
        odometry_milliseconds: How long the odometry was looked up and waited for.
        arrival: Time of arrival, seconds of the monotonic clock.
        images_received: Number of images of this camera so far, this one included.
        epoch: How often the node had forgotten its pose when the image arrived.
        map_fault: Why the map cannot be read, empty if it can.
        device_fault: Why the device cannot compute any more, empty if it can.
    """

    stamp: int
    camera_name: str = ""
    camera_frame: str = ""
    message: Image | CompressedImage | None = field(default=None, repr=False)
    message_fault: str = ""
    image: npt.NDArray[np.uint8] | None = field(default=None, repr=False)
    camera: Camera | None = None
    T_base_cam: npt.NDArray[np.float64] = field(default_factory=lambda: IDENTITY)
    T_odom_cam: npt.NDArray[np.float64] | None = None
    odometry_fault: str = ""
    odometry_milliseconds: float = 0.0
    arrival: float = 0.0
    images_received: int = 0
    epoch: int = 0
    map_fault: str = ""
    device_fault: str = ""
