# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The images, depth images and cameras of one rosbag2 recording."""

from __future__ import annotations

import hashlib
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImageError, ImportSourceError, NreError, PoseError
from nre_ros.geometry import Camera
from nre_ros.keyframes.building.depth_registration import register_depth
from nre_ros.keyframes.importers.bag.index import BagIndexer
from nre_ros.keyframes.importers.bag.options import BagOptions
from nre_ros.keyframes.importers.bag.topics import choose_topics
from nre_ros.keyframes.importers.image_files import check_depth_size, nearest_stamp
from nre_ros.messages.bag import topic_listing
from nre_ros.messages.camera_info import camera_from_info
from nre_ros.messages.damaged_bag import open_readable, readable_messages
from nre_ros.messages.depth_images import depth_array
from nre_ros.messages.frame_ids import frame_name
from nre_ros.messages.images import image_array
from nre_ros.messages.stamps import header_stamp, seconds_text

MAX_DEPTH_OFFSET = 0.02
"""Seconds between an image and its depth image."""
_USUAL_FRAMES = ("map", "odom")
"""Frames that may be the map's, unless the user names one."""


class BagRecording:
    """A bag's images with their camera, pose and, where there is one, depth.

    The bag is read once for the stamps and poses; images are read when they are needed. Threads may share a recording.

    Args:
        bag: Folder of a rosbag2, or one of its files.
        options: Topics and frames that the user named.

    Attributes:
        names: The images' stamps in seconds, in their order.
        frame_id: The map's frame.
        topics: The topics that are used.
        camera: Camera of all images.
        notes: What the user should know, one line each.

    Raises:
        ImportSourceError: The bag cannot be read, or topics, camera or poses are missing.
    """

    def __init__(self, bag: Path | str, options: BagOptions = BagOptions()) -> None:
        self.path = Path(bag)
        self._lock = Lock()  # of the reader
        self._reader, problem = open_readable(self.path)
        self.topics = choose_topics(self._reader, self.path, options)
        frames = (frame_name(options.frame),) if options.frame else () if self.topics.poses else _USUAL_FRAMES
        self._index = BagIndexer(self._reader, self.topics, frames, options.pose_of).run()
        self.frame_id = self._map_frame()
        stamps = sorted(self._index.images)
        self.names = [seconds_text(stamp) for stamp in stamps]
        self._stamps = dict(zip(self.names, stamps))
        self._depth_stamps = np.array(sorted(self._index.depths), dtype=np.int64)
        self.camera = self._first_camera(self.topics.camera_info)
        self._depth_camera = self._first_camera(self.topics.depth_info) if self.topics.depth_info else None
        problems = [problem] if problem else []
        self.notes = (
            self.topics.note(),
            f"{len(self.names)} images, poses in frame {self.frame_id}",
            *(f"bag {self.path}: {line}" for line in (*problems, *self._index.damage)),
        )

    def describe(self) -> dict[str, Any]:
        """Returns what the images and their poses depend on, as plain JSON values."""
        entries = [self._index.images[stamp] for stamp in self._stamps.values()]
        poses = b"".join(entry.poses[self.frame_id].tobytes() for entry in entries if self.frame_id in entry.poses)
        return {
            "importer": "bag",
            "bag": str(self.path.resolve()),
            "frame": self.frame_id,
            "topics": repr(self.topics),
            "poses": hashlib.sha256(poses).hexdigest(),
        }

    def pose(self, name: str) -> tuple[int, npt.NDArray[np.float64]]:
        """Returns stamp and pose of an image.

        Args:
            name: Name of the image.

        Returns:
            Stamp in nanoseconds, and ``T_map_cam`` [4, 4].

        Raises:
            PoseError: The look-up failed; the message is its reason.
        """
        entry = self._index.images[self._stamps[name]]
        if self.frame_id not in entry.poses:
            raise PoseError(entry.errors[self.frame_id])
        return self._stamps[name], entry.poses[self.frame_id]

    def image(self, name: str) -> npt.NDArray[np.uint8]:
        """Returns the pixels of an image.

        Args:
            name: Name of the image.

        Returns:
            BGR [H, W, 3] or grey [H, W], uint8.

        Raises:
            ImageError: The message cannot be read.
        """
        stamp = self._stamps[name]
        return image_array(self._message(self.topics.image, self._index.images[stamp].log_time, stamp))

    def depth(self, name: str) -> npt.NDArray[np.float32]:
        """Returns the depth of an image.

        Args:
            name: Name of the image.

        Returns:
            [H, W] metres along z in the pixels of the colour image; 0 where there is none.

        Raises:
            ImageError: There is no depth image at that time, or it cannot be read or registered.
        """
        stamp = self._stamps[name]
        depth_stamp = int(self._depth_stamps[nearest_stamp(self._depth_stamps, stamp, MAX_DEPTH_OFFSET)])
        log_time, frame = self._index.depths[depth_stamp]
        depth = depth_array(self._message(self.topics.depth, log_time, depth_stamp))
        return self._registered(depth, frame, self._index.images[stamp].frame)

    def _registered(self, depth: npt.NDArray[np.float32], frame: str, camera_frame: str) -> npt.NDArray[np.float32]:
        camera, depth_camera = self.camera, self._depth_camera
        same_size = depth.shape == (camera.height, camera.width)
        if frame == camera_frame and (
            depth_camera is None or (same_size and _have_same_intrinsics(camera, depth_camera))
        ):
            return depth  # of another size: refused later
        if depth_camera is None:
            raise ImageError(
                f"depth is in frame {frame}, the image in {camera_frame}: name the depth camera's --depth-info"
            )
        check_depth_size(depth, depth_camera.width, depth_camera.height, "its camera has")
        if self._index.T_camera_depth is None:
            raise ImageError(f"no transform from the depth camera {frame} to the camera {camera_frame}")
        return register_depth(depth, depth_camera, camera, self._index.T_camera_depth)

    def _message(self, topic: str, log_time: int, stamp: int) -> Any:
        """The message of a stamp, found by its place in the recording."""
        connections = [connection for connection in self._reader.connections if connection.topic == topic]
        try:
            with self._lock:
                found = list(self._reader.messages(connections, start=log_time, stop=log_time + 1))
            for connection, _, raw in found:
                message: Any = self._reader.deserialize(raw, connection.msgtype)
                if header_stamp(message) == stamp:
                    return message
        except Exception as error:  # whatever the reader makes of damaged bytes
            raise ImageError(f"message cannot be read: {' '.join(str(error).split())[:200]}") from error
        raise ImageError("message cannot be found again in the bag")

    def _first_camera(self, topic: str) -> Camera:
        """The camera of the first usable CameraInfo."""
        problem = "has no message"
        connections = [connection for connection in self._reader.connections if connection.topic == topic]
        for connection, _, raw in readable_messages(self._reader, connections, []):
            try:
                info: Any = self._reader.deserialize(raw, connection.msgtype)
                return camera_from_info(info)
            except NreError as error:
                problem = f"has no camera: {error}"
        raise ImportSourceError(f"topic {topic} of bag {self.path} {problem}")

    def _map_frame(self) -> str:
        """The first of the frames in which an image has a pose."""
        entries = list(self._index.images.values())
        if not entries:
            raise ImportSourceError(f"topic {self.topics.image} of bag {self.path} has no image that can be read")
        for frame in self._index.frames:
            if any(frame in entry.poses for entry in entries):
                return frame
        found = {connection.topic: connection.msgtype for connection in self._reader.connections}
        raise ImportSourceError(
            f"no image of {self.topics.image} has a pose: {entries[-1].errors[self._index.frames[-1]]}; name --poses "
            f"or --frame; the bag has: {topic_listing(found)}"
        )


def _have_same_intrinsics(a: Camera, b: Camera) -> bool:
    """Whether two cameras have one image plane (drivers give registered depth the colour camera's intrinsics)."""
    return np.allclose((a.fx, a.fy, a.cx, a.cy), (b.fx, b.fy, b.cx, b.cy), rtol=1e-3, atol=0.5)
