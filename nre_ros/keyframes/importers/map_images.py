# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The images that a map was built from, with the poses, cameras and points that the map has for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from nre_ros.geometry import Camera
from nre_ros.keyframes.importers.rebuild_source import RebuildSource, first_image, named_images, recorded_images
from nre_ros.keyframes.storage.store import KeyframeStore


class MapImagesSource(RebuildSource):
    """The keyframes of a map file, with images from elsewhere: the file contains none.

    Args:
        path: The map file.
        images: Folder that the names of the keyframes are relative to, or the map's bag; None: where the images were
            when the map was built.

    Raises:
        ImportSourceError: The images are no longer where they were, or the map has no keyframes.
        MapError: The map cannot be read.
    """

    def __init__(self, path: Path | str, images: Path | str | None = None) -> None:
        store = KeyframeStore.open(path, cache_bytes=0)
        try:
            places = recorded_images(store) if images is None else [str(images)]
            super().__init__(store, [named_images(place) for place in places])
            keyframes = store.load(self._ids.values())
        except BaseException:
            store.close()
            raise
        self._known = {keyframe.name: (keyframe.T_map_cam, keyframe.camera) for keyframe in keyframes}
        self._points = {keyframe.name: keyframe.points.astype(np.float64) for keyframe in keyframes}

    def close(self) -> None:
        """Closes the map and the images; see ``MapSource``."""
        super().close()
        self._store.close()

    def pose_and_camera(self, name: str) -> tuple[npt.NDArray[np.float64], Camera]:
        """Returns pose and camera of an image; see ``MapSource``."""
        return self._known[name]

    def image_to_check(self, name: str) -> npt.NDArray[np.uint8]:
        """Returns the pixels of an image; see ``MapSource``."""
        return first_image(self._images, name)

    def map_points(self, name: str) -> npt.NDArray[np.float64]:
        """Returns the points of a keyframe.

        Args:
            name: Name of its image.

        Returns:
            [N, 3] in the map.
        """
        return self._points[name]
