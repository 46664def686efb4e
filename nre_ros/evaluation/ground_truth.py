# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Ground-truth trajectories: poses of the camera in the map, their association with images, and TUM files.

``bag_ground_truth`` reads a ground-truth trajectory from a topic of a bag.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nre_ros.errors import EvaluationError
from nre_ros.evaluation.metrics.query_results import GroundTruthLookup, pose_matrices, without_ground_truth
from nre_ros.geometry import interpolate_poses
from nre_ros.keyframes.importers.pose_columns import PoseColumns, PoseConvention
from nre_ros.keyframes.importers.text_trajectory import read_text_trajectory

DEFAULT_MAX_GAP = 0.1
"""Default of the largest time in seconds between two poses that are interpolated."""


@dataclass(frozen=True)
class GroundTruth:
    """A ground-truth trajectory: stamped poses of the camera's optical frame in the map.

    Attributes:
        source: File or topic.
        stamps: ``[T]`` int64 nanoseconds, increasing.
        poses: ``[T, 7]`` rows x y z qx qy qz qw, metres, camera to map.
        frame: Name of the frame that the poses are in, empty if the source names none.
        notes: Entries of the source that were left out, one line each.
    """

    source: str
    stamps: npt.NDArray[np.int64]
    poses: npt.NDArray[np.float64]
    frame: str = ""
    notes: tuple[str, ...] = ()

    def at(self, stamps: npt.NDArray[np.int64], max_gap: float = DEFAULT_MAX_GAP) -> npt.NDArray[np.float64]:
        """Looks up or interpolates the poses at given stamps: linear in position, uniform in rotation.

        Args:
            stamps: ``[N]`` int64 nanoseconds.
            max_gap: Largest time in seconds between two poses that are interpolated.

        Returns:
            ``[N, 4, 4]`` poses, camera to map, NaN where there is no pose.
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


@dataclass(frozen=True)
class GroundTruthAssociation:
    """How the images of an input get their ground-truth poses.

    Attributes:
        lookup: Function that finds the ground-truth poses of images.
        source: Where the ground truth comes from, None without ground truth.
        trajectory: The trajectory, None where there is none or the poses come with the images.
    """

    lookup: GroundTruthLookup
    source: str | None = None
    trajectory: GroundTruth | None = None


NO_GROUND_TRUTH = GroundTruthAssociation(without_ground_truth)


class GroundTruthEntries:
    """Collects poses in any order as plain numbers (64 bytes each), and counts entries that are not valid poses."""

    def __init__(self) -> None:
        """Starts without entries."""
        self.stamps: array[int] = array("q")
        self._values: array[float] = array("d")
        self._rejected = 0
        self._first_problem = ""

    def add(self, stamp: int, pose: Iterable[float]) -> None:
        """Adds a pose.

        Args:
            stamp: Nanoseconds.
            pose: Numbers x y z qx qy qz qw.
        """
        self.stamps.append(stamp)
        self._values.extend(pose)

    def reject(self, problem: str) -> None:
        """Counts an entry that is not a valid pose.

        Args:
            problem: What is wrong with the entry.
        """
        self._rejected, self._first_problem = self._rejected + 1, self._first_problem or problem

    def trajectory(self, source: str, frame: str = "") -> GroundTruth:
        """Sorts the poses by time. Of several poses with the same stamp the first is kept.

        Args:
            source: File or topic.
            frame: Name of the frame that the poses are in.

        Returns:
            The ground-truth trajectory.

        Raises:
            EvaluationError: There is no valid pose.
        """
        if not len(self.stamps):
            found = (
                f"{self._rejected} invalid entries, the first: {self._first_problem}"
                if self._rejected
                else "it is empty"
            )
            raise EvaluationError(f"ground truth {source} contains no pose: {found}")
        notes: tuple[str, ...] = ()
        if self._rejected:
            count = self._rejected + len(self.stamps)
            notes = (
                f"ground truth {source}: {self._rejected} of {count} entries are invalid and were left out, the first: "
                f"{self._first_problem}",
            )
        stamps, index = np.unique(np.array(self.stamps, dtype=np.int64), return_index=True)
        return GroundTruth(source, stamps, np.array(self._values).reshape(-1, 7)[index], frame, notes)


def read_tum(path: Path | str, convention: PoseConvention = PoseConvention()) -> GroundTruth:
    """Reads a trajectory file of lines ``t x y z qx qy qz qw``, or of the forms that ``pose_columns`` recognises.

    Args:
        path: File to read.
        convention: What the user says of the poses.

    Returns:
        The trajectory.

    Raises:
        EvaluationError: The file contains no valid pose.
    """
    entries, text = GroundTruthEntries(), read_text_trajectory(path, convention)
    for line in text.lines:
        if line.values is not None:
            entries.add(line.stamp, line.values)
        else:
            entries.reject(f"line {line.number}: {line.error}")
    return _with_columns(entries.trajectory(str(path)), text.columns)


def read_tum_of_list(
    path: Path | str, names: Sequence[str], convention: PoseConvention = PoseConvention()
) -> tuple[GroundTruth, dict[str, int], bool]:
    """Reads a trajectory file whose line i belongs to image i of a list.

    Where a line has no time, or the times do not increase, the line number replaces the stamp.

    Args:
        path: File to read.
        names: Image names of the list.
        convention: What the user says of the poses.

    Returns:
        The trajectory, the stamp of each image in this trajectory, and whether these are stamps in nanoseconds (True)
        or line numbers (False).

    Raises:
        EvaluationError: The numbers of lines and of images differ, or there is no valid pose.
    """
    text = read_text_trajectory(path, convention)
    if len(text.lines) != len(names):
        raise EvaluationError(
            f"ground truth {path} contains {len(text.lines)} poses, the list {len(names)} images: line i must be the "
            "pose of image i"
        )
    by_time, by_line = GroundTruthEntries(), GroundTruthEntries()
    for index, line in enumerate(text.lines, start=1):
        if line.values is not None:
            by_time.add(line.stamp, line.values)
            by_line.add(index, line.values)
        else:
            by_line.reject(f"line {line.number}: {line.error}")
    times = by_time.stamps
    if len(times) == len(names) and all(0 < a < b for a, b in zip(times, times[1:])):
        return _with_columns(by_time.trajectory(str(path)), text.columns), dict(zip(names, times)), True
    numbers = {name: index for index, name in enumerate(names, start=1)}
    return _with_columns(by_line.trajectory(str(path)), text.columns), numbers, False


def _with_columns(trajectory: GroundTruth, columns: PoseColumns) -> GroundTruth:
    """The trajectory with a note on how the file was read, unless that is TUM's usual way."""
    if columns.is_tum:
        return trajectory
    return replace(
        trajectory, notes=(*trajectory.notes, f"ground truth {trajectory.source}: read as {columns.describe()}")
    )


