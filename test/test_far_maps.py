# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Maps far from the origin of their frame, as in UTM coordinates, are as accurate as maps near it."""

import json
import re
import sqlite3
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from keyframe_samples import UTM, moved_keyframe, moved_map, random_keyframe
from synthetic import CAMERA, QUERIES, opencv_pixels, small_room

from nre_ros.cli import main
from nre_ros.errors import ImageError, MapFormatError
from nre_ros.evaluation.metrics.trajectory import trajectory_errors, umeyama
from nre_ros.gallery import camera_pose
from nre_ros.gate.motion import BodyPose, MotionModel, OdometryReading, difference, predict
from nre_ros.geometry import interpolate_poses, invert, pose_error, position_quaternion
from nre_ros.keyframes.building.culling import VIDEO, KeyframeCuller
from nre_ros.keyframes.building.keyframe_message import MessagePoints
from nre_ros.keyframes.retrieval.pose_prior import PosePrior, viewpoints_of
from nre_ros.keyframes.storage import schema
from nre_ros.keyframes.storage import store as store_module
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.tools.export import export_colmap, export_ply, export_tum
from nre_ros.keyframes.tools.info import describe_map
from nre_ros.keyframes.tools.merge import merge_maps
from nre_ros.keyframes.tools.prune import write_pruned_map
from nre_ros.keyframes.tools.verify import salvage_map, verify_map
from nre_ros.keyframes.types import stack_keyframes
from nre_ros.localization.localizer import Localizer
from nre_ros.pictures.map_view import sample_map, write_map_html

SMALL = dict(points=20, background=8, dimensions=60)
ORIGIN = [500_000.0, 5_400_000.0, 0.0]
METRES, DEGREES = 1e-4, 1e-3
"""Largest difference between the errors of a map far from the origin and of the same map at the origin."""


def at(*position):
    T = np.eye(4)
    T[:3, 3] = position
    return T


def small(name, seed=0, T=UTM):
    return moved_keyframe(random_keyframe(name, seed, **SMALL), T)


def write(path, *keyframes, **options):
    with KeyframeStore.create(path, "place", "0" * 64, retrieval="none", **options) as store:
        for keyframe in keyframes:
            store.add(keyframe)
    return path


def read(path):
    with KeyframeStore.open(path) as store:
        return {name: store.get(i) for name, i in store.names().items()}, store.origin.tolist()


def version(path):
    db = sqlite3.connect(path)
    found = db.execute("PRAGMA user_version").fetchone()[0]
    db.close()
    return found


def assert_equal(found, keyframe):
    """Within the rounding of single precision about the map's origin, a kilometre away at most."""
    np.testing.assert_allclose(found.T_map_cam, keyframe.T_map_cam, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.points, keyframe.points, rtol=0, atol=5e-5)
    assert found.name == keyframe.name


# --- localization -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def room():
    return small_room()


@pytest.fixture(scope="module")
def near(room, tmp_path_factory):
    path = tmp_path_factory.mktemp("near") / "near.db"
    with KeyframeStore.create(path, room.backbone.name, room.backbone.weights_hash) as store:
        for keyframe in room.keyframes:
            store.add(keyframe)
    return path


@pytest.fixture(scope="module")
def far(near):
    return moved_map(near, near.with_name("far.db"))


@pytest.fixture(scope="module")
def results(room, near, far):
    """(result near the origin, result in UTM, true pose near the origin) of each query."""
    with Localizer(near, "cpu") as a, Localizer(far, "cpu") as b:
        images = [room.view(*place) for place in QUERIES]
        return [(a.localize(image, CAMERA), b.localize(image, CAMERA), truth) for image, truth in images]


def test_poses_in_utm_are_as_accurate_as_at_the_origin(results):
    for near, far, truth in results:
        near_error, far_error = pose_error(near.T_map_cam, truth), pose_error(far.T_map_cam, UTM @ truth)
        assert abs(near_error[0] - far_error[0]) < METRES
        assert np.degrees(abs(near_error[1] - far_error[1])) < DEGREES
        metres, radians = pose_error(invert(UTM) @ far.T_map_cam, near.T_map_cam)
        assert metres < METRES and np.degrees(radians) < DEGREES
        assert far.confidence == pytest.approx(near.confidence, abs=1e-3) and far.keyframes == near.keyframes


