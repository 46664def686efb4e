"""The published sample: one photograph from another, ten years and a strong zoom apart."""

from __future__ import annotations

import numpy as np
import torch
from common import Options, Table, timed

from nre_ros.features import load_backbone
from nre_ros.geometry import RADIAL_TANGENTIAL, Camera, invert, pose_error, transform
from nre_ros.keyframes.builder import KeyframeBuilder
from nre_ros.keyframes.importers.common import read_image
from nre_ros.keyframes.types import stack_keyframes
from nre_ros.nre import NREEstimator

SEEDS = 10


def moulin_rouge(options: Options) -> Table:
    """Ours from ten seeds: the source image is the one keyframe, with all its points."""
    folder = options.data("data/moulin_rouge")
    with np.load(folder / "sample.npz") as archive:
        sample = dict(archive)
    source, target = (read_image(folder / f"{side}_image.jpg") for side in ("source", "target"))
    backbone = load_backbone("xfeat", options.device)
    stack = _stack(sample, source, backbone, options)
    camera = _camera(target, sample["target_K"], sample["target_dist"])
    truth = invert(sample["target_P"].astype(np.float64))
    estimator = NREEstimator(backbone)
    columns = ("seed", "angle [deg]", "distance [units]", "supporting points", "time [s]")
    table = Table("moulin_rouge, one keyframe", columns)
    for seed in range(options.seed, options.seed + SEEDS):
        seconds, estimate = timed(lambda: estimator.localize(backbone.extract(target), stack, camera, seed))
        table.rows.append((seed, *_error(estimate, truth), estimate.support, seconds))
    angles, distances = (np.array([row[k] for row in table.rows]) for k in (1, 2))
    table.rows.append(("median", float(np.median(angles)), float(np.median(distances)), None, None))
    table.rows.append(("worst", float(angles.max()), float(distances.max()), None, None))
    table.notes.append(f"{len(stack)} points. To reach from every seed: 0.22 deg, 0.020 units (of the SfM model).")
    return table


def _stack(sample, image, backbone, options):
    camera = _camera(image, sample["source_K"], sample["source_dist"])
    T_cam_map = sample["source_P"].astype(np.float64)
    points = torch.from_numpy(sample["p3D"].astype(np.float64))
    pixels, valid, _ = camera.project(transform(torch.from_numpy(T_cam_map), points))
    inside = (pixels > -0.5).all(1) & (pixels < pixels.new_tensor([camera.width, camera.height]) - 0.5).all(1)
    seen = valid & inside
    builder = KeyframeBuilder(backbone, points_per_keyframe=len(points), seed=options.seed)
    keyframe = builder.build("source", 0, image, camera, invert(T_cam_map), pixels[seen].numpy(), points[seen].numpy())
    return stack_keyframes([keyframe], options.device)


def _camera(image, K, distortion) -> Camera:
    height, width = image.shape[:2]
    values = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    return Camera(width, height, *map(float, values), RADIAL_TANGENTIAL, tuple(map(float, distortion)))


def _error(estimate, truth) -> tuple[float, float]:
    """Degrees and units; infinite without a pose."""
    if estimate.T_cam_map is None:
        return np.inf, np.inf
    distance, angle = pose_error(invert(estimate.T_cam_map).cpu().numpy(), truth)
    return float(np.degrees(angle)), distance
