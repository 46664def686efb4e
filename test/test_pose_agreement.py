# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Poses, depth and intrinsics compared with images: mistakes are noticed and named, good input passes."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nre_ros.gallery import Gallery, build_room, mapping_poses
from nre_ros.geometry import Camera, invert
from nre_ros.keyframes.importers.map_source import MapSource
from nre_ros.keyframes.importers.pose_agreement.check import PoseCheck, check_poses, judge
from nre_ros.keyframes.importers.pose_agreement.hypotheses import INVERSE, W_FIRST, W_LAST
from nre_ros.keyframes.importers.pose_agreement.pairs import PairFinder
from nre_ros.keyframes.importers.pose_frames import POSE_FRAMES, camera_in_pose_frame

CAMERA = Camera(320, 240, 240.0, 241.0, 159.5, 119.5)
POSES = np.concatenate([mapping_poses(keyframes=80, seed=3)[start : start + 5] for start in (0, 30)])
"""Five views of a wall and five across the room."""
T_BODY_CAM = POSE_FRAMES["body"][0]


class Views(MapSource):
    """Images with depth in memory; ``poses`` and ``scale`` are what a user may have got wrong."""

    def __init__(self, images, depths, poses=POSES, camera=CAMERA, scale=1.0):
        self.images, self.depths, self.poses, self.camera, self.scale = images, depths, poses, camera, scale

    def names(self):
        return [str(i) for i in range(len(self.poses))]

    def describe(self):
        return {}

    def keyframe(self, name, builder):
        raise NotImplementedError

    def pose_and_camera(self, name):
        return self.poses[int(name)], self.camera

    def image_to_check(self, name):
        return self.images[int(name)]

    def depth_to_check(self, name):
        return None if self.depths is None else self.scale * self.depths[int(name)]

    def depth_unit(self):
        return 1000.0


@pytest.fixture(scope="module")
def views():
    gallery = Gallery(build_room(seed=3, pixels_per_metre=100))
    rendered = [gallery.render(CAMERA, T) for T in POSES]
    return Views([view.image for view in rendered], [view.depth.astype(np.float32) for view in rendered])


@pytest.fixture(scope="module")
def verdict(views):
    """The verdict about other poses and another depth scale, with images matched once."""
    matched = {}

    class Finder(PairFinder):
        def match(self, first, second):
            if (first, second) not in matched:
                matched[first, second] = super().match(first, second)
            pair = matched[first, second]
            return pair if pair is None else replace(pair, depths=self.scale * pair.depths)

    def verdict(poses=POSES, scale=1.0, explain=True):
        finder = Finder(views, views.names(), poses)
        finder.scale = scale
        return judge(finder.find(), poses, explain)

    return verdict


def with_quaternions(poses, order):
    out = poses.copy()
    out[:, :3, :3] = Rotation.from_quat(Rotation.from_matrix(poses[:, :3, :3]).as_quat()[:, order]).as_matrix()
    return out


def scaled(poses, factor):
    out = poses.copy()
    out[:, :3, 3] *= factor
    return out


def body(place=(0.0, 0.0, 0.0)):
    T = T_BODY_CAM.copy()
    T[:3, 3] = place
    return POSES @ invert(T)


def test_good_poses_agree_and_nothing_is_reported(views):
    check = check_poses(views)
    assert check.pairs >= 8 and check.agreeing == check.pairs
    assert check.good and not check.refused and check.lines() == []
    assert check.summary() == f"{check.pairs} of {check.pairs} image pairs agree with the poses"


def test_poses_with_the_noise_of_slam_agree(verdict):
    rng = np.random.default_rng(0)
    for _ in range(4):
        noisy = POSES.copy()
        noisy[:, :3, 3] += rng.normal(scale=0.01, size=(len(POSES), 3))
        noisy[:, :3, :3] @= Rotation.from_rotvec(rng.normal(scale=0.005, size=(len(POSES), 3))).as_matrix()
        assert verdict(noisy, rng.uniform(0.98, 1.02)).good


