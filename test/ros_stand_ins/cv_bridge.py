# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Stand-in for cv_bridge, written from its documented behaviour (ROS 2 Humble to Kilted)."""

import array

import cv2
import numpy as np
from sensor_msgs.msg import Image
from stand_in_calls import counted


class CvBridgeError(TypeError):
    """What the functions raise."""


class CvBridge:
    """Converts images."""

    @counted
    def cv2_to_imgmsg(self, cvim, encoding="passthrough", header=None):
        """sensor_msgs/Image of a numpy array; its rows are packed."""
        if not isinstance(cvim, (np.ndarray, np.generic)):
            raise TypeError("Your input type is not a numpy array")
        message = Image(height=cvim.shape[0], width=cvim.shape[1], encoding=encoding)
        if header is not None:
            message.header = header
        message.data = array.array("B", cvim.tobytes())
        message.step = len(message.data) // message.height
        return message

    @counted
    def imgmsg_to_cv2(self, img_msg, desired_encoding="passthrough"):
        """Array of a message; here of the one encoding that the package does not know itself."""
        if img_msg.encoding != "yuv444" or desired_encoding != "bgr8":
            raise CvBridgeError(f"Unrecognized image encoding [{img_msg.encoding}]")
        shape = (img_msg.height, img_msg.width, 3)
        return cv2.cvtColor(np.frombuffer(img_msg.data, np.uint8).reshape(shape), cv2.COLOR_YUV2BGR)
