# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Keyframes from a rosbag2 (sqlite3 or MCAP): no playback, no ROS."""

from __future__ import annotations

import hashlib
from pathlib import Path
from threading import Lock

import numpy as np

from nre_ros.errors import ImageError, ImportSourceError, NreError, PoseError
from nre_ros.geometry import Camera
from nre_ros.keyframes.building.culling import VIDEO
from nre_ros.keyframes.building.depth_registration import register_depth
from nre_ros.keyframes.importers.common import MapSource
from nre_ros.keyframes.importers.posed.posed_frames import PosedFrames
from nre_ros.keyframes.importers.rgbd.depth_frames import DepthFrames

try:
    from nre_ros.keyframes.importers.bag.index import BagIndexer
    from nre_ros.keyframes.importers.bag.topics import choose_topics
    from nre_ros.messages.bag import topic_listing
    from nre_ros.messages.damaged_bag import open_readable, readable_messages
    from nre_ros.messages.stamps import header_stamp
except ImportError as error:
    raise ImportSourceError(f"reading bags needs rosbags ({error}): pip install rosbags") from error
from nre_ros.messages.camera_info import camera_from_info
from nre_ros.messages.depth_images import depth_array
from nre_ros.messages.images import image_array
from nre_ros.messages.stamps import seconds_text

MAX_DEPTH_OFFSET = 0.02
"""Seconds between an image and its depth image."""
_USUAL_FRAMES = ("map", "odom")


class BagFrames:
    """A bag's images with their camera, pose and, where there is one, depth.

    Opens the bag, chooses topics (see ``choose_topics``) and reads it once for the stamps and poses;
    images are read when they are asked for.  ``names`` are the images' stamps in seconds, in their
    order.  frame: of the map; empty: ``map`` if transforms lead there from the camera, else ``odom``
    (of a pose topic: its own).  Raises ``ImportSourceError``.
    """

    def __init__(
        self,
        bag,
        image: str = "",
        camera_info: str = "",
        depth: str | None = "",
        depth_info: str = "",
        poses: str = "",
        pose_of: str = "",
        frame: str = "",
    ):
        self.path = Path(bag)
        self._lock = Lock()  # of the reader
        self._reader, problem = open_readable(self.path)
        self.topics = choose_topics(self._reader, self.path, image, camera_info, depth, depth_info, poses)
        frames = (frame,) if frame else () if self.topics.poses else _USUAL_FRAMES
        self.index = BagIndexer(self._reader, self.topics, frames, pose_of).run()
        self.frame_id = self._map_frame()
        self.names = [seconds_text(stamp) for stamp in sorted(self.index.images)]
        self._stamps = dict(zip(self.names, sorted(self.index.images)))
        self._depth_stamps = np.array(sorted(self.index.depths), dtype=np.int64)
        self.only_camera = self._camera(self.topics.camera_info)
        self._depth_camera = self._camera(self.topics.depth_info) if self.topics.depth_info else None
        problems = [problem] if problem else []
        self.notes = (
            *self.topics.notes(),
            f"{len(self.names)} images, poses in frame {self.frame_id}",
            *(f"bag {self.path}: {line}" for line in (*problems, *self.index.damage)),
        )

    def describe(self) -> dict:
        """What the frames depend on."""
        poses = b"".join(self._pose_of(name).tobytes() for name in self.names if self._has_pose(name))
        return {
            "importer": "bag",
            "bag": str(self.path.resolve()),
            "frame": self.frame_id,
            "topics": repr(self.topics),
            "poses": hashlib.sha256(poses).hexdigest(),
        }

    def pose(self, name: str) -> tuple[int, np.ndarray]:
        """Stamp in nanoseconds and T_map_cam [4, 4]; raises ``PoseError`` with the reason of the look-up."""
        if not self._has_pose(name):
            raise PoseError(self.index.images[self._stamps[name]].problems[self.frame_id])
        return self._stamps[name], self._pose_of(name)

    def image(self, name: str) -> np.ndarray:
        """uint8 BGR [H, W, 3] or grey [H, W].  Raises ``ImageError``."""
        stamp = self._stamps[name]
        return image_array(self._message(self.topics.image, self.index.images[stamp].log_time, stamp))

    def depth(self, name: str) -> np.ndarray:
        """[H, W] float32 metres along z in the colour image's pixels, 0: none.  Raises ``ImageError``."""
        stamp = self._stamps[name]
        offsets = np.abs(self._depth_stamps - stamp)
        if not len(offsets) or offsets.min() > MAX_DEPTH_OFFSET * 1e9:
            raise ImageError(f"no depth image within {MAX_DEPTH_OFFSET} s of this image")
        depth_stamp = int(self._depth_stamps[int(offsets.argmin())])
        log_time, frame = self.index.depths[depth_stamp]
        depth = depth_array(self._message(self.topics.depth, log_time, depth_stamp))
        return self._registered(depth, frame, self.index.images[stamp].frame)

    def _registered(self, depth: np.ndarray, frame: str, camera_frame: str) -> np.ndarray:
        camera, depth_camera = self.only_camera, self._depth_camera
        same_size = depth.shape == (camera.height, camera.width)
        if frame == camera_frame and (depth_camera is None or same_size and _alike(camera, depth_camera)):
            return depth  # of another size: refused later
        if depth_camera is None:
            raise ImageError(
                f"depth is in frame {frame}, the image in {camera_frame}: name the depth camera's --depth-info"
            )
        if depth.shape != (depth_camera.height, depth_camera.width):
            size = f"{depth.shape[1]}x{depth.shape[0]}"
            raise ImageError(f"depth of {size} pixels, its camera has {depth_camera.width}x{depth_camera.height}")
        if self.index.T_camera_depth is None:
            raise ImageError(f"no transform from the depth camera {frame} to the camera {camera_frame}")
        return register_depth(depth, depth_camera, camera, self.index.T_camera_depth)

    def _message(self, topic: str, log_time: int, stamp: int):
        """The message of that stamp; one message is looked up by its place in the recording."""
        connections = [connection for connection in self._reader.connections if connection.topic == topic]
        try:
            with self._lock:
                found = list(self._reader.messages(connections, start=log_time, stop=log_time + 1))
            for connection, _, raw in found:
                message = self._reader.deserialize(raw, connection.msgtype)
                if header_stamp(message) == stamp:
                    return message
        except Exception as error:  # whatever the reader makes of damaged bytes
            raise ImageError(f"message cannot be read: {' '.join(str(error).split())[:200]}") from error
        raise ImageError("message cannot be found again in the bag")

    def _camera(self, topic: str) -> Camera:
        """The camera of the first CameraInfo that is one."""
        problem = "has no message"
        connections = [connection for connection in self._reader.connections if connection.topic == topic]
        for connection, _, raw in readable_messages(self._reader, connections, []):
            try:
                return camera_from_info(self._reader.deserialize(raw, connection.msgtype))
            except NreError as error:
                problem = f"has no camera: {error}"
        raise ImportSourceError(f"topic {topic} of bag {self.path} {problem}")

    def _map_frame(self) -> str:
        entries = list(self.index.images.values())
        if not entries:
            raise ImportSourceError(f"topic {self.topics.image} of bag {self.path} has no image that can be read")
        for frame in self.index.frames:
            if any(frame in entry.poses for entry in entries):
                return frame
        found = {connection.topic: connection.msgtype for connection in self._reader.connections}
        raise ImportSourceError(
            f"no image of {self.topics.image} has a pose: {entries[-1].problems[self.index.frames[-1]]}; name --poses "
            f"or --frame; the bag has: {topic_listing(found)}"
        )

    def _has_pose(self, name: str) -> bool:
        return self.frame_id in self.index.images[self._stamps[name]].poses

    def _pose_of(self, name: str) -> np.ndarray:
        return self.index.images[self._stamps[name]].poses[self.frame_id]


