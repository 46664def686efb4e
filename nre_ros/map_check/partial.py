# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The results so far of a check, kept in a file, so that an interrupted check continues.

The file has one line of JSON for each result, after one that names what the results belong to. Anybody may have written
it: a line with values that no check writes ends the reading.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nre_ros import __version__
from nre_ros.errors import MapError
from nre_ros.localization.confidence import VERSION as EVIDENCE_VERSION
from nre_ros.map_check.leave_one_out import LeftOut, LeftOutResult
from nre_ros.map_check.view_result import ViewResult, evidence_from_json

_LOG = logging.getLogger(__name__)

_VERSION = 2
"""Of the file."""


class PartialCheck:
    """The results so far of a check. Those that are added are appended to the file at once.

    Args:
        path: The file; None keeps the results in memory alone.
        content: Hash of the map's content, which the results belong to.
        seed: Of the consensus.
        required: Whether a file that cannot be written is an error. If not, the results stay in memory.

    Attributes:
        views: The left-out views.
        far: Id of a keyframe -> what its image found in the parts of the map that do not show its place.
        places: Index of an image of another place -> ``[F]`` evidence of its pose, None without one.
    """

    def __init__(self, path: Path | None = None, content: str = "", seed: int = 0, required: bool = True) -> None:
        self._path = path
        self._required = required
        self._head = json.dumps(
            {
                "file": _VERSION,
                "nre_ros": __version__,
                "evidence": EVIDENCE_VERSION,
                "map": content,
                "seed": seed,
            }
        )
        self.views: dict[LeftOut, LeftOutResult] = {}
        self.far: dict[int, ViewResult] = {}
        self.places: dict[int, npt.NDArray[np.float64] | None] = {}

    def read(self) -> None:
        """Reads the results of an earlier run; none if there is no file, or one of another map, seed or version."""
        if self._path is None:
            return
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return
        if not lines or lines[0] != self._head:
            return
        for line in lines[1:]:
            try:
                self._parse(json.loads(line))
            except (ValueError, TypeError, OverflowError, RecursionError):
                break  # the line that was being written when the run ended, or one that no check wrote

    def begin(self) -> None:
        """Writes the file anew, with the results so far.

        Raises:
            MapError: The file is required and cannot be written.
        """
        lines: list[tuple[str, Any]] = [("view", result.to_json()) for result in self.views.values()]
        lines += [("far", view.to_json()) for view in self.far.values()]
        lines += [("place", _place(index, evidence)) for index, evidence in self.places.items()]
        self._write("w", self._head + "\n" + "".join(map(_line, lines)))

    def add_view(self, result: LeftOutResult) -> None:
        """Adds the result of a left-out view.

        Args:
            result: The result.

        Raises:
            MapError: The file is required and cannot be written; so do the other ``add_...``.
        """
        self.views[LeftOut(result.view.keyframe, result.span)] = result
        self._append("view", result.to_json())

    def add_far(self, view: ViewResult) -> None:
        """Adds what the image of a keyframe found in the parts of the map that do not show its place.

        Args:
            view: The result.
        """
        self.far[view.keyframe] = view
        self._append("far", view.to_json())

    def add_place(self, index: int, evidence: npt.NDArray[np.float64] | None) -> None:
        """Adds what an image of another place found.

        Args:
            index: Of the image.
            evidence: ``[F]`` of its pose; None without one.
        """
        self.places[index] = evidence
        self._append("place", _place(index, evidence))

    def keep_views_of(self, names: dict[int, str], poses: dict[int, npt.NDArray[np.float64]]) -> None:
        """Drops results that are not of the map's keyframes.

        Args:
            names: Id -> name of all keyframes.
            poses: Id -> ``T_map_cam`` [4, 4] of all keyframes.
        """

        def belongs(view: ViewResult) -> bool:
            same = names.get(view.keyframe) == view.name and np.array_equal(poses[view.keyframe], view.T_map_cam)
            return same and names.keys() >= set(view.keyframes)

        self.views = {
            key: result
            for key, result in self.views.items()
            if belongs(result.view) and (result.again is None or belongs(result.again))
        }
        self.far = {key: view for key, view in self.far.items() if belongs(view)}

    def remove(self) -> None:
        """Removes the file; where that is not possible, it stays, and the next check begins with its results."""
        if self._path is None:
            return
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            _LOG.warning("%s cannot be removed: %s", self._path, error.strerror)

    def _parse(self, values: Any) -> None:
        if not isinstance(values, list) or len(values) != 2:
            raise ValueError("no kind and result")
        kind, of_kind = values
        if kind == "view":
            result = LeftOutResult.from_json(of_kind)
            self.views[LeftOut(result.view.keyframe, result.span)] = result
        elif kind == "far":
            view = ViewResult.from_json(of_kind)
            self.far[view.keyframe] = view
        elif kind == "place":
            index, evidence = of_kind
            if type(index) is not int or index < 0:
                raise ValueError(f"no index of an image: {index!r}")
            self.places[index] = None if evidence is None else evidence_from_json(evidence)
        else:
            raise ValueError(f"no kind of results: {kind!r}")

    def _append(self, kind: str, values: Any) -> None:
        if self._path is not None:
            self._write("a", _line((kind, values)))

    def _write(self, mode: str, text: str) -> None:
        if self._path is None:
            return
        try:
            with self._path.open(mode, encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            problem = f"{self._path}, which an interrupted check continues, cannot be written: {error.strerror}"
            if self._required:
                raise MapError(problem) from error
            _LOG.warning("%s; after an interruption the check begins anew", problem)
            self._path = None


def _place(index: int, evidence: npt.NDArray[np.float64] | None) -> list[Any]:
    return [index, None if evidence is None else evidence.tolist()]


def _line(values: tuple[str, Any]) -> str:
    return json.dumps(values) + "\n"
