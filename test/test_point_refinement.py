# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Triangulated points are compared with the images: precision by closed forms, refinement on exact surfaces."""

import numpy as np
import pytest
import torch
from keyframe_samples import CAMERA
from plane_views import DISTANCE, NORMAL, pose, render, texture
from synthetic import opencv_pixels

from nre_ros.geometry import Camera, invert
from nre_ros.keyframes.building.multiview.keypoints import KeypointView
from nre_ros.keyframes.building.multiview.point_refinement import refine_points
from nre_ros.keyframes.building.multiview.triangulation import triangulate
from nre_ros.keyframes.building.multiview.views import View

PINHOLE = Camera(640, 480, 500.0, 500.0, 319.5, 239.5)
NOISE = 0.0008 * 500
"""Pixels: the keypoint noise that a deviation assumes."""


def observed(points, T, noise=0.0, seed=0):
    """A pinhole view whose keypoint i shows point i."""
    errors = np.random.default_rng(seed).normal(0, 1, (len(points), 2))
    pixels = opencv_pixels(points, invert(T), PINHOLE) + noise * errors
    rays = PINHOLE.rays(torch.from_numpy(pixels)).numpy()
    return KeypointView(pixels, torch.zeros(len(points), 128), rays / rays[:, 2:], PINHOLE, T)


def pairs(count):
    return np.repeat(np.arange(count)[:, None], 2, axis=1)


def test_the_deviation_of_two_parallel_cameras_is_that_of_a_stereo_pair():
    # depth = f b / disparity, and the disparity's error is sqrt(2) that of a keypoint
    depth = np.array([2.0, 3.0, 5.0])
    points = np.column_stack([np.zeros((3, 2)), depth])
    baseline = 0.4
    found = triangulate(observed(points, np.eye(4)), [observed(points, pose(baseline))], [pairs(3)])
    expected = np.sqrt(2) * NOISE * depth / (500.0 * baseline)
    np.testing.assert_allclose(found.deviation, expected, rtol=0.02)


def test_the_deviation_is_the_scatter_of_repeated_triangulations():
    point = np.array([[0.1, -0.2, 3.0]])
    poses = [np.eye(4), pose(0.4, yaw=-6), pose(-0.3, 0.2), pose(0.1, -0.4, pitch=5)]
    many = np.repeat(point, 1000, axis=0)
    view, *others = [observed(many, T, NOISE, seed) for seed, T in enumerate(poses)]
    found = triangulate(view, others, [pairs(1000)] * 3)
    scatter = found.points[:, 2].std() / 3.0
    assert len(found.index) == 1000
    # the reprojection errors of a point raise its deviation where they are large by chance
    assert scatter <= np.sqrt(np.mean(found.deviation**2)) < 1.25 * scatter


def test_inconsistent_observations_have_a_larger_deviation():
    points = np.random.default_rng(1).uniform((-0.5, -0.4, 2.0), (0.5, 0.4, 3.0), (100, 3))
    poses = [np.eye(4), pose(0.4), pose(-0.3, 0.2), pose(0.1, -0.4)]
    exact, noisy = (
        triangulate(view, others, [pairs(100)] * 3)
        for view, *others in ([observed(points, T, noise, k) for k, T in enumerate(poses)] for noise in (0.0, 0.6))
    )
    both = np.intersect1d(exact.index, noisy.index)
    ratio = noisy.deviation[np.isin(noisy.index, both)] / exact.deviation[np.isin(exact.index, both)]
    assert len(both) > 80 and np.median(ratio) == pytest.approx(1.5, abs=0.25)


POSES = [pose(), pose(0.35, 0.0, 0.1, -8), pose(-0.3, 0.2, 0.0, 6), pose(0.1, -0.35, 0.0, 0, 9), pose(-0.15, -0.3)]


@pytest.fixture(scope="module")
def views():
    surface = texture()
    return [View.from_image(render(surface, T)[0], CAMERA, T) for T in POSES]


def on_plane(count=300, seed=0):
    """Pixels [N, 2] of the first view and their exact points [N, 3]."""
    pixels = np.random.default_rng(seed).uniform((40, 40), (600, 440), (count, 2))
    rays = CAMERA.rays(torch.from_numpy(pixels)).numpy()
    return pixels, rays * (DISTANCE / (rays @ NORMAL))[:, None]


def relative_errors(points, exact):
    return points[:, 2] / exact[:, 2] - 1


def test_refinement_reduces_the_error_of_the_depth_and_knows_its_precision(views):
    pixels, exact = on_plane()
    noise = 0.004 * np.random.default_rng(1).normal(size=len(pixels))
    refined = refine_points(views[0], pixels, exact * (1 + noise)[:, None], np.full(len(pixels), 0.004), views[1:])
    before, after = relative_errors(exact * (1 + noise)[:, None], exact), relative_errors(refined.points, exact)
    assert np.median(np.abs(after)) < 0.25 * np.median(np.abs(before))
    assert np.abs(np.median(after)) < 0.1 * 0.004
    normalised = np.abs(after) / refined.deviation
    assert 0.2 < np.median(normalised) < 1.5
    assert (refined.confirmed >= 2).mean() > 0.95


def test_refined_points_lie_on_the_rays_of_their_pixels(views):
    pixels, exact = on_plane(50)
    aside = exact + np.random.default_rng(2).normal(0, 0.002, exact.shape)
    refined = refine_points(views[0], pixels, aside, np.full(50, 0.002), views[1:])
    projected = opencv_pixels(refined.points, np.eye(4), CAMERA)
    np.testing.assert_allclose(projected, pixels, atol=1e-3)


def test_wrong_points_are_confirmed_by_few_of_the_views_that_should_show_them(views):
    pixels, exact = on_plane()
    wrong = exact * np.where(np.arange(len(exact)) % 2, 1.25, 0.8)[:, None]
    deviation = np.full(len(pixels), 0.003)
    right = refine_points(views[0], pixels, exact, deviation, views[1:])
    refined = refine_points(views[0], pixels, wrong, deviation, views[1:])
    seen = refined.visible >= 2
    assert seen.mean() > 0.8
    assert (2 * refined.confirmed >= refined.visible)[seen].mean() < 0.05
    assert (2 * right.confirmed >= right.visible).mean() > 0.95


def test_points_without_texture_or_other_views_keep_their_depth_and_precision(views):
    pixels, exact = on_plane(20)
    flat = [View.from_image(np.full((480, 640), 90, np.uint8), CAMERA, T) for T in POSES]
    for view, others in ((flat[0], flat[1:]), (views[0], [])):
        refined = refine_points(view, pixels, exact, np.full(20, 0.004), others)
        np.testing.assert_allclose(refined.points, exact, atol=1e-6)
        np.testing.assert_allclose(refined.deviation, 0.004, rtol=1e-6)
        assert not refined.confirmed.any()
    assert refine_points(views[0], pixels[:0], exact[:0], np.zeros(0), views[1:]).points.shape == (0, 3)
