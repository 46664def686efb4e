# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Recognition of RGB-D data sets by the files in their folders."""

from __future__ import annotations

from pathlib import Path

from nre_ros.errors import ImportSourceError
from nre_ros.keyframes.importers.depth_source import DepthSource
from nre_ros.keyframes.importers.pose_columns import PoseConvention
from nre_ros.keyframes.importers.rgbd import tum
from nre_ros.keyframes.importers.rgbd.folder import RgbdFolderSource
from nre_ros.keyframes.importers.rgbd.seven_scenes import SevenScenesSource, is_seven_scenes
from nre_ros.keyframes.importers.text_files import check_folder

_PLAIN_FOLDER = ("images", "depth", "poses.txt", "list.txt", "cameras.txt")
"""Files of a folder in this package's own layout, in the order of ``RgbdFolderSource``'s arguments."""


def rgbd_folder_source(
    folder: Path | str,
    cameras: Path | str | None = None,
    sequences: str | None = None,
    depth_scale: float | None = None,
    convention: PoseConvention = PoseConvention(),
) -> DepthSource:
    """Makes the source of an RGB-D folder.

    Args:
        folder: A sequence of TUM RGB-D, a scene of 7-Scenes, or a folder with the files of ``_PLAIN_FOLDER``.
        cameras: COLMAP's ``cameras.txt`` instead of the data set's own camera.
        sequences: Sequences of 7-Scenes (default ``train``).
        depth_scale: Depth value of one metre, if it differs from the data set's.
        convention: What the user says of the poses.

    Returns:
        The source.

    Raises:
        ImportSourceError: The layout is none of these, or an option does not fit the layout.
    """
    folder = check_folder(folder)
    seven_scenes = is_seven_scenes(folder)
    if sequences and not seven_scenes:
        raise ImportSourceError(f"{folder} is not in the layout of 7-Scenes, which alone has sequences ({sequences!r})")
    if depth_scale is not None and seven_scenes:
        raise ImportSourceError(f"{folder} is in the layout of 7-Scenes, whose depth is in millimetres: no depth scale")
    if convention != PoseConvention() and seven_scenes:
        raise ImportSourceError(f"{folder} is in the layout of 7-Scenes, whose poses are matrices: no pose format")
    if _is_tum(folder):
        return tum.TumSource(folder, cameras, depth_scale, convention)
    if seven_scenes:
        return SevenScenesSource(folder, sequences or "train", cameras)
    if _is_plain(folder):
        images, depth, poses, names, own_cameras = (folder / name for name in _PLAIN_FOLDER)
        scale = 1000.0 if depth_scale is None else depth_scale
        return RgbdFolderSource(images, depth, poses, names, cameras or own_cameras, scale, convention)
    raise ImportSourceError(
        f"{folder} is neither a TUM RGB-D sequence ({', '.join(tum.FILES)}) nor 7-Scenes (seq-01, ...) nor has it "
        f"{', '.join(_PLAIN_FOLDER)}: give --images, --depth, --poses, --list and --camera"
    )


def is_rgbd_folder(folder: Path) -> bool:
    """Returns whether ``rgbd_folder_source`` knows the layout of a folder.

    Args:
        folder: The folder.
    """
    return _is_tum(folder) or is_seven_scenes(folder) or _is_plain(folder)


def _is_tum(folder: Path) -> bool:
    return all((folder / name).is_file() for name in tum.FILES)


def _is_plain(folder: Path) -> bool:
    return all((folder / name).exists() for name in _PLAIN_FOLDER)