def test_covariances_and_points_are_those_of_the_users_frame(results):
    axes = np.kron(np.eye(2), UTM[:3, :3])
    for near, far, _ in results:
        np.testing.assert_allclose(
            far.covariance, axes @ near.covariance @ axes.T, rtol=0.01, atol=0.01 * np.abs(near.covariance).max()
        )
        pixels = opencv_pixels(far.points - UTM[:3, 3], invert(far.T_map_cam) @ at(*UTM[:3, 3]))
        np.testing.assert_allclose(far.pixels, pixels, atol=1e-4)


def test_a_prior_is_in_the_users_frame(room, far, results):
    image, truth = room.view(*QUERIES[0])
    with Localizer(far, "cpu") as localizer:
        started = {}
        query = localizer.retriever._index.shortlist
        localizer.retriever._index.shortlist = lambda *a: started.setdefault("found", query(*a))
        prior = PosePrior(UTM @ truth, np.diag([0.01] * 3 + [0.001] * 3))
        found = localizer.localize(image, CAMERA, prior)
    metres, radians = pose_error(found.T_map_cam, results[0][1].T_map_cam)
    assert metres < 1e-3 and np.degrees(radians) < 1e-2
    weights = PosePrior(truth, prior.covariance).log_weights(
        viewpoints_of(np.stack([keyframe.T_map_cam for keyframe in room.keyframes])), 3.0
    )
    shortlist = started["found"]
    np.testing.assert_array_equal(np.argsort(shortlist.prior_weights), np.argsort(weights))


@pytest.mark.parametrize("metres", [5_000.0, 20_000.0])
def test_a_map_of_an_older_version_far_from_the_origin_is_localized_in(
    room, near, results, tmp_path, metres, monkeypatch
):
    """It has single precision about the origin of its frame, which rounds to a millimetre at 20 km."""
    T = at(metres, 0, 0)
    path = moved_map_of_older_version(near, tmp_path / "old.db", T, monkeypatch)
    with Localizer(path, "cpu") as localizer:
        assert version(path) == 2 and not localizer.store.origin.any()
        for (result, _, truth), place in zip(results, QUERIES):
            found = localizer.localize(room.view(*place)[0], CAMERA)
            assert abs(pose_error(found.T_map_cam, T @ truth)[0] - pose_error(result.T_map_cam, truth)[0]) < 2e-3


def moved_map_of_older_version(source, path, T, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "choose_origin", lambda position: np.zeros(3))
        patch.setattr("nre_ros.keyframes.storage.rows.PACKED", "|i1")
        patch.setattr(KeyframeStore, "_mark_packed", lambda store: None)
        patch.setattr(
            "nre_ros.keyframes.storage.map_origin.compact_points", lambda points: np.asarray(points, np.float32)
        )
        return moved_map(source, path, T)


def test_the_published_call_works_in_utm(room):
    from nre_ros.nre import NREEstimator
    from nre_ros.nre.pairwise import localize_pair

    keyframe, (image, truth) = room.keyframes[0], room.view(*QUERIES[0])
    source = room.view(-0.3, 0.2, 1.4, 0.0)[0]
    found = []
    for T in (np.eye(4), UTM):
        points, pose = moved_keyframe(keyframe, T).points, T @ keyframe.T_map_cam
        K, distortion = CAMERA.K, np.array(CAMERA.distortion)
        found.append(
            localize_pair(
                NREEstimator(room.backbone), source, image, points, invert(pose), K, distortion, K, distortion,
                invert(T @ truth),
            )
        )  # fmt: skip
    near, far = found
    assert far["gt_cost"] == pytest.approx(near["gt_cost"], rel=1e-3)
    poses = [output["estimate"].T_cam_map.numpy() for output in found]
    metres, radians = pose_error(invert(UTM) @ invert(poses[1]), invert(poses[0]))
    assert metres < METRES and np.degrees(radians) < DEGREES
    np.testing.assert_allclose(far["fine_irls"]["pose"]["t"], poses[1][:3, 3])


