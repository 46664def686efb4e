# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Writes the drive of a robot through a gallery as a rosbag2, without ROS (by the rosbags library).

Topics: ``/camera/color/image_raw`` or ``/camera/color/image_raw/compressed``, ``/camera/color/camera_info``, ``/tf``
(odom -> base_link, drifting), ``/tf_static`` (base_link -> camera_link -> camera_color_optical_frame) and
``/ground_truth`` (PoseStamped of the optical frame in the map, exact, one for each image).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
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
    """What was written.

    Attributes:
        path: Folder of the bag.
        stamps: Stamps [N] of the images, nanoseconds.
        T_map_cam: True poses [N, 4, 4] of the camera, optical frame to map.
        T_map_odom: Pose [4, 4] of the odom frame in the map at the start; later odometry drifts.
    """

    path: Path
    stamps: npt.NDArray[np.int64]
    T_map_cam: npt.NDArray[np.float64]
    T_map_odom: npt.NDArray[np.float64]


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
    """Renders a trajectory and writes it as a bag; the messages are in the order of their stamps.

    Odometry starts one step before the first image, where odom and base_link coincide, and ends after the last image.

    Args:
        path: Folder of the bag; it must not exist.
        gallery: What is rendered.
        camera: The camera.
        trajectory: Motion of base_link in the map.
        mount: Where the camera is mounted on the robot; None for the usual place.
        image_rate: Images a second.
        odometry_rate: Odometry transforms a second.
        encoding: ``jpeg`` (CompressedImage), or ``bgr8``, ``rgb8`` or ``mono8`` (Image).
        jpeg_quality: Quality of JPEGs, 0 to 100.
        storage: ``mcap`` or ``sqlite3``.
        noise: Errors of odometry.
        sensor: What the camera adds to the images.
        seed: Seed of the errors of odometry and of the sensor's noise.
        start_stamp: Stamp of the first image, nanoseconds.
        progress: Called with (done, total) after every image.

    Returns:
        What was written.

    Raises:
        NreError: ``path`` exists.
        ValueError: The encoding or the storage is unknown.
    """
    path = Path(path)
    if encoding not in ENCODINGS:
        raise ValueError(f"encoding must be one of {', '.join(ENCODINGS)}, got {encoding!r}")
    if storage not in ("mcap", "sqlite3"):
        raise ValueError(f"storage must be mcap or sqlite3, got {storage!r}")
    if path.exists():
        raise NreError(f"bag {path}: exists already, not overwritten (choose another path)")
    mount = mount or CameraMount()
    seconds = np.arange(int(trajectory.duration * image_rate + 1e-9) + 1) / image_rate
    ticks = np.arange(-1, int(np.ceil(seconds[-1] * odometry_rate)) + 2) / odometry_rate
    T_map_base = trajectory.T_map_base(ticks)
    T_odom_base = drifting_odometry(T_map_base, noise, seed)
    poses = trajectory.T_map_base(seconds) @ mount.T_base_cam
    stamps, tick_stamps = (start_stamp + np.round(times * 1e9).astype(np.int64) for times in (seconds, ticks))

    # a transform precedes the image of the same stamp, so that it can be looked up at once
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
    """Writes messages to the topics of the bag."""

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

    def write(self, topic: str, stamp: int, message: Any) -> None:
        connection = self._connections[topic]
        self._writer.write(connection, stamp, _STORE.serialize_cdr(message, connection.msgtype))


def _offered_qos(latched: bool) -> Qos:
    """Makes a reliable profile; transient local when ``latched``, as tf2's static broadcaster offers."""
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


def _static_transforms(mount: CameraMount) -> Iterator[tuple[str, str, npt.NDArray[np.float64]]]:
    yield BASE, LINK, mount.T_base_link
    yield LINK, OPTICAL, mount.T_link_cam


def _type(name: str) -> Callable[..., Any]:
    """The class of a message type; rosbags makes it at run time."""
    return _STORE.types[name]


def _header(stamp: int, frame: str) -> Any:
    time = _type("builtin_interfaces/msg/Time")(sec=stamp // 10**9, nanosec=stamp % 10**9)
    return _type("std_msgs/msg/Header")(stamp=time, frame_id=frame)


def _pose_parts(T: npt.NDArray[np.float64]) -> tuple[list[float], Any]:
    position, quaternion = position_quaternion(T)
    return position.tolist(), _type("geometry_msgs/msg/Quaternion")(*quaternion.tolist())


def tf_message(stamp: int, transforms: Iterable[tuple[str, str, npt.NDArray[np.float64]]]) -> Any:
    """Makes a tf2_msgs/TFMessage.

    Args:
        stamp: Stamp of all transforms, nanoseconds.
        transforms: Parent frame, child frame and T_parent_child [4, 4] of each.

    Returns:
        The message, an object of the rosbags library.
    """
    messages = []
    for parent, child, T in transforms:
        position, rotation = _pose_parts(T)
        transform = _type("geometry_msgs/msg/Transform")(_type("geometry_msgs/msg/Vector3")(*position), rotation)
        messages.append(_type("geometry_msgs/msg/TransformStamped")(_header(stamp, parent), child, transform))
    return _type("tf2_msgs/msg/TFMessage")(messages)


def pose_message(stamp: int, frame: str, T: npt.NDArray[np.float64]) -> Any:
    """Makes a geometry_msgs/PoseStamped.

    Args:
        stamp: Stamp, nanoseconds.
        frame: Frame of the pose.
        T: Pose [4, 4].

    Returns:
        The message, an object of the rosbags library.
    """
    position, rotation = _pose_parts(T)
    pose = _type("geometry_msgs/msg/Pose")(_type("geometry_msgs/msg/Point")(*position), rotation)
    return _type("geometry_msgs/msg/PoseStamped")(_header(stamp, frame), pose)


def camera_info_message(stamp: int, frame: str, camera: Camera) -> Any:
    """Makes a sensor_msgs/CameraInfo of a camera that is not rectified: R is the identity, P has the intrinsics.

    Args:
        stamp: Stamp, nanoseconds.
        frame: The camera's optical frame.
        camera: The camera.

    Returns:
        The message, an object of the rosbags library.
    """
    coefficients: tuple[float, ...] = camera.distortion
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


def image_message(
    stamp: int, frame: str, image: npt.NDArray[np.uint8], encoding: str = "bgr8", jpeg_quality: int = 90
) -> Any:
    """Makes a sensor_msgs/Image or, for the encoding ``jpeg``, a CompressedImage.

    Args:
        stamp: Stamp, nanoseconds.
        frame: The camera's optical frame.
        image: BGR [H, W, 3], uint8.
        encoding: ``jpeg``, ``bgr8``, ``rgb8`` or ``mono8``.
        jpeg_quality: Quality of JPEGs, 0 to 100.

    Returns:
        The message, an object of the rosbags library.

    Raises:
        NreError: The image could not be compressed.
    """
    header = _header(stamp, frame)
    if encoding == "jpeg":
        done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])
        if not done:
            raise NreError(f"image of shape {image.shape}: could not be compressed")
        return _type("sensor_msgs/msg/CompressedImage")(header, "bgr8; jpeg compressed bgr8", data.ravel())
    if encoding == "rgb8":
        image = image[:, :, ::-1]
    elif encoding == "mono8":
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False)
    height, width = image.shape[:2]
    data = np.ascontiguousarray(image).reshape(-1)
    return _type("sensor_msgs/msg/Image")(header, height, width, encoding, 0, data.size // height, data)
