# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The interface of a public benchmark: its scenes, the columns of its table, and published figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from nre_ros.errors import EvaluationError
from nre_ros.evaluation.inputs import DatasetInput
from nre_ros.evaluation.metrics import QueryResults
from nre_ros.evaluation.metrics.summary import recall_key
from nre_ros.geometry import invert
from nre_ros.keyframes.importers.map_source import MapSource
from nre_ros.keyframes.importers.text_files import check_folder

_RECALL = recall_key(0.05, 5.0)
RECALL_COLUMN = "within 5 cm, 5 deg [%]"
ACCEPTED_COLUMN = "accepted [%]"


@dataclass(frozen=True)
class Scene:
    """A map and the queries that are localized in it.

    Attributes:
        name: Name of the scene.
        source: Images of the map.
        queries: Query images.
    """

    name: str
    source: MapSource
    queries: DatasetInput


@dataclass(frozen=True)
class PublishedMethod:
    """Published figures of another method.

    Attributes:
        method: Name of the method.
        source: Where the figures come from.
        cells: Scene name to the cells below the data set's columns; missing cells at the end are empty.
    """

    method: str
    source: str
    cells: dict[str, tuple[str, ...]]


class Dataset(ABC):
    """A public benchmark.

    Attributes:
        columns: Column heads of the table, without scene and method.
        published: Figures of other methods that were verified in public sources.
        notes: What a reader should know about the comparison, one line each.
    """

    columns: tuple[str, ...]
    published: tuple[PublishedMethod, ...] = ()
    notes: tuple[str, ...] = ()

    @abstractmethod
    def scenes(self, root: Path, names: Sequence[str] = ()) -> list[Scene]:
        """Finds the scenes of the data set.

        Args:
            root: Folder of the data set.
            names: Names of the scenes to use, all if empty.

        Returns:
            The scenes.

        Raises:
            NreError: There is no scene, or a named scene is missing.
        """

    @abstractmethod
    def cells(self, summary: dict[str, Any]) -> tuple[str, ...]:
        """Returns the table row of a scene.

        Args:
            summary: Summary of the scene's evaluation.

        Returns:
            Cells below ``columns``.
        """

    def submission(self, runs: Iterable[QueryResults]) -> list[str]:
        """Returns the lines of the submission file that the owners of the benchmark evaluate.

        Args:
            runs: Results of all scenes.

        Returns:
            The lines; empty for a benchmark without a submission file.
        """
        return []


class SubmittedDataset(Dataset):
    """A benchmark whose query poses are not public: its result is the submission file for the owners' server."""

    columns = ("queries", ACCEPTED_COLUMN, "recall [%]")

    def cells(self, summary: dict[str, Any]) -> tuple[str, ...]:
        return str(summary["shares"]["images"]), share_accepted(summary), ""

    def submission(self, runs: Iterable[QueryResults]) -> list[str]:
        return submission_lines(runs)


class TrajectoryDataset(Dataset):
    """A benchmark of sequences: absolute trajectory error (RMSE, aligned and not), relative pose error and recall."""

    columns = ("ATE [cm]", "ATE, not aligned [cm]", "RPE [cm / deg]", RECALL_COLUMN, ACCEPTED_COLUMN)
    notes = ("hloc, PixLoc and ACE publish no figures for this data set. RPE is from one query to the next.",)

    def cells(self, summary: dict[str, Any]) -> tuple[str, ...]:
        trajectory = summary["trajectory"]
        ate = [
            f"{100 * trajectory[key]['position_m']['rmse']:.2f}" if trajectory[key] else "-"
            for key in ("ape_aligned", "ape")
        ]
        rpe = "-"
        if trajectory["rpe"]:
            rpe = error_pair(*(trajectory["rpe"][key]["rmse"] for key in ("position_m", "rotation_deg")))
        return *ate, rpe, share_within(summary), share_accepted(summary)


def scene_folders(root: Path, known: Sequence[str], names: Sequence[str], file: str) -> list[Path]:
    """Finds the folders of a data set's scenes.

    Args:
        root: Folder of the data set, or of one scene.
        known: Names of all scenes of the data set.
        names: Names of the scenes to use, all if empty.
        file: A file that every scene contains.

    Returns:
        ``root`` if it is a scene, otherwise its scenes.

    Raises:
        EvaluationError: There is no scene, or a named scene is missing.
    """
    root = check_folder(root)
    if (root / file).is_file():
        return [root]
    found = [root / name for name in (names or known) if (root / name / file).is_file()]
    missing = [name for name in names if root / name not in found]
    if missing or not found:
        which = missing[0] if missing else f"none of {', '.join(known)}"
        raise EvaluationError(f"{root} contains no scene with a {file}: {which}")
    return found


def share_accepted(summary: dict[str, Any]) -> str:
    """Returns the share of images with an accepted pose.

    Args:
        summary: Summary of an evaluation.

    Returns:
        Percent of all images.
    """
    shares = summary["shares"]
    return f"{100 * shares['accepted'] / max(shares['images'], 1):.1f}"


def share_within(summary: dict[str, Any]) -> str:
    """Returns the recall at 5 cm and 5 degrees.

    Args:
        summary: Summary of an evaluation.

    Returns:
        Percent of the images with ground truth, a dash without ground truth.
    """
    recall = summary["recall"][_RECALL]
    return "-" if recall is None else f"{100 * recall:.1f}"


def median_and_recall(summary: dict[str, Any]) -> tuple[str, str, str]:
    """Returns the cells of a benchmark that reports median errors.

    Args:
        summary: Summary of an evaluation.

    Returns:
        Median error of all queries (infinite without a pose), recall at 5 cm and 5 degrees, share of accepted poses.
    """
    median = summary["median_of_all"]
    return error_pair(median["position_m"], median["rotation_deg"]), share_within(summary), share_accepted(summary)


def submission_lines(runs: Iterable[QueryResults]) -> list[str]:
    """Writes the submission file of visuallocalization.net: ``image qw qx qy qz tx ty tz``, world to camera.

    Args:
        runs: Results of all scenes.

    Returns:
        A line per image with an accepted pose; image names are without folders.
    """
    lines = []
    for results in runs:
        for k in np.flatnonzero(results.accepted):
            T_cam_world = invert(results.poses[k])
            x, y, z, w = Rotation.from_matrix(T_cam_world[:3, :3]).as_quat()
            numbers = " ".join(repr(float(value)) for value in (w, x, y, z, *T_cam_world[:3, 3]))
            lines.append(f"{Path(results.names[k]).name} {numbers}")
    return lines


def error_pair(metres: float | None, degrees: float | None) -> str:
    """Formats a position and a rotation error.

    Args:
        metres: Position error, None if it is infinite.
        degrees: Rotation error, None if it is infinite.

    Returns:
        Centimetres and degrees, for example ``2.40 / 0.77``; a dash for infinite errors.
    """
    return "-" if metres is None or degrees is None else f"{100 * metres:.2f} / {degrees:.2f}"
