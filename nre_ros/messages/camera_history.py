# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The intrinsics of each image of a recording, which may change on the way (zoom, autofocus, another resolution)."""

from __future__ import annotations

from bisect import bisect_right

from nre_ros.errors import CameraError
from nre_ros.geometry import Camera
from nre_ros.messages.camera_info import camera_from_info
from nre_ros.messages.protocols import CameraInfoMessage
from nre_ros.messages.stamps import header_stamp


class CameraHistory:
    """The CameraInfo messages of a recording, and which of them belongs to an image.

    A CameraInfo that is no camera (not calibrated yet, for example) is counted and otherwise ignored.

    Attributes:
        unusable: Number of messages that are no camera.
        problem: Why the last of these is none; empty if there is none.
    """

    def __init__(self) -> None:
        self._index: dict[Camera, int] = {}
        self.unusable, self.problem = 0, ""
        self._stamped: list[tuple[int, int]] = []  # stamp or recording time, and index of the camera
        self._recorded: list[tuple[int, int]] = []
        self._has_stamps = True
        self._sorted = False

    @property
    def cameras(self) -> list[Camera]:
        """The different cameras, in the order of their first messages."""
        return list(self._index)

    def add(self, info: CameraInfoMessage, log_time: int) -> None:
        """Adds a message.

        Args:
            info: Message ``sensor_msgs/CameraInfo``.
            log_time: Nanoseconds when the message was recorded.
        """
        try:
            camera = camera_from_info(info)
        except CameraError as error:
            self.unusable, self.problem = self.unusable + 1, str(error)
            return
        index, stamp = self._index.setdefault(camera, len(self._index)), header_stamp(info)
        self._has_stamps &= stamp != 0
        self._stamped.append((stamp, index))
        self._recorded.append((log_time, index))
        self._sorted = False

    def at(self, stamp: int, log_time: int) -> Camera:
        """Finds the camera of an image: that of the same stamp, else the newest before the image, else the first.

        Args:
            stamp: Stamp of the image in nanoseconds; 0 if it has none.
            log_time: Nanoseconds when the image was recorded; it decides where a CameraInfo or the image has no stamp.

        Returns:
            The camera.

        Raises:
            CameraError: No message is a camera.
        """
        if not self._index:
            raise CameraError(self.problem or "there is no camera_info message")
        if not self._sorted:
            self._stamped.sort()
            self._recorded.sort()
            self._sorted = True
        entries, time = (self._stamped, stamp) if self._has_stamps and stamp else (self._recorded, log_time)
        place = bisect_right(entries, (time, len(self._index)))
        return self.cameras[entries[max(place - 1, 0)][1]]

    def notes(self, topic: str) -> list[str]:
        """Returns what the user should know, one line each.

        Args:
            topic: Topic of the messages.
        """
        lines = []
        if len(self._index) > 1:
            lines.append(f"{topic} has {len(self._index)} different cameras: each image has that of its stamp")
        if self.unusable:
            lines.append(f"{self.unusable} messages of {topic} are no camera and are ignored: {self.problem}")
        return lines
