# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Depth of the query: it confirms right poses, refuses wrong ones, and cannot change a pose."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from synthetic import CAMERA as ROOM_CAMERA
from synthetic import QUERIES, small_room

from nre_ros.cli import main
from nre_ros.errors import ImageError
from nre_ros.gallery.trajectory import camera_pose
from nre_ros.geometry import Camera
from nre_ros.keyframes.importers.colmap.cameras import write_cameras_txt
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.localization.confidence import load_model
from nre_ros.localization.depth import DepthAgreement, QueryDepth
from nre_ros.localization.localizer import Localizer
from nre_ros.localization.verdict import reach_verdict
from nre_ros.nre.alternatives import AlternativePose
from nre_ros.nre.inliers import INLIER_LOSS

CAMERA = Camera(320, 240, 260.0, 250.0, 161.3, 118.2, "radial_tangential", (-0.1, 0.02, 0.001, -0.002))
POSE = np.eye(4)
POSE[:3, :3] = Rotation.from_euler("xyz", (10, -20, 30), degrees=True).as_matrix()
POSE[:3, 3] = 5.0, -3.0, 1.5


def plane(distance: float = 2.0, tilt: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    """Depth [H, W] of the plane z = distance + tilt x by OpenCV's undistortion, and its points [H * W, 3] in the map."""
    rows, columns = np.mgrid[0:240, 0:320].astype(np.float64)
    pixels = np.stack([columns, rows], axis=-1).reshape(-1, 1, 2)
    x, y = cv2.undistortPoints(pixels, CAMERA.K, np.array(CAMERA.distortion))[:, 0].T
    z = distance / (1 - tilt * x)
    points = np.column_stack([x * z, y * z, z])
    return z.reshape(240, 320).astype(np.float32), points @ POSE[:3, :3].T + POSE[:3, 3]


DEPTH, POINTS = plane()
SAMPLE = POINTS[np.random.default_rng(0).choice(len(POINTS), 300, replace=False)]


def test_the_true_pose_agrees_at_every_point():
    agreement = QueryDepth(DEPTH, CAMERA).compare(POSE, SAMPLE)
    assert agreement.measured >= 295  # the last pixels of the image may project beyond its edge
    assert agreement.agreeing == agreement.measured and agreement.confirms
    assert agreement.ratio == pytest.approx(1, abs=2e-3)


def test_the_depth_contradicts_a_pose_at_another_distance():
    moved = POSE.copy()
    moved[:3, 3] -= 0.5 * POSE[:3, 2]  # backwards: all points are expected farther away
    agreement = QueryDepth(DEPTH, CAMERA).compare(moved, SAMPLE)
    assert agreement.contradicts and not agreement.confirms and agreement.agreeing == 0 and agreement.ratio < 0.85
    assert str(agreement).startswith("measured depths are 0.") or "inliers are as far" in str(agreement)


@pytest.mark.parametrize("factor", [1e-3, 0.5, 1.2, 1000.0])
def test_a_wrong_unit_or_map_scale_is_named(factor):
    agreement = QueryDepth(DEPTH * np.float32(factor), CAMERA).compare(POSE, SAMPLE)
    assert agreement.contradicts and agreement.other_scale
    assert f"measured depths are {agreement.ratio:.3g} times the expected ones" in str(agreement)
    assert agreement.ratio == pytest.approx(factor, rel=0.01)


def test_errors_of_a_depth_camera_are_tolerated():
    noise = np.random.default_rng(1).normal(0, 1, DEPTH.shape)
    depth = 1.01 * DEPTH + noise * (0.002 + 0.0025 * DEPTH**2)
    agreement = QueryDepth(depth, CAMERA).compare(POSE, SAMPLE)
    assert agreement.agreeing > 0.97 * agreement.measured


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -1.0])
def test_pixels_without_depth_say_nothing(value):
    depth = DEPTH.copy()
    depth[:, 40:] = value
    agreement = QueryDepth(depth, CAMERA).compare(POSE, SAMPLE)
    assert 0 < agreement.measured < 100 and agreement.agreeing == agreement.measured
    nothing = QueryDepth(np.full_like(DEPTH, value), CAMERA).compare(POSE, SAMPLE)
    assert nothing.measured == 0 and not nothing.confirms and not nothing.contradicts
    assert nothing.to_json() == {"measured": 0, "agreeing": 0, "ratio": None}


def test_points_behind_the_camera_and_outside_of_the_image_do_not_count():
    behind = POSE[:3, 3] + POSE[:3, :3] @ np.array([0.0, 0.0, -2.0])
    aside = POSE[:3, 3] + POSE[:3, :3] @ np.array([50.0, 0.0, 1.0])
    agreement = QueryDepth(DEPTH, CAMERA).compare(POSE, np.stack([behind, aside]))
    assert agreement == DepthAgreement(0, 0, agreement.ratio, 0)


@pytest.mark.parametrize(
    "depth, message",
    [
        (DEPTH[:120], "depth image of 320x120 pixels does not belong to an image of 320x240"),
        ((1000 * DEPTH).astype(np.uint16), r"depth image is uint16 \[240, 320\], expected floating-point metres"),
        (DEPTH[:, :, None], r"\[240, 320, 1\], expected floating-point metres \[H, W\]"),
        (DEPTH.tolist(), "depth image is list"),
    ],
)
def test_what_is_no_depth_image_is_refused(depth, message):
    with pytest.raises(ImageError, match=message):
        QueryDepth(depth, CAMERA)


# --- in the localizer -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def room():
    return small_room()


@pytest.fixture(scope="module")
def localizer(room, tmp_path_factory):
    path = tmp_path_factory.mktemp("map") / "room.db"
    with KeyframeStore.create(path, room.backbone.name, room.backbone.weights_hash) as store:
        for keyframe in room.keyframes:
            store.add(keyframe)
    with Localizer(path, "cpu") as localizer:
        yield localizer


