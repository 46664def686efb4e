# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The images of a rosbag2, read as the file holds them: no ROS, no playback, one image in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from nre_ros.errors import EvaluationError, ImageError, NreError
from nre_ros.evaluation.inputs import Query
from nre_ros.geometry import Camera
from nre_ros.images import check_image_size
from nre_ros.keyframes.importers.bag.topics import sibling_info
from nre_ros.messages.bag import CAMERA_INFO_TYPE, IMAGE_TYPES, choose_topic
from nre_ros.messages.camera_info import camera_from_info
from nre_ros.messages.damaged_bag import open_readable, readable_messages
from nre_ros.messages.depth_images import is_depth
from nre_ros.messages.images import image_array
from nre_ros.messages.stamps import header_stamp, seconds_text


class BagInput:
    """The images of one topic of a bag, every ``every``th of them, with the CameraInfo that holds at their time.

    An image without a stamp has the time when it was recorded.

    image, camera_info: topics; empty: the only one of its type, or the image's own.  notes: what is wrong with
    the bag, a line each; damage: what could not be read (known after ``queries`` has been read to its end).
    Raises an ``NreError`` when a topic is missing, or the bag holds no image.
    """

    def __init__(self, path, image: str = "", camera_info: str = "", every: int = 1):
        self.path, self.every = Path(path), every
        reader, problem = open_readable(self.path)
        with closing(reader):
            found = {connection.topic: connection.msgtype for connection in reader.connections}
            if not found or reader.message_count == 0:
                raise EvaluationError(f"bag {self.path} is empty: it has no message")
            self.image = image or _only_image_topic(reader, self.path, found)
            choose_topic(self.path, found, IMAGE_TYPES, self.image, "image")
            infos = [topic for topic, kind in found.items() if kind == CAMERA_INFO_TYPE]
            camera_info = camera_info or sibling_info(self.image, infos)
            self.camera_info = choose_topic(self.path, found, (CAMERA_INFO_TYPE,), camera_info, "camera_info")
            self.images = reader.topics[self.image].msgcount
            if not self.images:
                raise EvaluationError(f"bag {self.path} has no message on {self.image}")
            self.first_stamp, self.last_stamp, self.camera_frame = self._span(reader)
        self.compressed = found[self.image] == IMAGE_TYPES[1]
        self.topics = found
        self.damage: list[str] = []
        self.notes = [f"bag {self.path}: {problem}"] if problem else []

    def __len__(self) -> int:
        return -(-self.images // self.every)

    def describe(self) -> dict:
        """What the results depend on, as plain JSON values."""
        return {
            "bag": str(self.path.resolve()),
            "image": self.image,
            "camera_info": self.camera_info,
            "count": self.images,
            "first_stamp": self.first_stamp,
        }

    def queries(self) -> Iterator[Query]:
        """The images in the bag's order; of several with one stamp, which is their name, the first."""
        self.damage.clear()
        seen, repeated = set(), 0
        for number, (stamp, message, info) in enumerate(self._messages()):
            if number % self.every == 0:
                repeated += stamp in seen
                if stamp not in seen:
                    seen.add(stamp)
                    yield Query(seconds_text(stamp), stamp, lambda message=message, info=info: _load(message, info))
        if repeated:
            self.damage.append(f"bag {self.path}: {repeated} images have the stamp of another one and are left out")

    def find(self, names: set[str]) -> Iterator[tuple[str, np.ndarray, Camera]]:
        """Those images again, for pictures; what cannot be read is left out."""
        left = set(names)
        for stamp, message, info in self._messages():
            if seconds_text(stamp) in left:
                left.discard(seconds_text(stamp))
                try:
                    yield seconds_text(stamp), *_load(message, info)
                except NreError:
                    continue
            if not left:
                return

    def _messages(self) -> Iterator[tuple]:
        reader, _ = open_readable(self.path)
        with closing(reader):
            infos = [c for c in reader.connections if c.topic == self.camera_info]
            info = next((reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages(infos)), None)
            connections = [c for c in reader.connections if c.topic in (self.image, self.camera_info)]
            for connection, log_time, raw in readable_messages(reader, connections, self.damage):
                message = reader.deserialize(raw, connection.msgtype)
                if connection.topic == self.camera_info:
                    info = message
                else:
                    yield header_stamp(message) or log_time, message, info

    def _span(self, reader) -> tuple[int, int, str]:
        """Stamps of the first image and, by the recording's length, about the last one; the images' frame."""
        connections = [c for c in reader.connections if c.topic == self.image]
        for connection, log_time, raw in reader.messages(connections):
            message = reader.deserialize(raw, connection.msgtype)
            first = header_stamp(message) or log_time
            return first, first + reader.end_time - log_time, message.header.frame_id
        raise EvaluationError(f"bag {self.path} has no message on {self.image}")


def _load(message, info) -> tuple[np.ndarray, Camera]:
    """As the node does it."""
    if info is None:
        raise ImageError("there is no camera_info message")
    image, camera = image_array(message), camera_from_info(info)
    check_image_size(image, camera)
    return image, camera


def _only_image_topic(reader, path: Path, found: dict[str, str]) -> str:
    """The only topic of camera images; topics that carry depth are none."""
    topics = []
    for topic in sorted(topic for topic, kind in found.items() if kind in IMAGE_TYPES):
        connections = [c for c in reader.connections if c.topic == topic]
        first = next((reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages(connections)), None)
        if first is None or not is_depth(first):
            topics.append(topic)
    if len(topics) == 1:
        return topics[0]
    return choose_topic(path, {topic: found[topic] for topic in topics} or found, IMAGE_TYPES, "", "image")