def test_a_baseline_localizes_in_utm(room):
    poselib = pytest.importorskip("poselib", reason="needs PoseLib")
    from nre_ros.evaluation.baselines.localizer import BaselineLocalizer

    rng = np.random.default_rng(0)
    truth = camera_pose([0.1, 0.2, 1.3], 0.1)
    local = rng.uniform([-0.5, -0.4, 2], [0.5, 0.4, 4], (60, 3))
    pixels = CAMERA.project(torch.from_numpy(local))[0].numpy()
    localizer = BaselineLocalizer.__new__(BaselineLocalizer)
    localizer._poselib, localizer._seed = poselib, 0
    for T in (np.eye(4), UTM):
        points = local @ (T @ truth)[:3, :3].T + (T @ truth)[:3, 3]
        found, inliers = localizer._estimate_pose(pixels, points, CAMERA)
        metres, radians = pose_error(found, T @ truth)
        assert inliers == 60 and metres < 1e-5 and np.degrees(radians) < 1e-4


# --- the map file -----------------------------------------------------------------------------------


def test_a_map_near_the_origin_is_stored_as_before(tmp_path):
    keyframe = random_keyframe("a", 0, **SMALL)
    found, origin = read(path := write(tmp_path / "near.db", keyframe))
    assert version(path) == schema.PACKED_VERSION and origin == [0, 0, 0]
    assert found["a"].points.dtype == np.float32
    np.testing.assert_array_equal(found["a"].points, keyframe.points)
    with KeyframeStore.open(path) as store:
        assert json.loads(store.metadata()["origin"]) == [0, 0, 0]
        assert store.database.row("points", "keyframe_id", 1)[1][:4] == b"<f4 "


def test_the_first_keyframe_decides_on_the_origin(tmp_path):
    keyframes = [small("a"), small("b", 1), random_keyframe("c", 2, **SMALL)]
    found, origin = read(path := write(tmp_path / "far.db", *keyframes))
    assert origin == ORIGIN and version(path) == schema.PACKED_VERSION
    for keyframe in keyframes[:2]:
        assert_equal(found[keyframe.name], keyframe)
    # a keyframe far from the origin keeps its precision, too
    np.testing.assert_allclose(found["c"].points, keyframes[2].points, rtol=0, atol=1e-8)
    with KeyframeStore.open(path) as store:
        assert json.loads(store.metadata()["origin"]) == ORIGIN
        tags = [store.database.row("points", "keyframe_id", i)[1][:4] for i in (1, 2, 3)]
        assert tags == [b"<f4 ", b"<f4 ", b"<f8 "]
        assert_equal(store.load([1])[0], keyframes[0])
        _, poses, _ = store.global_descriptors()
    np.testing.assert_allclose(poses, [keyframe.T_map_cam for keyframe in keyframes], rtol=0, atol=1e-9)


def test_placeholders_at_the_origin_cost_the_others_no_precision(tmp_path):
    """Images without a position come with zeros from some programs, and may come first."""
    found, origin = read(path := write(tmp_path / "m.db", random_keyframe("none", 0, **SMALL), small("a")))
    assert origin == [0, 0, 0] and version(path) == schema.PACKED_VERSION
    np.testing.assert_allclose(found["a"].points, small("a").points, rtol=0, atol=1e-8)


def test_an_older_program_refuses_a_map_with_an_origin(tmp_path, monkeypatch):
    path = write(tmp_path / "far.db", small("a"))
    monkeypatch.setattr(schema, "SCHEMA_VERSION", 2)
    with pytest.raises(MapFormatError, match="has format version 4, this nre_ros reads up to 2"):
        KeyframeStore.open(path)


def test_a_reader_follows_a_map_that_begins_far_away(tmp_path):
    path = write(tmp_path / "grown.db")
    with KeyframeStore.open(path) as reader, KeyframeStore.open(path, readonly=False) as writer:
        assert not reader.origin.any() and version(path) == 2
        with pytest.raises(RuntimeError), writer.batch():
            writer.add(small("taken back"))
            assert writer.origin.tolist() == ORIGIN
            raise RuntimeError
        assert not writer.origin.any() and not reader.origin.any()
        writer.add(small("a"))
        assert writer.origin.tolist() == reader.origin.tolist() == ORIGIN
        assert_equal(reader.load([1])[0], small("a"))


