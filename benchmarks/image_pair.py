# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The sample of the published code: one photograph localized from another, with ten years and a strong zoom between."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from common import Options, Table, timed
from scipy.spatial import cKDTree

from nre_ros.evaluation.baselines import make_baseline
from nre_ros.evaluation.baselines.base import BaselineUnavailable
from nre_ros.evaluation.baselines.localizer import BaselineLocalizer
from nre_ros.features import load_backbone
from nre_ros.geometry import RADIAL_TANGENTIAL, Camera, invert, pose_error, transform
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.importers.image_files import read_image
from nre_ros.keyframes.types import stack_keyframes
from nre_ros.nre import NREEstimator

SEEDS = 10
_NEXT = 2.0
"""Pixels: a keypoint gets the 3D point of an observation that is closer than this."""


def moulin_rouge(options: Options) -> Table:
    """nre_ros from ten seeds: the source image is the only keyframe, with all its points."""
    folder = options.data("data/moulin_rouge")
    sample, source, target = _load(folder)
    backbone = load_backbone("xfeat", options.device)
    stack = _stack(sample, source, backbone, options)
    camera = _camera(target, sample["target_K"], sample["target_dist"])
    truth = invert(sample["target_P"].astype(np.float64))
    estimator = NREEstimator(backbone)
    columns = ("seed", "angle [deg]", "distance [units]", "inliers", "time [s]")
    table = Table("moulin_rouge, one keyframe", columns)
    for seed in range(options.seed, options.seed + SEEDS):
        seconds, estimate = timed(lambda: estimator.localize(backbone.extract(target), stack, camera, seed))
        T = None if estimate.T_cam_map is None else invert(estimate.T_cam_map).cpu().numpy()
        table.rows.append((seed, *_error(T, truth), estimate.inlier_count, seconds))
    angles, distances = (np.array([row[k] for row in table.rows]) for k in (1, 2))
    table.rows.append(("median", float(np.median(angles)), float(np.median(distances)), None, None))
    table.rows.append(("worst", float(angles.max()), float(distances.max()), None, None))
    table.notes.append(f"{len(stack)} points. To reach from every seed: 0.22 deg, 0.020 units (of the SfM model).")
    return table


def moulin_rouge_baselines(options: Options, methods) -> Table:
    """The baselines, with the same image and points: a keypoint gets the nearest observed point."""
    folder = options.data("data/moulin_rouge")
    sample, source, target = _load(folder)
    camera, truth = _camera(target, sample["target_K"], sample["target_dist"]), invert(sample["target_P"].astype(float))
    pixels, points = _visible_points(sample, source)
    tree = cKDTree(pixels)

    def lift(name, keypoints):
        distance, nearest = tree.query(keypoints.pixels)
        return points[nearest], distance <= _NEXT

    table = Table(
        "moulin_rouge, others from the same keyframe",
        ("method", "angle [deg]", "distance [units]", "matches", "inliers", "time [s]"),
    )
    for method in methods:
        if options.methods and method not in options.methods:
            continue
        try:
            baseline = make_baseline(method, options.device)
            localizer = BaselineLocalizer(baseline, lambda name: source, lift, options.seed)
        except BaselineUnavailable as reason:
            table.notes.append(f"{method} skipped: {reason}")
            continue
        localizer.localize(target, camera, ["source"])  # warms up
        found = localizer.localize(target, camera, ["source"])
        table.rows.append(
            (baseline.label, *_error(found.T_map_cam, truth), found.matches, found.inliers, found.seconds)
        )
    table.notes.append(
        f"A keypoint of the source image has the nearest point's place if that is seen within {_NEXT:g} pixels of it; "
        "PoseLib as on the other sets, one seed. Without the keyframe's features, which are made beforehand."
    )
    return table


def _load(folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Reads the sample's arrays, its source image and its target image."""
    with np.load(folder / "sample.npz") as archive:
        sample = dict(archive)
    return sample, read_image(folder / "source_image.jpg"), read_image(folder / "target_image.jpg")


def _visible_points(sample, image) -> tuple[np.ndarray, np.ndarray]:
    """Projects the points into the source image: pixels [N, 2] and points [N, 3] of those inside."""
    camera = _camera(image, sample["source_K"], sample["source_dist"])
    points = torch.from_numpy(sample["p3D"].astype(np.float64))
    pixels, valid, _ = camera.project(transform(torch.from_numpy(sample["source_P"].astype(np.float64)), points))
    inside = (pixels > -0.5).all(1) & (pixels < pixels.new_tensor([camera.width, camera.height]) - 0.5).all(1)
    seen = valid & inside
    return pixels[seen].numpy(), points[seen].numpy()


def _stack(sample, image, backbone, options):
    camera = _camera(image, sample["source_K"], sample["source_dist"])
    pixels, points = _visible_points(sample, image)
    builder = KeyframeBuilder(backbone, points_per_keyframe=len(sample["p3D"]), seed=options.seed)
    T_map_cam = invert(sample["source_P"].astype(np.float64))
    keyframe = builder.build("source", 0, image, camera, T_map_cam, pixels, points)
    return stack_keyframes([keyframe], options.device)


def _camera(image, K, distortion) -> Camera:
    height, width = image.shape[:2]
    values = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    return Camera(width, height, *map(float, values), RADIAL_TANGENTIAL, tuple(map(float, distortion)))


def _error(T_map_cam, truth) -> tuple[float, float]:
    """Degrees and units; infinite without a pose."""
    if T_map_cam is None:
        return np.inf, np.inf
    distance, angle = pose_error(T_map_cam, truth)
    return float(np.degrees(angle)), distance
