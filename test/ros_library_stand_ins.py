# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for cv_bridge, sensor_msgs_py and tf_transformations, written from their documented behaviour.

They keep the documented signatures, defaults, return types and errors of the releases in ROS 2 Humble to Kilted, and count
how often they are called.
"""

import array
import sys
from types import ModuleType

import cv2
import numpy as np
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import Header


def install(monkeypatch) -> dict[str, int]:
    """Makes the three modules importable until the test ends; returns how often each function has been called."""
    calls: dict[str, int] = {}

    def counted(function):
        def call(*args, **kwargs):
            calls[function.__name__] = calls.get(function.__name__, 0) + 1
            return function(*args, **kwargs)

        return call

    cv_bridge = ModuleType("cv_bridge")
    cv_bridge.CvBridgeError = type("CvBridgeError", (TypeError,), {})

    class CvBridge:
        @counted
        def cv2_to_imgmsg(self, cvim, encoding="passthrough", header=None):
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
            if img_msg.encoding != "yuv444" or desired_encoding != "bgr8":  # one that the package does not know
                raise cv_bridge.CvBridgeError(f"Unrecognized image encoding [{img_msg.encoding}]")
            shape = (img_msg.height, img_msg.width, 3)
            return cv2.cvtColor(np.frombuffer(img_msg.data, np.uint8).reshape(shape), cv2.COLOR_YUV2BGR)

    cv_bridge.CvBridge = CvBridge

    tf_transformations = ModuleType("tf_transformations")

    @counted
    def quaternion_matrix(quaternion):
        """[4, 4] of x, y, z, w, which need not have unit length; a zero quaternion gives the identity."""
        M = np.eye(4)
        if np.linalg.norm(quaternion) > np.finfo(float).eps:
            M[:3, :3] = Rotation.from_quat(quaternion).as_matrix()
        return M

    @counted
    def quaternion_from_matrix(matrix):
        """x, y, z, w of the rotation of [4, 4]."""
        return Rotation.from_matrix(np.asarray(matrix)[:3, :3]).as_quat()

    tf_transformations.quaternion_matrix = quaternion_matrix
    tf_transformations.quaternion_from_matrix = quaternion_from_matrix

    package, point_cloud2 = ModuleType("sensor_msgs_py"), ModuleType("sensor_msgs_py.point_cloud2")

    @counted
    def create_cloud(header, fields, points):
        """From a structured array whose type is exactly the one that the fields describe."""
        assert isinstance(header, Header) and all(isinstance(field, PointField) for field in fields)
        kinds = {PointField.FLOAT32: np.float32, PointField.UINT32: np.uint32}
        described = np.dtype(
            {
                "names": [field.name for field in fields],
                "formats": [kinds[field.datatype] for field in fields],
                "offsets": [field.offset for field in fields],
                "itemsize": points.dtype.itemsize,
            }
        )
        assert points.dtype == described, "PointFields and structured NumPy array dtype do not match"
        return PointCloud2(
            header=header,
            height=1,
            width=points.shape[0],
            is_dense=False,
            is_bigendian=sys.byteorder != "little",
            fields=fields,
            point_step=points.dtype.itemsize,
            row_step=points.dtype.itemsize * points.shape[0],
            data=array.array("B", points.tobytes()),
        )

    point_cloud2.create_cloud = create_cloud
    package.point_cloud2 = point_cloud2
    for module in (cv_bridge, tf_transformations, package, point_cloud2):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls
