# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The colours of a keyframe's points, from the picture that the map keeps of the keyframe."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from nre_ros.geometry import invert
from nre_ros.keyframes.thumbnail import decode_thumbnail
from nre_ros.keyframes.types import Keyframe

_GREY = 160


def point_colours(keyframe: Keyframe) -> npt.NDArray[np.uint8]:
    """Returns the colours [N, 3] (red, green, blue) of a keyframe's points, from its thumbnail; grey without one.

    Args:
        keyframe: The keyframe.
    """
    grey = np.full((len(keyframe.points), 3), _GREY, np.uint8)
    if not len(grey):
        return grey
    picture = decode_thumbnail(keyframe.thumbnail)
    if picture is None:
        return grey
    T_cam_map = invert(keyframe.T_map_cam)
    points = keyframe.points.astype(np.float64) @ T_cam_map[:3, :3].T + T_cam_map[:3, 3]
    projected, in_front, _ = keyframe.camera.project(torch.from_numpy(points))
    height, width = picture.shape[:2]
    scale = np.array([width / keyframe.camera.width, height / keyframe.camera.height])
    cells = ((projected.numpy() + 0.5) * scale).astype(int).clip(0, [width - 1, height - 1])
    return np.where(in_front.numpy()[:, None], picture[cells[:, 1], cells[:, 0], ::-1], grey)
