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

from nre_ros.errors import ImageError, ImportSourceError, PoseError
from nre_ros.geometry import Camera
from nre_ros.keyframes.building.depth_registration import register_depth
from nre_ros.keyframes.importers.bag.index import BagIndexer
from nre_ros.keyframes.importers.bag.named_images import message_at
from nre_ros.keyframes.importers.bag.options import BagOptions
from nre_ros.keyframes.importers.bag.topics import TF_TYPE, choose_topics
from nre_ros.keyframes.importers.image_files import check_depth_scale, check_depth_size, nearest_stamp
from nre_ros.messages.bag import topic_listing
from nre_ros.messages.camera_history import CameraHistory
from nre_ros.messages.damaged_bag import open_readable, readable_messages
from nre_ros.messages.depth_images import depth_array, encoded_depth_scale
from nre_ros.messages.frame_ids import frame_name
from nre_ros.messages.images import image_array
from nre_ros.messages.stamps import seconds_text

MAX_DEPTH_OFFSET = 0.02
"""Seconds between an image and its depth image."""
_USUAL_FRAMES = ("map", "odom")
"""Frames that may be the map's, unless the user names one."""


class BagRecording:
    """A bag's images with their camera, pose and, where there is one, depth.

    The bag is read once for the stamps and poses; images are read when they are needed. Threads may share a recording.
    The caller closes it.

    Args:
        bag: Folder of a rosbag2, or one of its files.
        options: Topics and frames that the user named.

    Attributes:
        names: The images' stamps in seconds, in their order.
        frame_id: The map's frame.
        topics: The topics that are used.
        counts: What happened to how many images: rows for the closing table.
        notes: What the user should know, one line each.
        frame_warning: Which optical frame the images should carry in place of the frame of a body; empty if none.

    Raises:
        ImportSourceError: The bag cannot be read, or topics, camera or poses are missing.
    """

    def __init__(self, bag: Path | str, options: BagOptions = BagOptions()) -> None:
        self.path = Path(bag)
        self._lock = Lock()  # of the reader
        self._closed = False
        self._reader, problem = open_readable(self.path)
        try:
            self._read(options, problem)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the bag's files; images and depth cannot be read any more. Closing twice is allowed."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._reader.close()

    def _read(self, options: BagOptions, problem: str) -> None:
        """Chooses topics, and reads stamps, poses and cameras."""
        self.topics = choose_topics(self._reader, self.path, options)
        self._depth_scale = None if options.depth_scale is None else check_depth_scale(options.depth_scale)
        frames = (frame_name(options.frame),) if options.frame else () if self.topics.poses else _USUAL_FRAMES
        self._index = BagIndexer(self._reader, self.topics, frames, options.pose_of).run()
        self.frame_id = self._map_frame()
        stamps = sorted(self._index.images)
        self.names = [seconds_text(stamp) for stamp in stamps]
        self._stamps = dict(zip(self.names, stamps))
        self._depth_stamps = np.array(sorted(self._index.depths), dtype=np.int64)
        self._cameras = self._camera_history(self.topics.camera_info)
        self._depth_cameras = self._camera_history(self.topics.depth_info) if self.topics.depth_info else None
        problems = [problem] if problem else []
        self.notes = (
            self.topics.note(),
            f"{len(self.names)} images, poses in frame {self.frame_id}",
            *(f"bag {self.path}: {line}" for line in (*problems, *self._index.damage)),
            *(line for topic, history in self._histories() for line in history.notes(topic)),
        )
        self.counts = self._image_counts()
        self.frame_warning = self._index.frame_warning

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
            **({} if self._depth_scale is None else {"depth_scale": self._depth_scale}),
            **({"cameras": repr(self._cameras.cameras)} if len(self._cameras.cameras) > 1 else {}),
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

    def camera(self, name: str) -> Camera:
        """Returns the camera of an image: that of the CameraInfo of its stamp.

        Args:
            name: Name of the image.
        """
        stamp = self._stamps[name]
        entry = self._index.images[stamp]
        return self._cameras.at(stamp if entry.has_stamp else 0, entry.log_time)

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
        depth = depth_array(self._message(self.topics.depth, log_time, depth_stamp), self._depth_scale)
        info_stamp = (
            0 if depth_stamp == log_time else depth_stamp
        )  # without a stamp the time of recording stands for it
        depth_camera = None if self._depth_cameras is None else self._depth_cameras.at(info_stamp, log_time)
        return self._registered(depth, frame, depth_camera, self._index.images[stamp].frame, self.camera(name))

    def depth_scale(self) -> float | None:
        """Returns the depth value of one metre, by the options or by the encoding of the first depth image.

        Returns:
            The value; None if no depth image can be read.
        """
        if self._depth_scale is not None or not len(self._depth_stamps):
            return self._depth_scale
        stamp = int(self._depth_stamps[0])
        try:
            return encoded_depth_scale(self._message(self.topics.depth, self._index.depths[stamp][0], stamp))
        except ImageError:
            return None

    def _registered(
        self, depth: npt.NDArray[np.float32], frame: str, depth_camera: Camera | None, camera_frame: str, camera: Camera
    ) -> npt.NDArray[np.float32]:
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
        return message_at(self._reader, self._lock, topic, log_time, stamp)

    def _camera_history(self, topic: str) -> CameraHistory:
        """The cameras of a topic; an error if none of its messages is a camera."""
        history = CameraHistory()
        connections = [connection for connection in self._reader.connections if connection.topic == topic]
        for connection, log_time, raw in readable_messages(self._reader, connections, []):
            info: Any = self._reader.deserialize(raw, connection.msgtype)
            history.add(info, log_time)
        if not history.cameras:
            problem = f"has no camera: {history.problem}" if history.problem else "has no message"
            raise ImportSourceError(f"topic {topic} of bag {self.path} {problem}")
        return history

    def _histories(self) -> list[tuple[str, CameraHistory]]:
        found = [(self.topics.camera_info, self._cameras)]
        return found if self._depth_cameras is None else [*found, (self.topics.depth_info, self._depth_cameras)]

    def _image_counts(self) -> tuple[tuple[str, str], ...]:
        counts = []
        if self._index.without_stamp:
            counts.append(
                ("without a stamp", f"{self._index.without_stamp} images, placed by the time of their recording")
            )
        if self._index.repeated:
            counts.append(("same stamp as another", f"{self._index.repeated} images, left out"))
        if len(self._cameras.cameras) > 1:
            counts.append(
                ("cameras", f"{len(self._cameras.cameras)} different ones, each image with that of its stamp")
            )
        return tuple(counts)

    def _map_frame(self) -> str:
        """The first of the frames in which an image has a pose."""
        entries = list(self._index.images.values())
        if not entries:
            raise ImportSourceError(f"topic {self.topics.image} of bag {self.path} has no image that can be read")
        for frame in self._index.frames:
            if any(frame in entry.poses for entry in entries):
                return frame
        found = {connection.topic: connection.msgtype for connection in self._reader.connections}
        static = any(kind == TF_TYPE and topic.endswith("_static") for topic, kind in found.items())
        cure = "" if static else "the bag has no /tf_static, which is sent only once: record it from the start; "
        raise ImportSourceError(
            f"no image of {self.topics.image} of bag {self.path} has a pose: "
            f"{entries[-1].errors[self._index.frames[-1]]}; {cure}name --poses or --frame; the bag has: "
            f"{topic_listing(found)}"
        )


def _have_same_intrinsics(a: Camera, b: Camera) -> bool:
    """Whether two cameras have one image plane (drivers give registered depth the colour camera's intrinsics)."""
    return np.allclose((a.fx, a.fy, a.cx, a.cy), (b.fx, b.fy, b.cx, b.cy), rtol=1e-3, atol=0.5)
