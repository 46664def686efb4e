# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A transform tree over time with tf2's look-up semantics, for machines without tf2_ros.

It follows tf2's BufferCore and TimeCache (Foote, "tf: the transform library", TePRA 2013, and the documented behaviour
of geometry2): integer nanoseconds, linear and spherical interpolation between the two nearest transforms, no
extrapolation, static transforms valid at all times, a bounded history, time 0 for the latest common time, and the same
errors in the same words. There is no ROS here: the node inserts what arrives on /tf and /tf_static, the importer of
bags inserts what a recording contains.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nre_ros.errors import NreError
from nre_ros.geometry import interpolate_poses, invert, pose_matrix
from nre_ros.messages.frame_ids import frame_name

SQUARED_LENGTH_TOLERANCE = 10e-3
"""How far the squared length of a quaternion may be from 1 (as in tf2)."""
MAX_FRAME_CHAIN = 1000
"""Longest chain of frames; a longer one is a loop (as in tf2)."""

_Matrix = npt.NDArray[np.float64]


class TransformError(NreError):
    """A look-up without an answer; the subclasses are those of tf2."""


class FrameLookupError(TransformError):
    """A frame that nobody has published, an empty name, or a name with a leading slash."""


class ConnectivityError(TransformError):
    """The two frames are in different trees."""


class ExtrapolationError(TransformError):
    """A time outside the history of a transform between the two frames."""


class _Entry(NamedTuple):
    """A transform ``T_parent_frame`` at a stamp."""

    stamp: int
    parent: str
    position: _Matrix
    quaternion: _Matrix

    def matrix(self) -> _Matrix:
        return pose_matrix(self.position, self.quaternion)


def _stamp(entry: _Entry) -> int:
    return entry.stamp


@dataclass
class _History:
    """The transforms from one frame to its parent, oldest first; a single one without a time when static."""

    static: bool
    entries: list[_Entry] = field(default_factory=list)

    def insert(self, entry: _Entry, keep: int) -> bool:
        """Adds a transform and drops those older than ``keep`` nanoseconds; returns False for one that is too old."""
        if self.static:
            self.entries = [entry._replace(stamp=0)]
            return True
        newest = self.entries[-1].stamp if self.entries else entry.stamp
        if entry.stamp < newest - keep:
            return False
        begin = bisect_left(self.entries, entry.stamp, key=_stamp)
        end = bisect_right(self.entries, entry.stamp, key=_stamp)
        self.entries[begin:end] = [entry]  # of two at the same time the later one counts
        del self.entries[: bisect_left(self.entries, max(newest, entry.stamp) - keep, key=_stamp)]
        return True

    def at(self, stamp: int) -> tuple[str, _Matrix]:
        """Returns the parent and ``T_parent_frame`` at a time; raises ``ExtrapolationError``."""
        first, last = self.entries[0], self.entries[-1]
        if self.static or stamp in (0, last.stamp):
            return last.parent, last.matrix()
        if first.stamp == last.stamp:
            raise ExtrapolationError(
                f"Lookup would require extrapolation at time {_seconds(stamp)}, "
                f"but only time {_seconds(last.stamp)} is in the buffer"
            )
        if stamp > last.stamp:
            raise ExtrapolationError(
                f"Lookup would require extrapolation into the future.  Requested time {_seconds(stamp)} "
                f"but the latest data is at time {_seconds(last.stamp)}"
            )
        if stamp < first.stamp:
            raise ExtrapolationError(
                f"Lookup would require extrapolation into the past.  Requested time {_seconds(stamp)} "
                f"but the earliest data is at time {_seconds(first.stamp)}"
            )
        newer = bisect_right(self.entries, stamp, key=_stamp)
        return _interpolated(self.entries[newer - 1], self.entries[newer], stamp)


def _interpolated(older: _Entry, newer: _Entry, stamp: int) -> tuple[str, _Matrix]:
    if stamp == older.stamp or older.parent != newer.parent:
        return older.parent, older.matrix()
    # integer differences: a float64 of nanoseconds since 1970 resolves only a quarter of a microsecond
    ratio = (stamp - older.stamp) / (newer.stamp - older.stamp)
    poses = [np.concatenate([entry.position, entry.quaternion]) for entry in (older, newer)]
    pose = interpolate_poses(poses[0], poses[1], ratio)
    return older.parent, pose_matrix(pose[:3], pose[3:])