class _OfBag:
    """What the sources of bags have in common."""

    usual_thinning = VIDEO

    def __init__(self, frames: BagFrames):
        super().__init__()
        self.frames, self.notes, self.frame_id = frames, frames.notes, frames.frame_id

    def names(self) -> list[str]:
        return list(self.frames.names)

    def describe(self) -> dict:
        return self.frames.describe()

    def pose(self, name: str) -> tuple[int, np.ndarray]:
        return self.frames.pose(name)

    def camera(self, name: str) -> Camera:
        return self.frames.only_camera

    def image(self, name: str) -> np.ndarray:
        return self.frames.image(name)


class BagSource(_OfBag, DepthFrames):
    """The images of a bag that has depth."""

    def depth(self, name: str) -> np.ndarray:
        return self.frames.depth(name)


class MonoBagSource(_OfBag, PosedFrames):
    """The images of a bag without depth: points are triangulated between those that overlap."""


def bag_source(*arguments, **options) -> MapSource:
    """The source of a bag, with depth if there is any; arguments as of ``BagFrames``.  Raises ``ImportSourceError``."""
    frames = BagFrames(*arguments, **options)
    return BagSource(frames) if frames.topics.depth else MonoBagSource(frames)


def _alike(a: Camera, b: Camera) -> bool:
    """Whether the two have one image plane (drivers give registered depth the colour camera's intrinsics)."""
    return np.allclose((a.fx, a.fy, a.cx, a.cy), (b.fx, b.fy, b.cx, b.cy), rtol=1e-3, atol=0.5)
