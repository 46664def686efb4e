# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a bag holds for a replay: its topics, its ground truth, single images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nre_ros.errors import PoseError
from nre_ros.geometry import pose_matrix
from nre_ros.messages.bag import CAMERA_INFO_TYPE, IMAGE_TYPES, POSE_TYPE, choose_topic, open_bag
from nre_ros.messages.stamps import header_stamp


@dataclass(frozen=True)
class BagTopics:
    """The topics that a replay works with.  truth: of PoseStamped, or empty; compressed: of the image."""

    image: str
    compressed: bool
    camera_info: str
    truth: str
    images: int


def find_topics(path: Path | str, image: str = "", camera_info: str = "", truth: str = "") -> BagTopics:
    """The bag's topics: those named, or the only one of their type (``/ground_truth`` of several poses).

    Raises ``ImportSourceError`` that lists what the bag has when one is missing or the choice is not clear.
    """
    with open_bag(path) as reader:
        found = {connection.topic: connection.msgtype for connection in reader.connections}
        counts = {topic: info.msgcount for topic, info in reader.topics.items()}
    image = choose_topic(path, found, IMAGE_TYPES, image, "image")
    camera_info = choose_topic(path, found, (CAMERA_INFO_TYPE,), camera_info, "camera_info")
    poses = [topic for topic, kind in found.items() if kind == POSE_TYPE]
    if truth or len(poses) == 1:
        truth = choose_topic(path, found, (POSE_TYPE,), truth, "ground truth")
    elif "/ground_truth" in poses:
        truth = "/ground_truth"
    return BagTopics(image, found[image] == IMAGE_TYPES[1], camera_info, truth, counts[image])


def read_truth(path: Path | str, topic: str) -> dict[int, np.ndarray]:
    """Stamp (nanoseconds) -> pose [4, 4] of a PoseStamped topic; poses that are not finite are left out."""
    truth = {}
    with open_bag(path) as reader:
        connections = [connection for connection in reader.connections if connection.topic == topic]
        for connection, _, raw in reader.messages(connections):
            message = reader.deserialize(raw, connection.msgtype)
            stamp = header_stamp(message)
            p, q = message.pose.position, message.pose.orientation
            try:
                truth[stamp] = pose_matrix([p.x, p.y, p.z], [q.x, q.y, q.z, q.w])
            except PoseError:
                continue
    return truth


def read_image(path: Path | str, topic: str, stamp: int) -> np.ndarray | None:
    """The image (uint8 BGR, or grey) of that topic and stamp; None where there is none."""
    from nre_ros.messages.images import image_array

    with open_bag(path) as reader:
        connections = [connection for connection in reader.connections if connection.topic == topic]
        for connection, _, raw in reader.messages(connections):
            message = reader.deserialize(raw, connection.msgtype)
            if header_stamp(message) == stamp:
                return image_array(message)
    return None