class TransformBuffer:
    """A tree of frames with their transforms over time. Thread-safe: one thread inserts, others look up and wait.

    Attributes:
        changed: Notified whenever a transform was inserted.
    """

    def __init__(self, cache_seconds: float = 10.0):
        """Makes an empty buffer that keeps this history, in seconds, of each moving frame."""
        self._keep = round(cache_seconds * 1e9)
        self._histories: dict[str, _History] = {}
        self._known: set[str] = set()
        self.changed = threading.Condition()

    def insert(
        self,
        stamp: int,
        parent: str,
        child: str,
        position: Sequence[float] | _Matrix,
        quaternion: Sequence[float] | _Matrix,
        static: bool = False,
    ) -> str:
        """Adds a transform ``T_parent_child``.

        Args:
            stamp: Nanoseconds.
            parent: Name of the frame that the transform leads to.
            child: Name of the frame that the transform comes from.
            position: [3] metres.
            quaternion: [4] x y z w.
            static: Whether the transform is valid at all times.

        Returns:
            An empty string, or why the transform was ignored, beginning with tf2's code.
        """
        parent, child = frame_name(parent), frame_name(child)
        entry = _Entry(stamp, parent, np.asarray(position, float), np.asarray(quaternion, float))
        refusal = _refusal(child, entry)
        if refusal:
            return refusal
        with self.changed:
            history = self._histories.setdefault(child, _History(static))
            if not history.insert(entry, self._keep):
                return f"TF_OLD_DATA: ignoring data from the past for frame {child} at time {_seconds(stamp)}"
            self._known.update((parent, child))
            self.changed.notify_all()
        return ""

    def lookup(self, target: str, source: str, stamp: int) -> _Matrix:
        """Looks up the transform between two frames.

        Args:
            target: Frame to transform into.
            source: Frame to transform from.
            stamp: Nanoseconds; 0 for the latest time at which all transforms between the frames are known.

        Returns:
            ``T_target_source`` [4, 4].

        Raises:
            FrameLookupError: A frame is unknown.
            ConnectivityError: The frames are not connected.
            ExtrapolationError: A transform between the frames is not known at that time.
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
        """Returns the newest stamp at which ``lookup`` has an answer.

        Args:
            target: Frame to transform into.
            source: Frame to transform from.

        Returns:
            Nanoseconds; 0 if all transforms between the frames are static.

        Raises:
            FrameLookupError: A frame is unknown.
            ConnectivityError: The frames are not connected.
        """
        with self.changed:
            self._check_frame("target_frame", target)
            self._check_frame("source_frame", source)
            return 0 if target == source else self._latest_common_time(target, source)

    def clear(self) -> None:
        """Removes all moving transforms, for when time went back; static transforms stay, as in tf2."""
        with self.changed:
            self._histories = {child: history for child, history in self._histories.items() if history.static}

    def frame_names(self) -> list[str]:
        """Returns the names of all frames that were inserted, parents included."""
        with self.changed:
            return sorted(self._known)

    def _check_frame(self, argument: str, frame: str) -> None:
        place = f"passed to lookupTransform argument {argument}"
        if not frame:
            raise FrameLookupError(f"Invalid argument {place} in tf2 frame_ids cannot be empty")
        if frame.startswith("/"):
            raise FrameLookupError(f"Invalid argument \"{frame}\" {place} in tf2 frame_ids cannot start with a '/'")
        if frame not in self._known:
            raise FrameLookupError(f'"{frame}" {place} does not exist')

    def _climb(self, frame: str, stamp: int, stop: str) -> tuple[_Matrix, list[str], str]:
        """Follows the parents up to ``stop``, the root or a missing transform.

        Returns ``T_top_frame``, the frames on the way, and the error text of the missing transform or an empty string.
        """
        T: _Matrix = np.eye(4)
        chain = [frame]
        while chain[-1] != stop and chain[-1] in self._histories:
            try:
                parent, T_parent = self._histories[chain[-1]].at(stamp)
            except ExtrapolationError as error:
                return T, chain, str(error)
            T = T_parent @ T
            chain.append(parent)
            if len(chain) > MAX_FRAME_CHAIN:
                raise FrameLookupError(f"The tf tree is invalid because it contains a loop through {frame}")
        return T, chain, ""

    def _latest_common_time(self, target: str, source: str) -> int:
        """Returns the newest time at which the whole path is known; 0 when all of it is static."""
        source_path, target_path = self._latest_path(source), self._latest_path(target)
        common = next((frame for frame in source_path if frame in target_path), None)
        if common is None:
            raise _unconnected(target, source)
        stamps = [stamp for path in (source_path, target_path) for stamp in _before(path, common) if stamp]
        return min(stamps, default=0)

    def _latest_path(self, frame: str) -> dict[str, int]:
        """Returns frame -> newest stamp of its transform to the parent (0: static or root), up to the root."""
        path: dict[str, int] = {}
        while frame not in path:
            history = self._histories.get(frame)
            path[frame] = history.entries[-1].stamp if history else 0
            if history is None:
                return path
            frame = history.entries[-1].parent
        raise FrameLookupError(f"The tf tree is invalid because it contains a loop through {frame}")


def _before(path: dict[str, int], last: str) -> list[int]:
    frames = list(path)
    return [path[frame] for frame in frames[: frames.index(last)]]


def _refusal(child: str, entry: _Entry) -> str:
    """Returns why tf2 ignores such a transform, or an empty string."""
    _, parent, position, quaternion = entry
    if parent == child:
        return f'TF_SELF_TRANSFORM: Ignoring transform with frame_id and child_frame_id "{child}" as they are the same'
    if not child:
        return "TF_NO_CHILD_FRAME_ID: Ignoring transform because child_frame_id not set"
    if not parent:
        return f'TF_NO_FRAME_ID: Ignoring transform with child_frame_id "{child}" because frame_id not set'
    values = f"({position.tolist()} {quaternion.tolist()})"
    if not (np.isfinite(position).all() and np.isfinite(quaternion).all()):
        return f'TF_NAN_INPUT: Ignoring transform for child_frame_id "{child}" because of a nan value {values}'
    if abs(quaternion @ quaternion - 1) >= SQUARED_LENGTH_TOLERANCE:
        return f'TF_DENORMALIZED_QUATERNION: Ignoring transform for child_frame_id "{child}" {values}'
    return ""


def _unconnected(target: str, source: str) -> ConnectivityError:
    return ConnectivityError(
        f"Could not find a connection between '{target}' and '{source}' because they are not part of the same tree. "
        "Tf has two or more unconnected trees."
    )


def _seconds(stamp: int) -> str:
    return f"{stamp // 10**9}.{stamp % 10**9 // 1000:06d}"