def check_overlap(trajectory: GroundTruth, first: int, last: int, images: str) -> None:
    """Checks that the ground truth and the images overlap in time, with a tolerance of one second.

    Args:
        trajectory: Ground-truth trajectory.
        first: Stamp of the first image in nanoseconds.
        last: Stamp of the last image in nanoseconds.
        images: Where the images come from, for the error message.

    Raises:
        EvaluationError: There is no overlap.
    """
    begin, end = int(trajectory.stamps[0]), int(trajectory.stamps[-1])
    if end < first - 10**9 or begin > last + 10**9:
        gap = (first - end if end < first else begin - last) / 1e9
        raise EvaluationError(
            f"ground truth {trajectory.source} and the images of {images} do not overlap in time: "
            f"{begin / 1e9:.3f} to {end / 1e9:.3f} s and {first / 1e9:.3f} to {last / 1e9:.3f} s are {gap:.3f} s apart"
        )


def check_frame(trajectory: GroundTruth, map_frame: str, same: str = "") -> None:
    """Checks that the ground truth is in the map's frame.

    Args:
        trajectory: Ground-truth trajectory.
        map_frame: Name of the map's frame.
        same: Another name of the map's frame.

    Raises:
        EvaluationError: The ground truth names another frame.
    """
    if trajectory.frame and trajectory.frame not in (map_frame, same):
        raise EvaluationError(
            f"ground truth {trajectory.source} is in frame {trajectory.frame!r}, the map's frame is {map_frame!r}: if "
            f"both are the same frame, give --truth-frame {trajectory.frame}"
        )


def check_association(
    has_ground_truth: bool, stamps: npt.NDArray[np.int64], trajectory: GroundTruth, max_gap: float
) -> None:
    """Checks that at least one image has a ground-truth pose.

    Args:
        has_ground_truth: Whether any image has a ground-truth pose.
        stamps: ``[N]`` stamps of the images in nanoseconds, 0 for none.
        trajectory: Ground-truth trajectory.
        max_gap: Largest time in seconds between two poses that are interpolated.

    Raises:
        EvaluationError: No image has a ground-truth pose.
    """
    if has_ground_truth or not len(stamps):
        return
    if not stamps.all():
        raise EvaluationError(f"ground truth {trajectory.source} contains no pose of any of the {len(stamps)} images")
    nearest = min(float(np.abs(trajectory.stamps - stamp).min()) for stamp in stamps) / 1e9
    raise EvaluationError(
        f"ground truth {trajectory.source} contains no pose at the times of the {len(stamps)} images: the nearest pose "
        f"is {nearest:.3f} s away, and poses more than {max_gap:g} s apart are not interpolated (--max-gap)"
    )


def ground_truth_file(text: str) -> Path | None:
    """Decides whether ``--ground-truth`` names a file or a topic.

    Args:
        text: Argument of the option.

    Returns:
        The file, or None for a topic.

    Raises:
        EvaluationError: There is no such file, and a topic has no such name.
    """
    if Path(text).is_file():
        return Path(text)
    if text.startswith("/") and not Path(text).suffix:
        return None
    raise EvaluationError(f"ground truth {text} is neither a file nor the name of a topic, which begins with /")