def test_keyframes_move_and_change_in_the_users_frame(tmp_path):
    path = write(tmp_path / "far.db", small("a"), small("b", 1))
    with KeyframeStore.open(path, readonly=False) as store:
        moved = moved_keyframe(random_keyframe("a", 0, **SMALL), UTM @ camera_pose([0.5, -1.0, 0.2], 0.3))
        store.update_pose(1, moved.T_map_cam)
        assert_equal(store.get(1), moved)
        store.update_pose(2, moved.T_map_cam, moved.points)
        assert_equal(store.get(2), replace(moved, name="b"))
        store.replace(2, small("c", 3))
        assert_equal(store.get(2), small("c", 3))


# --- the map tools ----------------------------------------------------------------------------------


def test_copies_have_the_same_origin_and_the_same_bytes(tmp_path):
    path = write(tmp_path / "far.db", *(small(f"k{i}", i) for i in range(4)))
    with KeyframeStore.open(path) as store:
        store.save_copy(tmp_path / "copy.db")
        write_pruned_map(store, [1, 3], tmp_path / "pruned.db")
        rows = {name: store.database.row("points", "keyframe_id", i)[1:] for name, i in store.names().items()}
    salvage_map(verify_map(path, progress=False), tmp_path / "repaired.db", progress=False)
    for name, kept in (("copy", "0123"), ("pruned", "13"), ("repaired", "0123")):
        copy = tmp_path / f"{name}.db"
        found, origin = read(copy)
        assert origin == ORIGIN and version(copy) == 4 and sorted(found) == [f"k{i}" for i in kept]
        with KeyframeStore.open(copy) as store:
            for keyframe_name, i in store.names().items():
                assert store.database.row("points", "keyframe_id", i)[1:] == rows[keyframe_name]


def test_maps_with_different_origins_are_merged(tmp_path):
    far = write(tmp_path / "far.db", small("a"), small("b", 1))
    other = at(3_000, -2_000, 0) @ UTM
    farther = write(tmp_path / "farther.db", small("c", 2, other), small("b", 1))
    close = write(tmp_path / "close.db", random_keyframe("d", 4, **SMALL))
    report = merge_maps([far, farther, close], tmp_path / "all.db", progress=False)
    assert (report.keyframes, report.same, report.clashes) == (4, 1, ())
    found, origin = read(report.path)
    assert origin == ORIGIN and read(farther)[1] == [503_000.0, 5_398_000.0, 0.0]
    for keyframe in (small("a"), small("b", 1), small("c", 2, other)):
        assert_equal(found[keyframe.name], keyframe)
    assert_equal(found["d"], random_keyframe("d", 4, **SMALL))
    assert verify_map(report.path, progress=False).good
    again = merge_maps([close, far], tmp_path / "again.db", progress=False)
    assert_equal(read(again.path)[0]["b"], small("b", 1))


def test_exports_are_in_the_users_frame(tmp_path):
    keyframe = small("a")
    with KeyframeStore.open(write(tmp_path / "far.db", keyframe)) as store:
        export_ply(store, tmp_path / "p.ply", progress=False)
        export_tum(store, tmp_path / "t.txt")
        export_colmap(store, tmp_path / "model", progress=False)
    header, _, body = (tmp_path / "p.ply").read_bytes().partition(b"end_header\n")
    assert b"property double x" in header
    np.testing.assert_allclose(np.frombuffer(body, "<f8").reshape(-1, 3), keyframe.points, rtol=0, atol=5e-5)
    numbers = [float(word) for word in (tmp_path / "t.txt").read_text().splitlines()[1].split()]
    np.testing.assert_allclose(numbers[1:4], keyframe.T_map_cam[:3, 3], rtol=0, atol=1e-9)
    words = (tmp_path / "model/images.txt").read_text().splitlines()[1].split()
    from nre_ros.keyframes.importers.pose_checks import pose_from_wxyz

    T = invert(pose_from_wxyz(list(map(float, words[1:5])), list(map(float, words[5:8]))))
    np.testing.assert_allclose(T, keyframe.T_map_cam, rtol=0, atol=1e-8)
    for line in (tmp_path / "model/points3D.txt").read_text().splitlines()[1:]:
        xyz = np.array(line.split()[1:4], dtype=float)
        assert np.abs(keyframe.points - xyz).max(axis=1).min() < 5e-5


