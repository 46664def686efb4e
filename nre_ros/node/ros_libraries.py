# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The ecosystem's own libraries where they import, and this package's functions where they do not.

A robot with ROS from apt has ``cv_bridge``, ``sensor_msgs_py`` and ``tf_transformations``; none of the three has a usable
wheel.  This module alone knows which are there.  Both ways give the same messages.

* ``tf_transformations`` converts rotations of messages.
* ``cv_bridge`` makes outgoing images, and decodes encodings that ``nre_ros.messages.images`` does not know.  The package's
  own decoder comes first, because it reads rows that are padded beyond the width and works with numpy 2.
* ``sensor_msgs_py`` packs point clouds.
"""

from __future__ import annotations

import array
import importlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header

from nre_ros.errors import ImageError, one_line
from nre_ros.geometry import pose_matrix, position_quaternion

NAMES = ("cv_bridge", "sensor_msgs_py.point_cloud2", "tf_transformations")
"""Modules that are used where they import."""

_JPEG_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 80]
_NUMPY_TYPES = {
    PointField.INT8: "i1",
    PointField.UINT8: "u1",
    PointField.INT16: "i2",
    PointField.UINT16: "u2",
    PointField.INT32: "i4",
    PointField.UINT32: "u4",
    PointField.FLOAT32: "f4",
    PointField.FLOAT64: "f8",
}


def _try_cv_bridge(module: Any) -> None:
    module.CvBridge().cv2_to_imgmsg(np.zeros((1, 1, 3), np.uint8), encoding="bgr8", header=Header())


def _try_point_cloud2(module: Any) -> None:
    field = PointField(name="x", offset=0, datatype=PointField.FLOAT32, count=1)
    module.create_cloud(Header(), [field], np.zeros(1, np.dtype([("x", np.float32)])))


def _try_tf_transformations(module: Any) -> None:
    module.quaternion_from_matrix(module.quaternion_matrix([0.0, 0.0, 0.0, 1.0]))


_TRIALS: dict[str, Callable[[Any], None]] = {
    "cv_bridge": _try_cv_bridge,
    "sensor_msgs_py.point_cloud2": _try_point_cloud2,
    "tf_transformations": _try_tf_transformations,
}


def _usable(name: str) -> ModuleType | None:
    """The module, or None where it is absent, is another package of the same name, or fails at a first call.

    apt's cv_bridge does not work beside numpy 2, and says so at the import or at the first call.
    """
    try:
        module = importlib.import_module(name)
        _TRIALS[name](module)
    except Exception:  # a compiled module that fits another numpy raises more than ImportError
        return None
    return module


class RosLibraries:
    """Conversions between arrays and messages, by the libraries that this machine has.

    Attributes:
        available: Names of the modules that are used.
    """

    def __init__(self) -> None:
        self._modules = {name: _usable(name) for name in NAMES}
        self.available = tuple(name for name, module in self._modules.items() if module is not None)
        cv_bridge = self._modules["cv_bridge"]
        self._bridge = None if cv_bridge is None else cv_bridge.CvBridge()

    @property
    def decodes(self) -> bool:
        """Whether ``decode`` has a library to decode with."""
        return self._bridge is not None

    def pose_matrix(self, position: Sequence[float], quaternion: Sequence[float]) -> npt.NDArray[np.float64]:
        """Returns the motion [4, 4] of a message's position (metres) and quaternion (x, y, z, w).

        Args:
            position: Three coordinates in metres.
            quaternion: Rotation as x, y, z, w; it need not have unit length.

        Raises:
            PoseError: A number is not finite, or the quaternion is zero.
        """
        T = pose_matrix(
            position, quaternion
        )  # also the check: tf_transformations turns a zero quaternion into no rotation
        transformations = self._modules["tf_transformations"]
        if transformations is not None:
            T[:3, :3] = transformations.quaternion_matrix(list(quaternion))[:3, :3]
        return T

    def position_quaternion(self, T: npt.NDArray[np.float64]) -> tuple[list[float], list[float]]:
        """Returns position (metres) and quaternion (x, y, z, w) of a motion [4, 4], with w not negative.

        Args:
            T: Motion [4, 4].
        """
        position, quaternion = position_quaternion(T)
        transformations = self._modules["tf_transformations"]
        if transformations is not None:
            quaternion = np.asarray(transformations.quaternion_from_matrix(T), dtype=np.float64)
            quaternion = -quaternion if quaternion[3] < 0 else quaternion
        return position.tolist(), quaternion.tolist()

    def image_message(self, picture: npt.NDArray[np.uint8], header: Header) -> Image:
        """Returns a sensor_msgs/Image of a BGR picture [H, W, 3].

        Args:
            picture: BGR pixels [H, W, 3].
            header: Stamp and frame of the message.
        """
        if self._bridge is not None:
            return self._bridge.cv2_to_imgmsg(picture, encoding="bgr8", header=header)
        height, width = picture.shape[:2]
        data = array.array("B", picture.tobytes())
        return Image(header=header, height=height, width=width, encoding="bgr8", step=3 * width, data=data)

    def compressed_image_message(self, picture: npt.NDArray[np.uint8], header: Header) -> CompressedImage:
        """Returns a sensor_msgs/CompressedImage of a BGR picture [H, W, 3], as JPEG of quality 80.

        cv_bridge offers no quality and takes OpenCV's 95, which doubles the bytes; it is not used here.

        Args:
            picture: BGR pixels [H, W, 3].
            header: Stamp and frame of the message.
        """
        data = cv2.imencode(".jpg", picture, _JPEG_QUALITY)[1].tobytes()
        return CompressedImage(header=header, format="bgr8; jpeg compressed bgr8", data=array.array("B", data))

    def decode(self, message: Image) -> npt.NDArray[np.uint8]:
        """Returns BGR pixels [H, W, 3] of an image whose encoding the package's own decoder does not know.

        Args:
            message: The image.

        Raises:
            ImageError: cv_bridge is not there, or it does not know the encoding either.
        """
        if self._bridge is None:
            raise ImageError(f"image encoding {message.encoding!r} is unknown, and cv_bridge is not installed")
        try:
            return np.ascontiguousarray(self._bridge.imgmsg_to_cv2(message, desired_encoding="bgr8"))
        except Exception as error:  # CvBridgeError, and whatever a compiled module raises on foreign bytes
            words = one_line(error)
            raise ImageError(f"image encoding {message.encoding!r} cannot be decoded by cv_bridge: {words}") from None

    def point_cloud(self, header: Header, columns: dict[str, npt.NDArray]) -> PointCloud2:
        """Returns a sensor_msgs/PointCloud2 with one field a column, packed without gaps.

        Args:
            header: Stamp and frame of the message.
            columns: Field name to values [N]; float32 or uint8 to float64, in the order of the fields.
        """
        datatypes = {np.dtype(text): number for number, text in _NUMPY_TYPES.items()}
        fields, offset = [], 0
        for name, values in columns.items():
            fields.append(PointField(name=name, offset=offset, datatype=datatypes[values.dtype], count=1))
            offset += values.dtype.itemsize
        points = np.empty(
            len(next(iter(columns.values()))),
            np.dtype(
                {
                    "names": list(columns),
                    "formats": [values.dtype for values in columns.values()],
                    "offsets": [field.offset for field in fields],
                    "itemsize": offset,
                }
            ),
        )
        for name, values in columns.items():
            points[name] = values
        module = self._modules["sensor_msgs_py.point_cloud2"]
        if module is not None:
            return module.create_cloud(header, fields, points)
        return PointCloud2(
            header=header,
            height=1,
            width=len(points),
            fields=fields,
            is_bigendian=False,
            point_step=offset,
            row_step=offset * len(points),
            is_dense=False,
            data=array.array("B", points.tobytes()),
        )


LIBRARIES = RosLibraries()
"""Those of this process."""
