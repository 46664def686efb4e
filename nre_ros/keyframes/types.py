# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a keyframe is, apart from how it is stored, and the stack of keyframes that the estimator takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from nre_ros.features.base import network_focal_length
from nre_ros.geometry import FAR_FROM_ORIGIN, Camera


@dataclass(frozen=True)
class Keyframe:
    """One view of the map, in numpy: what importers make and the store contains.

    Attributes:
        name: Unique in the map: the image's file name, or a stamp.
        stamp: Nanoseconds since the epoch, or 0 when the source has no time.
        T_map_cam: [4, 4] float64, camera optical frame to map.
        camera: Intrinsics of the image.
        points: [N, 3] map frame, metres; float32, or float64 far from the frame's origin (``compact_points``).
        coarse: [N, C] float32 coarse descriptors at the points' projections, of unit length if the features are.
        fine: [N, F] float32 fine descriptors at the points' projections, of unit length if the features are.
        background: [M, C] float32 coarse descriptors of cells drawn evenly from the whole image; they stand for all
            its ``background_cells`` cells in the reverse direction of matching.
        background_cells: Number of cells of the coarse feature map.
        global_descriptor: [D] float32 unit length, for retrieval.
        point_ids: [N] int64, ids of the source's 3D points, -1 where it has none.
        thumbnail: JPEG bytes, or empty.
        id: Given by the store, -1 before.
    """

    name: str
    stamp: int
    T_map_cam: npt.NDArray[np.float64]
    camera: Camera
    points: npt.NDArray[np.floating]
    coarse: npt.NDArray[np.float32]
    fine: npt.NDArray[np.float32]
    background: npt.NDArray[np.float32]
    background_cells: int
    global_descriptor: npt.NDArray[np.float32]
    point_ids: npt.NDArray[np.int64] | None = None
    thumbnail: bytes = field(default=b"", repr=False)
    id: int = -1


def compact_points(points: npt.ArrayLike) -> npt.NDArray[np.floating]:
    """Converts points to single precision where that is precise.

    Args:
        points: [N, 3] metres.

    Returns:
        [N, 3] float32; float64 where a coordinate is beyond ``FAR_FROM_ORIGIN``.
    """
    points = np.asarray(points)
    far = np.abs(points).max(initial=0.0) > FAR_FROM_ORIGIN
    return points.astype(np.float64 if far else np.float32, copy=False)


@dataclass(frozen=True)
class KeyframeStack:
    """The points of the retrieved keyframes as one stack of tensors on the estimator's device.

    Attributes:
        ids: [K] ids of the keyframes.
        points: [N, 3] float64, map frame, keyframe after keyframe.
        coarse: [N, C] float32 coarse descriptors.
        fine: [N, C'] float32 fine descriptors.
        counts: [K] number of points of each keyframe.
        background: [K, M, C] float32 coarse descriptors of cells of the whole images.
        background_cells: [K] number of cells that ``background`` stands for.
        directions: [N, 3] float32 from the keyframe's centre to the point, divided by the focal length in pixels. The
            length is the size that a pixel of the keyframe has on the scene.
        centres: [K, 3] float64 the keyframes' cameras, in the map.
    """

    ids: tuple[int, ...]
    points: torch.Tensor
    coarse: torch.Tensor
    fine: torch.Tensor
    counts: tuple[int, ...]
    background: torch.Tensor
    background_cells: tuple[int, ...]
    directions: torch.Tensor
    centres: torch.Tensor

    def __len__(self) -> int:
        return int(self.points.shape[0])


def stack_keyframes(keyframes: Sequence[Keyframe], device: str | torch.device = "cpu") -> KeyframeStack:
    """Stacks keyframes for the estimator.

    Args:
        keyframes: At least one keyframe, all of one map (same channels and number of background cells).
        device: The estimator's device.

    Returns:
        The arrays of all keyframes, one after the other, on the device.
    """

    def stacked(arrays: Sequence[npt.NDArray[np.floating]], dtype: torch.dtype) -> torch.Tensor:
        return torch.as_tensor(np.concatenate(arrays), dtype=dtype).to(device)

    return KeyframeStack(
        ids=tuple(keyframe.id for keyframe in keyframes),
        points=stacked([keyframe.points for keyframe in keyframes], torch.float64),
        coarse=stacked([keyframe.coarse for keyframe in keyframes], torch.float32),
        fine=stacked([keyframe.fine for keyframe in keyframes], torch.float32),
        counts=tuple(len(keyframe.points) for keyframe in keyframes),
        background=stacked([keyframe.background[None] for keyframe in keyframes], torch.float32),
        background_cells=tuple(keyframe.background_cells for keyframe in keyframes),
        directions=stacked([_directions(keyframe) for keyframe in keyframes], torch.float32),
        centres=stacked([keyframe.T_map_cam[None, :3, 3] for keyframe in keyframes], torch.float64),
    )


def _directions(keyframe: Keyframe) -> npt.NDArray[np.float64]:
    """Returns ``KeyframeStack.directions`` of one keyframe; the stack rounds them to float32."""
    return (keyframe.points - keyframe.T_map_cam[:3, 3]) / network_focal_length(keyframe.camera)
