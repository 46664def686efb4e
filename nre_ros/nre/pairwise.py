# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The published call: a source image with 3D points, a target image, and the pose of the target.

For code that was written around the published estimator, and for comparison with it. A map of keyframes is faster, for
here every call passes the source image through the network.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from nre_ros.errors import ImageError
from nre_ros.features.base import sample_descriptors
from nre_ros.geometry import PINHOLE, RADIAL_TANGENTIAL, Camera, invert, transform
from nre_ros.images import decode_image
from nre_ros.keyframes.types import KeyframeStack
from nre_ros.nre.estimator import NREEstimator
from nre_ros.nre.problem import PoseProblem
from nre_ros.nre.scene_origin import move_camera_origin, scene_origin

ImageLike = str | Path | npt.NDArray[np.uint8]

_BACKGROUND = 128
"""Cells of the source image that stand for all of them in the reverse direction of matching."""


@torch.inference_mode()
def localize_pair(
    estimator: NREEstimator,
    source_image: ImageLike,
    target_image: ImageLike,
    p3D: npt.ArrayLike,
    source_P: npt.ArrayLike,
    source_K: npt.ArrayLike,
    source_dist: npt.ArrayLike | None,
    target_K: npt.ArrayLike,
    target_dist: npt.ArrayLike | None,
    gt_pose: npt.ArrayLike | None = None,
    use_re: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Estimates the pose of the target image from 3D points that the source image shows.

    Args:
        estimator: Its backbone is used for both images.
        source_image: Path, or uint8 BGR array.
        target_image: Path, or uint8 BGR array.
        p3D: ``[N, 3]`` points.
        source_P: ``[4, 4]`` pose of the source, map to camera.
        source_K: ``[3, 3]`` in pixels; (0, 0) is the centre of the first pixel.
        source_dist: k1 k2 p1 p2, any shape.
        target_K: As ``source_K``.
        target_dist: As ``source_dist``.
        gt_pose: ``[4, 4]`` true pose of the target, for ``gt_cost``.
        use_re: The plain reprojection error instead of the NRE.
        seed: Of the consensus.

    Returns:
        The published keys: ``P3P``, ``coarse_irls`` and ``fine_irls``, those stages that were reached, each
        {"pose": {"R" ``[3, 3]``, "t" ``[3]``, "K" ``[3, 3]``, "dist_coeffs" ``[4]``}, "cost"}, and ``gt_cost`` (mean
        loss of the points at ``gt_pose``, or None). Beside them ``estimate``, the whole ``Estimate``, and ``reason``,
        why there is no pose.

    Raises:
        ImageError: An image cannot be read or used.
        CameraError: Intrinsics cannot be used.
    """
    source, target = _image(source_image), _image(target_image)
    source_camera, target_camera = _camera(source, source_K, source_dist), _camera(target, target_K, target_dist)
    generator = torch.Generator().manual_seed(seed)
    stack = _stack(estimator, source, source_camera, _tensor(p3D), _tensor(source_P), generator)
    query = estimator.backbone.extract(target)
    estimate = estimator.localize(query, stack, target_camera, seed, use_re=use_re)
    output: dict[str, Any] = {
        stage: {"pose": _pose(T, target_K, target_dist), "cost": cost} for stage, (T, cost) in estimate.stages.items()
    }
    output["gt_cost"] = None
    if gt_pose is not None and len(stack):
        T, points, origin = _tensor(gt_pose).to(stack.points), stack.points, scene_origin(stack.points)
        if origin is not None:
            T, points = move_camera_origin(T, origin), points - origin
        problem = PoseProblem(points, estimator.maps(query, stack, use_re), target_camera)
        output["gt_cost"] = float(problem.mean_losses(T[None])[0])
    return {**output, "estimate": estimate, "reason": estimate.reason}


def _stack(
    estimator: NREEstimator,
    image: npt.NDArray[np.uint8],
    camera: Camera,
    points: torch.Tensor,
    source_P: torch.Tensor,
    generator: torch.Generator,
) -> KeyframeStack:
    """The source image as the only keyframe, with the points that project into it."""
    pixels, valid, _ = camera.project(transform(source_P, points))
    size = pixels.new_tensor([camera.width, camera.height])
    in_image = valid & (pixels >= -0.5).all(-1) & (pixels <= size - 0.5).all(-1)
    backbone = estimator.backbone
    features = backbone.extract(image)
    cells = features.coarse.data.flatten(1)
    drawn = torch.randperm(cells.shape[1], generator=generator)[:_BACKGROUND].to(cells.device)

    where = pixels[in_image].to(cells.device)
    centre = invert(source_P)[:3, 3]
    return KeyframeStack(
        ids=(0,),
        points=points[in_image].to(cells.device),
        coarse=sample_descriptors(features.coarse, where, backbone.unit_length),
        fine=sample_descriptors(features.fine, where, backbone.unit_length),
        counts=(int(in_image.sum()),),
        background=cells[:, drawn].T[None],
        background_cells=(cells.shape[1],),
        directions=((points[in_image] - centre) / math.sqrt(camera.fx * camera.fy)).float().to(cells.device),
        centres=centre[None].to(cells.device),
    )


def _image(image: ImageLike) -> npt.NDArray[np.uint8]:
    if isinstance(image, np.ndarray):
        return image
    try:
        data = Path(image).read_bytes()
    except OSError as error:
        raise ImageError(f"image {image} cannot be read: {error.strerror}") from error
    pixels: npt.NDArray[np.uint8] = decode_image(
        data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, f"image {image}"
    )
    return np.asarray(pixels, dtype=np.uint8)


def _camera(image: npt.NDArray[np.uint8], intrinsics: npt.ArrayLike, distortion: npt.ArrayLike | None) -> Camera:
    K = np.asarray(intrinsics, dtype=np.float64)
    coefficients = tuple(float(value) for value in _tensor(distortion).flatten()) if distortion is not None else ()
    model = RADIAL_TANGENTIAL if any(coefficients) else PINHOLE
    height, width = image.shape[:2]
    return Camera(
        width,
        height,
        float(K[0, 0]),
        float(K[1, 1]),
        float(K[0, 2]),
        float(K[1, 2]),
        model,
        coefficients if any(coefficients) else (),
    )


def _tensor(values: npt.ArrayLike) -> torch.Tensor:
    return torch.as_tensor(np.asarray(values), dtype=torch.float64)


def _pose(T: torch.Tensor, K: npt.ArrayLike, distortion: npt.ArrayLike | None) -> dict[str, Any]:
    return {"R": T[:3, :3], "t": T[:3, 3], "K": K, "dist_coeffs": distortion}
