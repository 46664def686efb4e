# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The images of a posed sequence as views of one another; what was decoded is kept within a bound."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from threading import Lock

import numpy as np

from nre_ros.errors import NreError
from nre_ros.images import check_image_size
from nre_ros.keyframes.building.multiview.views import View, likely_neighbours, neighbours

_CACHE_BYTES = 64 * 2**20


class ViewCache:
    """Views by name.

    names: of the sequence; where: name -> T_map_cam [4, 4] and camera; image: name -> uint8 BGR
    or grey.  Both may raise ``NreError``: such a view is no neighbour of any other.  make: image, camera,
    T_map_cam -> view, which knows its ``nbytes``.  Threads may share the cache if they may share these three.
    """

    def __init__(self, names: list[str], where: Callable, image: Callable[[str], np.ndarray], make: Callable = View.of):
        self._names, self._where, self._image, self._make = names, where, image, make
        self._views = OrderedDict()
        self._lock = Lock()

    def view(self, name: str, image: np.ndarray | None = None):
        """The view of that name; image: if it has been read already.  Raises ``NreError``."""
        with self._lock:
            if name in self._views:
                self._views.move_to_end(name)
                return self._views[name]
        T_map_cam, camera = self._where(name)
        image = self._image(name) if image is None else image
        check_image_size(image, camera)
        view = self._make(image, camera, T_map_cam)
        with self._lock:
            view = self._views.setdefault(name, view)  # another thread may have been first
            while len(self._views) > max(16, _CACHE_BYTES // max(view.nbytes, 1)):
                self._views.popitem(last=False)
        return view

    def neighbours(self, name: str, points: np.ndarray, count: int) -> dict:
        """At most ``count`` views, by name, that see points [N, 3] of the map, which view ``name`` sees, from elsewhere."""
        return self._others(name, lambda pose, poses, cameras: neighbours(points, pose, poses, cameras, count))

    def likely(self, name: str, count: int) -> dict:
        """At most ``count`` views, by name, that may see what view ``name`` sees, by their poses alone."""
        return self._others(name, lambda pose, poses, _: likely_neighbours(pose, poses, count))

    def _others(self, name: str, choose: Callable) -> dict:
        poses, cameras = self._poses
        place = self._names.index(name)
        views = {}
        for i in choose(poses[place], np.delete(poses, place, axis=0), np.delete(cameras, place)):
            try:
                other = self._names[i + (i >= place)]
                views[other] = self.view(other)
            except NreError:
                continue  # is told when its own turn comes
        return views

    @cached_property
    def _poses(self) -> tuple[np.ndarray, np.ndarray]:
        """[V, 4, 4] and the cameras [V] of all names, in their order; nan and None where there is none."""
        poses = np.full((len(self._names), 4, 4), np.nan)
        cameras = np.empty(len(self._names), dtype=object)
        for i, name in enumerate(self._names):
            try:
                poses[i], cameras[i] = self._where(name)
            except NreError:
                continue
        return poses, cameras
