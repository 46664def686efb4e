# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Rigid motions and cameras against OpenCV, SciPy and finite differences."""

import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from nre_ros.errors import CameraError, PoseError
from nre_ros.geometry import (
    EQUIDISTANT,
    PINHOLE,
    RADIAL_TANGENTIAL,
    Camera,
    camera_warnings,
    check_camera,
    describe_unusual_cameras,
    invert,
    left_update,
    pose_error,
    pose_jacobian,
    pose_matrix,
    position_quaternion,
    so3_exp,
    transform,
)

SIZE = (640, 480, 520.0, 515.0, 322.0, 236.5)
CAMERAS = {
    "pinhole": Camera(*SIZE),
    "four": Camera(*SIZE, RADIAL_TANGENTIAL, (-0.28, 0.07, 0.0011, -0.0007)),
    "five": Camera(*SIZE, RADIAL_TANGENTIAL, (-0.28, 0.07, 0.0011, -0.0007, 0.01)),
    "eight": Camera(*SIZE, RADIAL_TANGENTIAL, (0.3, -0.1, 0.0011, -0.0007, 0.02, 0.5, -0.05, 0.01)),
    "fisheye": Camera(*SIZE, EQUIDISTANT, (0.05, -0.01, 0.003, -0.001)),
}


@pytest.fixture
def points() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    z = 1 + 5 * torch.rand(200, 1, generator=generator, dtype=torch.float64)
    xy = (torch.rand(200, 2, generator=generator, dtype=torch.float64) - 0.5) * 1.1
    return torch.cat([xy * z, z], dim=1)


def pose() -> torch.Tensor:
    T = torch.eye(4, dtype=torch.float64)
    T[:3, :3] = so3_exp(torch.tensor([0.2, -0.3, 0.4], dtype=torch.float64))
    T[:3, 3] = torch.tensor([0.1, -0.2, 0.5])
    return T


def opencv_projection(camera: Camera, points: np.ndarray) -> np.ndarray:
    distortion = np.array(camera.distortion) if camera.distortion else np.zeros(4)
    zero = np.zeros(3)
    if camera.model == EQUIDISTANT:
        return cv2.fisheye.projectPoints(points[None], zero, zero, camera.K, distortion)[0][0]
    return cv2.projectPoints(points, zero, zero, camera.K, distortion)[0][:, 0]


@pytest.mark.parametrize("name", CAMERAS)
def test_projection_is_opencvs(name, points):
    pixels, valid, jacobian = CAMERAS[name].project(points)
    assert valid.all() and jacobian is None
    np.testing.assert_allclose(pixels, opencv_projection(CAMERAS[name], points.numpy()), atol=1e-8)