def view(room, place):
    return room.gallery.render(ROOM_CAMERA, camera_pose(place[:3], *place[3:]))


@pytest.mark.parametrize("place", QUERIES)
def test_right_depth_changes_nothing(room, localizer, place):
    seen = view(room, place)
    without, with_depth = (localizer.localize(seen.image, ROOM_CAMERA, depth=depth) for depth in (None, seen.depth))
    np.testing.assert_array_equal(with_depth.T_map_cam, without.T_map_cam)
    np.testing.assert_array_equal(with_depth.covariance, without.covariance)
    assert with_depth.confidence == without.confidence > 0.9 and without.depth is None
    assert with_depth.depth.confirms and with_depth.depth.agreeing >= 0.95 * with_depth.depth.measured > 50
    assert with_depth.to_json()["depth"]["measured"] == with_depth.depth.measured


def test_wrong_depth_refuses_the_pose(room, localizer):
    """The depth of a view from half a metre behind, as if the picture hung somewhere else."""
    seen = view(room, QUERIES[0])
    result = localizer.localize(seen.image, ROOM_CAMERA, depth=seen.depth * np.float32(1.4) + np.float32(0.3))
    assert not result.success and result.confidence == 0 and not result.alternatives and not result.hypotheses
    assert result.reason.startswith("the depth image contradicts the pose: ")


def test_an_alternative_that_the_depth_contradicts_is_dropped(room, localizer):
    """The estimate of a right pose is given an alternative one metre behind it that looks as good."""
    seen = view(room, QUERIES[0])
    estimate = localizer.estimate(seen.image, ROOM_CAMERA)
    T = estimate.T_cam_map.clone()
    T[2, 3] += 1.0
    inliers = estimate.losses < INLIER_LOSS
    doubtful = replace(estimate, alternative=AlternativePose(T, 1.0, estimate.uncertainty, inliers))
    model = load_model(localizer.backbone.name)
    without = reach_verdict(doubtful, model, 0.85)
    assert not without.success and len(without.alternatives) == 2
    result = reach_verdict(doubtful, model, 0.85, depth=QueryDepth(seen.depth, ROOM_CAMERA))
    assert result.success and not result.alternatives and result.confidence > 0.9


def test_depth_may_come_late(room, localizer):
    """A function is called when the pose has been estimated; None says that there is no depth after all."""
    seen, calls = view(room, QUERIES[0]), []
    for depth in (seen.depth, None):
        result = localizer.localize(seen.image, ROOM_CAMERA, depth=lambda: calls.append(1) or depth)
        assert result.success and (result.depth is None) == (depth is None)
    assert len(calls) == 2


@pytest.mark.parametrize("depth_scale", [1000, 5000])
def test_depth_on_the_command_line(room, localizer, tmp_path, capsys, depth_scale):
    images, depths = tmp_path / "images", tmp_path / "depth"
    images.mkdir(), depths.mkdir()
    for i, place in enumerate(QUERIES):
        seen = view(room, place)
        cv2.imwrite(str(images / f"{i}.jpg"), seen.image)
        if i < 2:  # the last image has no depth
            wrong = 1.5 if i else 1.0
            cv2.imwrite(str(depths / f"{i}.png"), np.rint(seen.depth * depth_scale * wrong).astype(np.uint16))
    write_cameras_txt(tmp_path / "cameras.txt", {1: ROOM_CAMERA})
    arguments = ["--map", localizer.store.path, "--images", images, "--camera", tmp_path / "cameras.txt"]
    arguments += ["--depth", depths, "--depth-scale", depth_scale, "-o", tmp_path / "result.jsonl"]
    assert main(["localize", *map(str, arguments)]) == 0
    right, wrong, without = (json.loads(line) for line in (tmp_path / "result.jsonl").read_text().splitlines())
    assert right["success"] and right["depth"]["agreeing"] > 50
    assert not wrong["success"] and "measured depths are 1.5 times the expected ones" in wrong["reason"]
    assert without["success"] and "depth" not in without
    assert "1 of 3 images have no depth image" in capsys.readouterr().err


def test_a_broken_depth_file_is_the_reason_for_no_pose(room, localizer, tmp_path):
    (tmp_path / "0.png").write_bytes(b"\x89PNG")
    cv2.imwrite(str(tmp_path / "0.jpg"), view(room, QUERIES[0]).image)
    write_cameras_txt(tmp_path / "cameras.txt", {1: ROOM_CAMERA})
    (tmp_path / "list.txt").write_text("0.jpg\n")
    arguments = ["--map", localizer.store.path, "--images", tmp_path, "--list", tmp_path / "list.txt"]
    arguments += ["--camera", tmp_path / "cameras.txt", "--depth", tmp_path, "-o", tmp_path / "result.jsonl"]
    assert main(["localize", *map(str, arguments)]) == 0
    line = json.loads((tmp_path / "result.jsonl").read_text())
    assert not line["success"] and "0.png" in line["reason"]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--depth", "/nowhere"], "/nowhere"),
        (["--depth-scale", "1000"], "--depth-scale is of --depth, which is not given"),
    ],
)
def test_options_that_cannot_be_used(localizer, tmp_path, capsys, options, message):
    write_cameras_txt(tmp_path / "cameras.txt", {1: ROOM_CAMERA})
    (tmp_path / "list.txt").write_text("0.jpg\n")
    arguments = ["--map", localizer.store.path, "--images", tmp_path, "--list", tmp_path / "list.txt"]
    assert main(["localize", *map(str, arguments), "--camera", str(tmp_path / "cameras.txt"), *options]) == 2
    assert message in capsys.readouterr().err
