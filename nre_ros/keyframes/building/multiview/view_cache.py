# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Cache of a posed sequence's images as views of one another; decoded views are kept within a memory bound."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import cached_property
from threading import Lock
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from nre_ros.errors import NreError
from nre_ros.geometry import Camera
from nre_ros.images import check_image_size
from nre_ros.keyframes.building.multiview.views import likely_neighbours, neighbours

_CACHE_BYTES = 64 * 2**20
"""Memory for decoded views."""


class CachedView(Protocol):
    """What a view must have to be cached."""

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""


V = TypeVar("V", bound=CachedView)


class ViewCache(Generic[V]):
    """The views of a sequence by name.

    Threads may share the cache if they may share the three functions. A view that one thread is making, the others wait
    for.

    Args:
        names: Names of the sequence's images.
        pose_and_camera: Name -> T_map_cam [4, 4] and camera.
        image: Name -> uint8 BGR [H, W, 3] or grey [H, W]. An image for which one of these two functions raises
            ``NreError`` is nobody's neighbour.
        make_view: Image, camera, T_map_cam -> view, such as ``View.from_image``.
    """

    def __init__(
        self,
        names: list[str],
        pose_and_camera: Callable[[str], tuple[npt.NDArray[np.float64], Camera]],
        image: Callable[[str], npt.NDArray[np.uint8]],
        make_view: Callable[[npt.NDArray[np.uint8], Camera, npt.NDArray[np.float64]], V],
    ) -> None:
        self._names, self._image, self._make_view = names, image, make_view
        self._pose_and_camera = pose_and_camera
        self._views: OrderedDict[str, V] = OrderedDict()
        self._making: dict[str, Future[V]] = {}
        self._lock = Lock()

    def view(self, name: str, image: npt.NDArray[np.uint8] | None = None) -> V:
        """Returns a view.

        Args:
            name: Name of the image.
            image: Its pixels, if they were read before.

        Raises:
            NreError: The image has no pose or camera, cannot be read, or is not of the camera's size.
        """
        with self._lock:
            if name in self._views:
                self._views.move_to_end(name)
                return self._views[name]
            making = self._making.get(name)
            if making is None:
                own = self._making[name] = Future[V]()
        if making is not None:
            return making.result()  # another thread makes the view, and no view waits for another one
        try:
            view = self._make(name, image)
        except BaseException as error:
            with self._lock:
                del self._making[name]
            own.set_exception(error)
            raise
        with self._lock:
            del self._making[name]
            self._views[name] = view
            while len(self._views) > max(16, _CACHE_BYTES // max(view.nbytes, 1)):
                self._views.popitem(last=False)
        own.set_result(view)
        return view

    def _make(self, name: str, image: npt.NDArray[np.uint8] | None) -> V:
        T_map_cam, camera = self._pose_and_camera(name)
        image = self._image(name) if image is None else image
        check_image_size(image, camera)
        return self._make_view(image, camera, T_map_cam)

    def neighbours(self, name: str, points: npt.NDArray[np.floating], count: int) -> dict[str, V]:
        """Returns views that see the same points from other places.

        Args:
            name: Name of an image.
            points: [N, 3] points of the map that this image sees.
            count: Largest number of views.

        Returns:
            Name -> view, best first.
        """
        return self._others(name, lambda pose, poses, cameras: neighbours(points, pose, poses, cameras, count))

    def likely_neighbours(self, name: str, count: int) -> dict[str, V]:
        """Returns views that may see the same surfaces, judged by their poses alone.

        Args:
            name: Name of an image.
            count: Largest number of views.

        Returns:
            Name -> view, best first.
        """
        return self._others(name, lambda pose, poses, _: likely_neighbours(pose, poses, count))

    def _others(
        self,
        name: str,
        choose: Callable[[npt.NDArray[np.float64], npt.NDArray[np.float64], Sequence[Camera | None]], list[int]],
    ) -> dict[str, V]:
        """The views that ``choose`` (own pose, other poses, other cameras -> indices) selects."""
        poses, cameras = self._poses
        place = self._names.index(name)
        chosen = choose(poses[place], np.delete(poses, place, axis=0), [*cameras[:place], *cameras[place + 1 :]])
        names = [self._names[i + (i >= place)] for i in chosen]
        with self._lock:
            made_elsewhere = self._making.keys() & set(names)
        views = {}
        for other in sorted(names, key=made_elsewhere.__contains__):  # while other threads make theirs
            try:
                views[other] = self.view(other)
            except NreError:
                continue  # reported when the image itself is imported
        return {other: views[other] for other in names if other in views}

    @cached_property
    def _poses(self) -> tuple[npt.NDArray[np.float64], list[Camera | None]]:
        """Poses [V, 4, 4] and cameras [V] of all names, in their order; nan and None where there is none."""
        poses = np.full((len(self._names), 4, 4), np.nan)
        cameras: list[Camera | None] = [None] * len(self._names)
        for i, name in enumerate(self._names):
            try:
                poses[i], cameras[i] = self._pose_and_camera(name)
            except NreError:
                continue
        return poses, cameras
