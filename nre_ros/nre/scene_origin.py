# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Estimation about an origin near the scene.

Poses are updated by a rotation about the origin of the frame and a translation. Where the scene is kilometres from that
origin, as in UTM coordinates, a rotation by a milliradian moves the camera by metres, so that the steps of Newton's
method do not converge. The estimator computes there in a frame with the same axes and an origin in the scene.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from nre_ros.geometry import distant_origin
from nre_ros.keyframes.types import KeyframeStack
from nre_ros.nre.estimate import Estimate

_NEAR = 200.0
"""Up to this distance (metres) from the map's origin its effect on a pose is below a hundredth of a millimetre."""


def scene_origin(points: torch.Tensor) -> torch.Tensor | None:
    """Chooses an origin in the scene.

    Args:
        points: ``[N, 3]`` in the map.

    Returns:
        ``[3]`` in the map; None where the map's own origin is near enough.
    """
    if points.dim() != 2 or points.shape[1] != 3 or not len(points):
        return None
    origin = distant_origin(np.asarray(points.median(0).values.tolist()), beyond=_NEAR)
    return None if origin is None else torch.as_tensor(origin, dtype=points.dtype, device=points.device)


def about_origin(keyframes: KeyframeStack, origin: torch.Tensor) -> KeyframeStack:
    """Moves keyframes to a frame with another origin.

    Args:
        keyframes: In the map.
        origin: ``[3]`` in the map.
    """
    return replace(keyframes, points=keyframes.points - origin, centres=keyframes.centres - origin)


def move_camera_origin(T_cam_map: torch.Tensor, origin: torch.Tensor) -> torch.Tensor:
    """Returns the pose ``T_cam_scene`` of a pose ``T_cam_map``, where the scene's frame has another origin.

    Args:
        T_cam_map: ``[4, 4]``, map to camera.
        origin: ``[3]`` of the scene's frame in the map.
    """
    moved = T_cam_map.clone()
    moved[:3, 3] += moved[:3, :3] @ origin.to(moved)
    return moved


def in_map(estimate: Estimate, keyframes: KeyframeStack, origin: torch.Tensor) -> Estimate:
    """Moves an estimate from the scene's frame to the map's.

    Args:
        estimate: In the scene's frame.
        keyframes: In the map.
        origin: ``[3]`` of the scene's frame in the map.
    """

    def moved(T_cam_scene: torch.Tensor) -> torch.Tensor:
        return move_camera_origin(T_cam_scene, -origin)

    alternative = estimate.alternative
    return replace(
        estimate,
        keyframes=keyframes,
        T_cam_map=None if estimate.T_cam_map is None else moved(estimate.T_cam_map),
        stages={stage: (moved(T), cost) for stage, (T, cost) in estimate.stages.items()},
        alternative=None if alternative is None else replace(alternative, T_cam_map=moved(alternative.T_cam_map)),
    )
