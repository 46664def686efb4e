# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""TUM RGB-D (Sturm et al., IROS 2012): one sequence is the map, other sequences of the same room are the queries.

The data set defines no split for relocalization. Of several named sequences, the first is the map and the others are the
queries. Otherwise the first half of each sequence is the map and the second half contains the queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nre_ros.errors import EvaluationError
from nre_ros.evaluation.datasets.dataset import Scene, TrajectoryDataset
from nre_ros.evaluation.inputs import DatasetInput
from nre_ros.keyframes.importers.rgbd.tum import FILES, TumSource
from nre_ros.keyframes.importers.text_files import check_folder


class Tum(TrajectoryDataset):
    """The benchmark's own measures: absolute trajectory error (RMSE after alignment) and relative pose error."""

    def scenes(self, root: Path, names: Sequence[str] = ()) -> list[Scene]:
        root = check_folder(root)
        if _is_sequence(root):
            return [_halves(root)]
        folders = [root / name for name in names] or sorted(filter(_is_sequence, root.iterdir()))
        for folder in folders:
            if not _is_sequence(folder):
                raise EvaluationError(f"{folder} is not a TUM RGB-D sequence: it lacks one of {', '.join(FILES)}")
        if len(names) >= 2:
            first = folders[0]
            return [
                Scene(folder.name, TumSource(first), DatasetInput.from_source(TumSource(folder), str(folder.resolve())))
                for folder in folders[1:]
            ]
        if not folders:
            raise EvaluationError(f"{root} contains no TUM RGB-D sequence (folders with {', '.join(FILES)})")
        return [_halves(folder) for folder in folders]


def _is_sequence(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


def _halves(folder: Path) -> Scene:
    source, queries = TumSource(folder), TumSource(folder)
    stamps = sorted(source.stamps.items(), key=lambda item: item[1])
    middle = len(stamps) // 2
    source.stamps, queries.stamps = dict(stamps[:middle]), dict(stamps[middle:])
    return Scene(folder.resolve().name, source, DatasetInput.from_source(queries, f"{folder.resolve()}, second half"))
