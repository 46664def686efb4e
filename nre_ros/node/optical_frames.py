# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Notices images that carry the frame of the camera's body (x forward) in place of its optical frame (z forward).

REP-103 asks for the optical frame.  With the other one every pose is turned by 120 degrees, and no image shows it.
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from nre_ros.messages.optical_frames import is_optical, is_optical_of_body
from nre_ros.node.tf import Frames, TransformError, Transforms

_CHECK_SECONDS, _MAX_CHECK_SECONDS = 1.0, 64.0
"""Between two checks of a frame, at first and at most: TF arrives at its own time, and each pause is twice the one before."""
_UPRIGHT_COSINE = 0.94
"""Of an angle of 20 degrees."""


class OpticalFrameCheck:
    """Checks the frames of the cameras against TF, each until something is found; for one thread.

    Attributes:
        warnings: Camera frame -> what is wrong with it and what to do.
    """

    def __init__(self, transforms: Transforms, frames: Frames) -> None:
        self._transforms, self._frames = transforms, frames
        self._next: dict[str, float] = {}  # camera frame -> monotonic seconds of its next check
        self._pause: dict[str, float] = {}  # camera frame -> seconds
        self.warnings: dict[str, str] = {}

    def check(self, camera_frame: str) -> str:
        """Checks a camera's frame, once a second at first, and later less often.

        Args:
            camera_frame: The frame whose poses the node computes.

        Returns:
            A new warning; empty if there is none, or if it has been returned before.
        """
        now = time.monotonic()
        if not camera_frame or camera_frame in self.warnings or now < self._next.get(camera_frame, 0.0):
            return ""
        pause = self._pause.get(camera_frame, _CHECK_SECONDS)
        self._next[camera_frame], self._pause[camera_frame] = now + pause, min(2 * pause, _MAX_CHECK_SECONDS)
        if is_optical(camera_frame):
            return ""
        warning = self._sibling(camera_frame) or self._upright(camera_frame)
        if warning:
            self.warnings[camera_frame] = warning
        return warning

    def _sibling(self, camera_frame: str) -> str:
        """The warning about an optical frame in TF that is turned against this one as an optical frame is."""
        found = []
        for name in self._transforms.frame_names():
            T = self._newest(camera_frame, name) if is_optical(name) and name != camera_frame else None
            if T is not None and is_optical_of_body(T):
                found.append((float(np.linalg.norm(T[:3, 3])), name))
        if not found:
            return ""
        return (
            f"{camera_frame} is no optical frame, but images carry it: its x axis looks along the optical axis of "
            f"{min(found)[1]}. Poses are turned by 120 degrees; set camera_frame to {min(found)[1]}"
        )

    def _upright(self, camera_frame: str) -> str:
        """The warning about a frame that stands upright on the robot, as bodies do."""
        for parent in (self._frames.base, self._frames.odom):
            T = self._newest(parent, camera_frame) if parent else None
            if T is not None and T[2, 2] > _UPRIGHT_COSINE:
                return (
                    f"by TF, {camera_frame} looks straight up: if the camera does not, images carry the frame of its "
                    "body and poses are turned by 120 degrees; set camera_frame to the optical frame (REP-103)"
                )
        return ""

    def _newest(self, target: str, source: str) -> npt.NDArray[np.float64] | None:
        try:
            return self._transforms.latest(target, source)[0]
        except TransformError:
            return None
