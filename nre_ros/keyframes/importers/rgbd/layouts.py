# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which data set an RGB-D folder is, by the files in it."""

from __future__ import annotations

from nre_ros.errors import ImportSourceError
from nre_ros.keyframes.importers.common import check_folder
from nre_ros.keyframes.importers.rgbd import tum
from nre_ros.keyframes.importers.rgbd.depth_frames import DepthFrames
from nre_ros.keyframes.importers.rgbd.folder import RgbdSource
from nre_ros.keyframes.importers.rgbd.seven_scenes import SevenScenesSource, is_seven_scenes

_OWN = ("images", "depth", "poses.txt", "list.txt", "cameras.txt")


def rgbd_folder(folder, cameras=None, sequences: str | None = None, depth_scale: float | None = None) -> DepthFrames:
    """The source of a folder in the layout of TUM RGB-D, of 7-Scenes, or with the files of ``_OWN``.

    cameras: COLMAP's ``cameras.txt`` instead of the layout's own camera; sequences: of 7-Scenes
    (default ``train``); depth_scale: depth value of a metre, if not as the layout has it.
    Raises ``ImportSourceError`` when the layout is none of these.
    """
    folder = check_folder(folder)
    seven_scenes = is_seven_scenes(folder)
    if sequences and not seven_scenes:
        raise ImportSourceError(f"{folder} is not in the layout of 7-Scenes, which alone has sequences ({sequences!r})")
    if depth_scale and seven_scenes:
        raise ImportSourceError(f"{folder} is in the layout of 7-Scenes, whose depth is in millimetres: no depth scale")
    if all((folder / name).is_file() for name in tum.FILES):
        return tum.TumSource(folder, cameras, depth_scale)
    if seven_scenes:
        return SevenScenesSource(folder, sequences or "train", cameras)
    if all((folder / name).exists() for name in _OWN):
        images, depth, poses, names, own = (folder / name for name in _OWN)
        return RgbdSource(images, depth, poses, names, own if cameras is None else cameras, depth_scale or 1000.0)
    raise ImportSourceError(
        f"{folder} is neither a TUM RGB-D sequence ({', '.join(tum.FILES)}) nor 7-Scenes (seq-01, ...) nor has it "
        f"{', '.join(_OWN)}: give --images, --depth, --poses, --list and --camera"
    )
