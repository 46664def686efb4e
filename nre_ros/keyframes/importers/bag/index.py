# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One pass over a bag: the time and pose of each image, and the place of its message.

Only this table stays in memory (a few hundred bytes an image): no image, and no transform older than half a minute.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection

from nre_ros.errors import NreError, PoseError
from nre_ros.keyframes.importers.bag.topics import POSE_TYPES, TF_TYPE, ImportTopics
from nre_ros.keyframes.importers.pose_checks import check_quaternion
from nre_ros.keyframes.importers.pose_frames import extrinsics_option
from nre_ros.keyframes.importers.trajectory import Trajectory
from nre_ros.messages.damaged_bag import readable_messages
from nre_ros.messages.frame_ids import frame_name
from nre_ros.messages.optical_frames import is_optical, is_optical_of_body
from nre_ros.messages.stamps import header_stamp, stamp_in_recording, stamp_nanoseconds
from nre_ros.messages.transform_buffer import TransformBuffer

_PATIENCE = 5 * 10**9
"""Nanoseconds of the recording after an image within which its transforms are waited for."""
_CACHE_SECONDS = 30.0
"""History of the transforms that is kept."""
_MAX_POSE_TOPIC_GAP = 1.0
"""Seconds between two poses of a pose topic beyond which nothing is interpolated."""


@dataclass
class RecordedImage:
    """An image message.

    Attributes:
        log_time: Nanoseconds when the message was recorded.
        frame: Its frame.
        has_stamp: Whether its stamp is its own; otherwise the time of its recording.
        poses: Frame that may be the map's -> pose of the camera [4, 4] in it.
        errors: Frame that may be the map's -> why there is no pose in it.
    """

    log_time: int
    frame: str
    has_stamp: bool = True
    poses: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


@dataclass
class BagIndex:
    """The images and depth images of a bag.

    Attributes:
        images: Stamp in nanoseconds -> image.
        depths: Stamp in nanoseconds -> log time and frame of a depth image. A message without a stamp has the time of its
            recording.
        frames: Frames that may be the map's.
        damage: What could not be read or was ignored, one line each.
        without_stamp: Number of images that are placed by the time of their recording.
        repeated: Number of images that have the stamp of another image, and are left out.
        T_camera_depth: [4, 4] from the depth camera's frame to the colour camera's; None if it is not known.
        frame_warning: Which optical frame the images should carry in place of the frame of a body; empty if none.
    """

    images: dict[int, RecordedImage] = field(default_factory=dict)
    depths: dict[int, tuple[int, str]] = field(default_factory=dict)
    frames: tuple[str, ...] = ()
    damage: list[str] = field(default_factory=list)
    without_stamp: int = 0
    repeated: int = 0
    T_camera_depth: npt.NDArray[np.float64] | None = None
    frame_warning: str = ""


