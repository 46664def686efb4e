# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Keyframe culling: motion and overlap in closed form, and which images an import leaves out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from keyframe_samples import PlaceBackbone, random_keyframe
from scipy.spatial.transform import Rotation

from nre_ros.geometry import Camera
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.building.culling import STILL_IMAGES, CullingRule, KeyframeCuller, view_motion, view_overlap
from nre_ros.keyframes.importers.build_map import build_map
from nre_ros.keyframes.importers.map_source import MapSource
from nre_ros.keyframes.storage.store import KeyframeStore

CAMERA = Camera(640, 480, 500.0, 500.0, 319.5, 239.5)


def pose(rotation=(0.0, 0.0, 0.0), position=(0.0, 0.0, 0.0)):
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.from_rotvec(rotation).as_matrix(), position
    return T


def wall(depth, half=0.2):
    """Points [N, 3] of a wall before the camera, near its axis."""
    x, y = np.meshgrid(np.linspace(-half, half, 9), np.linspace(-half, half, 9))
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, depth)], axis=1)


def test_motion_is_the_angle_of_rotation_or_the_parallax():
    # on the optical axis a turn by an angle moves a point by that angle, a step by its parallax
    points = wall(10.0, half=0.05)
    for angle in (1e-4, 0.02, 0.3):
        assert view_motion(np.eye(4), points, pose((0, angle, 0))) == pytest.approx(angle, rel=1e-3)
        step = 10.0 * np.tan(angle)
        assert view_motion(np.eye(4), points, pose((0, 0, 0), (step, 0, 0))) == pytest.approx(angle, rel=2e-3)
    # the same scene ten times as large and far: no metric scale is needed
    far = view_motion(np.eye(4), 10 * points, pose((0, 0, 0), (10.0, 0, 0)))
    near = view_motion(np.eye(4), points, pose((0, 0, 0), (1.0, 0, 0)))
    np.testing.assert_allclose(far, near)


def test_overlap_is_the_share_of_points_in_the_new_image():
    # 640 pixels of 500 pixels focal length see x / z within +-0.64
    points = np.stack([np.linspace(-0.6, 0.6, 25), np.zeros(25), np.ones(25)], axis=1)
    assert view_overlap(points, np.eye(4), CAMERA) == 1.0
    moved = view_overlap(points, pose((0, 0, 0), (0.62, 0, 0)), CAMERA)
    assert moved == pytest.approx(((points[:, 0] - 0.62 > -0.64) & (points[:, 0] - 0.62 < 0.64)).mean())
    assert view_overlap(points, pose((0, np.pi, 0)), CAMERA) == 0.0


def test_a_view_is_a_duplicate_of_the_keyframe_that_it_equals_and_of_no_other():
    culler = KeyframeCuller(CullingRule(0.01, 0.9))
    for i in range(40):  # more than the arrays begin with
        T = pose((0, 0, 0), (float(i), 0, 0))
        culler.add(f"k{i}", T, wall(2.0) + T[:3, 3])
    assert culler.find_duplicate(pose((0, 0.004, 0), (23.001, 0, 0)), CAMERA) == "k23"
    assert culler.find_duplicate(pose((0, 0.02, 0), (23.0, 0, 0)), CAMERA) is None
    assert culler.find_duplicate(pose((0, 0, 0.2), (23.0, 0, 0)), CAMERA) is None  # about the optical axis
    assert culler.find_duplicate(pose((0, 0, 0), (23.5, 0, 0)), CAMERA) is None
    narrow = Camera(640, 480, 6000.0, 6000.0, 319.5, 239.5)  # sees a part of the keyframe's points
    assert culler.find_duplicate(pose((0, 0, 0), (23.0, 0, 0)), narrow) is None
    keeping_all = KeyframeCuller(CullingRule(0.0, 0.9))
    keeping_all.add("k", np.eye(4), wall(2.0))
    assert keeping_all.find_duplicate(np.eye(4), CAMERA) is None


