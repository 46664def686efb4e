# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A transform tree over time with tf2's look-up semantics, for machines without tf2_ros.

Follows tf2's BufferCore and TimeCache (Foote, "tf: the transform library", TePRA 2013, and the
documented behaviour of geometry2): integer nanoseconds, linear and spherical interpolation
between the two nearest transforms, no extrapolation, static transforms valid at all times,
a bounded history, time 0 for the latest common time, and the same errors in the same
words.  No ROS in here: the node feeds it from /tf and /tf_static, the importer of bags
from a recording.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field

import numpy as np

from nre_ros.errors import NreError
from nre_ros.geometry import interpolate_poses, invert, pose_matrix

QUATERNION_TOLERANCE = 10e-3
"""How far the squared length of a quaternion may be from 1 (as in tf2)."""
MAX_DEPTH = 1000
"""Longest chain of frames; a longer one is a loop (as in tf2)."""


class TransformError(NreError):
    """A look-up without an answer; the subclasses are those of tf2."""


class FrameLookupError(TransformError):
    """A frame that nobody has published, an empty name, a name with a leading slash."""


class ConnectivityError(TransformError):
    """Two frames in different trees."""


class ExtrapolationError(TransformError):
    """A time outside the history of a transform on the way."""


@dataclass
class _History:
    """The transforms from one frame to its parent, oldest first; one timeless one when static."""

    static: bool
    stamps: list[int] = field(default_factory=list)
    parents: list[str] = field(default_factory=list)
    poses: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def insert(self, stamp: int, parent: str, pose, keep: int) -> bool:
        if self.static:
            self.stamps, self.parents, self.poses = [0], [parent], [pose]
            return True
        newest = self.stamps[-1] if self.stamps else stamp
        if stamp < newest - keep:
            return False
        begin, end = bisect_left(self.stamps, stamp), bisect_right(self.stamps, stamp)
        for values, value in ((self.stamps, stamp), (self.parents, parent), (self.poses, pose)):
            values[begin:end] = [value]  # of two at the same time the later one counts
        expired = bisect_left(self.stamps, max(newest, stamp) - keep)
        for values in (self.stamps, self.parents, self.poses):
            del values[:expired]
        return True

    def at(self, stamp: int) -> tuple[str, np.ndarray]:
        """Parent and ``T_parent_frame`` at that time; raises ``ExtrapolationError``."""
        if self.static or stamp == 0:
            return self.parents[-1], pose_matrix(*self.poses[-1])
        first, last = self.stamps[0], self.stamps[-1]
        if stamp == last:
            return self.parents[-1], pose_matrix(*self.poses[-1])
        if first == last:
            raise ExtrapolationError(
                f"Lookup would require extrapolation at time {_seconds(stamp)}, "
                f"but only time {_seconds(last)} is in the buffer"
            )
        if stamp > last:
            raise ExtrapolationError(
                f"Lookup would require extrapolation into the future.  Requested time {_seconds(stamp)} "
                f"but the latest data is at time {_seconds(last)}"
            )
        if stamp < first:
            raise ExtrapolationError(
                f"Lookup would require extrapolation into the past.  Requested time {_seconds(stamp)} "
                f"but the earliest data is at time {_seconds(first)}"
            )
        newer = bisect_right(self.stamps, stamp)
        return self._between(newer - 1, newer, stamp)

    def _between(self, older: int, newer: int, stamp: int) -> tuple[str, np.ndarray]:
        parent, (position, quaternion) = self.parents[older], self.poses[older]
        if stamp == self.stamps[older] or parent != self.parents[newer]:
            return parent, pose_matrix(position, quaternion)
        # integer differences: a float64 of nanoseconds since 1970 resolves only a quarter of a microsecond
        ratio = (stamp - self.stamps[older]) / (self.stamps[newer] - self.stamps[older])
        pose = interpolate_poses(np.r_[position, quaternion], np.r_[self.poses[newer]], ratio)
        return parent, pose_matrix(pose[:3], pose[3:])


