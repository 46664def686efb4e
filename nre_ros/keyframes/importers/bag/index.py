# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One pass over a bag: when each image was taken, where its camera was, where its message lies.

Only this table stays in memory (a few hundred bytes an image), no image and no transform older
than half a minute.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from rosbags.highlevel import AnyReader

from nre_ros.errors import NreError
from nre_ros.keyframes.importers.bag.topics import POSE_TYPES, TF_TYPE, ImportTopics
from nre_ros.keyframes.importers.rgbd.folder import QUATERNION_TOLERANCE
from nre_ros.keyframes.importers.trajectory import Trajectory
from nre_ros.messages.damaged_bag import readable_messages
from nre_ros.messages.stamps import header_stamp, stamp_nanoseconds
from nre_ros.messages.transform_buffer import TransformBuffer

_PATIENCE = 5 * 10**9
"""Nanoseconds of the recording after an image within which its transforms are waited for."""
_CACHE_SECONDS = 30.0
_MAX_GAP = 1.0
"""Seconds between two poses of a pose topic beyond which nothing is interpolated."""


@dataclass
class ImageEntry:
    """An image message: log time, frame, and by map frame its pose [4, 4] or why there is none."""

    log_time: int
    frame: str
    poses: dict[str, np.ndarray] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


@dataclass
class BagIndex:
    """images, depths: by stamp (nanoseconds), the latter's log time and frame.

    frames: those that were tried as the map's.  T_camera_depth [4, 4]: from the depth camera's frame to the
    colour camera's, where both are known.
    damage: what could not be read, a line each.
    """

    images: dict[int, ImageEntry] = field(default_factory=dict)
    depths: dict[int, tuple[int, str]] = field(default_factory=dict)
    frames: tuple[str, ...] = ()
    damage: list[str] = field(default_factory=list)
    T_camera_depth: np.ndarray | None = None


class BagIndexer:
    """Makes the index of the topics chosen.

    frames: the map's frame, or several of which any may be it (a pose in each is looked for).
    pose_of: frame that the pose topic is about; empty: the message's child frame, or the camera.
    """

    def __init__(self, reader: AnyReader, topics: ImportTopics, frames: tuple[str, ...], pose_of: str):
        self._reader, self._topics, self._frames, self._pose_of = reader, topics, frames, pose_of
        self._buffer = TransformBuffer(_CACHE_SECONDS)
        self._trajectory = Trajectory(_MAX_GAP)
        self._pose_frame = self._pose_child = ""
        self._refused: dict[str, str] = {}
        self._parents: dict[str, str] = {}
        self._bad_poses = 0
        self.index = BagIndex()

    def run(self) -> BagIndex:
        """Reads the bag."""
        for connection, _, raw in self._messages(*self._transforms(static=True)):
            self._insert(self._reader.deserialize(raw, connection.msgtype), static=True)
        if self._topics.poses:
            for connection, _, raw in self._messages(self._topics.poses):
                self._add_pose(self._reader.deserialize(raw, connection.msgtype), connection.msgtype)
        self.index.frames = self._frames or (self._pose_frame,)
        self._walk()
        self.index.damage += list(self._refused.values())
        if self._bad_poses:
            self.index.damage.append(
                f"{self._bad_poses} poses of {self._topics.poses} are not finite or no unit quaternion"
            )
        return self.index

    def _transforms(self, static: bool) -> list[str]:
        """The topics of transforms, also of a robot's namespace."""
        topics = {c.topic for c in self._reader.connections if c.msgtype == TF_TYPE}
        return [topic for topic in topics if topic.endswith("_static") == static]

    def _messages(self, *topics: str):
        connections = [c for c in self._reader.connections if c.topic in topics]
        return readable_messages(self._reader, connections, self.index.damage) if connections else iter(())

    def _walk(self) -> None:
        """Transforms go into the buffer, images wait until those after them have come."""
        waiting: deque[int] = deque()
        topics = (*self._transforms(static=False), self._topics.image, self._topics.depth)
        for connection, log_time, raw in self._messages(*topics):
            message = self._reader.deserialize(raw, connection.msgtype)
            if connection.msgtype == TF_TYPE:
                self._insert(message, static=False)
            elif connection.topic == self._topics.image:
                stamp = header_stamp(message)
                if stamp not in self.index.images:
                    self.index.images[stamp] = ImageEntry(log_time, message.header.frame_id.removeprefix("/"))
                    waiting.append(stamp)
            else:
                self.index.depths[header_stamp(message)] = log_time, message.header.frame_id.removeprefix("/")
            while waiting and self.index.images[waiting[0]].log_time < log_time - _PATIENCE:
                self._locate(waiting.popleft())
        while waiting:
            self._locate(waiting.popleft())
        self._relate_depth()

    def _insert(self, message, static: bool) -> None:
        for item in message.transforms:
            t, q = item.transform.translation, item.transform.rotation
            refusal = self._buffer.insert(
                stamp_nanoseconds(item.header.stamp),
                item.header.frame_id,
                item.child_frame_id,
                [t.x, t.y, t.z],
                [q.x, q.y, q.z, q.w],
                static,
            )
            if refusal:  # of each kind and frame one example
                self._refused.setdefault(f"{refusal.split()[0]} {item.child_frame_id}", refusal)
            elif self._parents.get(item.child_frame_id) != item.header.frame_id:
                self._parents[item.child_frame_id] = item.header.frame_id
                self._check_loop(item.child_frame_id)

    def _check_loop(self, frame: str) -> None:
        chain = [frame]
        while (parent := self._parents.get(chain[-1])) is not None and parent not in chain:
            chain.append(parent)
        if parent is not None:
            loop = " -> ".join([*chain[chain.index(parent) :], parent])
            self._refused.setdefault(f"loop {sorted(chain)}", f"the transforms go in a circle: {loop}")

    def _add_pose(self, message, kind: str) -> None:
        self._pose_frame = message.header.frame_id.removeprefix("/")
        child = getattr(message, "child_frame_id", "").removeprefix("/")
        self._pose_child = self._pose_of or child
        pose = message.pose if kind == POSE_TYPES[0] else message.pose.pose
        position = [pose.position.x, pose.position.y, pose.position.z]
        quaternion = [pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w]
        if (
            not np.isfinite([*position, *quaternion]).all()
            or abs(np.linalg.norm(quaternion) - 1) > QUATERNION_TOLERANCE
        ):
            self._bad_poses += 1
        else:
            self._trajectory.add(header_stamp(message), position, quaternion)

    def _locate(self, stamp: int) -> None:
        """Fills in the poses of an image, in every frame that may be the map's, or the problem."""
        entry = self.index.images[stamp]
        for frame in self.index.frames:
            try:
                entry.poses[frame] = self._pose(stamp, entry.frame, frame)
            except NreError as error:
                entry.problems[frame] = str(error)

    def _pose(self, stamp: int, camera_frame: str, map_frame: str) -> np.ndarray:
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
        frames = {frame for _, frame in self.index.depths.values()}
        camera_frames = {entry.frame for entry in self.index.images.values()}
        if len(frames) == 1 and len(camera_frames) == 1:
            try:
                self.index.T_camera_depth = self._buffer.lookup(camera_frames.pop(), frames.pop(), 0)
            except NreError:
                pass  # told where it is needed