class Standing(MapSource):
    """Keyframes seen from where ``steps`` say, in metres along x before a wall at 2 m."""

    def __init__(self, steps, poses_known, interrupt=None):
        self.steps, self.poses_known, self.interrupt, self.made = steps, poses_known, interrupt, []

    def names(self):
        return [f"f{i}" for i in range(len(self.steps))]

    def describe(self):
        return {}

    def pose_and_camera(self, name):
        return (pose((0, 0, 0), (self.steps[int(name[1:])], 0, 0)), CAMERA) if self.poses_known else None

    def keyframe(self, name, builder):
        if name == self.interrupt:
            raise KeyboardInterrupt
        self.made.append(name)
        T = pose((0, 0, 0), (self.steps[int(name[1:])], 0, 0))
        points = (wall(2.0) + T[:3, 3]).astype(np.float32)
        builder.tally["made"] += 1
        keyframe = random_keyframe(name, 0, points=len(points), background=8, dimensions=50, T_map_cam=T, camera=CAMERA)
        return replace(keyframe, points=points)


STEPS = [0.0, 0.001, 0.5, 0.002, 0.501, 1.0]


@pytest.mark.parametrize("poses_known", [True, False])
def test_near_duplicates_are_left_out_of_a_map_and_reported(tmp_path, poses_known):
    source = Standing(STEPS, poses_known)
    report = build_map(source, KeyframeBuilder(PlaceBackbone()), tmp_path / "m.db", progress=False)
    assert report.near_duplicates == {"f1": "f0", "f3": "f0", "f4": "f2"}
    assert (report.keyframes, report.tally["made"]) == (3, 3)
    # with known poses no features of a near-duplicate are computed
    assert sorted(source.made) == (["f0", "f2", "f5"] if poses_known else [f"f{i}" for i in range(6)])
    everything = build_map(
        Standing(STEPS, poses_known),
        KeyframeBuilder(PlaceBackbone()),
        tmp_path / "all.db",
        progress=False,
        culling=CullingRule(0.0),
    )
    assert everything.keyframes == 6 and not everything.near_duplicates


@pytest.mark.parametrize("poses_known", [True, False])
def test_keyframes_made_in_parallel_are_culled_as_in_sequence(tmp_path, poses_known):
    steps = np.random.default_rng(3).uniform(0, 0.15, 24).round(3)  # the rule's limit is 0.008
    reports, threads = [], torch.get_num_threads()
    for count in (1, 4):
        torch.set_num_threads(count)
        try:
            reports.append(
                build_map(
                    Standing(steps, poses_known),
                    KeyframeBuilder(PlaceBackbone()),
                    tmp_path / f"{count}.db",
                    progress=False,
                )
            )
        finally:
            torch.set_num_threads(threads)
        with KeyframeStore.open(tmp_path / f"{count}.db") as store:
            reports[-1] = reports[-1].near_duplicates, reports[-1].tally, list(store.names())
    assert reports[0] == reports[1] and 3 < len(reports[0][0]) < 20


def test_an_interrupted_import_culls_as_an_uninterrupted_one(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        build_map(Standing(STEPS, True, "f2"), KeyframeBuilder(PlaceBackbone()), tmp_path / "m.db", progress=False)
    report = build_map(Standing(STEPS, True), KeyframeBuilder(PlaceBackbone()), tmp_path / "m.db", progress=False)
    assert report.near_duplicates == {"f1": "f0", "f3": "f0", "f4": "f2"} and report.resumed == 1
    with KeyframeStore.open(tmp_path / "m.db") as store:
        assert list(store.names()) == ["f0", "f2", "f5"]


def test_no_map_image_of_the_kitchen_is_culled(shared):
    """Every 8th image of a walk, chosen by hand: the default rule takes none of them for a duplicate."""
    from nre_ros.keyframes.importers.rgbd.folder import RgbdFolderSource

    K = shared / "data/kitchen"
    source = RgbdFolderSource(K / "images", K / "depth", K / "map_poses.txt", K / "map.txt", K / "sparse/cameras.txt")
    culler = KeyframeCuller(STILL_IMAGES)
    y, x = np.mgrid[12:480:24, 16:640:32].reshape(2, -1)
    camera = source.camera("")
    for name in source.names():
        T, depth = source.pose(name)[1], source.depth(name)[y, x]
        assert culler.find_duplicate(T, camera) is None
        rays = np.stack([(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, np.ones(len(x))], axis=1)
        culler.add(name, T, (rays * depth[:, None])[depth > 0] @ T[:3, :3].T + T[:3, 3])
    assert len(source.names()) == 63
