# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Several threads make the keyframes of an import; the results come in the order of the images.

One keyframe keeps one core busy for most of its time, and a second torch thread helps little. Two keyframes at once
with one torch thread each are therefore done sooner than one after the other with two threads. The result depends on
the order of the images alone, not on which thread was first.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from nre_ros.errors import NreError
from nre_ros.geometry import Camera
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.building.culling import KeyframeCuller
from nre_ros.keyframes.importers.map_source import MapSource
from nre_ros.keyframes.storage.validation import check_keyframe
from nre_ros.keyframes.types import Keyframe
from nre_ros.process import adopt_threads

_MAX_WORKERS = 4
"""Each worker holds the network's intermediate results of one image."""


@dataclass
class ImportedImage:
    """What became of an image: one of ``keyframe``, ``duplicate_of`` and ``error`` is set.

    Attributes:
        name: Name of the image.
        keyframe: Its keyframe.
        tally: What the keyframe's points lack (``KeyframeBuilder.tally``).
        duplicate_of: Name of the keyframe that the image repeats.
        error: Why the image is left out.
    """

    name: str
    keyframe: Keyframe | None = None
    tally: Counter[str] = field(default_factory=Counter)
    duplicate_of: str | None = None
    error: NreError | None = None


@dataclass
class _Pending:
    """An image whose turn has not come.

    Attributes:
        name: Name of the image.
        view: Pose [4, 4] and camera, if they are known without features.
        compared: Number of keyframes that the view was compared with, if the view is known.
        result: What became of the image, or the computation of it.
    """

    name: str
    view: tuple[npt.NDArray[np.float64], Camera] | None
    compared: int
    result: Future[ImportedImage] | ImportedImage


def import_images(
    names: Iterable[str], source: MapSource, builder: KeyframeBuilder, culler: KeyframeCuller
) -> Iterator[ImportedImage]:
    """Makes the keyframes of images, several at a time.

    Features of views that repeat a keyframe are not computed. If a view may repeat a keyframe that is still being
    computed, that keyframe is waited for.

    Args:
        names: The images, in order.
        source: Where they come from.
        builder: Makes the keyframes.
        culler: Knows the keyframes of the map; the caller adds each keyframe to it before taking the next image.

    Yields:
        What became of each image, in order.
    """
    with _workers() as (pool, workers):
        pending: deque[_Pending] = deque()
        for name in names:
            while len(pending) > workers:
                yield _finish(pending.popleft(), culler)
            view, known = _check_before(name, source, culler)
            while known is None and view and culler.may_duplicate(*view, _computed_poses(pending)):
                yield _finish(pending.popleft(), culler)
                view, known = _check_before(name, source, culler)
            result = known or pool.submit(_make_keyframe, name, source, builder)
            pending.append(_Pending(name, view, len(culler), result))
        while pending:
            yield _finish(pending.popleft(), culler)


def _check_before(
    name: str, source: MapSource, culler: KeyframeCuller
) -> tuple[tuple[npt.NDArray[np.float64], Camera] | None, ImportedImage | None]:
    """Pose and camera of an image if the source knows them, and the result if it is clear from them."""
    try:
        view = source.pose_and_camera(name)
    except NreError as error:
        return None, ImportedImage(name, error=error)
    duplicate_of = None if view is None else culler.find_duplicate(*view)
    return view, None if duplicate_of is None else ImportedImage(name, duplicate_of=duplicate_of)


def _computed_poses(pending: Iterable[_Pending]) -> list[npt.NDArray[np.float64]]:
    """The poses of the images whose keyframes are being computed."""
    return [image.view[0] for image in pending if image.view is not None and isinstance(image.result, Future)]


def _make_keyframe(name: str, source: MapSource, builder: KeyframeBuilder) -> ImportedImage:
    own_builder = builder.with_own_tally()
    try:
        keyframe = source.keyframe(name, own_builder)
        check_keyframe(keyframe)
    except NreError as error:
        return ImportedImage(name, error=error)
    return ImportedImage(name, keyframe=keyframe, tally=own_builder.tally)


def _finish(pending: _Pending, culler: KeyframeCuller) -> ImportedImage:
    """Waits for the result, and compares it with the keyframes that were added meanwhile."""
    image = pending.result.result() if isinstance(pending.result, Future) else pending.result
    if image.keyframe is None:
        return image
    if pending.view is None:
        duplicate_of = culler.find_duplicate(image.keyframe.T_map_cam, image.keyframe.camera)
    else:
        duplicate_of = culler.find_duplicate(*pending.view, since=pending.compared)
    return image if duplicate_of is None else ImportedImage(image.name, duplicate_of=duplicate_of)


@contextmanager
def _workers() -> Iterator[tuple[ThreadPoolExecutor, int]]:
    """Yields a pool that shares torch's threads, and its size; no thread is left running."""
    threads = torch.get_num_threads()
    count = max(1, min(threads, _MAX_WORKERS))
    torch.set_num_threads(max(1, threads // count))
    pool = ThreadPoolExecutor(count, thread_name_prefix="import", initializer=adopt_threads)
    try:
        yield pool, count
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
