# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The baselines of the evaluation on rendered views whose geometry is known exactly."""

import json

import cv2
import numpy as np
import pytest
import torch
from evaluation_samples import write_list, write_map
from synthetic import CAMERA, small_room

from nre_ros.cli import build_parser, main
from nre_ros.errors import EvaluationError
from nre_ros.evaluation.baselines import BASELINES, make_baseline
from nre_ros.evaluation.baselines.base import BaselineUnavailable
from nre_ros.evaluation.baselines.localizer import BaselineLocalizer
from nre_ros.evaluation.baselines.map_images import MapImages
from nre_ros.gallery import camera_pose
from nre_ros.geometry import pose_error
from nre_ros.keyframes.storage.store import KeyframeStore

VIEWS = ((-0.3, 0.2, 0.0), (0.0, -0.6, 0.25), (0.4, 0.6, -0.25), (0.0, 0.0, -0.5))
"""The keyframes of ``small_room``."""


def render(k):
    x, y, yaw = VIEWS[k]
    return small_room().gallery.render(CAMERA, camera_pose([x, y, 1.4], yaw))


def lifted(rendering, pixels):
    """Exact points [N, 3] in the map from the rendered depth."""
    x, y = np.rint(pixels).astype(int).T
    z = rendering.depth[y.clip(0, CAMERA.height - 1), x.clip(0, CAMERA.width - 1)]
    rays = cv2.undistortPoints(pixels[:, None], CAMERA.K, np.array(CAMERA.distortion))[:, 0]
    return np.c_[rays, np.ones(len(rays))] * z[:, None] @ rendering.T_map_cam[:3, :3].T + rendering.T_map_cam[:3, 3]


@pytest.fixture(params=sorted(BASELINES))
def baseline(request):
    try:
        return make_baseline(request.param, "cpu")
    except BaselineUnavailable as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """room.db, list/ with queries, and images/ and depth/ of the map's keyframes."""
    folder = tmp_path_factory.mktemp("baselines")
    write_map(folder / "room.db")
    write_list(folder / "list")
    for kind in ("images", "depth"):
        (folder / kind).mkdir()
    for k in range(len(VIEWS)):
        seen = render(k)
        cv2.imwrite(str(folder / f"images/view-{k}.png"), seen.image)
        (folder / f"images/view-{k}.png").rename(folder / f"images/view-{k}")  # the keyframes' names have no ending
        cv2.imwrite(str(folder / f"depth/view-{k}.png"), np.round(1000 * seen.depth).astype(np.uint16))
    return folder


def test_many_matches_agree_with_the_exact_geometry(baseline):
    """Many matches lie within 3 pixels of the exact projection; of random matches only 1 in 1000 does."""
    views = [render(0), small_room().gallery.render(CAMERA, camera_pose([0.1, 0.1, 1.3], 0.1, 0.05))]
    a, b = (baseline.describe(view.image) for view in views)
    pairs = baseline.match(a, b)
    points = lifted(views[0], a.pixels[pairs[:, 0]])
    T = np.linalg.inv(views[1].T_map_cam)
    pixels, _, _ = CAMERA.project(torch.from_numpy(points @ T[:3, :3].T + T[:3, 3]))
    errors = np.linalg.norm(pixels.numpy() - b.pixels[pairs[:, 1]], axis=1)
    assert (errors < 3).sum() >= 60 and (errors < 3).mean() > 0.4


@pytest.mark.parametrize("with_depth", [True, False])
def test_keypoints_of_map_images_are_lifted_to_their_points(folder, with_depth):
    baseline = make_baseline("sift", "cpu")
    with KeyframeStore.open(folder / "room.db") as store:
        images = MapImages(store, folder / "images", folder / "depth" if with_depth else None)
    keypoints = baseline.describe(images.image("view-0"))
    points, known = images.lifter(baseline)("view-0", keypoints)
    assert known.sum() > (100 if with_depth else 30)
    errors = np.linalg.norm(points[known] - lifted(render(0), keypoints.pixels[known]), axis=1)
    assert np.median(errors) < 0.03


