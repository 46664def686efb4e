# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Keyframes of an import, made by several threads at once and handed out in the order of their names.

One keyframe keeps one core busy for most of its time, and torch's threads share what is left of it
badly: two keyframes at once with a thread each are done sooner than one after the other with two.
What comes out depends on the order alone, not on which thread was first.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

from nre_ros.errors import NreError
from nre_ros.geometry import Camera
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.building.culling import Thinning
from nre_ros.keyframes.storage.validation import check_keyframe
from nre_ros.keyframes.types import Keyframe

_MOST_WORKERS = 4
"""Each holds the network's intermediate results of one image."""


@dataclass
class Outcome:
    """What became of an image: one of ``keyframe`` (with what it lacks), ``twin`` and ``problem``."""

    name: str
    keyframe: Keyframe | None = None
    tally: Counter[str] = field(default_factory=Counter)
    twin: str | None = None
    problem: NreError | None = None


@dataclass
class _Pending:
    name: str
    where: tuple[np.ndarray, Camera] | None
    compared: int  # with so many keyframes, if where is known
    future: Future | None
    outcome: Outcome | None


def outcomes(names: Iterable[str], source, builder: KeyframeBuilder, thinning: Thinning) -> Iterator[Outcome]:
    """The outcome of each image, in order; the caller tells ``thinning`` of a keyframe before it takes the next.

    Views known to repeat a keyframe are not computed.  Whether one repeats a keyframe that is still being made is not
    known: where it looks like it, that one is waited for.
    """
    with _workers() as (pool, workers):
        pending: deque[_Pending] = deque()
        for name in names:
            while len(pending) > workers:
                yield _finish(pending.popleft(), thinning)
            where, outcome = _look(name, source, thinning)
            while outcome is None and where and thinning.may_repeat(*where, _poses(pending)):
                yield _finish(pending.popleft(), thinning)
                where, outcome = _look(name, source, thinning)
            future = pool.submit(_make, name, source, builder) if outcome is None else None
            pending.append(_Pending(name, where, len(thinning), future, outcome))
        while pending:
            yield _finish(pending.popleft(), thinning)


def _look(name: str, source, thinning: Thinning) -> tuple[tuple[np.ndarray, Camera] | None, Outcome | None]:
    """Where the image was taken, if the source can tell, and the outcome, if it is clear from that."""
    try:
        where = source.where(name)
    except NreError as error:
        return None, Outcome(name, problem=error)
    twin = None if where is None else thinning.twin(*where)
    return where, None if twin is None else Outcome(name, twin=twin)


def _poses(pending: Iterable[_Pending]) -> list[np.ndarray]:
    return [one.where[0] for one in pending if one.where is not None and one.future is not None]


def _make(name: str, source, builder: KeyframeBuilder) -> Outcome:
    own = builder.with_own_tally()
    try:
        keyframe = source.keyframe(name, own)
        check_keyframe(keyframe)
    except NreError as error:
        return Outcome(name, problem=error)
    return Outcome(name, keyframe=keyframe, tally=own.tally)


def _finish(pending: _Pending, thinning: Thinning) -> Outcome:
    outcome = pending.outcome or pending.future.result()
    if outcome.keyframe is None:
        return outcome
    if pending.where is None:
        twin = thinning.twin(outcome.keyframe.T_map_cam, outcome.keyframe.camera)
    else:  # what has come while this one was made
        twin = thinning.twin(*pending.where, since=pending.compared)
    return outcome if twin is None else Outcome(outcome.name, twin=twin)


@contextmanager
def _workers() -> Iterator[tuple[ThreadPoolExecutor, int]]:
    """Threads among which torch's own are shared out, and how many; nothing is left running."""
    threads = torch.get_num_threads()
    count = max(1, min(threads, _MOST_WORKERS))
    torch.set_num_threads(max(1, threads // count))
    pool = ThreadPoolExecutor(count, thread_name_prefix="import")
    try:
        yield pool, count
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
