# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One image as it arrived, and what became of it: what the parts of the node tell each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from nre_ros.gate.gate import Decision
from nre_ros.node.conversions import stamp_nanoseconds
from nre_ros.node.verdicts import Seen


@dataclass(frozen=True, eq=False)
class Shot:
    """An image message of the camera ``name``, its CameraInfo (None before the first) and its frame.

    arrival: by the monotonic clock, seconds.  received: images of this camera so far.
    """

    name: str
    message: Image | CompressedImage
    info: CameraInfo | None
    frame: str
    arrival: float
    received: int

    @property
    def stamp(self) -> int:
        """Nanoseconds; 0: none."""
        return stamp_nanoseconds(self.message.header.stamp)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What an image shows, the gate's word on its pose (None without one), and ``T_body_cam`` [4, 4] of the camera."""

    seen: Seen
    decision: Decision | None = None
    T_body_cam: np.ndarray | None = None

    @property
    def accepted(self) -> bool:
        return self.decision is not None and self.decision.accepted
