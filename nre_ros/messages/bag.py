# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Reading of rosbag2 recordings (sqlite3 and MCAP) with the rosbags library; needs no ROS and no playback."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.rosbag2 import ReaderError
from rosbags.typesys import Stores, get_typestore

from nre_ros.errors import ImportSourceError

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
CAMERA_INFO_TYPE = "sensor_msgs/msg/CameraInfo"
POSE_TYPE = "geometry_msgs/msg/PoseStamped"
GROUND_TRUTH_TOPIC = "/ground_truth"
"""The topic of the true poses that is taken when a bag has several topics of poses and none is named."""
_BAG_ERRORS = (AnyReaderError, ReaderError)
_STORAGE_SUFFIXES = (".mcap", ".db3")


@contextmanager
def open_bag(path: Path | str) -> Iterator[AnyReader]:
    """Opens an intact bag and closes it at the end of the context.

    ``damaged_bag.open_readable`` opens bags that were not closed properly too.

    Args:
        path: Folder of a rosbag2, or one of its files (sqlite3 or MCAP).

    Yields:
        The reader.

    Raises:
        ImportSourceError: There is no bag, or the bag turns out to be damaged inside the context.
    """
    path = Path(path)
    if not path.exists():
        raise ImportSourceError(f"bag {path} does not exist")
    with ExitStack() as stack:
        try:
            reader = open_reader([path])
        except (*_BAG_ERRORS, OSError) as error:
            raise ImportSourceError(f"bag {path} cannot be read: {error}") from error
        stack.callback(reader.close)
        try:
            yield reader
        except _BAG_ERRORS as error:
            raise ImportSourceError(f"bag {path} is damaged: {error}") from error


def open_reader(paths: Sequence[Path]) -> AnyReader:
    """Opens a reader of a bag's folder or files.

    Bags without message definitions get those of ROS 2 Jazzy.

    Args:
        paths: The bag's folder, or its files.

    Returns:
        The open reader; the caller closes it.
    """
    reader = AnyReader(list(paths), default_typestore=get_typestore(Stores.ROS2_JAZZY))
    reader.open()
    return reader


def storage_files(path: Path) -> list[Path]:
    """Returns the files that hold a bag's messages, by name.

    Args:
        path: The bag's folder, or one such file.

    Returns:
        MCAP and sqlite3 files; none if ``path`` is a file of another kind.
    """
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix in _STORAGE_SUFFIXES)
    return [path] if path.suffix in _STORAGE_SUFFIXES else []


def choose_topic(path: Path | str, topics: dict[str, str], types: Collection[str], wanted: str, what: str) -> str:
    """Chooses the topic that the user named, or the only topic of the right type.

    Args:
        path: The bag, for the error message.
        topics: All topics of the bag, name -> type.
        types: The message types to choose from.
        wanted: The topic that the user named; empty for the only one of these types.
        what: What the topic is for, in the error message.

    Returns:
        The topic's name.

    Raises:
        ImportSourceError: There is no such topic, or there are several; the message lists the bag's topics.
    """
    fitting = sorted(topic for topic, kind in topics.items() if kind in types)
    if wanted:
        if wanted in fitting:
            return wanted
        raise ImportSourceError(f"bag {path} has no {what} topic {wanted}; it has: {topic_listing(topics)}")
    if len(fitting) == 1:
        return fitting[0]
    problem = f"several {what} topics ({', '.join(fitting)}): name one" if fitting else f"no {what} topic"
    raise ImportSourceError(f"bag {path} has {problem}; it has: {topic_listing(topics)}")


def ground_truth_topic(topics: Mapping[str, str]) -> str:
    """Chooses the topic of the camera's true poses: ``/ground_truth``, or the only topic of type PoseStamped.

    Args:
        topics: All topics of the bag, name -> type.

    Returns:
        The topic's name; empty where no topic fits, or several fit and none has that name.
    """
    poses = [topic for topic, kind in topics.items() if kind == POSE_TYPE]
    if GROUND_TRUTH_TOPIC in poses:
        return GROUND_TRUTH_TOPIC
    return poses[0] if len(poses) == 1 else ""


def topic_listing(topics: dict[str, str]) -> str:
    """Returns topics and their types as one line for an error message.

    Args:
        topics: Topic name -> type.
    """
    return ", ".join(f"{topic} ({kind})" for topic, kind in sorted(topics.items())) or "nothing"
