# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""7-Scenes (Shotton et al., CVPR 2013): RGB-D maps of the training sequences, the test sequences as queries.

``keyframes.importers.rgbd.seven_scenes`` reads the layout, the cameras and the poses.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nre_ros.errors import EvaluationError
from nre_ros.evaluation.datasets.dataset import (
    ACCEPTED_COLUMN,
    RECALL_COLUMN,
    Dataset,
    PublishedMethod,
    Scene,
    median_and_recall,
    scene_folders,
)
from nre_ros.evaluation.inputs import DatasetInput
from nre_ros.keyframes.importers.rgbd.seven_scenes import SevenScenesSource

_SCENES = ("chess", "fire", "heads", "office", "pumpkin", "redkitchen", "stairs")


class SevenScenes(Dataset):
    """Median error and recall at 5 cm and 5 degrees against the data set's own poses (KinectFusion)."""

    columns = ("median [cm / deg]", RECALL_COLUMN, ACCEPTED_COLUMN)
    published = (
        PublishedMethod(
            "hloc (SuperPoint + SuperGlue)",
            "estimates released with Brachmann et al., On the Limits of Pseudo Ground Truth in Visual Camera "
            "Re-Localisation, ICCV 2021 (github.com/tsattler/visloc_pseudo_gt_limitations), against the original "
            "poses, as scored by third parties",
            {
                "chess": ("2.40 / 0.77", "94.2"),
                "fire": ("1.81 / 0.75", "93.7"),
                "heads": ("0.93 / 0.59", "99.7"),
                "office": ("2.61 / 0.77", "83.2"),
                "pumpkin": ("4.44 / 1.15", "55.1"),
                "redkitchen": ("4.03 / 1.38", "61.9"),
                "stairs": ("5.05 / 1.46", "49.4"),
            },
        ),
    )
    notes = (
        "Figures of PixLoc and ACE against these poses could not be verified and are left out. Errors against the SfM "
        "poses of Brachmann et al. (ICCV 2021) are several times smaller and not comparable.",
    )

    def scenes(self, root: Path, names: Sequence[str] = ()) -> list[Scene]:
        return [_scene(folder) for folder in scene_folders(root, _SCENES, names, "TrainSplit.txt")]

    def cells(self, summary: dict[str, Any]) -> tuple[str, ...]:
        return median_and_recall(summary)


def _scene(folder: Path) -> Scene:
    train, test = (SevenScenesSource(folder, split) for split in ("train", "test"))
    if train.left_out or test.left_out:  # the figures would belong to another split
        raise EvaluationError(f"{folder} is incomplete: {'; '.join((*train.left_out, *test.left_out))}")
    return Scene(folder.resolve().name, train, DatasetInput.from_source(test, str(folder.resolve())))
