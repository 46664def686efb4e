# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Dropped images: why an image was not localized, and how often that happened."""

from __future__ import annotations

import threading
from collections import Counter
from enum import Enum


class ImageDrop(Enum):
    """Why an image was not localized.

    The values are the names in LocalizationStatus and /diagnostics.  An image that is dropped before the worker takes
    it has no status; every other one has a status with the reason.
    """

    # without a status
    DUPLICATE = "duplicate"
    """The same stamp again, or by the other transport; not counted as received."""
    RATE_LIMIT = "rate_limit"
    """It came sooner than the parameter ``max_rate`` allows."""
    MODE = "mode"
    """The parameter ``mode`` does not ask for an image now."""
    REPLACED = "replaced"
    """A newer image of the same camera came while it was waiting for the worker."""
    RESET = "reset"
    """It was waiting when the pose was forgotten: time went back, an initial pose, another map, ~/clear."""
    # with a status
    NO_STAMP = "no_stamp"
    """Its stamp is 0."""
    FUTURE_STAMP = "future_stamp"
    """Its stamp is more than a second ahead of the node's clock."""
    STALE_STAMP = "stale_stamp"
    """While it was waiting, an image was localized that is more than a second newer."""
    NO_CAMERA_INFO = "no_camera_info"
    """No camera_info has come yet."""
    NO_EXTRINSICS = "no_extrinsics"
    """TF does not connect the camera with ``base_frame`` (several cameras only)."""
    INVALID_IMAGE = "invalid_image"
    """The image cannot be decoded, or its intrinsics cannot be used or are of another size."""
    UNREADABLE_MAP = "unreadable_map"
    """The map file cannot be read."""
    LOST_DEVICE = "lost_device"
    """The GPU cannot compute any more."""
    INTERNAL_ERROR = "internal_error"
    """An unexpected error, which is in the log with its traceback."""


class DropCounter:
    """Counts the dropped images of each camera by reason; may be used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, Counter[str]] = {}  # camera -> reason -> count

    def add(self, camera_name: str, drop: ImageDrop) -> None:
        """Counts one dropped image.

        Args:
            camera_name: Name of the camera, empty for the only one.
            drop: Why the image was dropped.
        """
        with self._lock:
            self._counts.setdefault(camera_name, Counter())[drop.value] += 1

    def of_camera(self, camera_name: str) -> dict[str, int]:
        """Returns the number of dropped images of one camera for each reason.

        Args:
            camera_name: Name of the camera, empty for the only one.

        Returns:
            Reason -> number of images; reasons that have not occurred are left out.
        """
        with self._lock:
            return dict(self._counts.get(camera_name, {}))

    def totals(self) -> dict[str, int]:
        """Returns the number of dropped images of all cameras for each reason."""
        with self._lock:
            return dict(sum(self._counts.values(), Counter()))
