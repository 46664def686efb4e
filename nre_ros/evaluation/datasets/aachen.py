# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Aachen Day-Night v1.1 (Sattler et al., CVPR 2018; Zhang et al., IJCV 2021) as hloc lays it out on disk.

images/images_upright/{db,sequences,query}, 3D-models/aachen_v_1_1 (COLMAP), and
queries/{day,night}_time_queries_with_intrinsics.txt: ``image MODEL width height parameters``.
Poses of the queries are the owners' secret: the outcome is the file for https://www.visuallocalization.net.
"""

from __future__ import annotations

from pathlib import Path

from nre_ros.errors import EvaluationError, ImportSourceError
from nre_ros.evaluation.datasets.scene import Published, Scene, SubmittedDataset
from nre_ros.evaluation.inputs import Frame, PosedInput
from nre_ros.geometry import Camera
from nre_ros.keyframes.importers.colmap.cameras import camera_from_colmap
from nre_ros.keyframes.importers.image_files import read_image
from nre_ros.keyframes.importers.text_files import check_folder, read_list

IMAGES, MODEL = Path("images/images_upright"), Path("3D-models/aachen_v_1_1")
CONDITIONS = ("day", "night")


class Aachen(SubmittedDataset):
    """Day and night share one map; recall at (25 cm, 2 deg), (50 cm, 5 deg) and (5 m, 10 deg) is the server's."""

    published = (
        Published(
            "hloc (SuperPoint + SuperGlue)",
            "hloc's README, on Aachen Day-Night (v1.0)",
            {"day": ("", "", "89.6 / 95.4 / 98.8"), "night": ("", "", "86.7 / 93.9 / 100")},
        ),
    )
    notes = (
        "Recall is computed by visuallocalization.net from the submission file. hloc's README gives it for v1.0, whose "
        "night queries are fewer; its figures for v1.1, PixLoc's and ACE's could not be verified and are left out.",
    )

    def scenes(self, root: Path, wanted: tuple[str, ...] = ()) -> list[Scene]:
        from nre_ros.keyframes.importers.colmap.model_source import ColmapSource

        root = check_folder(root)
        source = ColmapSource(root / MODEL, root / IMAGES)
        lists = {name: root / f"queries/{name}_time_queries_with_intrinsics.txt" for name in (wanted or CONDITIONS)}
        for name, path in lists.items():
            if not path.is_file():
                raise EvaluationError(f"{root} has no list of {name} queries: {path}")
        return [Scene(name, source, _queries(root / IMAGES, path)) for name, path in lists.items()]


def _queries(images: Path, path: Path) -> PosedInput:
    frames = []
    for line in read_list(path):
        fields = line.split()
        try:
            name, model, (width, height) = fields[0], fields[1], map(int, fields[2:4])
            camera = camera_from_colmap(model, width, height, map(float, fields[4:]))
        except (ValueError, IndexError):
            raise ImportSourceError(f"{path}: not 'image MODEL width height parameters': {line[:80]!r}") from None
        frames.append(Frame(name, 0, None, _loader(images / name, camera)))
    return PosedInput(frames, str(path.resolve()))


def _loader(path: Path, camera: Camera):
    return lambda: (read_image(path), camera)
