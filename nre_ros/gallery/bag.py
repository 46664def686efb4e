# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Writes a robot's run through a gallery as a rosbag2, without ROS (the rosbags library).

Topics: ``/camera/color/image_raw`` or ``/camera/color/image_raw/compressed``,
``/camera/color/camera_info``, ``/tf`` (odom -> base_link, drifting), ``/tf_static`` (base_link ->
camera_link -> camera_color_optical_frame) and ``/ground_truth`` (PoseStamped of the optical frame
in map, exact, one an image).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from nre_ros.errors import NreError
from nre_ros.gallery.render import Gallery
from nre_ros.gallery.sensor import Sensor
from nre_ros.gallery.trajectory import (
    START_STAMP,
    CameraMount,
    OdometryNoise,
    PlanarTrajectory,
    drifting_odometry,
)
from nre_ros.geometry import EQUIDISTANT, Camera, position_quaternion

IMAGE_TOPIC = "/camera/color/image_raw"
COMPRESSED_TOPIC = "/camera/color/image_raw/compressed"
CAMERA_INFO_TOPIC = "/camera/color/camera_info"
TRUTH_TOPIC = "/ground_truth"
MAP, ODOM, BASE, LINK, OPTICAL = "map", "odom", "base_link", "camera_link", "camera_color_optical_frame"
ENCODINGS = ("jpeg", "bgr8", "rgb8", "mono8")

_STORE = get_typestore(Stores.ROS2_JAZZY)
_FOREVER = QosTime(9223372036, 854775807)  # RMW_DURATION_INFINITE


@dataclass(frozen=True)
class BagSummary:
    """What was written: stamps [N] int64 (nanoseconds) of the images, their true poses [N, 4, 4], and
    where odom starts in the map [4, 4] (the drift takes it elsewhere)."""

    path: Path
    stamps: np.ndarray
    T_map_cam: np.ndarray
    T_map_odom: np.ndarray


def write_bag(
    path: Path | str,
    gallery: Gallery,
    camera: Camera,
    trajectory: PlanarTrajectory,
    *,
    mount: CameraMount | None = None,
    image_rate: float = 15.0,
    odometry_rate: float = 50.0,
    encoding: str = "jpeg",
    jpeg_quality: int = 90,
    storage: str = "mcap",
    noise: OdometryNoise = OdometryNoise(),
    sensor: Sensor = Sensor(),
    seed: int = 0,
    start_stamp: int = START_STAMP,
    progress: Callable[[int, int], None] | None = None,
) -> BagSummary:
    """Renders the whole trajectory into the bag folder ``path``; messages are in the order of their stamps.

    encoding: ``jpeg`` (CompressedImage) or ``bgr8``, ``rgb8``, ``mono8`` (Image).  storage: ``mcap``
    or ``sqlite3``.  The odometry starts one step before the first image, where odom and base_link
    are one, and ends after the last.  progress(done, all) is called after every image.
    Raises ``NreError`` when ``path`` exists.
    """
    path = Path(path)
    if encoding not in ENCODINGS:
        raise ValueError(f"encoding must be one of {', '.join(ENCODINGS)}, got {encoding!r}")
    if storage not in ("mcap", "sqlite3"):
        raise ValueError(f"storage must be mcap or sqlite3, got {storage!r}")
    if path.exists():
        raise NreError(f"bag {path} exists already, not overwriting it")
    mount = mount or CameraMount()
    seconds = np.arange(int(trajectory.duration * image_rate + 1e-9) + 1) / image_rate
    ticks = np.arange(-1, int(np.ceil(seconds[-1] * odometry_rate)) + 2) / odometry_rate
    T_map_base = trajectory.T_map_base(ticks)
    T_odom_base = drifting_odometry(T_map_base, noise, seed)
    poses = trajectory.T_map_base(seconds) @ mount.T_base_cam
    stamps, tick_stamps = (start_stamp + np.round(times * 1e9).astype(np.int64) for times in (seconds, ticks))

    # a transform comes before the image of the same stamp, so that it can be looked up at once
    events = [(int(t), kind, i) for kind, times in enumerate((tick_stamps, stamps)) for i, t in enumerate(times)]
    events.sort()
    with Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()]) as writer:
        topics = _Topics(writer, encoding)
        first = events[0][0]
        topics.write("/tf_static", first, tf_message(first, _static_transforms(mount)))
        for stamp, kind, i in events:
            if kind == 0:
                topics.write("/tf", stamp, tf_message(stamp, [(ODOM, BASE, T_odom_base[i])]))
                continue
            image = sensor(gallery.render(camera, poses[i]).image, np.random.default_rng([seed, i]))
            topics.write(TRUTH_TOPIC, stamp, pose_message(stamp, MAP, poses[i]))
            topics.write(CAMERA_INFO_TOPIC, stamp, camera_info_message(stamp, OPTICAL, camera))
            topics.write(topics.image_topic, stamp, image_message(stamp, OPTICAL, image, encoding, jpeg_quality))
            if progress is not None:
                progress(i + 1, len(stamps))
    return BagSummary(path, stamps, poses, T_map_base[0])


