# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""RGB-D folders: points lie where the depth says, away from edges, and reproject onto their pixels."""

import functools

import cv2
import numpy as np
import pytest
import torch
from keyframe_samples import CAMERA, PlaceBackbone, pixels_of, random_pose

from nre_ros.errors import ImageError, ImportSourceError
from nre_ros.geometry import invert, position_quaternion
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.building.point_selection import candidate_pixels, select_distributed, smooth_depth
from nre_ros.keyframes.importers.colmap.cameras import read_cameras_txt, write_cameras_txt
from nre_ros.keyframes.importers.rgbd.folder import RgbdFolderSource
from nre_ros.keyframes.importers.rgbd.tum import _stamped_files
from nre_ros.keyframes.importers.text_trajectory import parse_tum_pose

K, DISTORTION = CAMERA.K, np.array(CAMERA.distortion)


@functools.cache
def image_rays():
    """(x, y) / z [480 * 640, 2] of every pixel: OpenCV's projection, inverted by fixed-point iteration."""
    target = np.stack(np.meshgrid(np.arange(640.0), np.arange(480.0)), -1).reshape(-1, 2)
    xy = (target - K[:2, 2]) / [K[0, 0], K[1, 1]]
    for _ in range(10):
        points = np.column_stack([xy, np.ones(len(xy))])
        projected = cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, DISTORTION)[0][:, 0]
        xy += (target - projected) / [K[0, 0], K[1, 1]]
    assert np.abs(projected - target).max() < 1e-4
    return xy


def plane_depth(normal, distance):
    """Depth [480, 640] along z of the plane normal . x = distance, seen by ``CAMERA``."""
    return (distance / (image_rays() @ normal[:2] + normal[2])).reshape(480, 640)


@pytest.fixture
def scene():
    """Depth of a slanted wall with a nearer panel before it and a hole."""
    wall, panel = plane_depth(np.array([0.3, -0.2, 1.0]), 3.0), plane_depth(np.array([0, 0, 1.0]), 1.4)
    depth = wall.copy()
    depth[150:300, 200:420] = panel[150:300, 200:420]
    depth[350:420, 50:150] = 0
    return depth


def test_points_lie_on_the_surfaces_and_reproject_onto_their_pixels(scene):
    T_map_cam = random_pose(np.random.default_rng(1))
    image = np.full((480, 640, 3), 100, np.uint8)
    keyframe = KeyframeBuilder(PlaceBackbone(), 400).build_rgbd("a", 0, image, scene, CAMERA, T_map_cam)
    assert len(keyframe.points) == 400
    points = (keyframe.points.astype(np.float64) - T_map_cam[:3, 3]) @ T_map_cam[:3, :3]
    pixels = cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, DISTORTION)[0][:, 0]
    # cubic sampling looks two cells out, and is exact where there are two
    inside = ((pixels > 12) & (pixels < (627, 467))).all(1)
    np.testing.assert_allclose(pixels_of(keyframe.coarse)[inside], pixels[inside], atol=0.02)
    on_wall = np.abs(points @ [0.3, -0.2, 1.0] - 3.0) < 0.003
    on_panel = np.abs(points[:, 2] - 1.4) < 1e-5
    assert (on_wall | on_panel).all() and on_wall.sum() > 100 and on_panel.sum() > 20


def test_no_point_near_an_edge_or_a_hole(scene):
    pixels, scores = candidate_pixels(torch.rand(480, 640, generator=torch.Generator().manual_seed(1)))
    depth = smooth_depth(scene)[pixels[:, 1], pixels[:, 0]]
    pixels, scores, depth = pixels[depth > 0], scores[depth > 0], depth[depth > 0]
    chosen = select_distributed(pixels, scores, 2000, 640, 480)
    pixels, depth = pixels[chosen], depth[chosen]
    assert len(pixels) > 1000
    for left, top, right, bottom in [(200, 150, 419, 299), (50, 350, 149, 419)]:
        outside = np.maximum([left, top] - pixels, pixels - [right, bottom]).max(1)  # > 0 outside
        assert (np.abs(outside - 0.5) >= 2).all()
    x, y = pixels.astype(int).T
    np.testing.assert_allclose(depth, scene[y, x], rtol=0.005)


