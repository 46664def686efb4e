# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What all sources of posed images have in common, with depth or without."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from nre_ros.geometry import Camera
from nre_ros.keyframes.importers.common import MapSource


class Frames(MapSource):
    """A source of posed images; subclasses say where pose, camera and image of each are."""

    @abstractmethod
    def pose(self, name: str) -> tuple[int, np.ndarray]:
        """Stamp in nanoseconds (0: none) and T_map_cam [4, 4].  An ``NreError`` says why there is none."""

    @abstractmethod
    def camera(self, name: str) -> Camera:
        """The camera of the image.  Raises ``CameraError``."""

    @abstractmethod
    def image(self, name: str) -> np.ndarray:
        """uint8 BGR [H, W, 3] or grey [H, W].  Raises ``ImageError``."""

    def where(self, name: str) -> tuple[np.ndarray, Camera]:
        return self.pose(name)[1], self.camera(name)
