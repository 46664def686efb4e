# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Refined depths: the true depth where other views show it, the sensor's where they do not."""

import numpy as np
import pytest
from keyframe_samples import CAMERA
from plane_views import pose, render, texture

from nre_ros.keyframes.building.multiview.depth_refinement import NOISE, refine_depth
from nre_ros.keyframes.building.multiview.views import View, neighbours

POSES = [pose(0.25, 0.0, 0.0, -5), pose(-0.2, 0.1, 0.05, 4), pose(0.0, -0.25, 0.0, 0, 6)]
PIXELS = np.stack(np.meshgrid(np.arange(40.0, 600, 40), np.arange(40.0, 440, 40)), -1).reshape(-1, 2)


@pytest.fixture(scope="module")
def scene():
    """A view, its true depth, and three others from 0.25 m away."""
    surface = texture()
    grey, depth = render(surface, np.eye(4))
    return (
        View.from_image(grey, CAMERA, np.eye(4)),
        depth,
        [View.from_image(render(surface, T)[0], CAMERA, T) for T in POSES],
    )


def at(depth):
    return depth[PIXELS[:, 1].astype(int), PIXELS[:, 0].astype(int)]


@pytest.mark.parametrize("bias", [0.98, 1.0, 1.02])
def test_a_biased_sensor_is_corrected(scene, bias):
    view, depth, others = scene
    refined = refine_depth(view, bias * depth, PIXELS, others)
    errors = refined.depth / at(depth) - 1
    assert np.abs(np.median(errors)) < 1e-3 and np.quantile(np.abs(errors), 0.95) < 5e-3
    assert np.median(refined.deviation) < 0.5 * NOISE


def test_without_texture_the_sensors_depth_remains(scene):
    view, depth, others = scene
    flat = [View(np.full_like(view.grey, 90), other.camera, other.T_map_cam) for other in (view, *others)]
    refined = refine_depth(flat[0], depth, PIXELS, flat[1:])
    np.testing.assert_allclose(refined.depth, at(depth), rtol=1e-6)
    np.testing.assert_allclose(refined.deviation, NOISE)


def test_views_of_another_scene_and_no_views_change_little():
    fine = (1, 2, 4)  # within a patch large blots are slopes, which all look alike
    grey, depth = render(texture(0, blots=fine), np.eye(4))
    view = View.from_image(grey, CAMERA, np.eye(4))
    strange = [View.from_image(render(texture(7, blots=fine), T)[0], CAMERA, T) for T in POSES]
    changes = np.abs(refine_depth(view, depth, PIXELS, strange).depth / at(depth) - 1)
    assert np.median(changes) < 0.4 * NOISE and np.quantile(changes, 0.9) < 1.5 * NOISE
    np.testing.assert_allclose(refine_depth(view, depth, PIXELS, []).depth, at(depth), rtol=1e-6)


def test_a_refined_depth_corrects_depths_nearby_that_have_no_texture(scene):
    view, depth, others = scene
    grey = view.grey.copy()
    blank = (slice(190, 211), slice(270, 291))  # around pixel (280, 200), wider than a patch
    grey[blank] = 128
    refined = refine_depth(View(grey, CAMERA, np.eye(4)), 1.02 * depth, PIXELS, others)
    index = np.flatnonzero((PIXELS == (280, 200)).all(1))[0]
    assert refined.deviation[index] > 0.9 * NOISE
    assert abs(refined.depth[index] / at(depth)[index] - 1) < 0.013  # 0.02 before


def test_pixels_without_depth_stay_without_depth(scene):
    view, depth, others = scene
    holes = depth.copy()
    holes[:, :320] = 0
    refined = refine_depth(view, holes, PIXELS, others)
    np.testing.assert_array_equal(refined.depth > 0, PIXELS[:, 0] >= 320)


def test_large_images_are_reduced_and_give_the_same_depths(scene):
    _, depth, _ = scene
    large, surface = CAMERA.resized(1920, 1440), texture()
    grey, depth = render(surface, np.eye(4), large)
    views = [View.from_image(render(surface, T, large)[0], large, T) for T in POSES]
    refined = refine_depth(View.from_image(grey, large, np.eye(4)), 0.985 * depth, 3 * PIXELS, views)
    truth = depth[3 * PIXELS[:, 1].astype(int), 3 * PIXELS[:, 0].astype(int)]
    assert views[0].grey.shape == (720, 960)
    assert np.quantile(np.abs(refined.depth / truth - 1), 0.9) < 3e-3


def test_neighbours_see_the_same_surfaces_from_other_places():
    points = np.random.default_rng(0).uniform((-1, -1, 2), (1, 1, 3), (300, 3))
    poses = np.stack(
        [
            pose(0.001),
            pose(0.4),
            pose(0.41),
            pose(-0.4, yaw=8),
            pose(0.4, yaw=180),
            pose(1.2, yaw=-20),
            np.full((4, 4), np.nan),
        ]
    )
    chosen = neighbours(points, np.eye(4), poses, [CAMERA] * len(poses), 4)
    assert {0, 4, 6}.isdisjoint(chosen) and 3 in chosen
    assert len({1, 2} & set(chosen)) == 1  # one of two from the same place
