"""What a bag holds for us, read with the rosbags library: no ROS, no playback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.rosbag2 import ReaderError
from rosbags.typesys import Stores, get_typestore

from nre_ros.errors import ImportSourceError, PoseError
from nre_ros.geometry import pose_matrix

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
CAMERA_INFO_TYPE = "sensor_msgs/msg/CameraInfo"
POSE_TYPE = "geometry_msgs/msg/PoseStamped"
_BAG_ERRORS = (AnyReaderError, ReaderError)


@dataclass(frozen=True)
class BagTopics:
    """The topics that a replay works with.  truth: of PoseStamped, or empty; compressed: of the image."""

    image: str
    compressed: bool
    camera_info: str
    truth: str
    images: int


@contextmanager
def open_bag(path: Path | str) -> Iterator[AnyReader]:
    """A reader of a rosbag2 folder (sqlite3 or MCAP), closed when the context is left.

    Raises ``ImportSourceError`` for what is no bag, and when it turns out to be damaged.
    """
    path = Path(path)
    if not path.exists():
        raise ImportSourceError(f"bag {path} does not exist")
    with ExitStack() as stack:
        try:
            reader = AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY))
            stack.enter_context(reader)
        except (*_BAG_ERRORS, OSError) as error:
            raise ImportSourceError(f"bag {path} cannot be read: {error}") from error
        try:
            yield reader
        except _BAG_ERRORS as error:
            raise ImportSourceError(f"bag {path} is damaged: {error}") from error


def find_topics(path: Path | str, image: str = "", camera_info: str = "", truth: str = "") -> BagTopics:
    """The bag's topics: those named, or the only one of their type (``/ground_truth`` of several poses).

    Raises ``ImportSourceError`` that lists what the bag has when one is missing or the choice is not clear.
    """
    with open_bag(path) as reader:
        found = {connection.topic: connection.msgtype for connection in reader.connections}
        counts = {topic: info.msgcount for topic, info in reader.topics.items()}
    image = _choose(path, found, IMAGE_TYPES, image, "image")
    camera_info = _choose(path, found, (CAMERA_INFO_TYPE,), camera_info, "camera_info")
    poses = [topic for topic, kind in found.items() if kind == POSE_TYPE]
    if truth or len(poses) == 1:
        truth = _choose(path, found, (POSE_TYPE,), truth, "ground truth")
    elif "/ground_truth" in poses:
        truth = "/ground_truth"
    return BagTopics(image, found[image] == IMAGE_TYPES[1], camera_info, truth, counts[image])


def _choose(path, found: dict[str, str], types, wanted: str, what: str) -> str:
    fitting = sorted(topic for topic, kind in found.items() if kind in types)
    if wanted:
        if wanted in fitting:
            return wanted
        raise ImportSourceError(f"bag {path} has no {what} topic {wanted}; it has: {_listing(found)}")
    if len(fitting) == 1:
        return fitting[0]
    problem = f"several {what} topics ({', '.join(fitting)}): name one" if fitting else f"no {what} topic"
    raise ImportSourceError(f"bag {path} has {problem}; it has: {_listing(found)}")


def _listing(found: dict[str, str]) -> str:
    return ", ".join(f"{topic} ({kind})" for topic, kind in sorted(found.items())) or "nothing"


def stamp_of(message) -> int:
    """Nanoseconds since the epoch in the header of a message that the reader has deserialized."""
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def read_truth(path: Path | str, topic: str) -> dict[int, np.ndarray]:
    """Stamp (nanoseconds) -> pose [4, 4] of a PoseStamped topic; poses that are not finite are left out."""
    truth = {}
    with open_bag(path) as reader:
        connections = [connection for connection in reader.connections if connection.topic == topic]
        for connection, _, raw in reader.messages(connections):
            message = reader.deserialize(raw, connection.msgtype)
            stamp = stamp_of(message)
            p, q = message.pose.position, message.pose.orientation
            try:
                truth[stamp] = pose_matrix([p.x, p.y, p.z], [q.x, q.y, q.z, q.w])
            except PoseError:
                continue
    return truth


def read_image(path: Path | str, topic: str, stamp: int) -> np.ndarray | None:
    """The image (uint8 BGR) of that topic and stamp; None where there is none."""
    from rosbags.image import message_to_cvimage

    with open_bag(path) as reader:
        connections = [connection for connection in reader.connections if connection.topic == topic]
        for connection, _, raw in reader.messages(connections):
            message = reader.deserialize(raw, connection.msgtype)
            if stamp_of(message) == stamp:
                return message_to_cvimage(message, "bgr8")
    return None
