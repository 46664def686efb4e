# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The images of a rosbag2 as query images, read from the file without ROS and one at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rosbags.highlevel import AnyReader

from nre_ros.errors import EvaluationError, NreError
from nre_ros.evaluation.bag_ground_truth import read_topic
from nre_ros.evaluation.ground_truth import (
    NO_GROUND_TRUTH,
    GroundTruthAssociation,
    check_frame,
    check_overlap,
    ground_truth_file,
    read_tum,
)
from nre_ros.evaluation.inputs import EvaluationInput, Query
from nre_ros.evaluation.options import EvaluationOptions
from nre_ros.geometry import Camera, describe_unusual_cameras
from nre_ros.images import check_image_size
from nre_ros.keyframes.importers.bag.topics import sibling_info
from nre_ros.messages.bag import CAMERA_INFO_TYPE, IMAGE_TYPES, choose_topic, ground_truth_topic
from nre_ros.messages.camera_history import CameraHistory
from nre_ros.messages.damaged_bag import open_readable, readable_messages
from nre_ros.messages.depth_images import is_depth
from nre_ros.messages.images import image_array
from nre_ros.messages.stamps import header_stamp, seconds_text, stamp_in_recording


class BagInput(EvaluationInput):
    """The images of one topic of a bag, each with the CameraInfo of its stamp (else the newest before it).

    The name of an image is its stamp in seconds. An image without a stamp has the time at which it was recorded.

    Attributes:
        path: The bag.
        image: Image topic.
        camera_info: CameraInfo topic.
        images: Number of images in the topic.
        first_stamp: Stamp of the first image in nanoseconds.
        last_stamp: Approximate stamp of the last image in nanoseconds, from the length of the recording.
        camera_frame: Frame of the images.
        compressed: Whether the images are CompressedImage messages.
        topics: Topic name to message type of all topics in the bag.
    """

    def __init__(self, path: Path | str, image: str = "", camera_info: str = "", every: int = 1) -> None:
        """Opens the bag and chooses its topics.

        Args:
            path: Folder of a rosbag2, or one .mcap or .db3 file.
            image: Image topic, empty for the only one.
            camera_info: CameraInfo topic, empty for the only one or the one beside the image topic.
            every: Only every n-th image is a query.

        Raises:
            NreError: A topic is missing, the choice is not clear, or the bag contains no image.
        """
        self.path, self.every = Path(path), every
        reader, problem = open_readable(self.path)
        with closing(reader):
            found = {connection.topic: str(connection.msgtype) for connection in reader.connections}
            if not found or reader.message_count == 0:
                raise EvaluationError(f"bag {self.path} is empty: it contains no message")
            self.image = image or _only_image_topic(reader, self.path, found)
            choose_topic(self.path, found, IMAGE_TYPES, self.image, "image")
            infos = [topic for topic, kind in found.items() if kind == CAMERA_INFO_TYPE]
            camera_info = camera_info or sibling_info(self.image, infos)
            self.camera_info = choose_topic(self.path, found, (CAMERA_INFO_TYPE,), camera_info, "camera_info")
            self.images = reader.topics[self.image].msgcount
            if not self.images:
                raise EvaluationError(f"bag {self.path} contains no message on {self.image}")
            self.first_stamp, self.last_stamp, self.camera_frame = self._time_span(reader)
        self.compressed = found[self.image] == IMAGE_TYPES[1]
        self.topics = found
        self.notes = [f"bag {self.path}: {problem}"] if problem else []
        self.damage: list[str] = []
        self._without_stamp = 0

    def __len__(self) -> int:
        return -(-self.images // self.every)

    def describe(self) -> dict[str, Any]:
        return {
            "bag": str(self.path.resolve()),
            "image": self.image,
            "camera_info": self.camera_info,
            "count": self.images,
            "first_stamp": self.first_stamp,
        }

    def queries(self) -> Iterator[Query]:
        """Iterates over the queries in the order of the bag. Of several images with one stamp, only the first is used.

        Yields:
            The queries.
        """
        self.damage.clear()
        stamps: set[int] = set()
        repeated = self._without_stamp = 0
        for number, (stamp, message, camera) in enumerate(self._messages()):
            if number % self.every == 0:
                repeated += stamp in stamps
                if stamp not in stamps:
                    stamps.add(stamp)
                    yield Query(seconds_text(stamp), stamp, partial(_decode, message, camera))
        if self._without_stamp:
            self.damage.append(
                f"bag {self.path}: {self._without_stamp} images have no stamp and got the time of their recording"
            )
        if repeated:
            self.damage.append(
                f"bag {self.path}: {repeated} images have the same stamp as another image and were left out"
            )

    def load_images(self, names: Collection[str]) -> Iterator[tuple[str, npt.NDArray[np.uint8], Camera]]:
        remaining = set(names)
        for stamp, message, camera_of in self._messages():
            name = seconds_text(stamp)
            if name in remaining:
                remaining.discard(name)
                try:
                    image, camera = _decode(message, camera_of)
                except NreError:
                    continue
                yield name, image, camera
            if not remaining:
                return

    def ground_truth(self, options: EvaluationOptions, map_frame: str) -> GroundTruthAssociation:
        name = options.ground_truth or ground_truth_topic(self.topics)
        if not name:
            return NO_GROUND_TRUTH
        path = ground_truth_file(name)
        trajectory = read_tum(path, options.convention) if path else read_topic(self.path, name, self.camera_frame)
        check_frame(trajectory, map_frame, options.ground_truth_frame)
        check_overlap(trajectory, self.first_stamp, self.last_stamp, f"bag {self.path}")

        def lookup(
            names: Sequence[str], stamps: npt.NDArray[np.int64]
        ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
            return stamps, trajectory.at(stamps, options.max_gap)

        return GroundTruthAssociation(lookup, trajectory.source, trajectory)

    def _messages(self) -> Iterator[tuple[int, Any, Callable[[], Camera]]]:
        """Stamp and message of every image, and a function that finds its camera."""
        reader, _ = open_readable(self.path)
        with closing(reader):
            cameras = CameraHistory()
            infos = [c for c in reader.connections if c.topic == self.camera_info]
            for connection, log_time, raw in readable_messages(reader, infos, []):
                info: Any = reader.deserialize(raw, connection.msgtype)
                cameras.add(info, log_time)
            unusual = describe_unusual_cameras((self.camera_info, camera) for camera in cameras.cameras)
            notes = [f"bag {self.path}: {line}" for line in (*cameras.notes(self.camera_info), *unusual)]
            self.damage += [note for note in notes if note not in self.damage]
            connections = [c for c in reader.connections if c.topic == self.image]
            for connection, log_time, raw in readable_messages(reader, connections, self.damage):
                message: Any = reader.deserialize(raw, connection.msgtype)
                self._without_stamp += header_stamp(message) == 0
                stamp = stamp_in_recording(message, log_time)
                yield stamp, message, partial(cameras.at, header_stamp(message), log_time)

    def _time_span(self, reader: AnyReader) -> tuple[int, int, str]:
        """Stamp of the first image, approximate stamp of the last one, and the frame of the images."""
        connections = [c for c in reader.connections if c.topic == self.image]
        for connection, log_time, raw in reader.messages(connections):
            message: Any = reader.deserialize(raw, connection.msgtype)
            first = stamp_in_recording(message, log_time)
            return first, first + reader.end_time - log_time, message.header.frame_id
        raise EvaluationError(f"bag {self.path} contains no message on {self.image}")


def _decode(message: Any, camera_of: Callable[[], Camera]) -> tuple[npt.NDArray[np.uint8], Camera]:
    """Decodes an image and finds its camera, with the same checks as the node."""
    image, camera = image_array(message), camera_of()
    check_image_size(image, camera)
    return image, camera


def _only_image_topic(reader: AnyReader, path: Path, found: dict[str, str]) -> str:
    """The only topic of camera images. Topics of depth images are ignored."""
    topics = []
    for topic in sorted(topic for topic, kind in found.items() if kind in IMAGE_TYPES):
        connections = [c for c in reader.connections if c.topic == topic]
        first: Any = next((reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages(connections)), None)
        if first is None or not is_depth(first):
            topics.append(topic)
    if len(topics) == 1:
        return topics[0]
    return choose_topic(path, {topic: found[topic] for topic in topics} or found, IMAGE_TYPES, "", "image")