class TransformBuffer:
    """The tree.  Thread-safe: one thread inserts, others look up and wait.

    cache_seconds: history kept for each moving frame.
    """

    def __init__(self, cache_seconds: float = 10.0):
        self._keep = round(cache_seconds * 1e9)
        self._histories: dict[str, _History] = {}
        self._known: set[str] = set()
        self.changed = threading.Condition()

    def insert(self, stamp: int, parent: str, child: str, position, quaternion, static: bool = False) -> str:
        """Adds ``T_parent_child`` (position [3], quaternion x y z w) at ``stamp`` nanoseconds.

        Returns an empty string, or why the transform was ignored, beginning with tf2's code.
        """
        parent, child = parent.removeprefix("/"), child.removeprefix("/")
        position, quaternion = np.asarray(position, float), np.asarray(quaternion, float)
        refusal = _refusal(parent, child, position, quaternion)
        if refusal:
            return refusal
        with self.changed:
            history = self._histories.setdefault(child, _History(static))
            if not history.insert(stamp, parent, (position, quaternion), self._keep):
                return f"TF_OLD_DATA: ignoring data from the past for frame {child} at time {_seconds(stamp)}"
            self._known.update((parent, child))
            self.changed.notify_all()
        return ""

    def lookup(self, target: str, source: str, stamp: int) -> np.ndarray:
        """``T_target_source`` [4, 4] at ``stamp`` nanoseconds (0: the latest common time).

        Raises ``FrameLookupError``, ``ConnectivityError`` or ``ExtrapolationError``.
        """
        if target == source:
            return np.eye(4)
        with self.changed:
            self._check_frame("target_frame", target)
            self._check_frame("source_frame", source)
            if stamp == 0:
                stamp = self._latest_common_time(target, source)
            T_top_source, source_chain, failure = self._climb(source, stamp, stop=target)
            if source_chain[-1] == target:
                return T_top_source
            T_top_target, target_chain, target_failure = self._climb(target, stamp, stop=source_chain[-1])
            if target_chain[-1] == source_chain[-1]:
                return invert(T_top_target) @ T_top_source
        # as in tf2, a chain that ends early for want of data is an extrapolation, else the trees differ
        failure = target_failure or failure
        if failure:
            raise ExtrapolationError(f"{failure}, when looking up transform from frame [{source}] to frame [{target}]")
        raise _unconnected(target, source)

    def latest_time(self, target: str, source: str) -> int:
        """The newest stamp (nanoseconds) at which ``lookup`` has an answer; 0: at any.  Raises as that does."""
        with self.changed:
            self._check_frame("target_frame", target)
            self._check_frame("source_frame", source)
            return 0 if target == source else self._latest_common_time(target, source)

    def clear(self):
        """Forgets all history (time went back); static transforms stay, as in tf2."""
        with self.changed:
            self._histories = {child: history for child, history in self._histories.items() if history.static}

    def _check_frame(self, argument: str, frame: str):
        place = f"passed to lookupTransform argument {argument}"
        if not frame:
            raise FrameLookupError(f"Invalid argument {place} in tf2 frame_ids cannot be empty")
        if frame.startswith("/"):
            raise FrameLookupError(f"Invalid argument \"{frame}\" {place} in tf2 frame_ids cannot start with a '/'")
        if frame not in self._known:
            raise FrameLookupError(f'"{frame}" {place} does not exist')

    def _climb(self, frame: str, stamp: int, stop: str) -> tuple[np.ndarray, list[str], str]:
        """``T_top_frame`` up to ``stop``, the root or a gap; the chain; the words of the gap."""
        T, chain = np.eye(4), [frame]
        while chain[-1] != stop and chain[-1] in self._histories:
            try:
                parent, T_parent = self._histories[chain[-1]].at(stamp)
            except ExtrapolationError as error:
                return T, chain, str(error)
            T = T_parent @ T
            chain.append(parent)
            if len(chain) > MAX_DEPTH:
                raise FrameLookupError(f"The tf tree is invalid because it contains a loop through {frame}")
        return T, chain, ""

    def _latest_common_time(self, target: str, source: str) -> int:
        """The newest time at which the whole path is known; 0 when all of it is static."""
        source_path, target_path = self._latest_path(source), self._latest_path(target)
        common = next((frame for frame in source_path if frame in target_path), None)
        if common is None:
            raise _unconnected(target, source)
        stamps = [stamp for path in (source_path, target_path) for stamp in _before(path, common) if stamp]
        return min(stamps, default=0)

    def _latest_path(self, frame: str) -> dict[str, int]:
        """Frame -> newest stamp of its transform to the parent (0: static or root), up to the root."""
        path: dict[str, int] = {}
        while frame not in path:
            history = self._histories.get(frame)
            path[frame] = history.stamps[-1] if history else 0
            if history is None:
                return path
            frame = history.parents[-1]
        raise FrameLookupError(f"The tf tree is invalid because it contains a loop through {frame}")


def _before(path: dict[str, int], last: str) -> list[int]:
    frames = list(path)
    return [path[frame] for frame in frames[: frames.index(last)]]


def _refusal(parent: str, child: str, position: np.ndarray, quaternion: np.ndarray) -> str:
    """Why tf2 ignores such a transform, or an empty string."""
    if parent == child:
        return f'TF_SELF_TRANSFORM: Ignoring transform with frame_id and child_frame_id "{child}" as they are the same'
    if not child:
        return "TF_NO_CHILD_FRAME_ID: Ignoring transform because child_frame_id not set"
    if not parent:
        return f'TF_NO_FRAME_ID: Ignoring transform with child_frame_id "{child}" because frame_id not set'
    values = f"({position.tolist()} {quaternion.tolist()})"
    if not (np.isfinite(position).all() and np.isfinite(quaternion).all()):
        return f'TF_NAN_INPUT: Ignoring transform for child_frame_id "{child}" because of a nan value {values}'
    if abs(quaternion @ quaternion - 1) >= QUATERNION_TOLERANCE:
        return f'TF_DENORMALIZED_QUATERNION: Ignoring transform for child_frame_id "{child}" {values}'
    return ""


def _unconnected(target: str, source: str) -> ConnectivityError:
    return ConnectivityError(
        f"Could not find a connection between '{target}' and '{source}' because they are not part of the same tree. "
        "Tf has two or more unconnected trees."
    )


def _seconds(stamp: int) -> str:
    return f"{stamp // 10**9}.{stamp % 10**9 // 1000:06d}"
