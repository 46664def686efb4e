# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Pose errors in maps from each kind of input: a COLMAP model, posed images, kapture.

To add a set, write a function of the options that returns a table, and add a line to ``SETS``.
"""

from __future__ import annotations

import cv2
import numpy as np
from common import MIN_CONFIDENCE, Options, Table
from perturbed_maps import without
from scenes import evenly_spaced, fountain_sources, virtual_gallery_sources

from nre_ros.features import load_backbone
from nre_ros.geometry import invert, pose_error
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.importers.build_map import build_map
from nre_ros.keyframes.importers.colmap.model_source import ColmapSource
from nre_ros.keyframes.importers.image_files import read_image
from nre_ros.keyframes.importers.triangulated_source import TriangulatedSource
from nre_ros.localization.localizer import Localizer


def run(options: Options):
    """Yields one table for each set."""
    for name in options.selected_sets(SETS):
        yield SETS[name](options)


def lund_door(options: Options) -> Table:
    """A COLMAP model without metric scale: each image is localized in the map of the others.

    The error is the distance in the image between the model's own observations of its 3D points
    and the projections of these points by the estimated pose.
    """
    folder = options.data("data/lund_door")
    source = ColmapSource(folder / "sparse", folder / "images")
    backbone = load_backbone("xfeat", options.device)
    whole = options.folder / "lund_door.db"
    build_map(source, KeyframeBuilder(backbone, seed=options.seed), whole, progress=False)
    table = Table(
        "lund_door from COLMAP, each image in the map of the other 11",
        (
            "image",
            "points",
            "median [px]",
            "90 % below [px]",
            "true pose, median [px]",
            "confidence",
        ),
    )
    medians = []
    for name in evenly_spaced(source.names(), options.queries):
        others = options.folder / "others.db"
        without(whole, others, name)
        pixels, points, T_true = _observations(source, name)
        camera = source.pose_and_camera(name)[1]
        with Localizer(others, options.device, options.seed, min_confidence=MIN_CONFIDENCE) as localizer:
            result = localizer.localize(read_image(folder / "images" / name), camera)
        others.unlink()
        truth = float(np.median(_distances(T_true, points, pixels, camera)))
        if not result.success:
            table.rows.append((name, len(points), None, None, truth, result.confidence))
            table.notes.append(f"{name}: {result.reason}")
            continue
        errors = _distances(result.T_map_cam, points, pixels, camera)
        medians.append(float(np.median(errors)))
        table.rows.append((name, len(points), medians[-1], float(np.quantile(errors, 0.9)), truth, result.confidence))
    if medians:
        table.notes.insert(
            0,
            (
                f"{len(medians)} of {len(table.rows)} posed; median of their medians {np.median(medians):.2f} px, worst "
                f"{max(medians):.2f} px; to reach: below 2 px."
            ),
        )
    return table


def fountain(options: Options) -> Table:
    """Posed images without depth; surveyed poses."""
    return _posed(options, "fountain, posed images without depth", *fountain_sources(options), within=1.0)


def virtual_gallery(options: Options) -> Table:
    """Kapture with a rig of two cameras; queries of other focal lengths, partly covered; rendered, so exact poses."""
    sources = virtual_gallery_sources(options)
    return _posed(options, "virtual_gallery from kapture, a rig of two cameras", *sources, within=5.0)


def _posed(
    options: Options, title: str, source: TriangulatedSource, queries: TriangulatedSource, within: float
) -> Table:
    """Position errors of the queries of one source in the map of another; to reach: all ``within`` centimetres."""
    path = options.folder / "posed.db"
    builder = KeyframeBuilder(load_backbone("xfeat", options.device), seed=options.seed)
    report = build_map(source, builder, path, force=True, progress=False)
    table = Table(title, ("query", "position [cm]", "rotation [deg]", "confidence"))
    errors = []
    with Localizer(path, options.device, options.seed, min_confidence=MIN_CONFIDENCE) as localizer:
        for name in evenly_spaced(queries.names(), options.queries):
            (_, T_true), camera = queries.pose(name), queries.camera(name)
            result = localizer.localize(queries.image(name), camera)
            if not result.success:
                table.rows.append((name, None, None, result.confidence))
                table.notes.append(f"{name}: {result.reason}")
                continue
            distance, angle = pose_error(result.T_map_cam, T_true)
            errors.append(100 * distance)
            table.rows.append((name, errors[-1], float(np.degrees(angle)), result.confidence))
    table.notes.insert(
        0,
        (
            f"{sum(error <= within for error in errors)} of {len(table.rows)} within {within:g} cm; to reach: all. Map of "
            f"{report.keyframes} keyframes and {report.points} points in {report.seconds:.1f} s, images skipped: "
            f"{len(report.skipped)}."
        ),
    )
    return table


def _observations(source: ColmapSource, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the model's observations in an image (our pixels [N, 2], points [N, 3]) and its T_map_cam [4, 4]."""
    pixels, ids = source.observations(name)
    return pixels, source.points.xyz[source.points.find(ids)], source.pose_and_camera(name)[0]


def _distances(T_map_cam: np.ndarray, points: np.ndarray, pixels: np.ndarray, camera) -> np.ndarray:
    """Pixels between observations and OpenCV's projections (radial cameras are OpenCV's model)."""
    T = invert(T_map_cam)
    rotation = cv2.Rodrigues(T[:3, :3])[0]
    projected = cv2.projectPoints(points, rotation, T[:3, 3], camera.K, np.array(camera.distortion or (0.0,) * 4))[0]
    return np.linalg.norm(projected[:, 0] - pixels, axis=1)


SETS = {"lund_door": lund_door, "fountain": fountain, "virtual_gallery": virtual_gallery}
"""Name of the set -> the function that makes its table."""
