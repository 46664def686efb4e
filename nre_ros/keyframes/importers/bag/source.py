# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Map sources of rosbag2 recordings, with depth or without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImportSourceError
from nre_ros.geometry import Camera
from nre_ros.keyframes.building.culling import VIDEO
from nre_ros.keyframes.importers.bag.options import BagOptions
from nre_ros.keyframes.importers.depth_source import DepthSource
from nre_ros.keyframes.importers.map_source import PosedImageSource
from nre_ros.keyframes.importers.triangulated_source import TriangulatedSource

try:
    from nre_ros.keyframes.importers.bag.recording import BagRecording
except ImportError as error:
    raise ImportSourceError(f"reading bags needs rosbags ({error}): pip install rosbags") from error


class _BagSource(PosedImageSource):
    """What the two sources of bags have in common.

    Attributes:
        recording: The bag.
    """

    culling_rule = VIDEO

    def __init__(self, recording: BagRecording) -> None:
        super().__init__()
        self.recording, self.notes, self.frame_id = recording, recording.notes, recording.frame_id
        self.counts, self.frame_warning = recording.counts, recording.frame_warning

    def close(self) -> None:
        """Closes the bag; see ``MapSource``."""
        self.recording.close()

    def names(self) -> list[str]:
        """Returns the names of the images; see ``MapSource``."""
        return list(self.recording.names)

    def describe(self) -> dict[str, Any]:
        """Returns what the keyframes depend on; see ``MapSource``."""
        return self.recording.describe()

    def pose(self, name: str) -> tuple[int, npt.NDArray[np.float64]]:
        """Returns stamp and pose of an image; see ``PosedImageSource``."""
        return self.recording.pose(name)

    def camera(self, name: str) -> Camera:
        """Returns the camera of an image; see ``PosedImageSource``."""
        return self.recording.camera(name)

    def image(self, name: str) -> npt.NDArray[np.uint8]:
        """Returns the pixels of an image; see ``PosedImageSource``."""
        return self.recording.image(name)


class BagDepthSource(_BagSource, DepthSource):
    """The images of a bag with depth."""

    def depth(self, name: str) -> npt.NDArray[np.float32]:
        """Returns the depth of an image; see ``DepthSource``."""
        return self.recording.depth(name)

    def depth_unit(self) -> float | None:
        """Returns the depth value of one metre; see ``MapSource``."""
        return self.recording.depth_scale()


class BagImageSource(_BagSource, TriangulatedSource):
    """The images of a bag without depth: points are triangulated between images that overlap."""


def bag_source(bag: Path | str, options: BagOptions = BagOptions()) -> BagDepthSource | BagImageSource:
    """Opens a bag and makes its source, with depth if the bag has any.

    Args:
        bag: Folder of a rosbag2, or one of its files.
        options: Topics and frames that the user named.

    Returns:
        The source; the caller closes it.

    Raises:
        ImportSourceError: The bag cannot be read, or topics, camera or poses are missing.
    """
    recording = BagRecording(bag, options)
    return BagDepthSource(recording) if recording.topics.depth else BagImageSource(recording)
