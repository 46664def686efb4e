# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Rooms, trajectories, odometry and the sensor of the gallery."""

import numpy as np
import pytest

from nre_ros.gallery import (
    CameraMount,
    Gallery,
    OdometryNoise,
    PlanarTrajectory,
    Sensor,
    build_room,
    camera_pose,
    drifting_odometry,
    mapping_poses,
    robot_loop,
)
from nre_ros.geometry import Camera, invert, pose_error

CAMERA = Camera(80, 60, 65.6, 65.6, 39.5, 29.5)
SIZE = np.array([6.0, 5.0, 3.0])


@pytest.fixture(scope="module")
def gallery() -> Gallery:
    return Gallery(build_room(seed=0, pixels_per_metre=40))


@pytest.fixture(scope="module")
def keyframes() -> np.ndarray:
    return mapping_poses(seed=0)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    loop = robot_loop(seed=0)
    return loop.T_map_base(np.linspace(0, loop.duration, 25)) @ CameraMount().T_base_cam


def points_of(view) -> np.ndarray:
    """Map points [H * W, 3] of a rendering of a pinhole camera."""
    v, u = np.mgrid[: view.camera.height, : view.camera.width]
    x, y = (u - view.camera.cx) / view.camera.fx, (v - view.camera.cy) / view.camera.fy
    points = np.stack([x, y, np.ones_like(x)], -1) * view.depth[..., None]
    return points.reshape(-1, 3) @ view.T_map_cam[:3, :3].T + view.T_map_cam[:3, 3]


def test_the_room_is_closed_and_keeps_its_size(gallery, keyframes, queries):
    for T in [*keyframes[::4], *queries]:
        view = gallery.render(CAMERA, T)
        assert (view.depth > 0.2).all()  # no hole, and nothing touches the lens
        points = points_of(view)
        assert (np.abs(points[:, :2]) <= SIZE[:2] / 2 + 1e-4).all()
        assert (points[:, 2] >= -1e-4).all() and (points[:, 2] <= SIZE[2] + 1e-4).all()


def test_every_query_sees_what_a_keyframe_saw(gallery, keyframes, queries):
    maps = [gallery.render(CAMERA, T, supersample=1) for T in keyframes]
    for T in queries:
        points = points_of(gallery.render(CAMERA, T, supersample=1))
        shared = []
        for view in maps:
            in_cam = (points - view.T_map_cam[:3, 3]) @ view.T_map_cam[:3, :3]
            z = np.maximum(in_cam[:, 2], 1e-6)
            u = np.round(in_cam[:, 0] / z * CAMERA.fx + CAMERA.cx).astype(int)
            v = np.round(in_cam[:, 1] / z * CAMERA.fy + CAMERA.cy).astype(int)
            inside = (in_cam[:, 2] > 0.1) & (u >= 0) & (u < CAMERA.width) & (v >= 0) & (v < CAMERA.height)
            depth = view.depth[np.where(inside, v, 0), np.where(inside, u, 0)]
            shared.append((inside & (np.abs(depth - in_cam[:, 2]) < 0.05 * z)).mean())
        assert max(shared) > 0.3


def test_queries_are_not_keyframes(keyframes, queries):
    distance = np.linalg.norm(keyframes[:, None, :3, 3] - queries[None, :, :3, 3], axis=-1).min(axis=0)
    assert 0.3 < np.median(distance) < 0.8 and distance.min() > 0.1


