# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The images of a bag by their names, without poses and cameras."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
from rosbags.highlevel import AnyReader

from nre_ros.errors import ImageError, one_line
from nre_ros.keyframes.importers.bag.topics import choose_image_topic
from nre_ros.messages.damaged_bag import open_readable, readable_messages
from nre_ros.messages.images import image_array
from nre_ros.messages.stamps import seconds_text, stamp_in_recording


class BagImages:
    """The images of a bag under the names that ``map build bag`` gives them. Threads may share an object.

    The bag is read once for the stamps; images are read when they are needed. The caller closes the object.

    Args:
        bag: Folder of a rosbag2, or one of its files.
        topic: Topic of the images; empty: the only one without depth.

    Raises:
        ImportSourceError: The bag cannot be read, or the choice of the topic is not clear.
    """

    def __init__(self, bag: Path | str, topic: str = "") -> None:
        self._path = Path(bag)
        self._lock = Lock()
        self._reader, _ = open_readable(self._path)
        try:
            self._topic = choose_image_topic(self._reader, self._path, topic)
            self._places = self._read_stamps()
        except BaseException:
            self._reader.close()
            raise

    def close(self) -> None:
        """Closes the bag's files."""
        self._reader.close()

    def image(self, name: str) -> npt.NDArray[np.uint8]:
        """Returns the pixels of an image.

        Args:
            name: The image's stamp in seconds, as text.

        Returns:
            BGR [H, W, 3] or grey [H, W], uint8.

        Raises:
            ImageError: There is no image of this name, or its message cannot be read.
        """
        if name not in self._places:
            raise ImageError(f"topic {self._topic} of bag {self._path} has no image of this stamp")
        return image_array(message_at(self._reader, self._lock, self._topic, *self._places[name]))

    def _read_stamps(self) -> dict[str, tuple[int, int]]:
        """Name of each image -> log time and stamp of its message; of several with one stamp, the first."""
        connections = [connection for connection in self._reader.connections if connection.topic == self._topic]
        places: dict[str, tuple[int, int]] = {}
        for connection, log_time, raw in readable_messages(self._reader, connections, []):
            message: Any = self._reader.deserialize(raw, connection.msgtype)
            stamp = stamp_in_recording(message, log_time)
            places.setdefault(seconds_text(stamp), (log_time, stamp))
        return places


def message_at(reader: AnyReader, lock: Lock, topic: str, log_time: int, stamp: int) -> Any:
    """Reads one message, found by its place in the recording.

    Args:
        reader: The open bag.
        lock: Of the reader.
        topic: The message's topic.
        log_time: Nanoseconds when the message was recorded.
        stamp: Its stamp in nanoseconds.

    Returns:
        The message.

    Raises:
        ImageError: The message cannot be read.
    """
    connections = [connection for connection in reader.connections if connection.topic == topic]
    try:
        with lock:
            found = list(reader.messages(connections, start=log_time, stop=log_time + 1))
        for connection, recorded, raw in found:
            message: Any = reader.deserialize(raw, connection.msgtype)
            if stamp_in_recording(message, recorded) == stamp:
                return message
    except Exception as error:  # whatever the reader makes of damaged bytes
        raise ImageError(f"message cannot be read: {one_line(error)[:200]}") from error
    raise ImageError("message cannot be found again in the bag")
