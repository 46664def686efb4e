# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The published call: a source image with 3D points, a target image, and the target's pose.

For those who have code around the published estimator, and for comparison with it.  A map of
keyframes is the faster way: here the source image passes the network for every call.
"""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import torch

from nre_ros.errors import ImageError
from nre_ros.features.base import sample_descriptors
from nre_ros.geometry import PINHOLE, RADIAL_TANGENTIAL, Camera, invert, transform
from nre_ros.keyframes.types import KeyframeStack
from nre_ros.nre.estimator import NREEstimator
from nre_ros.nre.problem import PoseProblem

_BACKGROUND = 128
"""Cells of the source image that stand for all of them in the reverse direction of matching."""


@torch.inference_mode()
def localize_pair(
    estimator: NREEstimator,
    source_image,
    target_image,
    p3D,
    source_P,
    source_K,
    source_dist,
    target_K,
    target_dist,
    gt_pose=None,
    use_re: bool = False,
    seed: int = 0,
) -> dict:
    """Pose of the target image from 3D points seen in the source image.

    source_image, target_image: paths, or uint8 BGR arrays.  p3D: [N, 3]; source_P: [4, 4] pose of
    the source, map to camera; *_K: [3, 3] in pixels whose (0, 0) is the centre of the first;
    *_dist: k1 k2 p1 p2, any shape.  gt_pose: [4, 4] true pose of the target, for ``gt_cost``.

    Returns the published keys: ``P3P``, ``coarse_irls`` and ``fine_irls``, those stages that were
    reached, each {"pose": {"R" [3, 3], "t" [3], "K" [3, 3], "dist_coeffs" [4]}, "cost"}, and
    ``gt_cost`` (mean loss of the points at gt_pose, or None).  And two of ours: ``estimate``, the
    whole ``Estimate``, and ``reason``, why there is no pose, or empty.
    Raises ``ImageError`` and ``CameraError`` for input that no pose can be computed from.
    """
    source, target = _image(source_image), _image(target_image)
    source_camera, target_camera = _camera(source, source_K, source_dist), _camera(target, target_K, target_dist)
    generator = torch.Generator().manual_seed(seed)
    stack = _stack(estimator, source, source_camera, _tensor(p3D), _tensor(source_P), generator)
    query = estimator.backbone.extract(target)
    estimate = estimator.localize(query, stack, target_camera, seed, use_re=use_re)
    output = {
        stage: {"pose": _pose(T, target_K, target_dist), "cost": cost} for stage, (T, cost) in estimate.stages.items()
    }
    output["gt_cost"] = None
    if gt_pose is not None and len(stack):
        problem = PoseProblem(stack.points, estimator.maps(query, stack, use_re), target_camera)
        output["gt_cost"] = float(problem.mean_losses(_tensor(gt_pose).to(stack.points)[None])[0])
    return {**output, "estimate": estimate, "reason": estimate.reason}


def _stack(estimator, image, camera, points, source_P, generator) -> KeyframeStack:
    """The source image as the only keyframe: the points that project into it, with its features there."""
    pixels, valid, _ = camera.project(transform(source_P, points))
    size = pixels.new_tensor([camera.width, camera.height])
    seen = valid & (pixels >= -0.5).all(-1) & (pixels <= size - 0.5).all(-1)
    backbone = estimator.backbone
    features = backbone.extract(image)
    cells = features.coarse.data.flatten(1)
    drawn = torch.randperm(cells.shape[1], generator=generator)[:_BACKGROUND].to(cells.device)

    where = pixels[seen].to(cells.device)
    centre = invert(source_P)[:3, 3]
    return KeyframeStack(
        ids=(0,),
        points=points[seen].to(cells.device),
        coarse=sample_descriptors(features.coarse, where, backbone.unit_length),
        fine=features.sample_fine(where, backbone.unit_length),
        counts=(int(seen.sum()),),
        background=cells[:, drawn].T[None],
        background_cells=(cells.shape[1],),
        directions=((points[seen] - centre) / math.sqrt(camera.fx * camera.fy)).float().to(cells.device),
    )


def _image(image) -> np.ndarray:
    if isinstance(image, np.ndarray):
        return image
    pixels = cv2.imread(str(Path(image)), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise ImageError(f"image {image} cannot be read")
    return pixels


def _camera(image: np.ndarray, K, distortion) -> Camera:
    K = np.asarray(_tensor(K))
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


def _tensor(values) -> torch.Tensor:
    return torch.as_tensor(np.asarray(values), dtype=torch.float64)


def _pose(T: torch.Tensor, K, distortion) -> dict:
    return {"R": T[:3, :3], "t": T[:3, 3], "K": K, "dist_coeffs": distortion}
