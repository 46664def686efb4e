# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""rosbag2 recordings (sqlite3 and MCAP) read with the rosbags library: no ROS, no playback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.rosbag2 import ReaderError
from rosbags.typesys import Stores, get_typestore

from nre_ros.errors import ImportSourceError
from nre_ros.messages.stamps import stamp_nanoseconds

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
CAMERA_INFO_TYPE = "sensor_msgs/msg/CameraInfo"
POSE_TYPE = "geometry_msgs/msg/PoseStamped"
_BAG_ERRORS = (AnyReaderError, ReaderError)
_STORAGE_SUFFIXES = (".mcap", ".db3")


@contextmanager
def open_bag(path: Path | str) -> Iterator[AnyReader]:
    """A reader of a rosbag2 folder or of one of its files (sqlite3 or MCAP), closed when the context is left.

    Raises ``ImportSourceError`` for what is no bag, and when it turns out to be damaged.
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


def open_reader(paths: list) -> AnyReader:
    """An open reader of a bag's folder or files; message definitions are the bag's own, else Jazzy's."""
    reader = AnyReader(paths, default_typestore=get_typestore(Stores.ROS2_JAZZY))
    reader.open()
    return reader


def storage_files(path: Path) -> list[Path]:
    """The files that hold the messages of a bag, a folder or such a file itself, in the order of their names."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix in _STORAGE_SUFFIXES)
    return [path] if path.suffix in _STORAGE_SUFFIXES else []


def choose_topic(path, found: dict[str, str], types, wanted: str, what: str) -> str:
    """The topic ``wanted``, or the only one of these types; ``found``: topic -> type of all in the bag.

    Raises ``ImportSourceError`` that lists what the bag has when it is missing or the choice is not clear.
    """
    fitting = sorted(topic for topic, kind in found.items() if kind in types)
    if wanted:
        if wanted in fitting:
            return wanted
        raise ImportSourceError(f"bag {path} has no {what} topic {wanted}; it has: {topic_listing(found)}")
    if len(fitting) == 1:
        return fitting[0]
    problem = f"several {what} topics ({', '.join(fitting)}): name one" if fitting else f"no {what} topic"
    raise ImportSourceError(f"bag {path} has {problem}; it has: {topic_listing(found)}")


def topic_listing(found: dict[str, str]) -> str:
    """Topics and their types in one line."""
    return ", ".join(f"{topic} ({kind})" for topic, kind in sorted(found.items())) or "nothing"


def stamp_of(message) -> int:
    """Nanoseconds since the epoch in the header of a message that the reader has deserialized."""
    return stamp_nanoseconds(message.header.stamp)
