# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Reads from a bag what a replay needs: its topics, the ground truth and single images."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImportSourceError, PoseError
from nre_ros.geometry import pose_matrix
from nre_ros.messages.bag import (
    CAMERA_INFO_TYPE,
    IMAGE_TYPES,
    POSE_TYPE,
    choose_topic,
    ground_truth_topic,
    open_bag,
)
from nre_ros.messages.camera_history import CameraHistory
from nre_ros.messages.stamps import header_stamp


@dataclass(frozen=True)
class BagTopics:
    """The topics of a bag that a replay uses.

    Attributes:
        image: Topic of the images.
        compressed: Whether the images are CompressedImage.
        camera_info: Topic of the camera's intrinsics.
        ground_truth: Topic of the camera's true poses (PoseStamped), empty if there is none.
        image_count: Number of images.
    """

    image: str
    compressed: bool
    camera_info: str
    ground_truth: str
    image_count: int


def find_topics(path: Path | str, image: str = "", camera_info: str = "", ground_truth: str = "") -> BagTopics:
    """Chooses the topics of a bag for a replay.

    Args:
        path: Folder of the bag, or one of its files.
        image: Image topic; empty for the only one.
        camera_info: CameraInfo topic; empty for the only one.
        ground_truth: PoseStamped topic; empty for ``/ground_truth`` or the only one.

    Returns:
        The topics.

    Raises:
        ImportSourceError: A topic is missing, or several topics fit. The message lists the topics of the bag.
    """
    with open_bag(path) as reader:
        found = {connection.topic: connection.msgtype for connection in reader.connections}
        counts = {topic: info.msgcount for topic, info in reader.topics.items()}
    image = choose_topic(path, found, IMAGE_TYPES, image, "image")
    camera_info = choose_topic(path, found, (CAMERA_INFO_TYPE,), camera_info, "camera_info")
    if ground_truth:
        choose_topic(path, found, (POSE_TYPE,), ground_truth, "ground truth")
    else:
        ground_truth = ground_truth_topic(found)
    return BagTopics(image, found[image] == IMAGE_TYPES[1], camera_info, ground_truth, counts[image])


def read_ground_truth(path: Path | str, topic: str) -> dict[int, npt.NDArray[np.float64]]:
    """Reads the true poses of a PoseStamped topic.

    Args:
        path: Folder of the bag, or one of its files.
        topic: Topic of the poses.

    Returns:
        Stamp (nanoseconds) -> pose [4, 4] of the camera in the map. Poses that are not finite are left out.
    """
    poses = {}
    for stamp, message in _messages(path, topic):
        p, q = message.pose.position, message.pose.orientation
        try:
            poses[stamp] = pose_matrix([p.x, p.y, p.z], [q.x, q.y, q.z, q.w])
        except PoseError:
            continue
    return poses


def read_images(path: Path | str, topic: str, stamps: Collection[int]) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Reads the images of a topic that have one of the given stamps.

    Args:
        path: Folder of the bag, or one of its files.
        topic: Topic of the images, raw or compressed.
        stamps: Stamps of the wanted images, nanoseconds.

    Yields:
        Stamp and image (uint8 BGR [H, W, 3], or grey [H, W]), in the order of the bag.
    """
    from nre_ros.messages.images import image_array

    for stamp, message in _messages(path, topic):
        if stamp in stamps:
            yield stamp, image_array(message)


def read_cameras(path: Path | str, topic: str) -> CameraHistory:
    """Reads the cameras of a CameraInfo topic.

    Args:
        path: Folder of the bag, or one of its files.
        topic: Topic of the CameraInfo messages.

    Returns:
        The cameras over time.
    """
    history = CameraHistory()
    for _, log_time, message in _recorded_messages(path, topic):
        history.add(message, log_time)
    return history


def _messages(path: Path | str, topic: str) -> Iterator[tuple[int, Any]]:
    """Stamps and messages of one topic."""
    for stamp, _, message in _recorded_messages(path, topic):
        yield stamp, message


def _recorded_messages(path: Path | str, topic: str) -> Iterator[tuple[int, int, Any]]:
    """Stamps, times of recording and messages of one topic."""
    with open_bag(path) as reader:
        connections = [connection for connection in reader.connections if connection.topic == topic]
        for connection, log_time, raw in reader.messages(connections):
            message: Any = reader.deserialize(raw, connection.msgtype)
            if not hasattr(message, "header"):
                raise ImportSourceError(
                    f"bag {path}: the messages on {topic!r} are {connection.msgtype}, without a header"
                )
            yield header_stamp(message), log_time, message
