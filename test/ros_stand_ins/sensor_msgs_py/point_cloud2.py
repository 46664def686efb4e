# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Stand-in for sensor_msgs_py.point_cloud2, written from its documented behaviour."""

import array
import sys

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField
from stand_in_calls import counted
from std_msgs.msg import Header

_TYPES = {PointField.FLOAT32: np.float32, PointField.UINT32: np.uint32}


@counted
def create_cloud(header, fields, points):
    """PointCloud2 of a structured array whose type is exactly the one that the fields describe."""
    assert isinstance(header, Header) and all(isinstance(field, PointField) for field in fields)
    described = np.dtype(
        {
            "names": [field.name for field in fields],
            "formats": [_TYPES[field.datatype] for field in fields],
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
