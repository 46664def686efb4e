# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Bags for tests of the importer, written with the rosbags library from given images, depths and poses."""

import struct

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from nre_ros.gallery.bag import camera_info_message, pose_message, tf_message

STORE = get_typestore(Stores.ROS2_JAZZY)
TYPES = {
    "image": "sensor_msgs/msg/Image",
    "compressed": "sensor_msgs/msg/CompressedImage",
    "info": "sensor_msgs/msg/CameraInfo",
    "tf": "tf2_msgs/msg/TFMessage",
    "pose": "geometry_msgs/msg/PoseStamped",
    "odometry": "nav_msgs/msg/Odometry",
}
START = 1_700_000_000 * 10**9
OPTICAL = "camera_optical"


def header(stamp, frame):
    time = STORE.types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
    return STORE.types["std_msgs/msg/Header"](stamp=time, frame_id=frame)


def depth_message(stamp, frame, depth, encoding="16UC1"):
    """Depth [H, W] in metres as Image (16UC1, 32FC1) or CompressedImage (``compressedDepth`` of either)."""
    kind, _, compressed = encoding.partition("; ")
    values = np.round(depth * 1000).astype(np.uint16) if kind == "16UC1" else depth.astype(np.float32)
    height, width = depth.shape
    if not compressed:
        data = values.reshape(-1).view(np.uint8)
        return STORE.types[TYPES["image"]](header(stamp, frame), height, width, kind, 0, data.size // height, data)
    a, b = 0.0, 0.0
    if kind == "32FC1":  # inverse depth in 16 bits, as compressed_depth_image_transport writes it
        a, b = 100.0 * 101.0, 1.0 - 100.0 * 101.0 / 10.0
        values = np.where(depth > 0, np.round(a / np.maximum(depth, 1e-3) + b), 0).astype(np.uint16)
    data = struct.pack("<iff", 0, a, b) + cv2.imencode(".png", values)[1].tobytes()
    return STORE.types[TYPES["compressed"]](header(stamp, frame), encoding, np.frombuffer(data, np.uint8))


def encoded_message(stamp, frame, data, kind="jpeg"):
    """CompressedImage of the bytes of an image file."""
    return STORE.types[TYPES["compressed"]](header(stamp, frame), kind, np.frombuffer(data, np.uint8))


def odometry_message(stamp, frame, child, T):
    zeros = np.zeros(36)
    pose = pose_message(stamp, frame, T).pose
    vector = STORE.types["geometry_msgs/msg/Vector3"](0.0, 0.0, 0.0)
    twist = STORE.types["geometry_msgs/msg/Twist"](vector, vector)
    return STORE.types[TYPES["odometry"]](
        header(stamp, frame),
        child,
        STORE.types["geometry_msgs/msg/PoseWithCovariance"](pose, zeros),
        STORE.types["geometry_msgs/msg/TwistWithCovariance"](twist, zeros),
    )


def write_messages(path, messages, storage="mcap"):
    """A bag of (log time, topic, kind of ``TYPES``, message), in the order of their times."""
    with Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()]) as writer:
        connections = {}
        for log_time, topic, kind, message in sorted(messages, key=lambda item: item[0]):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, TYPES[kind], typestore=STORE)
            writer.write(connections[topic], log_time, STORE.serialize_cdr(message, TYPES[kind]))
    return path


def rgbd_messages(frames, camera, T_base_cam, T_map_odom, *, depth_encoding="16UC1; compressedDepth png"):
    """Messages of (stamp, image file's bytes, depth [H, W], T_map_cam): TF map -> odom -> base -> camera.

    Transforms come 20 ms before and after each image, so that its pose lies between two of them.
    """
    messages = [(frames[0][0] - 10**9, "/tf_static", "tf", tf_message(frames[0][0], [("base", OPTICAL, T_base_cam)]))]
    for stamp, data, depth, T_map_cam in frames:
        T_odom_base = np.linalg.inv(T_map_odom) @ T_map_cam @ np.linalg.inv(T_base_cam)
        for shift in (-20_000_000, 20_000_000):
            transforms = [("map", "odom", T_map_odom), ("odom", "base", T_odom_base)]
            messages.append((stamp + shift, "/tf", "tf", tf_message(stamp + shift, transforms)))
        messages += [
            (
                stamp + 1_000_000,
                "/camera/color/image_raw/compressed",
                "compressed",
                encoded_message(stamp, OPTICAL, data),
            ),
            (stamp + 1_000_000, "/camera/color/camera_info", "info", camera_info_message(stamp, OPTICAL, camera)),
            (
                stamp + 2_000_000,
                "/camera/depth/image",
                "image" if "compressed" not in depth_encoding else "compressed",
                depth_message(stamp + 3_000_000, OPTICAL, depth, depth_encoding),
            ),
        ]
    return messages
