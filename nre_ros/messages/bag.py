# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Reading of rosbag2 recordings (sqlite3 and MCAP) with the rosbags library; needs no ROS and no playback."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.rosbag2 import ReaderError
from rosbags.typesys import Stores, get_typestore

from nre_ros.errors import ImportSourceError, NreError, one_line
from nre_ros.untrusted_sqlite import SCHEMA_QUERY, UNTRUSTED_FILE_PRAGMAS, active_schema_entry

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
CAMERA_INFO_TYPE = "sensor_msgs/msg/CameraInfo"
POSE_TYPE = "geometry_msgs/msg/PoseStamped"
GROUND_TRUTH_TOPIC = "/ground_truth"
"""The topic of the true poses that is taken when a bag has several topics of poses and none is named."""
_STORAGE_SUFFIXES = (".mcap", ".db3")
_READ_PACKAGES = ("builtin_interfaces", "std_msgs", "geometry_msgs", "sensor_msgs", "nav_msgs", "tf2_msgs")
"""Packages whose messages are read; their fields are the same in all distributions since Foxy."""


class BagReader(AnyReader):
    """The reader of rosbags, with errors of this package.

    Damaged bytes make rosbags and the libraries below raise anything: errors of text, of memory, of numbers.

    Args:
        paths: The bag's folder, or its files.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        """Finds the files; see ``AnyReader``."""
        self._name = str(paths[0] if len(paths) == 1 else paths[0].parent)
        _check_metadata(paths[0])
        try:
            super().__init__(list(paths), default_typestore=get_typestore(Stores.ROS2_JAZZY))
        except Exception as error:
            raise self._error("cannot be read", error) from error

    def open(self) -> None:
        """Opens the files.

        Raises:
            ImportSourceError: The bag cannot be read.
        """
        try:
            with _untrusted_databases():
                super().open()
            self._check_summary()
            self._check_definitions()
        except Exception as error:
            if self.stack:
                self.close()
            raise self._error("cannot be read", error) from error

    def messages(
        self, connections: Collection[Connection] = (), start: int | None = None, stop: int | None = None
    ) -> Generator[tuple[Connection, int, bytes], None, None]:
        """Reads messages in the order of their log times.

        Args:
            connections: The connections to read; empty for all.
            start: Nanoseconds; messages before are left out.
            stop: Nanoseconds; messages from there on are left out.

        Yields:
            Connection, log time in nanoseconds and serialized message.

        Raises:
            ImportSourceError: The bag is damaged.
        """
        try:
            for connection, stamp, raw in super().messages(connections, start, stop):
                if type(stamp) is not int or not isinstance(raw, (bytes, memoryview, bytearray)):  # SQLite has any type
                    raise TypeError(f"a message of {connection.topic} has no time, or no content")
                yield connection, stamp, raw
        except Exception as error:
            raise self._error("is damaged", error) from error

    def deserialize(self, rawdata: bytes, typ: str) -> Any:
        """Decodes a message.

        Args:
            rawdata: The serialized message.
            typ: Its type.

        Returns:
            The message.

        Raises:
            ImportSourceError: The message is damaged.
        """
        try:
            return super().deserialize(rawdata, typ)
        except Exception as error:
            raise self._error(f"is damaged: a message of type {typ} cannot be decoded", error) from error

    def _check_summary(self) -> None:
        """Raises an error for a metadata.yaml whose names, counts or times are of other types, which rosbags takes."""
        counts = [info.msgcount for info in self.topics.values()]
        if not all(type(number) is int for number in (self.message_count, self.start_time, self.end_time, *counts)):
            raise TypeError("its metadata has counts or times that are no whole numbers")
        names = [name for c in self.connections for name in (c.topic, c.msgtype)]
        if not all(isinstance(name, str) and name.isprintable() for name in names):
            raise TypeError("its metadata has topics or types that are no names")

    def _check_definitions(self) -> None:
        """Raises an error where the bag defines a known type without fields that it has: messages would lack them."""
        known, found = get_typestore(Stores.ROS2_JAZZY).fielddefs, self.typestore.fielddefs
        for name in found.keys() & known.keys():
            missing = {field for field, _ in known[name][1]} - {field for field, _ in found[name][1]}
            if missing and name.split("/")[0] in _READ_PACKAGES:
                raise TypeError(f"its definition of {name} lacks {', '.join(sorted(missing))}")

    def _error(self, what: str, error: Exception) -> NreError:
        reason = one_line(error) or type(error).__name__
        return error if isinstance(error, NreError) else ImportSourceError(f"bag {self._name} {what}: {reason}")


@contextmanager
def _untrusted_databases() -> Iterator[None]:
    """Context in which rosbags opens the files of the storage format sqlite3 as files of unknown origin.

    They are not checked as a whole, which takes minutes, and so that damaged bags are read as far as possible.
    """
    import apsw  # of rosbags

    def check(connection: apsw.Connection) -> None:
        for pragma in UNTRUSTED_FILE_PRAGMAS:
            connection.execute(pragma)
        entries = connection.execute(SCHEMA_QUERY).fetchall()
        if active := active_schema_entry(
            (str(kind), str(name), sql if isinstance(sql, bytes) else None) for kind, name, sql in entries
        ):
            raise ReaderError(f"the database contains {active}, which no recorder writes")

    apsw.connection_hooks.append(check)
    try:
        yield
    finally:
        apsw.connection_hooks.remove(check)


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
    with closing(open_reader([path])) as reader:
        yield reader


def open_reader(paths: Sequence[Path]) -> BagReader:
    """Opens a reader of a bag's folder or files.

    Bags without message definitions get those of ROS 2 Jazzy.

    Args:
        paths: The bag's folder, or its files.

    Returns:
        The open reader; the caller closes it.

    Raises:
        ImportSourceError: The bag cannot be read.
    """
    reader = BagReader(paths)
    reader.open()
    return reader


def _check_metadata(path: Path) -> None:
    """Raises ``ImportSourceError`` for a folder that is no bag, and for a bag without its metadata.yaml."""
    if not path.is_dir() or (path / "metadata.yaml").is_file():
        return
    if storage_files(path):
        raise ImportSourceError(f"bag {path} has no metadata.yaml: `ros2 bag reindex {path}` writes it")
    inside = sorted(file.parent for file in path.glob("*/metadata.yaml"))
    found = f"; {' and '.join(map(str, inside[:3]))} in it may be meant" if inside else ""
    raise ImportSourceError(f"{path} is no bag: it has neither metadata.yaml nor .mcap or .db3 files{found}")


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
