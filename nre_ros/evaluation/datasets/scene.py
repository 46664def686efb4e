# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a public benchmark consists of, and its table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from nre_ros.errors import EvaluationError
from nre_ros.evaluation.inputs import PosedInput
from nre_ros.geometry import invert
from nre_ros.keyframes.importers.map_source import MapSource
from nre_ros.keyframes.importers.text_files import check_folder


@dataclass(frozen=True)
class Scene:
    """One map and the queries in it."""

    name: str
    source: MapSource
    queries: PosedInput


@dataclass(frozen=True)
class Published:
    """Another method's figures: scene -> the cells that stand below the data set's columns; source: where from."""

    method: str
    source: str
    cells: dict[str, tuple[str, ...]]


class Dataset(ABC):
    """One benchmark.

    columns: heads of its table, behind the scene's name.  published: rows of others beside ours, those that
    could be verified in public sources, and no others.  notes: what to know about the comparison.
    """

    columns: tuple[str, ...]
    published: tuple[Published, ...] = ()
    notes: tuple[str, ...] = ()

    @abstractmethod
    def scenes(self, root: Path, wanted: tuple[str, ...] = ()) -> list[Scene]:
        """The scenes below ``root``, or those wanted.  Raises an ``NreError`` when there is none."""

    @abstractmethod
    def cells(self, summary: dict) -> tuple[str, ...]:
        """A scene's row, below ``columns``."""

    def submission(self, done: dict[str, tuple[Scene, object]]) -> list[str]:
        """Lines of the file that the benchmark's owners want; usually none.  done: scene -> it, its evaluation."""
        return []


def scene_folders(root: Path, names: tuple[str, ...], wanted: tuple[str, ...], file: str) -> list[Path]:
    """``root`` if it is a scene (holds ``file``) itself, else its scenes of these names, or those wanted.

    Raises ``EvaluationError`` when there is none, or one that is wanted is not there.
    """
    root = check_folder(root)
    if (root / file).is_file():
        return [root]
    found = [root / name for name in (wanted or names) if (root / name / file).is_file()]
    missing = [name for name in wanted if root / name not in found]
    if missing or not found:
        which = missing[0] if missing else f"none of {', '.join(names)}"
        raise EvaluationError(f"{root} has no scene with a {file}: {which}")
    return found


def share_accepted(summary: dict) -> str:
    """In percent, of all images."""
    shares = summary["shares"]
    return f"{100 * shares['accepted'] / max(shares['images'], 1):.1f}"


def median_and_recall(summary: dict) -> tuple[str, str, str]:
    """``median cm / deg`` over all queries (without a pose: infinite), recall at 5 cm 5 deg, and the share posed."""
    median, recall = summary["median_of_all"], summary["recall"]["0.05 m, 5 deg"]
    within = "-" if recall is None else f"{100 * recall:.1f}"
    return pair(median["position_m"], median["rotation_deg"]), within, share_accepted(summary)


class SubmittedDataset(Dataset):
    """One whose queries' poses are its owners' secret: the outcome is the file for their server."""

    columns = ("queries", "accepted [%]", "recall [%]")

    def cells(self, summary: dict) -> tuple[str, ...]:
        return str(summary["shares"]["images"]), share_accepted(summary), ""

    def submission(self, done) -> list[str]:
        return submission_lines(done)


class TrajectoryDataset(Dataset):
    """Sequences: absolute trajectory error (RMSE, aligned and not), relative pose error, recall at 5 cm 5 deg."""

    columns = ("ATE [cm]", "ATE, not aligned [cm]", "RPE [cm / deg]", "within 5 cm, 5 deg [%]", "accepted [%]")
    notes = ("hloc, PixLoc and ACE publish no figures on it. RPE is from query to query.",)

    def cells(self, summary: dict) -> tuple[str, ...]:
        found, recall = summary["trajectory"], summary["recall"]["0.05 m, 5 deg"]
        ate = [f"{100 * found[key]['position_m']['rmse']:.2f}" if found[key] else "-" for key in ("ape_aligned", "ape")]
        rpe = pair(*(found["rpe"][key]["rmse"] for key in ("position_m", "rotation_deg"))) if found["rpe"] else "-"
        return *ate, rpe, "-" if recall is None else f"{100 * recall:.1f}", share_accepted(summary)


def submission_lines(done) -> list[str]:
    """What visuallocalization.net takes: ``image qw qx qy qz tx ty tz``, world to camera, images without folders.

    done: as of ``Dataset.submission``; images without an accepted pose are left out.
    """
    lines = []
    for _, evaluation in done.values():
        outcomes = evaluation.outcomes
        for k in np.flatnonzero(outcomes.accepted):
            T = invert(outcomes.poses[k])
            x, y, z, w = Rotation.from_matrix(T[:3, :3]).as_quat()
            numbers = " ".join(repr(float(value)) for value in (w, x, y, z, *T[:3, 3]))
            lines.append(f"{Path(outcomes.names[k]).name} {numbers}")
    return lines


def pair(metres: float | None, degrees: float | None) -> str:
    """``2.40 / 0.77``: centimetres and degrees; a dash where half of the queries have no pose."""
    return "-" if metres is None or degrees is None else f"{100 * metres:.2f} / {degrees:.2f}"