@pytest.mark.parametrize("name", CAMERAS)
def test_projection_jacobian_is_the_finite_difference(name, points):
    camera, step = CAMERAS[name], 1e-6
    _, _, jacobian = camera.project(points, jacobian=True)
    for axis in range(3):
        offset = torch.zeros(3, dtype=torch.float64)
        offset[axis] = step
        difference = (camera.project(points + offset)[0] - camera.project(points - offset)[0]) / (2 * step)
        torch.testing.assert_close(jacobian[..., axis], difference, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", CAMERAS)
def test_pose_jacobian_is_the_finite_difference_of_the_left_update(name, points):
    camera, step, T = CAMERAS[name], 1e-6, pose()
    points = transform(invert(T), points)
    _, _, d_project = camera.project(transform(T, points), jacobian=True)
    jacobian = pose_jacobian(T, points, d_project)
    for axis in range(6):
        delta = torch.zeros(6, dtype=torch.float64)
        delta[axis] = step
        ahead, behind = (camera.project(transform(left_update(T, s * delta), points))[0] for s in (1, -1))
        torch.testing.assert_close(jacobian[..., axis], (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("name", CAMERAS)
def test_rays_undo_the_projection(name, points):
    rays = CAMERAS[name].rays(CAMERAS[name].project(points)[0])
    torch.testing.assert_close(rays, points / points.norm(dim=1, keepdim=True), rtol=0, atol=1e-9)


def test_points_behind_the_camera_are_not_valid_and_finite():
    camera = CAMERAS["four"]
    behind = torch.tensor([[0.1, 0.1, -2.0], [0.1, 0.1, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    pixels, valid, jacobian = camera.project(behind, jacobian=True)
    assert valid.tolist() == [False, False, True]
    assert torch.isfinite(pixels).all() and torch.isfinite(jacobian).all()


def test_points_beyond_the_fold_of_the_distortion_are_not_valid():
    """With k1 = -0.3 the distorted radius r - 0.3 r^3 is largest at r = 1/sqrt(0.9) and falls from there."""
    camera = Camera(*SIZE, RADIAL_TANGENTIAL, (-0.3, 0.0, 0.0, 0.0))
    fold = 1 / np.sqrt(0.9)
    assert camera.max_radius == pytest.approx(fold, abs=1e-3)
    _, valid, _ = camera.project(torch.tensor([[fold * 0.99, 0, 1], [fold * 1.01, 0, 1]], dtype=torch.float64))
    assert valid.tolist() == [True, False]


def test_resized_camera_sees_the_resized_image(points):
    """OpenCV's resize puts the centre of pixel x at (x + 0.5) s - 0.5."""
    camera = CAMERAS["five"]
    small, _, _ = camera.resized(320, 120).project(points)
    full, _, _ = camera.project(points)
    torch.testing.assert_close(small, (full + 0.5) * torch.tensor([0.5, 0.25]) - 0.5)


@pytest.mark.parametrize(
    "changes",
    [
        {"fx": 0.0},
        {"fy": -5.0},
        {"cx": float("nan")},
        {"fx": float("inf")},
        {"width": 0},
        {"model": "mercator"},
        {"model": RADIAL_TANGENTIAL, "distortion": (0.1,)},
        {"model": PINHOLE, "distortion": (0.1,) * 4},
        {"model": EQUIDISTANT, "distortion": (0.1, float("nan"), 0, 0)},
    ],
)
def test_impossible_intrinsics_are_refused(changes):
    fields = dict(zip(("width", "height", "fx", "fy", "cx", "cy"), SIZE))
    with pytest.raises(CameraError):
        Camera(**{**fields, **changes})


def test_exponential_is_scipys_also_for_tiny_and_large_angles():
    vectors = np.random.default_rng(0).normal(size=(50, 3)) * np.logspace(-12, 0.4, 50)[:, None]
    np.testing.assert_allclose(
        so3_exp(torch.from_numpy(vectors)), Rotation.from_rotvec(vectors).as_matrix(), atol=1e-12
    )


def test_inverse_and_quaternions_round_trip():
    T = pose_matrix([1.0, 2.0, 3.0], [0.1, -0.2, 0.3, 0.9])
    np.testing.assert_allclose(invert(T) @ T, np.eye(4), atol=1e-15)
    torch.testing.assert_close(invert(torch.from_numpy(T)), torch.from_numpy(invert(T)))
    position, quaternion = position_quaternion(T)
    np.testing.assert_allclose(position, [1, 2, 3])
    np.testing.assert_allclose(quaternion, np.array([0.1, -0.2, 0.3, 0.9]) / np.linalg.norm([0.1, -0.2, 0.3, 0.9]))


def test_pose_error_is_distance_and_angle():
    T = pose_matrix([1.0, 2.0, 3.0], [0, 0, 0, 1])
    other = pose_matrix([1.0, 2.3, 3.4], Rotation.from_euler("y", 10, degrees=True).as_quat())
    distance, angle = pose_error(T, other)
    assert distance == pytest.approx(0.5) and np.degrees(angle) == pytest.approx(10)


@pytest.mark.parametrize(
    "position, quaternion",
    [([np.nan, 0, 0], [0, 0, 0, 1]), ([0, 0, 0], [0, 0, 0, 0]), ([0, 0, 0], [0, np.inf, 0, 1]), ([0, 0], [0, 0, 0, 1])],
)
def test_impossible_poses_are_refused(position, quaternion):
    with pytest.raises(PoseError):
        pose_matrix(position, quaternion)


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"fx": 0.82, "fy": 1.09, "cx": 0.5, "cy": 0.5}, "focal length fx = 0.82"),
        ({"fx": 5e5, "fy": 5e5}, "focal length fx = 500000"),
        ({"fx": 1500.0}, "differ by a factor of 3"),
        ({"cx": -9000.0}, "principal point cx = -9000"),
        ({"cy": 52000.0}, "principal point cy = 52000"),
    ],
)
def test_useless_intrinsics_are_refused(changes, match):
    usual = Camera(640, 480, 500.0, 500.0, 319.5, 239.5)
    assert check_camera(usual) is usual and camera_warnings(usual) == []
    with pytest.raises(CameraError, match=match):
        check_camera(replace(usual, **changes))


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"fx": 100.0, "fy": 100.0}, "focal length fx = 100"),
        ({"fy": 620.0}, "differ by a factor of 1.24"),
        ({"cx": 639.0}, "principal point cx = 639 .* another resolution"),
        ({"model": "radial_tangential", "distortion": (-1.5, 0.0, 0.0, 0.0)}, "not one-to-one within the image"),
    ],
)
def test_unusual_intrinsics_are_found_and_not_refused(changes, match):
    camera = check_camera(replace(Camera(640, 480, 500.0, 500.0, 319.5, 239.5), **changes))
    assert any(re.search(match, warning) for warning in camera_warnings(camera)), camera_warnings(camera)


def test_unusual_cameras_are_described_one_by_one_and_many_are_counted():
    usual = Camera(640, 480, 500.0, 500.0, 319.5, 239.5)
    odd = replace(usual, fx=100.0, fy=100.0)
    (line,) = describe_unusual_cameras([("a.png", usual), ("b.png", odd)])
    assert line.startswith("camera of b.png: focal length fx = 100") and "focal length fy = 100" in line
    lines = describe_unusual_cameras((f"{k}.png", odd) for k in range(40))
    assert len(lines) == 6 and lines[-1] == "35 further cameras are unusual, too"


def test_the_cameras_of_data_sets_are_not_unusual():
    from nre_ros.demo import CAMERA
    from nre_ros.keyframes.importers.rgbd import seven_scenes, tum

    cameras = [CAMERA, seven_scenes.COLOUR_CAMERA, seven_scenes.DEPTH_CAMERA, *tum.CAMERAS.values(), *CAMERAS.values()]
    assert [camera_warnings(check_camera(camera)) for camera in cameras] == [[]] * len(cameras)