class BagIndexer:
    """Makes the index of a bag.

    Args:
        reader: The open bag.
        topics: The topics to read.
        frames: Frames that may be the map's; a pose in each of them is looked up. Empty: the frame of the pose topic.
        pose_of: Frame whose poses the pose topic contains; empty: the message's child frame, or the camera.
    """

    def __init__(self, reader: AnyReader, topics: ImportTopics, frames: tuple[str, ...], pose_of: str) -> None:
        self._reader, self._topics, self._frames, self._pose_of = reader, topics, frames, frame_name(pose_of)
        self._buffer = TransformBuffer(_CACHE_SECONDS)
        self._trajectory = Trajectory(_MAX_POSE_TOPIC_GAP)
        self._pose_frame = self._pose_child = ""
        self._refusals: dict[str, str] = {}
        self._parents: dict[str, str] = {}
        self._wrong_poses = 0
        self._index = BagIndex()

    def run(self) -> BagIndex:
        """Reads the bag and returns its index."""
        for connection, _, raw in self._messages(*self._transform_topics(static=True)):
            self._insert_transforms(self._reader.deserialize(raw, connection.msgtype), static=True)
        if self._topics.poses:
            for connection, log_time, raw in self._messages(self._topics.poses):
                self._add_pose(self._reader.deserialize(raw, connection.msgtype), connection.msgtype, log_time)
        self._index.frames = self._frames or (self._pose_frame,)
        self._read_images()
        self._relate_depth()
        self._index.frame_warning = self._optical_sibling()
        self._index.damage += list(self._refusals.values())
        if self._wrong_poses:
            self._index.damage.append(
                f"{self._wrong_poses} poses of {self._topics.poses} are not finite or no unit quaternion"
            )
        return self._index

    def _transform_topics(self, static: bool) -> list[str]:
        """The topics of transforms, also of a robot's namespace."""
        topics = {c.topic for c in self._reader.connections if c.msgtype == TF_TYPE}
        return [topic for topic in topics if topic.endswith("_static") == static]

    def _messages(self, *topics: str) -> Iterator[tuple[Connection, int, bytes]]:
        connections = [c for c in self._reader.connections if c.topic in topics]
        return readable_messages(self._reader, connections, self._index.damage) if connections else iter(())

    def _read_images(self) -> None:
        """Transforms go into the buffer; images wait until later transforms have come."""
        waiting: deque[int] = deque()
        topics = (*self._transform_topics(static=False), self._topics.image, self._topics.depth)
        for connection, log_time, raw in self._messages(*topics):
            message: Any = self._reader.deserialize(raw, connection.msgtype)
            if connection.msgtype == TF_TYPE:
                self._insert_transforms(message, static=False, log_time=log_time)
            elif connection.topic == self._topics.image:
                stamp = stamp_in_recording(message, log_time)
                self._index.without_stamp += header_stamp(message) == 0
                if stamp in self._index.images:
                    self._index.repeated += 1
                else:
                    self._index.images[stamp] = RecordedImage(log_time, _frame(message), header_stamp(message) != 0)
                    waiting.append(stamp)
            else:
                self._index.depths[stamp_in_recording(message, log_time)] = log_time, _frame(message)
            while waiting and self._index.images[waiting[0]].log_time < log_time - _PATIENCE:
                self._locate(waiting.popleft())
        while waiting:
            self._locate(waiting.popleft())

    def _insert_transforms(self, message: Any, static: bool, log_time: int = 0) -> None:
        for item in message.transforms:
            t, q = item.transform.translation, item.transform.rotation
            parent, child = frame_name(item.header.frame_id), frame_name(item.child_frame_id)
            refusal = self._buffer.insert(
                stamp_nanoseconds(item.header.stamp) or log_time,
                parent,
                child,
                [t.x, t.y, t.z],
                [q.x, q.y, q.z, q.w],
                static,
            )
            if refusal:  # of each kind and frame one example
                self._refusals.setdefault(f"{refusal.split()[0]} {child}", refusal)
            elif self._parents.get(child) != parent:
                self._parents[child] = parent
                self._check_loop(child)

    def _check_loop(self, frame: str) -> None:
        chain = [frame]
        while (parent := self._parents.get(chain[-1])) is not None and parent not in chain:
            chain.append(parent)
        if parent is not None:
            loop = " -> ".join([*chain[chain.index(parent) :], parent])
            self._refusals.setdefault(f"loop {sorted(chain)}", f"the transforms contain a loop: {loop}")

    def _add_pose(self, message: Any, kind: str, log_time: int) -> None:
        self._pose_frame = _frame(message)
        self._pose_child = self._pose_of or frame_name(getattr(message, "child_frame_id", ""))
        pose = message.pose if kind == POSE_TYPES[0] else message.pose.pose
        position = [pose.position.x, pose.position.y, pose.position.z]
        quaternion = [pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w]
        try:
            if not np.isfinite([*position, *quaternion]).all():
                raise PoseError("pose is not finite")
            check_quaternion(quaternion)
        except PoseError:
            self._wrong_poses += 1
        else:
            self._trajectory.add(stamp_in_recording(message, log_time), position, quaternion)

    def _locate(self, stamp: int) -> None:
        """Looks up the poses of an image in every frame that may be the map's."""
        entry = self._index.images[stamp]
        for frame in self._index.frames:
            try:
                entry.poses[frame] = self._pose(stamp, entry.frame, frame)
            except NreError as error:
                entry.errors[frame] = str(error)

    def _pose(self, stamp: int, camera_frame: str, map_frame: str) -> npt.NDArray[np.float64]:
        """``T_map_cam`` [4, 4] from /tf, or from the pose topic and the transforms on both sides of it."""
        if not self._topics.poses:
            return self._buffer.lookup(map_frame, camera_frame, stamp)
        T = self._trajectory.at(stamp)
        if map_frame != self._pose_frame:
            T = self._buffer.lookup(map_frame, self._pose_frame, stamp) @ T
        if self._pose_child and self._pose_child != camera_frame:
            T = T @ self._buffer.lookup(self._pose_child, camera_frame, stamp)
        return T

    def _relate_depth(self) -> None:
        """The static transform between the two cameras, if there is one."""
        frames = {frame for _, frame in self._index.depths.values()}
        camera_frames = {entry.frame for entry in self._index.images.values()}
        if len(frames) == 1 and len(camera_frames) == 1:
            try:
                self._index.T_camera_depth = self._buffer.lookup(camera_frames.pop(), frames.pop(), 0)
            except NreError:
                pass  # reported where the transform is needed

    def _optical_sibling(self) -> str:
        """The warning about images that carry the frame of the camera's body beside an optical frame in TF."""
        for frame in sorted({entry.frame for entry in self._index.images.values()}):
            if is_optical(frame):
                continue
            for name in sorted(filter(is_optical, self._buffer.frame_names())):
                try:
                    T = self._buffer.lookup(frame, name, 0)
                except NreError:
                    continue
                if is_optical_of_body(T):
                    return (
                        f"the images carry frame {frame}, which by TF is no optical frame: its x axis looks along "
                        f"the optical axis of {name}. If the images are those of {name}, poses are turned by 120 degrees: "
                        f"give {extrinsics_option(T)}"
                    )
        return ""


def _frame(message: Any) -> str:
    """The frame in a message's header."""
    return frame_name(message.header.frame_id)
