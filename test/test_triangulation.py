# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Points from matches in posed views: exact without noise, robust against wrong matches, found from images alone."""

import numpy as np
import pytest
import torch
from keyframe_samples import CAMERA, PlaceBackbone
from plane_views import DISTANCE, NORMAL, pose, render, texture
from synthetic import opencv_pixels

from nre_ros.errors import ImageError, ImportSourceError, PoseError
from nre_ros.geometry import invert
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.building.multiview.keypoints import KeypointView, match_keypoints
from nre_ros.keyframes.building.multiview.triangulation import triangulate
from nre_ros.keyframes.building.multiview.views import likely_neighbours
from nre_ros.keyframes.importers.triangulated_source import TriangulatedSource

POSES = [np.eye(4), pose(0.4, 0.0, 0.1, -8), pose(-0.3, 0.2, 0.0, 6), pose(0.1, -0.4, 0.0, 0, 9)]


def observed(points, T, noise=0.0, seed=0):
    """A view whose keypoint i shows point i."""
    errors = np.random.default_rng(seed).normal(0, 1, (len(points), 2))
    pixels = opencv_pixels(points, invert(T), CAMERA) + noise * errors
    rays = CAMERA.rays(torch.from_numpy(pixels)).numpy()
    return KeypointView(pixels, torch.zeros(len(points), 128), rays / rays[:, 2:], CAMERA, T)


@pytest.fixture
def points():
    return np.random.default_rng(3).uniform((-0.6, -0.5, 1.6), (0.6, 0.5, 3.0), (200, 3))


def test_exact_observations_give_the_points(points):
    view, *others = [observed(points, T) for T in POSES]
    same = np.repeat(np.arange(len(points))[:, None], 2, axis=1)
    found = triangulate(view, others, [same] * 3)
    assert len(found.index) > 150 and found.views.max() == 4
    np.testing.assert_allclose(found.points, points[found.index], atol=1e-6)


def test_a_view_with_wrong_matches_does_not_change_the_points(points):
    view, *others = [observed(points, T, 0.3, k) for k, T in enumerate(POSES)]
    same = np.repeat(np.arange(len(points))[:, None], 2, axis=1)
    wrong = np.column_stack([np.arange(len(points)), np.roll(np.arange(len(points)), 7)])
    found = triangulate(view, others, [wrong, same, same])
    good = found.views >= 3
    errors = np.linalg.norm(found.points - points[found.index], axis=1)
    assert good.sum() > 120 and np.median(errors[good]) < 0.006 and np.quantile(errors[good], 0.95) < 0.03


def test_points_without_parallax_and_without_matches_are_left_out(points):
    view, near = observed(points, POSES[0]), observed(points, pose(0.01))
    same = np.repeat(np.arange(len(points))[:, None], 2, axis=1)
    assert len(triangulate(view, [near], [same]).index) == 0
    assert len(triangulate(view, [], []).index) == 0


def test_keypoints_match_along_their_epipolar_lines_alone():
    surface = texture()
    a, b = (KeypointView.from_image(render(surface, T)[0], CAMERA, T) for T in POSES[:2])
    pairs = match_keypoints(a, b)
    rays = a.rays[pairs[:, 0]]
    points = rays * (DISTANCE / (rays @ NORMAL))[:, None]
    distance = np.linalg.norm(opencv_pixels(points, invert(POSES[1]), CAMERA) - b.pixels[pairs[:, 1]], axis=1)
    assert len(pairs) > 200 and np.median(distance) < 0.5 and (distance < 3).mean() > 0.97
    assert len(set(pairs[:, 0])) == len(set(pairs[:, 1])) == len(pairs)
    empty = KeypointView.from_image(np.zeros((480, 640), np.uint8), CAMERA, POSES[1])
    assert match_keypoints(a, empty).shape == match_keypoints(empty, a).shape == (0, 2)


def test_likely_neighbours_have_a_similar_direction_and_growing_distances():
    poses = np.stack([pose(0.1 * k, yaw=180 * (k % 2)) for k in range(1, 101)] + [np.full((4, 4), np.nan)])
    chosen = likely_neighbours(np.eye(4), poses, 5)
    distances = 0.1 * (np.array(chosen) + 1)
    assert len(chosen) == 5 and all(k % 2 for k in chosen)  # even steps look ahead
    assert distances[0] == pytest.approx(0.2) and distances[-1] == pytest.approx(10.0)
    assert (np.diff(distances) > 0).all()


class Planes(TriangulatedSource):
    """Rendered views; ``bad`` and ``lost`` have no image and no pose."""

    def __init__(self, poses):
        surface = texture()
        self.poses = {f"{k}.png": T for k, T in enumerate(poses)}
        self.images = {name: render(surface, T)[0] for name, T in self.poses.items()}

    def names(self):
        return [*self.poses, "bad", "lost"]

    def describe(self):
        return {}

    def pose(self, name):
        if name == "lost":
            raise PoseError("no pose")
        return 5, self.poses.get(name, np.eye(4))

    def camera(self, name):
        return CAMERA

    def image(self, name):
        if name == "bad":
            raise ImageError("cannot be decoded")
        return self.images[name]


def test_a_keyframe_of_posed_images_has_points_on_the_surface_and_survives_bad_neighbours():
    keyframe = Planes(POSES).keyframe("0.png", KeyframeBuilder(PlaceBackbone(), 200))
    assert keyframe.stamp == 5 and len(keyframe.points) == 200
    off = np.abs(keyframe.points @ NORMAL - DISTANCE) / np.linalg.norm(NORMAL)
    assert np.median(off) < 0.004 and np.quantile(off, 0.98) < 0.03
    # the descriptors are those at the points' own pixels
    expected = opencv_pixels(keyframe.points.astype(float), np.eye(4), CAMERA)
    assert (keyframe.coarse[:, 2:3] != 0).all()
    pixels = keyframe.coarse[:, :2] / keyframe.coarse[:, 2:3] * 100
    inside = ((expected > 14) & (expected < (625, 465))).all(1)
    assert np.abs(pixels - expected)[inside].max() < 3


def test_an_image_that_overlaps_no_other_is_reported():
    alone = Planes([np.eye(4), pose(yaw=180)])
    with pytest.raises(ImportSourceError, match="confirmed by another: matched with 0 images"):
        alone.keyframe("0.png", KeyframeBuilder(PlaceBackbone(), 200))