def test_walls_and_floor_are_not_blank(gallery):
    for quad in gallery.quads:
        image = quad.texture.image.astype(float)
        blocks = image[: image.shape[0] // 8 * 8, : image.shape[1] // 8 * 8].mean(-1)
        blocks = blocks.reshape(blocks.shape[0] // 8, 8, -1, 8).transpose(0, 2, 1, 3).reshape(-1, 64)
        assert image.std() > 4, quad.name
        assert (blocks.std(axis=1) > 1).mean() > 0.5, quad.name  # lamps and black photographs aside


def test_a_seed_is_a_room(gallery):
    same = build_room(seed=0, pixels_per_metre=40)
    other = build_room(seed=1, pixels_per_metre=40)
    assert len(same) == len(gallery.quads)
    for a, b in zip(gallery.quads, same):
        np.testing.assert_array_equal(a.texture.image, b.texture.image)
        np.testing.assert_array_equal(a.corner, b.corner)
    assert any(not np.array_equal(a.texture.image, b.texture.image) for a, b in zip(gallery.quads, other))


def test_two_equal_rooms_in_one_world_give_equal_images():
    T_map_room = np.eye(4)
    T_map_room[:2, :2] = [[0, -1], [1, 0]]
    T_map_room[:3, 3] = [20.0, -3.0, 0.5]
    world = Gallery(build_room(0, pixels_per_metre=40) + build_room(0, T_map_room=T_map_room, pixels_per_metre=40))
    T = camera_pose([0.8, -1.1, 1.2], 0.7)
    here, there = world.render(CAMERA, T), world.render(CAMERA, T_map_room @ T)
    np.testing.assert_allclose(here.depth, there.depth, rtol=1e-4)
    assert np.abs(here.image.astype(int) - there.image).mean() < 0.5
    assert there.labels.min() >= len(world.quads) // 2


def test_camera_pose_has_the_given_yaw_and_pitch():
    T = camera_pose([1, 2, 3], yaw=np.pi / 2, pitch=np.pi / 6)
    np.testing.assert_allclose(T[:3, 3], [1, 2, 3])
    np.testing.assert_allclose(T[:3, 2], [0, np.cos(np.pi / 6), 0.5], atol=1e-12)  # optical z: forward and up
    np.testing.assert_allclose(T[:3, 0], [1, 0, 0], atol=1e-12)  # optical x: right of north is east
    assert T[2, 1] < 0 and np.linalg.det(T[:3, :3]) == pytest.approx(1)  # optical y: down


def test_the_trajectory_is_planar_smooth_and_meets_its_waypoints():
    waypoints = np.array([[0, 0, 3.0], [1, 0.5, -3.1], [1.5, 1.5, -2.0], [1, 2.5, -1.5]])
    trajectory = PlanarTrajectory(waypoints, duration=6.0)
    T = trajectory.T_map_base([0.0, 2.0, 4.0, 6.0])
    np.testing.assert_allclose(T[:, :3, 3], np.column_stack([waypoints[:, :2], np.zeros(4)]), atol=1e-12)
    np.testing.assert_allclose(T[:, :2, 0], np.stack([np.cos(waypoints[:, 2]), np.sin(waypoints[:, 2])], 1), atol=1e-12)
    np.testing.assert_array_equal(T[:, :3, 2], np.tile([0, 0, 1.0], (4, 1)))
    fine = trajectory.T_map_base(np.linspace(0, 6, 601))
    steps = [pose_error(a, b) for a, b in zip(fine, fine[1:])]
    assert max(angle for _, angle in steps) < 0.02  # it takes the short way from 3.0 to -3.1
    velocity = np.diff(fine[:, :3, 3], axis=0) * 100
    assert np.abs(np.diff(velocity, axis=0)).max() < 0.02
    with pytest.raises(ValueError, match="duration"):
        PlanarTrajectory(waypoints, 0.0)
    with pytest.raises(ValueError, match="waypoints"):
        PlanarTrajectory(waypoints[:1], 1.0)


def test_odometry_without_noise_is_the_truth():
    T = robot_loop(seed=2).T_map_base(np.linspace(0, 30, 301))
    odometry = drifting_odometry(T, OdometryNoise(0, 0, 0, 0), seed=0)
    np.testing.assert_allclose(T[0] @ odometry, T, atol=1e-9)
    np.testing.assert_array_equal(odometry[0], np.eye(4))


def test_odometry_drifts_by_the_given_noise():
    straight = np.tile(np.eye(4), (401, 1, 1))
    straight[:, 0, 3] = np.linspace(0, 16, 401)
    noise = OdometryNoise(slip=0.02, turn_slip=0.0, veer=0.01, scale=0.0)
    runs = np.array([drifting_odometry(straight, noise, seed) for seed in range(300)])
    yaw = np.arctan2(runs[..., 1, 0], runs[..., 0, 0])
    # a random walk: deviation = veer sqrt(distance), whatever the steps
    assert yaw[:, 400].std() == pytest.approx(0.01 * 4, rel=0.15)
    assert yaw[:, 100].std() == pytest.approx(0.01 * 2, rel=0.15)
    along = runs[:, 400, 0, 3] + 8 * yaw[:, 400] ** 2 / 3  # mean shortening by the turned heading is small
    assert along.std() == pytest.approx(0.02 * 4, rel=0.2)
    np.testing.assert_array_equal(runs[3], drifting_odometry(straight, noise, 3))
    assert (runs[..., 2, 3] == 0).all()
    # locally smooth: no jump between two readings
    relative = invert(runs[0, :-1]) @ runs[0, 1:]
    assert np.abs(relative[:, :2, 3] - [0.04, 0]).max() < 0.02 * 0.2 * 5


def test_sensor_gain_gamma_and_noise():
    image = np.full((64, 64, 3), 100, np.uint8)
    rng = np.random.default_rng
    np.testing.assert_array_equal(Sensor()(image, rng(0)), image)
    assert (Sensor(gain=1.5)(image, rng(0)) == 150).all()
    assert (Sensor(gamma=0.5)(image, rng(0)) == round(255 * (100 / 255) ** 0.5)).all()
    assert (Sensor(gain=9.0)(image, rng(0)) == 255).all()
    noisy = Sensor(noise=4.0)(image, rng(0)).astype(float)
    assert noisy.std() == pytest.approx(4.0, rel=0.05) and noisy.mean() == pytest.approx(100, abs=0.2)
    np.testing.assert_array_equal(Sensor(noise=4.0)(image, rng(0)), noisy)
