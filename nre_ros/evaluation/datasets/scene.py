"""What a public benchmark consists of, and its table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from nre_ros.evaluation.inputs import PosedInput
from nre_ros.geometry import invert
from nre_ros.keyframes.importers.common import MapSource


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


def median_and_recall(summary: dict) -> tuple[str, str, str]:
    """``median cm / deg`` over all queries (without a pose: infinite), recall at 5 cm 5 deg, and the share posed."""
    shares, median = summary["shares"], summary["median_of_all"]
    share = 100 * shares["accepted"] / max(shares["images"], 1)
    recall = 100 * summary["recall"]["0.05 m, 5 deg"]
    return pair(median["position_m"], median["rotation_deg"]), f"{recall:.1f}", f"{share:.1f}"


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