def test_a_baseline_with_poselib_finds_the_pose(folder):
    pytest.importorskip("poselib")
    baseline = make_baseline("sift", "cpu")
    with KeyframeStore.open(folder / "room.db") as store:
        images = MapImages(store, folder / "images", folder / "depth")
    localizer = BaselineLocalizer(baseline, images.image, images.lifter(baseline), seed=0)
    image, T = small_room().view(0.1, 0.1, 1.3, 0.1, 0.05)
    found = localizer.localize(image, CAMERA, ["view-0", "view-3"])
    metres, radians = pose_error(found.T_map_cam, T)
    assert metres < 0.02 and np.degrees(radians) < 0.5 and found.inliers >= 50
    assert list(found.milliseconds) == ["features", "matching", "pose"]
    again = localizer.localize(image, CAMERA, ["view-0", "view-3"])
    assert np.array_equal(again.T_map_cam, found.T_map_cam)
    nothing = localizer.localize(np.zeros_like(image), CAMERA, ["view-0"])
    assert nothing.T_map_cam is None and nothing.inliers == 0


def test_grey_images_are_localized_and_black_images_have_no_pose(folder, baseline):
    pytest.importorskip("poselib")
    view = render(0)
    localizer = BaselineLocalizer(
        baseline,
        lambda name: view.image,
        lambda name, found: (lifted(view, found.pixels), np.ones(len(found.pixels), dtype=bool)),
        seed=0,
    )
    grey = cv2.cvtColor(view.image, cv2.COLOR_BGR2GRAY)
    assert pose_error(localizer.localize(grey, CAMERA, ["view-0"]).T_map_cam, view.T_map_cam)[0] < 0.05
    assert localizer.localize(np.zeros_like(grey), CAMERA, ["view-0"]).T_map_cam is None


def test_baselines_are_reported_beside_this_project(folder, tmp_path, capsys, monkeypatch):
    pytest.importorskip("poselib")
    images = folder / "list"
    arguments = [
        *map(
            str,
            (
                "evaluate",
                "--map",
                folder / "room.db",
                "--images",
                images,
                "--list",
                images / "list.txt",
                "--camera",
                images / "cameras.txt",
                "--ground-truth",
                images / "truth.txt",
                "-o",
                tmp_path,
                "--worst",
                0,
                "--baselines",
                "sift",
            ),
        )
    ]
    assert main([*arguments, "--map-images", str(folder / "images"), "--map-depth", str(folder / "depth")]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())["baselines"]["SIFT + ratio test"]
    for name in ("summary.json", "outcomes.csv", "poses.tum"):
        (tmp_path / name).unlink()
    with monkeypatch.context() as patched:  # an error of a baseline does not cost this project's figures
        patched.setattr(BaselineLocalizer, "__init__", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main([*arguments, "--map-images", str(folder / "images"), "--map-depth", str(folder / "depth")])
    assert "baselines" not in json.loads((tmp_path / "summary.json").read_text())
    assert (tmp_path / "outcomes.csv").exists() and (tmp_path / "poses.tum").exists()
    assert summary["shares"]["accepted"] >= 4 and summary["position_error_m"]["median"] < 0.02
    assert set(summary["latency_ms"]) == {"features", "matching", "pose", "total"} and summary["covariance"] is None
    assert summary["confidence"] is None  # SIFT reports none
    assert "SIFT + ratio test" in (tmp_path / "report.html").read_text()
    capsys.readouterr()
    arguments[arguments.index("-o") + 1] = str(tmp_path / "other")
    assert main([*arguments, "--map-images", str(images)]) == 2
    error = capsys.readouterr().err
    assert "contains no image view-0, a keyframe of map" in error and not (tmp_path / "other").exists()


def test_missing_map_images_are_refused(folder, capsys):
    with (
        KeyframeStore.open(folder / "room.db") as store,
        pytest.raises(EvaluationError, match="contains no image view-0"),
    ):
        MapImages(store, folder / "list")
    with pytest.raises(SystemExit):
        main(["evaluate", "--map", "m.db", "--bag", str(folder), "-o", "x", "--baselines"])


def test_peers_is_a_deprecated_name_of_the_option_baselines(capsys):
    """Both options give the same value; the old name also prints a warning."""
    common = ["evaluate", "--map", "m.db", "--bag", "bag", "-o", "x"]
    parser = build_parser()
    assert parser.parse_args([*common, "--baselines", "sift"]).baselines == "sift"
    assert parser.parse_args([*common, "--baselines"]).baselines == "all"
    assert parser.parse_args(common).baselines == ""
    assert capsys.readouterr().err == ""
    assert parser.parse_args([*common, "--peers", "sift"]).baselines == "sift"
    assert parser.parse_args([*common, "--peers"]).baselines == "all"
    assert capsys.readouterr().err.count("warning: --peers is deprecated and will be removed: use --baselines") == 2