@pytest.fixture
def folder(tmp_path, scene):
    """Two images with depth (millimetres), poses and camera; the arguments of ``RgbdFolderSource``."""
    rng = np.random.default_rng(0)
    (tmp_path / "rgb").mkdir()
    (tmp_path / "depth").mkdir()
    lines = ["# t x y z qx qy qz qw"]
    for name in ("0.jpg", "1.jpg"):
        cv2.imwrite(str(tmp_path / "rgb" / name), rng.integers(0, 255, (480, 640, 3)).astype(np.uint8))
        depth = np.round(scene * 1000).astype(np.uint16)
        cv2.imwrite(str(tmp_path / "depth" / name.replace("jpg", "png")), depth)
        position, quaternion = position_quaternion(random_pose(rng))
        lines.append(" ".join(map(repr, [1.5, *position.tolist(), *quaternion.tolist()])))
    (tmp_path / "poses.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "list.txt").write_text("0.jpg\n1.jpg\n")
    write_cameras_txt(tmp_path / "cameras.txt", {1: CAMERA})
    return tmp_path


def source(folder, **changes):
    arguments = dict(
        images=folder / "rgb",
        depth=folder / "depth",
        poses=folder / "poses.txt",
        list_path=folder / "list.txt",
        cameras=folder / "cameras.txt",
    )
    return RgbdFolderSource(**{**arguments, **changes})


def test_a_folder_is_read(folder, scene):
    builder = KeyframeBuilder(PlaceBackbone(), 100)
    keyframe = source(folder).keyframe("1.jpg", builder)
    T = parse_tum_pose((folder / "poses.txt").read_text().splitlines()[2])[1]
    np.testing.assert_allclose(keyframe.T_map_cam, T)
    assert keyframe.stamp == 1_500_000_000 and len(keyframe.points) == 100
    z = ((keyframe.points - T[:3, 3]) @ T[:3, :3])[:, 2]
    x, y = pixels_of(keyframe.fine).round().astype(int).T
    np.testing.assert_allclose(z, scene[y, x], atol=0.02)
    # twice the units a metre, half the depth
    halved = source(folder, depth_scale=2000.0).keyframe("1.jpg", builder)
    assert np.median(((halved.points - T[:3, 3]) @ T[:3, :3])[:, 2]) == pytest.approx(np.median(z) / 2, rel=0.02)


@pytest.mark.parametrize(
    "spoil, match",
    [
        (lambda f: (f / "list.txt").write_text("0.jpg\n0.jpg\n"), "0.jpg more than once"),
        (lambda f: (f / "list.txt").unlink(), "list.txt cannot be read"),
        (lambda f: (f / "poses.txt").unlink(), "poses.txt cannot be read"),
        (lambda f: (f / "poses.txt").write_bytes(b"\xff\xfe\x00"), "not a text file"),
        (lambda f: (f / "cameras.txt").write_text("1 PINHOLE 9 9 1 1 1 1\n2 PINHOLE 9 9 1 1 1 1\n"), "2 cameras"),
    ],
)
def test_lists_that_do_not_fit_together_are_refused(folder, spoil, match):
    spoil(folder)
    with pytest.raises(ImportSourceError, match=match) as error:
        source(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("names", ["0.jpg\n1.jpg\n2.jpg\n", "0.jpg\n"])
def test_numbers_of_poses_and_images_that_differ_are_refused(folder, names):
    (folder / "list.txt").write_text(names)
    with pytest.raises(ImportSourceError, match=rf"2 poses.*{names.count('jpg')} images.*line i"):
        source(folder)


def test_wrong_arguments_are_refused(folder):
    with pytest.raises(ImportSourceError, match="not a folder"):
        source(folder, depth=folder / "none")
    for scale in (0.0, -1.0, float("nan")):
        with pytest.raises(ImportSourceError, match="depth scale"):
            source(folder, depth_scale=scale)


@pytest.mark.parametrize(
    "depth, match",
    [
        (np.ones((240, 320), np.uint16), "320x240.*640x480"),
        (np.ones((480, 640), np.uint8), "16-bit"),
        (np.ones((480, 640, 3), np.uint16), "16-bit"),
        (None, "No such file"),
    ],
)
def test_depth_that_does_not_fit_is_reported(folder, depth, match):
    (folder / "depth/0.png").unlink()
    if depth is not None:
        cv2.imwrite(str(folder / "depth/0.png"), depth)
    with pytest.raises(ImageError, match=match):
        source(folder).keyframe("0.jpg", KeyframeBuilder(PlaceBackbone()))


def test_depth_without_a_measurement_is_reported(folder):
    cv2.imwrite(str(folder / "depth/0.png"), np.zeros((480, 640), np.uint16))
    with pytest.raises(ImportSourceError, match="no point"):
        source(folder).keyframe("0.jpg", KeyframeBuilder(PlaceBackbone()))


def test_kitchen_depth_points_agree_with_colmaps(shared):
    """Depth at COLMAP's observations, back-projected and posed, against COLMAP's 3D points."""
    kitchen = shared / "data/kitchen"
    camera = read_cameras_txt(kitchen / "sparse/cameras.txt")[1]
    points = {
        int(row[0]): row[1:4]
        for row in map(
            lambda line: np.array(line.split()[:4], float), (kitchen / "sparse/points3D.txt").read_text().splitlines()
        )
    }
    images = (kitchen / "sparse/images.txt").read_text().splitlines()
    poses = (kitchen / "map_poses.txt").read_text().splitlines()[1:]
    for i in (0, 30, 62):
        name, T = images[2 * i].split()[-1], parse_tum_pose(poses[i])[1]
        observed = np.array(images[2 * i + 1].split(), float).reshape(-1, 3)
        observed = observed[observed[:, 2] >= 0]
        pixels, truth = observed[:, :2] - 0.5, np.array([points[int(j)] for j in observed[:, 2]])
        raw = cv2.imread(str(kitchen / "depth" / name.replace("jpg", "png")), cv2.IMREAD_UNCHANGED)
        depth = smooth_depth(raw / np.float32(1000))
        x, y = pixels.round().astype(int).clip(0, (639, 479)).T
        rays = camera.rays(torch.as_tensor(pixels)).numpy()
        found = (rays / rays[:, 2:] * depth[y, x, None]) @ T[:3, :3].T + T[:3, 3]
        error = np.linalg.norm(found - truth, axis=1)[depth[y, x] > 0]
        assert len(error) > 100 and np.median(error) < 0.03
        assert (invert(T) @ T).round(9).tolist() == np.eye(4).tolist()


def test_lists_of_the_tum_benchmark_may_name_files_with_spaces(tmp_path):
    path = tmp_path / "rgb.txt"
    path.write_text("# colour\n1.5 rgb/my image 1.png\n2.5,rgb/2.png\n")
    assert _stamped_files(path) == [(1_500_000_000, "rgb/my image 1.png"), (2_500_000_000, "rgb/2.png")]
