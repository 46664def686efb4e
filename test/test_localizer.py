"""The localizer on a small map with exact truth, maps that cannot be used, and the verdict."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from keyframe_samples import random_keyframe
from nre_ros.errors import FeatureMismatchError, ImageError, MapError, MapFormatError, NreError
from nre_ros.geometry import pose_error
from nre_ros.keyframes.store import KeyframeStore
from nre_ros.localization.localizer import Localizer
from nre_ros.localization.verdict import judge, support_confidence
from nre_ros.nre import Estimate
from synthetic import CAMERA, QUERIES, opencv_pixels, small_room


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


def test_the_same_image_gives_the_same_result(room, localizer, map_file):
    image, _ = room.view(*QUERIES[0])
    first, again = localizer.localize(image, CAMERA), localizer.localize(image, CAMERA)
    with Localizer(map_file, "cpu") as another:
        later = another.localize(image, CAMERA)
    for other in (again, later):
        np.testing.assert_array_equal(first.T_map_cam, other.T_map_cam)
        np.testing.assert_array_equal(first.covariance, other.covariance)


def test_json_holds_the_pose_as_position_and_quaternion(room, localizer):
    from scipy.spatial.transform import Rotation

    result = localizer.localize(room.view(*QUERIES[0])[0], CAMERA)
    line = result.to_json()
    np.testing.assert_allclose(line["position"], result.T_map_cam[:3, 3])
    np.testing.assert_allclose(Rotation.from_quat(line["quaternion"]).as_matrix(), result.T_map_cam[:3, :3], atol=1e-12)
    assert np.shape(line["covariance"]) == (6, 6) and line["seconds"] == pytest.approx(sum(line["milliseconds"].values()) / 1e3)


def test_an_image_of_nothing_has_a_reason_and_no_pose(localizer):
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    result = localizer.localize(noise, CAMERA)
    assert not result.success and result.reason and "\n" not in result.reason and result.confidence < 0.5
    line = result.to_json()
    assert line["position"] is line["quaternion"] is line["covariance"] is None and line["reason"] == result.reason


def test_asking_for_more_confidence_than_there_is_gives_the_reason(room, map_file):
    with Localizer(map_file, "cpu", min_confidence=1.0) as strict:
        result = strict.localize(room.view(*QUERIES[0])[0], CAMERA)
    assert not result.success and 0.9 < result.confidence < 1 and "below 1.00" in result.reason


def test_retrieve_bounds_the_keyframes(room, map_file):
    with Localizer(map_file, "cpu", retrieve=2) as two:
        result = two.localize(room.view(*QUERIES[0])[0], CAMERA)
    assert len(result.keyframes) == 2 and result.points_considered == 600


@pytest.mark.parametrize(
    "image, named",
    [
        (None, "NoneType"), (np.zeros((480, 640, 3), np.uint8), "640x480"), (np.zeros((240,), np.uint8), "240"),
        (np.zeros((240, 320, 3), np.float64), "float64"), (np.zeros((240, 320, 4), np.uint8), "4"),
        (np.zeros((0, 0, 3), np.uint8), "0x0"),
    ],
)
def test_what_is_no_image_of_this_camera_is_refused_by_name(localizer, image, named):
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


def test_a_map_of_something_else_gives_a_reason(room, tmp_path):
    """Keyframes of random numbers, without a thumbnail that is a picture."""
    strange = [random_keyframe(f"k{i}", i, thumbnail=b"") for i in range(5)]
    with Localizer(write_map(tmp_path / "strange.db", strange, room.backbone), "cpu") as localizer:
        localizer.warm_up()
        result = localizer.localize(room.view(*QUERIES[0])[0], CAMERA)
    assert not result.success and result.reason


def test_maps_of_other_features_are_refused(room, tmp_path):
    other = write_map(tmp_path / "other.db", room.keyframes, room.backbone, weights_hash="f" * 64)
    with pytest.raises(FeatureMismatchError, match="other.db"):
        Localizer(other, "cpu")


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


# --- the verdict ----------------------------------------------------------------------------------------


def test_confidence_rises_with_support_and_falls_with_chance():
    supports = [support_confidence(n, 10.0) for n in range(11, 2000)]
    chances = [support_confidence(100, c) for c in np.linspace(0, 99, 200)]
    assert (np.diff(supports) > 0).all() and (np.diff(chances) < 0).all()
    assert 0 < supports[0] < 0.01 and 0.99 < supports[-1] < 1


@pytest.mark.parametrize("support, chance", [(0, 0.0), (0, 5.0), (4, 5.0), (5, 5.0)])
def test_support_that_chance_explains_is_no_confidence(support, chance):
    assert support_confidence(support, chance) == 0.0


def estimate(support: int = 500, **changes) -> Estimate:
    losses = torch.cat([torch.zeros(support), torch.ones(100)])
    fields = dict(T_cam_map=torch.eye(4).double(), covariance=torch.eye(6).double(), losses=losses, chance_support=2.0)
    return Estimate(**{**fields, **changes})


def test_verdicts():
    assert judge(estimate(), 0.5).reason == ""
    few = judge(estimate(support=12), 0.5)
    assert "12 points" in few.reason and "2 would by chance" in few.reason and few.confidence < 0.5
    assert "covariance" in judge(estimate(covariance=None), 0.5).reason
    none = judge(Estimate(reason="nothing seen"), 0.0)
    assert none.reason == "nothing seen" and none.confidence == 0.0