@pytest.mark.parametrize(
    "poses, mistake, cure",
    [
        (invert(POSES), INVERSE, "the other --pose-direction"),
        (with_quaternions(POSES, [3, 0, 1, 2]), W_FIRST, "--pose-format wxyz"),
        (with_quaternions(POSES, [1, 2, 3, 0]), W_LAST, "--pose-format tum"),
        (body(), "a body frame", "--pose-frame body (as measured)"),
        (POSES @ np.diag([1.0, -1.0, -1.0, 1.0]), "an OpenGL camera", "--pose-frame opengl (as measured)"),
        (np.roll(POSES, 1, axis=0), "the pose of the image before", None),
        (np.roll(POSES, -1, axis=0), "the pose of the image after", None),
    ],
)
def test_a_mistake_in_the_poses_is_refused_and_named_with_its_cure(verdict, poses, mistake, cure):
    check = verdict(poses)
    assert check.refused, check.summary()
    text = "\n".join(check.lines())
    assert "POSES, CAMERA OR DEPTH ARE PROBABLY WRONG" in text
    assert mistake in text and (cure is None or cure in text), text


def test_the_cameras_place_on_the_robot_is_measured(verdict):
    check = verdict(body((0.2, 0.0, 0.6)))
    assert check.refused and check.cause is not None
    np.testing.assert_allclose(check.cause.T_pose_cam[:3, :3], T_BODY_CAM[:3, :3], atol=1e-9)
    np.testing.assert_allclose(check.cause.T_pose_cam[:3, 3], [0.2, 0.0, 0.6], atol=0.05)
    assert any("--pose-frame body --extrinsics '0.2" in line or "--extrinsics '0.1" in line for line in check.lines())
    without_options = replace(check, has_pose_frame=False).lines()  # a COLMAP model
    assert without_options[-1] == "to correct it: poses of the camera's optical frame"


@pytest.mark.parametrize("scale", [0.001, 0.1, 0.2, 5.0, 10.0, 1000.0])
def test_depth_in_another_unit_is_refused_and_the_right_scale_named(verdict, scale):
    check = replace(verdict(scale=scale), depth_unit=1000.0)
    assert check.refused
    assert f"to correct it: --depth-scale {1000 * scale:g}" in check.lines()


def test_the_measured_mounting_is_added_to_the_one_that_the_user_gave(verdict):
    given = camera_in_pose_frame("opengl")
    check = replace(verdict(body() @ given), T_pose_cam=given)
    assert any("--pose-frame body (as measured)" in line for line in check.lines()), check.lines()


def test_at_least_95_percent_of_mistakes_are_noticed(verdict):
    rng = np.random.default_rng(1)
    mirror = np.diag([1.0, -1.0, 1.0, 1.0])
    transposed = POSES.copy()
    transposed[:, :3, :3] = np.swapaxes(POSES[:, :3, :3], 1, 2)
    mistakes = [
        *(POSES[rng.permutation(len(POSES))] for _ in range(3)),
        *(scaled(POSES, factor) for factor in (0.1, 0.5, 2.0, 10.0)),
        *(np.roll(POSES, shift, axis=0) for shift in (-1, 1)),
        np.array([mirror @ T @ mirror for T in POSES]),
        transposed,
        *(body(place) for place in ((0, 0, 0), (0.2, 0, 0.6))),
    ]
    noticed = [not verdict(poses, explain=False).good for poses in mistakes]
    assert np.mean(noticed) >= 0.95, noticed


def test_intrinsics_of_another_resolution_are_noticed(views):
    half = replace(CAMERA, fx=120.0, fy=120.5, cx=79.5, cy=59.5)
    check = check_poses(Views(views.images, views.depths, camera=half))
    assert not check.good
    unusual = check_poses(Views(views.images[:1], None, POSES[:1], replace(CAMERA, cx=300.0)))
    assert unusual.pairs == 0 and unusual.lines() == [
        "camera of 0: principal point cx = 300 of an image of 320x240 pixels (are they intrinsics of another resolution?)"
    ]


def test_few_pairs_are_warned_about_and_not_refused():
    assert not PoseCheck(2, 0).good and not PoseCheck(2, 0).refused
    assert PoseCheck(3, 0).refused
    assert not PoseCheck(10, 7).good and not PoseCheck(10, 7).refused
    assert PoseCheck(0, 0, why_not="one image").summary() == "not possible: one image"


def test_images_that_cannot_be_compared_are_named_and_not_taken_for_wrong_poses(views):
    half = Views(views.images, [depth[::2, ::2] for depth in views.depths])
    check = check_poses(half)
    assert check.good and not check.lines()
    assert "10 images cannot be compared, the first: 0: depth of 160x120 pixels" in check.summary()
