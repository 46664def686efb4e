# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Aachen Day-Night v1.1 (Sattler et al., CVPR 2018; Zhang et al., IJCV 2021) in the layout that hloc uses.

The folders are images/images_upright/{db,sequences,query} and 3D-models/aachen_v_1_1 (COLMAP). The query lists
queries/{day,night}_time_queries_with_intrinsics.txt have lines ``image MODEL width height parameters``. The query poses
are not public: the result is the submission file for https://www.visuallocalization.net.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nre_ros.errors import EvaluationError, ImportSourceError
from nre_ros.evaluation.datasets.dataset import PublishedMethod, Scene, SubmittedDataset
from nre_ros.evaluation.inputs import DatasetImage, DatasetInput
from nre_ros.geometry import Camera
from nre_ros.keyframes.importers.colmap.cameras import camera_from_colmap
from nre_ros.keyframes.importers.image_files import read_image
from nre_ros.keyframes.importers.text_files import check_folder, read_list

_IMAGES, _MODEL = Path("images/images_upright"), Path("3D-models/aachen_v_1_1")
_CONDITIONS = ("day", "night")


class Aachen(SubmittedDataset):
    """Day and night queries in one map. The server computes recall at (25 cm, 2 deg), (50 cm, 5 deg), (5 m, 10 deg)."""

    published = (
        PublishedMethod(
            "hloc (SuperPoint + SuperGlue)",
            "hloc's README, on Aachen Day-Night (v1.0)",
            {"day": ("", "", "89.6 / 95.4 / 98.8"), "night": ("", "", "86.7 / 93.9 / 100")},
        ),
    )
    notes = (
        "visuallocalization.net computes the recall from the submission file. The figures of hloc's README are for "
        "v1.0, which has fewer night queries. Figures of hloc for v1.1, of PixLoc and of ACE could not be verified and "
        "are left out.",
    )

    def scenes(self, root: Path, names: Sequence[str] = ()) -> list[Scene]:
        from nre_ros.keyframes.importers.colmap.model_source import ColmapSource

        root = check_folder(root)
        source = ColmapSource(root / _MODEL, root / _IMAGES)
        lists = {name: root / f"queries/{name}_time_queries_with_intrinsics.txt" for name in (names or _CONDITIONS)}
        for name, path in lists.items():
            if not path.is_file():
                raise EvaluationError(f"{root} contains no list of {name} queries: {path}")
        return [Scene(name, source, _queries(root / _IMAGES, path)) for name, path in lists.items()]


def _queries(images: Path, path: Path) -> DatasetInput:
    query_images = []
    for line in read_list(path):
        fields = line.split()
        try:
            name, model, (width, height) = fields[0], fields[1], map(int, fields[2:4])
            camera = camera_from_colmap(model, width, height, map(float, fields[4:]))
        except (ValueError, IndexError):
            raise ImportSourceError(
                f"{path}: expected 'image MODEL width height parameters', got {line[:80]!r}"
            ) from None
        query_images.append(DatasetImage(name, 0, None, partial(_load, images / name, camera)))
    return DatasetInput(query_images, str(path.resolve()))


def _load(path: Path, camera: Camera) -> tuple[npt.NDArray[np.uint8], Camera]:
    return read_image(path), camera