def test_info_reports_the_origin(tmp_path, capsys):
    path = write(tmp_path / "far.db", small("a"))
    with KeyframeStore.open(path) as store:
        info = describe_map(store)
    assert info.origin.tolist() == ORIGIN and info.schema_version == 4
    np.testing.assert_allclose(info.positions[0], small("a").T_map_cam[:3, 3], rtol=0, atol=1e-9)
    assert main(["map", "info", str(path)]) == 0
    assert "500000 5400000 0" in capsys.readouterr().out
    assert main(["map", "info", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["origin"] == ORIGIN


@pytest.mark.parametrize(
    "statement, named",
    [
        ("DELETE FROM metadata WHERE key = 'origin'", "origin: metadata has no row origin"),
        ("UPDATE metadata SET value = '[500000.0, 0.0, 0.0]' WHERE key = 'origin'", "checksum of metadata origin"),
    ],
)
def test_a_damaged_origin_is_reported_and_nothing_is_misread(tmp_path, statement, named):
    path = write(tmp_path / "far.db", small("a"))
    db = sqlite3.connect(path)
    db.execute(statement)
    db.commit()
    db.close()
    check = verify_map(path, progress=False)
    assert not check.good and check.intact == [] and any(named in problem for problem in check.problems)
    with pytest.raises(MapFormatError, match="origin"):
        KeyframeStore(store_module.MapDatabase(path, True)).load([1])


def test_verify_reports_points_that_an_older_version_has_rounded(tmp_path, monkeypatch, capsys):
    source = write(tmp_path / "near.db", random_keyframe("a", 0, **SMALL), random_keyframe("b", 1, **SMALL))
    path = moved_map_of_older_version(source, tmp_path / "old.db", UTM, monkeypatch)
    check = verify_map(path, progress=False)
    (problem,) = check.problems
    assert problem.startswith("points of 2 keyframes are rounded to 0.5 m") and "build the map again" in problem
    assert check.intact == [1, 2]
    assert main(["map", "verify", str(path)]) == 1 and "rounded to 0.5 m" in capsys.readouterr().out
    assert verify_map(moved_map(source, tmp_path / "new.db"), progress=False).good
    assert verify_map(moved_map(source, tmp_path / "ten.db", at(10_000, 0, 0)), progress=False).good


def test_a_page_of_a_far_map_is_drawn_about_the_scene(tmp_path):
    """Browsers draw in single precision."""
    pytest.importorskip("plotly", reason="needs plotly")
    with KeyframeStore.open(write(tmp_path / "far.db", small("a"), small("b", 1))) as store:
        sample = sample_map(store)
        np.testing.assert_allclose(sample.points[:20], small("a").points, rtol=0, atol=5e-5)
        write_map_html(tmp_path / "map.html", store, sample)
    page = (tmp_path / "map.html").read_text()
    assert re.search(r"x - (50000|49999)\d\b", page) and re.search(r"y - (540000|539999)\d\b", page)


# --- import -----------------------------------------------------------------------------------------


def test_near_duplicates_are_found_in_utm():
    rng = np.random.default_rng(0)
    points = rng.uniform([-0.8, -0.6, 2.5], [0.8, 0.6, 4], (200, 3))
    for T in (np.eye(4), UTM):
        culler = KeyframeCuller(VIDEO)
        culler.add("a", T, points @ T[:3, :3].T + T[:3, 3])
        assert culler.find_duplicate(T @ at(0.01, 0, 0), CAMERA) == "a"
        assert culler.find_duplicate(T @ at(0.4, 0, 0), CAMERA) is None


def test_a_message_whose_points_are_rounded_is_refused():
    message = SimpleNamespace(points=np.float32([431_000, 5_411_000, 210]), pixels=[1.0, 2.0], point_ids=[])
    with pytest.raises(ImageError, match="5411 km from the origin.*rounds to 0.5 m"):
        MessagePoints.from_message(message)
    message.points = np.float32([10_000, 5_000, 210])
    assert len(MessagePoints.from_message(message).points) == 1


def test_stacks_of_far_keyframes_are_in_double_precision():
    stack = stack_keyframes([small("a")])
    np.testing.assert_allclose(stack.points.numpy(), small("a").points, rtol=0, atol=1e-9)
    near = stack_keyframes([random_keyframe("a", 0, **SMALL)])
    turned = near.directions.double().numpy() @ UTM[:3, :3].T
    np.testing.assert_allclose(stack.directions.numpy(), turned, atol=1e-7)


# --- what is computed from poses --------------------------------------------------------------------


def trajectory(seed=0, count=50):
    rng = np.random.default_rng(seed)
    true = np.stack([camera_pose([np.cos(a) * 3, np.sin(a) * 2, 0.1 * a], a) for a in np.linspace(0, 5, count)])
    estimated = np.stack([T @ camera_pose(rng.normal(0, 0.02, 3), 0.0) for T in true])
    return true, estimated


def test_trajectory_errors_are_those_near_the_origin():
    true, estimated = trajectory()
    near, far = trajectory_errors(estimated, true), trajectory_errors(UTM @ estimated, UTM @ true)
    for key in ("ape", "ape_aligned", "rpe"):
        for unit in ("position_m", "rotation_deg"):
            assert far[key][unit] == pytest.approx(near[key][unit], abs=1e-6)


@pytest.mark.parametrize("with_scale", [False, True])
def test_the_alignment_of_a_far_trajectory_fits(with_scale):
    true, _ = trajectory()
    near = true[:, :3, 3]
    far = near @ UTM[:3, :3].T + UTM[:3, 3]
    for source, target in ((near, far), (far, near)):
        alignment = umeyama(source, target, with_scale)
        poses = np.tile(np.eye(4), (len(source), 1, 1))
        poses[:, :3, 3] = source
        np.testing.assert_allclose(alignment.apply(poses)[:, :3, 3], target, rtol=0, atol=1e-6)
        assert alignment.scale == pytest.approx(1.0, abs=1e-8)


def test_odometry_predicts_in_utm_as_near_the_origin():
    start, moved, measured = (
        camera_pose([1, 2, 0], 0.2),
        camera_pose([1.4, 2.1, 0], 0.3),
        camera_pose([1.42, 2.1, 0], 0.3),
    )
    covariance, found = np.diag([0.01, 0.02, 0.03, 0.001, 0.002, 0.003]) ** 2, []
    readings = OdometryReading(start, 0, 0.0, 0.0), OdometryReading(moved, 0, 0.5, 0.1)
    for T in (np.eye(4), UTM):
        axes = np.kron(np.eye(2), T[:3, :3])
        turned = axes @ covariance @ axes.T
        prediction = predict(BodyPose(0, T @ start, turned, readings[0]), 10**9, readings[1], MotionModel())
        found.append(difference(prediction, T @ measured, turned))
    assert found[1].metres == pytest.approx(found[0].metres, abs=1e-7)
    assert found[1].mahalanobis == pytest.approx(found[0].mahalanobis, rel=1e-5)
    assert found[1].radians == pytest.approx(found[0].radians, abs=1e-7)


def test_poses_are_interpolated_in_utm():
    poses = [
        np.concatenate(position_quaternion(UTM @ T)) for T in (camera_pose([0, 0, 0], 0.1), camera_pose([1, 0, 0], 0.3))
    ]
    middle = interpolate_poses(poses[0][None], poses[1][None], np.array([0.5]))[0]
    np.testing.assert_allclose(middle[:3], (UTM @ camera_pose([0.5, 0, 0], 0.2))[:3, 3], rtol=0, atol=1e-8)
