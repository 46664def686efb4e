# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Ground truth: poses of the camera in the map, from a TUM file or a topic of the bag, and whether they fit.

What does not fit is told in one line with what was found instead; single poses that are none are
counted and left out.
"""

from __future__ import annotations

from array import array
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from nre_ros.errors import EvaluationError, NreError
from nre_ros.evaluation.metrics.outcomes import pose_matrices
from nre_ros.geometry import interpolate_poses, pose_matrix
from nre_ros.keyframes.importers.pose_checks import QUATERNION_TOLERANCE
from nre_ros.keyframes.importers.text_files import numbered_lines
from nre_ros.keyframes.importers.text_trajectory import parse_tum_numbers

MAX_GAP = 0.1
"""Seconds between two true poses beyond which nothing is interpolated."""


@dataclass(frozen=True)
class Truth:
    """True poses by time.

    source: file or topic; stamps [T] int64 nanoseconds, increasing; poses [T, 7] x y z qx qy qz qw of the
    camera's optical frame in the map; frame: their frame's name, empty if the source has none; notes: what was
    left out, a line each.
    """

    source: str
    stamps: np.ndarray
    poses: np.ndarray
    frame: str = ""
    notes: tuple[str, ...] = ()

    def at(self, stamps: np.ndarray, max_gap: float = MAX_GAP) -> np.ndarray:
        """[N, 4, 4] poses at stamps [N] int64: as given, or between two no more than ``max_gap`` seconds apart.

        Linear in position, uniform in rotation; nan where there is no pose.
        """
        numbers = np.full((len(stamps), 7), np.nan)
        after = np.searchsorted(self.stamps, stamps).clip(0, len(self.stamps) - 1)
        exact = self.stamps[after] == stamps
        numbers[exact] = self.poses[after[exact]]
        before = np.maximum(after - 1, 0)
        gap, since = self.stamps[after] - self.stamps[before], stamps - self.stamps[before]
        between = ~exact & (since > 0) & (since < gap) & (gap <= max_gap * 1e9)
        if between.any():
            a, b = self.poses[before[between]], self.poses[after[between]]
            numbers[between] = interpolate_poses(a, b, since[between] / gap[between])
        return pose_matrices(numbers)


def read_tum(path) -> Truth:
    """The poses of a TUM file, ``t x y z qx qy qz qw``, by time.  Raises ``EvaluationError`` if there is none."""
    entries = _Entries()
    for number, line in _numbered_lines(path):
        try:
            entries.add(*parse_tum_numbers(line))
        except NreError as error:
            entries.refuse(f"line {number}: {error}")
    return entries.truth(str(path))


def read_topic(path, topic: str, camera_frame: str = "") -> Truth:
    """The poses of a topic of PoseStamped, PoseWithCovarianceStamped or Odometry.

    camera_frame: the images' frame; where the messages are of another one (child_frame_id of Odometry),
    the static transforms of the bag lead from there to the camera.  Raises an ``NreError`` that lists
    what the bag has when there is no such topic.
    """
    from nre_ros.keyframes.importers.bag.topics import POSE_TYPES
    from nre_ros.messages.bag import choose_topic
    from nre_ros.messages.damaged_bag import open_readable, readable_messages
    from nre_ros.messages.stamps import header_stamp

    entries, frames = _Entries(), {}
    reader, _ = open_readable(path)
    with closing(reader):
        found = {connection.topic: connection.msgtype for connection in reader.connections}
        choose_topic(path, found, POSE_TYPES, topic, "ground truth")
        mount = _Mount(reader, camera_frame)
        connections = [c for c in reader.connections if c.topic == topic]
        for connection, _, raw in readable_messages(reader, connections, []):
            message = reader.deserialize(raw, connection.msgtype)
            pose = message.pose if connection.msgtype == POSE_TYPES[0] else message.pose.pose
            p, q = pose.position, pose.orientation
            numbers = np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w])
            problem = _problem(numbers)
            if problem:
                entries.refuse(problem)
                continue
            frames[message.header.frame_id.removeprefix("/")] = True
            entries.add(header_stamp(message), mount.of_camera(numbers, getattr(message, "child_frame_id", "")))
    if len(frames) > 1:
        raise EvaluationError(f"ground truth {topic} changes its frame: {', '.join(frames)}")
    return entries.truth(topic, next(iter(frames), ""))


def find_truth_topic(topics: dict[str, str]) -> str:
    """``/ground_truth``, or the only topic of PoseStamped, of a bag's topics (topic -> type); empty: none."""
    from nre_ros.messages.bag import POSE_TYPE

    poses = [topic for topic, kind in topics.items() if kind == POSE_TYPE]
    return "/ground_truth" if "/ground_truth" in poses else poses[0] if len(poses) == 1 else ""


