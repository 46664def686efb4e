# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The peers of the evaluation on rendered views whose geometry is known exactly."""

import json

import cv2
import numpy as np
import pytest
import torch
from evaluation_samples import write_list, write_map
from synthetic import CAMERA, small_room

from nre_ros.cli import main
from nre_ros.errors import EvaluationError
from nre_ros.evaluation.baselines import PEERS, make_peer
from nre_ros.evaluation.baselines.keyframes import MapImages
from nre_ros.evaluation.baselines.keypoints import PeerMissing
from nre_ros.evaluation.baselines.localizer import PeerLocalizer
from nre_ros.gallery import camera_pose
from nre_ros.geometry import pose_error
from nre_ros.keyframes.storage.store import KeyframeStore

VIEWS = ((-0.3, 0.2, 0.0), (0.0, -0.6, 0.25), (0.4, 0.6, -0.25), (0.0, 0.0, -0.5))
"""As ``small_room`` has its keyframes."""


def render(k):
    x, y, yaw = VIEWS[k]
    return small_room().gallery.render(CAMERA, camera_pose([x, y, 1.4], yaw))


def lifted(rendering, pixels):
    """Exact points [N, 3] in the map by the rendered depth."""
    x, y = np.rint(pixels).astype(int).T
    z = rendering.depth[y.clip(0, CAMERA.height - 1), x.clip(0, CAMERA.width - 1)]
    rays = cv2.undistortPoints(pixels[:, None], CAMERA.K, np.array(CAMERA.distortion))[:, 0]
    return np.c_[rays, np.ones(len(rays))] * z[:, None] @ rendering.T_map_cam[:3, :3].T + rendering.T_map_cam[:3, 3]


@pytest.fixture(params=sorted(PEERS))
def peer(request):
    try:
        return make_peer(request.param, "cpu")
    except PeerMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """room.db, list/ with queries, and images/ and depth/ of the map's keyframes."""
    folder = tmp_path_factory.mktemp("peers")
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


def test_matches_are_of_the_same_places(peer):
    """Many matches between two views lie within 3 pixels of where the exact geometry puts them; by chance 1 in 1000."""
    views = [render(0), small_room().gallery.render(CAMERA, camera_pose([0.1, 0.1, 1.3], 0.1, 0.05))]
    a, b = (peer.describe(view.image) for view in views)
    pairs = peer.match(a, b)
    points = lifted(views[0], a.pixels[pairs[:, 0]])
    T = np.linalg.inv(views[1].T_map_cam)
    pixels, _, _ = CAMERA.project(torch.from_numpy(points @ T[:3, :3].T + T[:3, 3]))
    errors = np.linalg.norm(pixels.numpy() - b.pixels[pairs[:, 1]], axis=1)
    assert (errors < 3).sum() >= 60 and (errors < 3).mean() > 0.4


@pytest.mark.parametrize("with_depth", [True, False])
def test_keypoints_of_the_maps_images_are_lifted_to_where_they_are(folder, with_depth):
    peer = make_peer("sift", "cpu")
    with KeyframeStore.open(folder / "room.db") as store:
        images = MapImages(store, folder / "images", folder / "depth" if with_depth else None)
    keypoints = peer.describe(images.image("view-0"))
    points, known = images.lifter(peer)("view-0", keypoints)
    assert known.sum() > (100 if with_depth else 30)
    errors = np.linalg.norm(points[known] - lifted(render(0), keypoints.pixels[known]), axis=1)
    assert np.median(errors) < 0.03


def test_poselib_finds_the_pose(folder):
    pytest.importorskip("poselib")
    peer = make_peer("sift", "cpu")
    with KeyframeStore.open(folder / "room.db") as store:
        images = MapImages(store, folder / "images", folder / "depth")
    localizer = PeerLocalizer(peer, images.image, images.lifter(peer), seed=0)
    image, T = small_room().view(0.1, 0.1, 1.3, 0.1, 0.05)
    found = localizer.localize(image, CAMERA, ["view-0", "view-3"])
    metres, radians = pose_error(found.T_map_cam, T)
    assert metres < 0.02 and np.degrees(radians) < 0.5 and found.inliers >= 50
    assert list(found.milliseconds) == ["features", "matching", "pose"]
    again = localizer.localize(image, CAMERA, ["view-0", "view-3"])
    assert np.array_equal(again.T_map_cam, found.T_map_cam)
    nothing = localizer.localize(np.zeros_like(image), CAMERA, ["view-0"])
    assert nothing.T_map_cam is None and nothing.inliers == 0


def test_grey_and_black_images_are_no_trouble(folder, peer):
    pytest.importorskip("poselib")
    view = render(0)
    localizer = PeerLocalizer(
        peer,
        lambda name: view.image,
        lambda name, found: (lifted(view, found.pixels), np.ones(len(found.pixels), dtype=bool)),
        seed=0,
    )
    grey = cv2.cvtColor(view.image, cv2.COLOR_BGR2GRAY)
    assert pose_error(localizer.localize(grey, CAMERA, ["view-0"]).T_map_cam, view.T_map_cam)[0] < 0.05
    assert localizer.localize(np.zeros_like(grey), CAMERA, ["view-0"]).T_map_cam is None


def test_peers_stand_beside_ours_in_one_report(folder, tmp_path, capsys, monkeypatch):
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
                "--peers",
                "sift",
            ),
        )
    ]
    assert main([*arguments, "--map-images", str(folder / "images"), "--map-depth", str(folder / "depth")]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())["peers"]["SIFT + ratio test"]
    for name in ("summary.json", "outcomes.csv", "poses.tum"):
        (tmp_path / name).unlink()
    with monkeypatch.context() as patched:  # what a peer does wrong does not cost our figures
        patched.setattr(PeerLocalizer, "__init__", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main([*arguments, "--map-images", str(folder / "images"), "--map-depth", str(folder / "depth")])
    assert "peers" not in json.loads((tmp_path / "summary.json").read_text())
    assert (tmp_path / "outcomes.csv").exists() and (tmp_path / "poses.tum").exists()
    assert summary["shares"]["accepted"] >= 4 and summary["position_error_m"]["median"] < 0.02
    assert set(summary["latency_ms"]) == {"features", "matching", "pose", "total"} and summary["covariance"] is None
    assert summary["confidence"] is None  # it tells none
    assert "SIFT + ratio test" in (tmp_path / "report.html").read_text()
    capsys.readouterr()
    arguments[arguments.index("-o") + 1] = str(tmp_path / "other")
    assert main([*arguments, "--map-images", str(images)]) == 2
    error = capsys.readouterr().err
    assert "has no image view-0, a keyframe of map" in error and not (tmp_path / "other").exists()


def test_what_is_not_there_is_told(folder, capsys):
    with KeyframeStore.open(folder / "room.db") as store, pytest.raises(EvaluationError, match="has no image view-0"):
        MapImages(store, folder / "list")
    with pytest.raises(SystemExit):
        main(["evaluate", "--map", "m.db", "--bag", str(folder), "-o", "x", "--peers"])
