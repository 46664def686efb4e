# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""7-Scenes (Shotton et al., CVPR 2013): RGB-D maps of the training sequences, the test sequences as queries.

The layout, the cameras and the poses are the importer's (``keyframes.importers.rgbd.seven_scenes``).
"""

from __future__ import annotations

from pathlib import Path

from nre_ros.errors import EvaluationError
from nre_ros.evaluation.datasets.scene import Dataset, Published, Scene, median_and_recall, scene_folders
from nre_ros.evaluation.inputs import PosedInput
from nre_ros.keyframes.importers.rgbd.seven_scenes import SevenScenesSource

NAMES = ("chess", "fire", "heads", "office", "pumpkin", "redkitchen", "stairs")


class SevenScenes(Dataset):
    """Median error and share within 5 cm and 5 degrees, by the poses that come with the data set (KinectFusion's)."""

    columns = ("median [cm / deg]", "within 5 cm, 5 deg [%]", "accepted [%]")
    published = (
        Published(
            "hloc (SuperPoint + SuperGlue)",
            "estimates released with Brachmann et al., On the Limits of Pseudo Ground Truth in Visual Camera "
            "Re-Localisation, ICCV 2021 (github.com/tsattler/visloc_pseudo_gt_limitations), against the original "
            "poses, as third parties have scored them",
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
        "PixLoc's and ACE's figures by these poses could not be verified and are left out; figures by the SfM poses of "
        "Brachmann et al. (ICCV 2021), which are several times smaller, are of another ground truth.",
    )

    def scenes(self, root: Path, wanted: tuple[str, ...] = ()) -> list[Scene]:
        return [_scene(folder) for folder in scene_folders(root, NAMES, wanted, "TrainSplit.txt")]

    def cells(self, summary: dict) -> tuple[str, ...]:
        return median_and_recall(summary)


def _scene(folder: Path) -> Scene:
    train, test = (SevenScenesSource(folder, split) for split in ("train", "test"))
    if train.left_out or test.left_out:  # its figures would be of another split
        raise EvaluationError(f"{folder} is not whole: {'; '.join((*train.left_out, *test.left_out))}")
    return Scene(folder.resolve().name, train, PosedInput.of(test, str(folder.resolve())))