def read_listed(path, names: list[str]) -> tuple[Truth, dict[str, int], bool]:
    """The poses of a TUM file whose line i belongs to name i, name -> where its pose is in them, and whether that is
    its stamp.

    Where a line has no time, or times do not increase, it is the place in the list instead.
    Raises ``EvaluationError`` when the file has another number of lines than there are names.
    """
    lines = _numbered_lines(path)
    if len(lines) != len(names):
        raise EvaluationError(
            f"ground truth {path} has {len(lines)} poses, the list {len(names)} images: line i belongs to image i"
        )
    by_time, by_place = _Entries(), _Entries()
    for place, (number, line) in enumerate(lines, start=1):
        try:
            stamp, pose = parse_tum_numbers(line)
            by_time.add(stamp, pose)
            by_place.add(place, pose)
        except NreError as error:
            by_place.refuse(f"line {number}: {error}")
    times = by_time.stamps
    if len(times) == len(names) and all(0 < a < b for a, b in zip(times, times[1:])):
        return by_time.truth(str(path)), dict(zip(names, times)), True
    return by_place.truth(str(path)), {name: place for place, name in enumerate(names, start=1)}, False


class _Entries:
    """Poses as they are read, in any order, as plain numbers (64 bytes each), and what is no pose."""

    def __init__(self):
        self.stamps, self._values = array("q"), array("d")
        self._refused, self._first = 0, ""

    def add(self, stamp: int, pose) -> None:
        self.stamps.append(stamp)
        self._values.extend(pose)

    def refuse(self, problem: str) -> None:
        self._refused, self._first = self._refused + 1, self._first or problem

    def truth(self, source: str, frame: str = "") -> Truth:
        """Them by time; of several of one stamp the first.  ``EvaluationError`` if there is none."""
        if not len(self.stamps):
            found = f"{self._refused} entries are no pose, the first: {self._first}" if self._refused else "it is empty"
            raise EvaluationError(f"ground truth {source} has no pose: {found}")
        notes, count = (), self._refused + len(self.stamps)
        if self._refused:
            notes = (
                f"ground truth {source}: {self._refused} of {count} entries are no pose and left out, the first: "
                f"{self._first}",
            )
        stamps, index = np.unique(np.array(self.stamps, dtype=np.int64), return_index=True)
        return Truth(source, stamps, np.array(self._values).reshape(-1, 7)[index], frame, notes)


def _numbered_lines(path) -> list[tuple[int, str]]:
    """The lines of a list with their numbers in the file; empty ones and comments are left out."""
    return [(number, line) for number, line in numbered_lines(path) if not line.startswith("#")]


def check_overlap(truth: Truth, first: int, last: int, what: str) -> None:
    """``EvaluationError`` when no true pose lies within a second of the images' time (stamps in nanoseconds)."""
    begin, end = int(truth.stamps[0]), int(truth.stamps[-1])
    if end < first - 10**9 or begin > last + 10**9:
        apart = (first - end if end < first else begin - last) / 1e9
        raise EvaluationError(
            f"ground truth {truth.source} and the images of {what} have no time in common: {begin / 1e9:.3f} to "
            f"{end / 1e9:.3f} s against {first / 1e9:.3f} to {last / 1e9:.3f} s, {apart:.3f} s apart"
        )


def check_frame(truth: Truth, map_frame: str, same: str = "") -> None:
    """``EvaluationError`` when the truth's frame has another name than the map's, unless it is called ``same``."""
    if truth.frame and truth.frame not in (map_frame, same):
        raise EvaluationError(
            f"ground truth {truth.source} is in frame {truth.frame!r}, the map's frame is {map_frame!r}: if they are "
            f"the same place, give --truth-frame {truth.frame}"
        )


def _problem(numbers: np.ndarray) -> str:
    if not np.isfinite(numbers).all():
        return f"pose is not finite: {numbers.tolist()}"
    length = float(np.linalg.norm(numbers[3:]))
    return f"quaternion has length {length:.4g}, expected 1" if abs(length - 1) > QUATERNION_TOLERANCE else ""


class _Mount:
    """From the frame whose poses a topic tells to the camera, by the bag's static transforms."""

    def __init__(self, reader, camera_frame: str):
        from nre_ros.messages.transform_buffer import TransformBuffer

        self._camera = camera_frame.removeprefix("/")
        self._buffer, self._known = TransformBuffer(), {}
        connections = [c for c in reader.connections if c.topic.endswith("/tf_static")]
        for connection, _, raw in reader.messages(connections) if connections else ():
            for item in reader.deserialize(raw, connection.msgtype).transforms:
                t, q = item.transform.translation, item.transform.rotation
                self._buffer.insert(
                    0, item.header.frame_id, item.child_frame_id, [t.x, t.y, t.z], [q.x, q.y, q.z, q.w], static=True
                )

    def of_camera(self, numbers: np.ndarray, child: str) -> np.ndarray:
        child = child.removeprefix("/")
        if not child or not self._camera or child == self._camera:
            return numbers
        if child not in self._known:
            self._known[child] = self._buffer.lookup(child, self._camera, 0)
        T = pose_matrix(numbers[:3], numbers[3:]) @ self._known[child]
        return np.r_[T[:3, 3], Rotation.from_matrix(T[:3, :3]).as_quat()]


def truth_path(text: str) -> Path | None:
    """The file that ``--ground-truth`` names, or None when it is a topic."""
    if Path(text).is_file():
        return Path(text)
    if text.startswith("/") and not Path(text).suffix:
        return None
    raise EvaluationError(f"ground truth {text} is neither a file nor a topic's name (which begins with /)")