class _Topics:
    """The bag's connections."""

    def __init__(self, writer: Writer, encoding: str):
        self._writer = writer
        compressed = encoding == "jpeg"
        self.image_topic = COMPRESSED_TOPIC if compressed else IMAGE_TOPIC
        types = {
            self.image_topic: "sensor_msgs/msg/CompressedImage" if compressed else "sensor_msgs/msg/Image",
            CAMERA_INFO_TOPIC: "sensor_msgs/msg/CameraInfo",
            "/tf": "tf2_msgs/msg/TFMessage",
            "/tf_static": "tf2_msgs/msg/TFMessage",
            TRUTH_TOPIC: "geometry_msgs/msg/PoseStamped",
        }
        self._connections = {
            topic: writer.add_connection(
                topic, name, typestore=_STORE, offered_qos_profiles=[_offered_qos(latched=topic == "/tf_static")]
            )
            for topic, name in types.items()
        }

    def write(self, topic: str, stamp: int, message) -> None:
        connection = self._connections[topic]
        self._writer.write(connection, stamp, _STORE.serialize_cdr(message, connection.msgtype))


def _offered_qos(latched: bool) -> Qos:
    """Reliable; transient local when ``latched``, as tf2's static broadcaster offers."""
    durability = QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE
    return Qos(
        QosHistory.KEEP_LAST,
        1 if latched else 10,
        QosReliability.RELIABLE,
        durability,
        _FOREVER,
        _FOREVER,
        QosLiveliness.AUTOMATIC,
        _FOREVER,
        False,
    )


def _static_transforms(mount: CameraMount) -> Iterator[tuple[str, str, np.ndarray]]:
    yield BASE, LINK, mount.T_base_link
    yield LINK, OPTICAL, mount.T_link_cam


def _type(name: str):
    return _STORE.types[name]


def _header(stamp: int, frame: str):
    time = _type("builtin_interfaces/msg/Time")(sec=stamp // 10**9, nanosec=stamp % 10**9)
    return _type("std_msgs/msg/Header")(stamp=time, frame_id=frame)


def _pose_parts(T: np.ndarray):
    position, quaternion = position_quaternion(T)
    return position.tolist(), _type("geometry_msgs/msg/Quaternion")(*quaternion.tolist())


def tf_message(stamp: int, transforms):
    """tf2_msgs/TFMessage of (parent, child, T_parent_child) triples."""
    messages = []
    for parent, child, T in transforms:
        position, rotation = _pose_parts(T)
        transform = _type("geometry_msgs/msg/Transform")(_type("geometry_msgs/msg/Vector3")(*position), rotation)
        messages.append(_type("geometry_msgs/msg/TransformStamped")(_header(stamp, parent), child, transform))
    return _type("tf2_msgs/msg/TFMessage")(messages)


def pose_message(stamp: int, frame: str, T: np.ndarray):
    """geometry_msgs/PoseStamped of a pose [4, 4] in ``frame``."""
    position, rotation = _pose_parts(T)
    pose = _type("geometry_msgs/msg/Pose")(_type("geometry_msgs/msg/Point")(*position), rotation)
    return _type("geometry_msgs/msg/PoseStamped")(_header(stamp, frame), pose)


def camera_info_message(stamp: int, frame: str, camera: Camera):
    """sensor_msgs/CameraInfo; R is the identity and P the intrinsics: a camera that is not rectified."""
    coefficients = camera.distortion
    if camera.model == EQUIDISTANT:
        model = "equidistant"
    elif len(coefficients) == 8:
        model = "rational_polynomial"
    else:
        model, coefficients = "plumb_bob", (*coefficients, *(0.0,) * (5 - len(coefficients)))
    region = _type("sensor_msgs/msg/RegionOfInterest")(x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return _type("sensor_msgs/msg/CameraInfo")(
        header=_header(stamp, frame),
        height=camera.height,
        width=camera.width,
        distortion_model=model,
        d=np.array(coefficients, dtype=np.float64),
        k=camera.K.ravel(),
        r=np.eye(3).ravel(),
        p=np.hstack([camera.K, np.zeros((3, 1))]).ravel(),
        binning_x=0,
        binning_y=0,
        roi=region,
    )


def image_message(stamp: int, frame: str, image: np.ndarray, encoding: str = "bgr8", jpeg_quality: int = 90):
    """The image uint8 BGR [H, W, 3] as sensor_msgs/Image, or CompressedImage for ``jpeg``."""
    header = _header(stamp, frame)
    if encoding == "jpeg":
        done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])
        if not done:
            raise NreError(f"image of shape {image.shape} could not be compressed")
        return _type("sensor_msgs/msg/CompressedImage")(header, "bgr8; jpeg compressed bgr8", data.ravel())
    if encoding == "rgb8":
        image = image[:, :, ::-1]
    elif encoding == "mono8":
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    height, width = image.shape[:2]
    data = np.ascontiguousarray(image).reshape(-1)
    return _type("sensor_msgs/msg/Image")(header, height, width, encoding, 0, data.size // height, data)
