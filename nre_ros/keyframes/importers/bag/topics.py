# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Choice of the topics that an import uses: those that the user named, or the only fitting ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader

from nre_ros.errors import ImportSourceError
from nre_ros.keyframes.importers.bag.options import BagOptions
from nre_ros.messages.bag import CAMERA_INFO_TYPE, IMAGE_TYPES, POSE_TYPE, choose_topic, topic_listing
from nre_ros.messages.damaged_bag import readable_messages
from nre_ros.messages.depth_images import is_depth

TF_TYPE = "tf2_msgs/msg/TFMessage"
POSE_TYPES = (POSE_TYPE, "geometry_msgs/msg/PoseWithCovarianceStamped", "nav_msgs/msg/Odometry")


@dataclass(frozen=True)
class ImportTopics:
    """The topics of an import.

    Attributes:
        image: The images.
        camera_info: CameraInfo of the images.
        depth: The depth images; empty: none.
        depth_info: CameraInfo of the depth images; empty: none.
        poses: The poses; empty: they are looked up in /tf.
    """

    image: str
    camera_info: str
    depth: str
    depth_info: str
    poses: str

    def note(self) -> str:
        """Returns one line for the user about what was chosen."""
        chosen = [
            ("images", self.image),
            ("camera", self.camera_info),
            ("depth", self.depth),
            ("depth camera", self.depth_info),
            ("poses", self.poses or "/tf"),
        ]
        return ", ".join(f"{what} from {topic}" for what, topic in chosen if topic)


def choose_topics(reader: AnyReader, path: Path | str, wanted: BagOptions) -> ImportTopics:
    """Completes the topics that the user named, where the bag has exactly one topic that fits.

    Args:
        reader: The open bag.
        path: The bag, for messages.
        wanted: The topics that the user named.

    Returns:
        The topics.

    Raises:
        ImportSourceError: A topic is missing, or the choice is not clear; the message lists the bag's topics.
    """
    found = {connection.topic: connection.msgtype for connection in reader.connections}
    named = {wanted.image, wanted.depth if wanted.use_depth else ""} - {""}
    depths, colours = _image_topics(reader, named)
    image = _choose(path, found, colours, wanted.image, IMAGE_TYPES, "image")
    infos = [topic for topic, kind in found.items() if kind == CAMERA_INFO_TYPE]
    sibling = sibling_info(image, infos)
    fitting = [sibling] if sibling else infos
    camera_info = _choose(path, found, fitting, wanted.camera_info, (CAMERA_INFO_TYPE,), "camera_info")
    depth = depth_info = ""
    if wanted.use_depth and (wanted.depth or len(depths) > 1):
        depth = _choose(path, found, depths, wanted.depth, IMAGE_TYPES, "depth")
    elif wanted.use_depth and depths:
        depth = depths[0]
    if wanted.use_depth and wanted.depth_info:
        depth_info = _choose(path, found, infos, wanted.depth_info, (CAMERA_INFO_TYPE,), "depth camera_info")
    elif depth:
        depth_info = sibling_info(depth, infos)
    return ImportTopics(image, camera_info, depth, depth_info, _choose_poses(path, found, wanted.poses))


def choose_image_topic(reader: AnyReader, path: Path | str, wanted: str = "") -> str:
    """Returns the topic of the images: the wanted one, or the only one without depth.

    Args:
        reader: The open bag.
        path: The bag, for messages.
        wanted: The topic that the user named; empty: none.

    Raises:
        ImportSourceError: The topic is missing, or the choice is not clear; the message lists the bag's topics.
    """
    found = {connection.topic: connection.msgtype for connection in reader.connections}
    _, colours = _image_topics(reader, {wanted} - {""})
    return _choose(path, found, colours, wanted, IMAGE_TYPES, "image")


def sibling_info(topic: str, infos: Collection[str]) -> str:
    """Returns the camera_info topic in the namespace of an image topic.

    Args:
        topic: The image topic.
        infos: The camera_info topics of the bag.

    Returns:
        The topic's name; empty if there is none.
    """
    namespaces = [topic.rsplit("/", depth)[0] for depth in (1, 2)]  # image_raw, image_raw/compressed
    return next((f"{name}/camera_info" for name in namespaces if f"{name}/camera_info" in infos), "")


def _choose_poses(path: Path | str, found: dict[str, str], wanted: str) -> str:
    if wanted:
        return choose_topic(path, found, POSE_TYPES, wanted, "pose")
    if TF_TYPE in found.values():
        return ""
    fitting = [topic for topic, kind in found.items() if kind in POSE_TYPES]
    if len(fitting) == 1:
        return fitting[0]
    problem = f"several pose topics ({', '.join(sorted(fitting))}): name one" if fitting else "no /tf and no pose topic"
    raise ImportSourceError(f"bag {path} has {problem}; it has: {topic_listing(found)}")


def _choose(
    path: Path | str, found: dict[str, str], fitting: Sequence[str], wanted: str, types: Collection[str], what: str
) -> str:
    """As ``choose_topic``, but without ``wanted`` only among ``fitting``."""
    among = found if wanted else {topic: kind for topic, kind in found.items() if topic in fitting}
    try:
        return choose_topic(path, among, types, wanted, what)
    except ImportSourceError as error:
        problem = str(error).partition("; it has:")[0]
        raise ImportSourceError(f"{problem}; it has: {topic_listing(found)}") from None


def _image_topics(reader: AnyReader, named: set[str]) -> tuple[list[str], list[str]]:
    """Topics of depth images and of other images, by the first message of each."""
    depths: list[str] = []
    colours: list[str] = []
    for connection in reader.connections:
        if connection.msgtype not in IMAGE_TYPES or connection.topic in (*depths, *colours):
            continue
        first = None if connection.topic in named else next(readable_messages(reader, [connection], []), None)
        if first is None:  # named by the user, or without a message
            (depths if "depth" in connection.topic else colours).append(connection.topic)
        else:
            message: Any = reader.deserialize(first[2], connection.msgtype)
            (depths if is_depth(message) else colours).append(connection.topic)
    return depths, colours
