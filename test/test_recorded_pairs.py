# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Training pairs of recordings with depth, against pinhole geometry; recordings that cannot be used are refused."""

import os
import pickle
import re
import shutil
from functools import partial

import cv2
import numpy as np
import pytest
from recording_samples import CAMERA, POSES, pose, rgbd_folder, scene, true_places

from nre_ros.errors import ImageError, TrainingError
from nre_ros.geometry import pose_matrix, position_quaternion
from nre_ros.keyframes.importers.rgbd.folder import RgbdFolderSource
from nre_ros.keyframes.importers.rgbd.layouts import rgbd_folder_source
from nre_ros.learning.covisibility import PairSelection
from nre_ros.learning.pairs import TrainingPair, inside_image
from nre_ros.learning.recorded_pairs import DepthPairs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return rgbd_folder(tmp_path_factory.mktemp("recording") / "rgbd")


@pytest.fixture(scope="module")
def pairs(folder) -> DepthPairs:
    return DepthPairs(partial(rgbd_folder_source, folder), "sample", points=300, check=False)


@pytest.fixture
def changed(folder, tmp_path):
    """A copy to damage."""
    return shutil.copytree(folder, tmp_path / "copy")


def open_pairs(folder, **changes) -> DepthPairs:
    return DepthPairs(partial(rgbd_folder_source, folder), "sample", **{"check": False, **changes})


def views_of(pair: TrainingPair) -> list[int]:
    return [int(number) for number in re.findall(r"frame-(\d+)", pair.source)]


def same(a: TrainingPair, b: TrainingPair) -> bool:
    names = ("image_a", "image_b", "pixels_a", "pixels_b", "visible")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


def test_places_are_those_of_pinhole_geometry(pairs):
    gallery = scene()
    for index in range(6):
        pair = pairs.pair(0, index)
        first, second = views_of(pair)
        depth = gallery.render(CAMERA, POSES[first]).depth[
            pair.pixels_a[:, 1].astype(int), pair.pixels_a[:, 0].astype(int)
        ]
        expected = true_places(pair.pixels_a, depth, POSES[first], POSES[second])
        error = np.linalg.norm(pair.pixels_b - expected, axis=1)[pair.visible]
        assert np.median(error) < 0.01 and error.max() < 0.2  # depth in millimetres, smoothed beside the crease
        assert pair.visible.mean() > 0.15 and len(pair.visible) > 100


def test_points_that_are_not_visible_lie_outside_or_behind_something_nearer(pairs):
    gallery = scene()
    hidden = outside = 0
    for index in range(12):
        pair = pairs.pair(1, index)
        first, second = views_of(pair)
        a, b = (gallery.render(CAMERA, POSES[i]).depth for i in (first, second))
        pixels = pair.pixels_a[~pair.visible].astype(int)
        places, z = true_places(pixels, a[pixels[:, 1], pixels[:, 0]], POSES[first], POSES[second], with_depth=True)
        inside = inside_image(places, CAMERA.width, CAMERA.height)
        x, y = np.rint(places[inside]).astype(int).T
        around = [(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)]
        nearest = np.min([b[(y + dy).clip(0, 179), (x + dx).clip(0, 239)] for dx, dy in around], axis=0)
        assert (nearest < z[inside] * 0.98).all()
        outside, hidden = outside + int((~inside).sum()), hidden + int(inside.sum())
    assert outside > 100 and hidden > 3


def test_pairs_overlap_and_move(pairs):
    for first, second in pairs.image_pairs:
        assert first != second
    motions = []
    for index in range(10):
        pair = pairs.pair(2, index)
        motions.append(np.median(np.linalg.norm(pair.pixels_b - pair.pixels_a, axis=1)[pair.visible]))
    assert min(motions) > 0.02 * CAMERA.width


def test_repeated_views_and_views_that_share_nothing_make_no_pairs(tmp_path):
    poses = [POSES[0], POSES[0], POSES[4], pose(yaw=np.pi)]
    found = open_pairs(rgbd_folder(tmp_path / "rgbd", poses)).image_pairs
    assert {frozenset(pair) for pair in found} == {frozenset((0, 2)), frozenset((1, 2))}


def test_pairs_depend_on_seed_and_number_alone(pairs, folder):
    made = [pairs.pair(3, index) for index in range(4)]
    again = open_pairs(folder, points=300)
    assert all(same(again.pair(3, index), made[index]) for index in (2, 0, 3, 1))
    assert same(pickle.loads(pickle.dumps(pairs)).pair(3, 1), made[1])
    assert not same(pairs.pair(4, 1), made[1])


def test_large_images_are_reduced_with_their_camera_and_depth(folder):
    pair = open_pairs(folder, max_side=120).pair(0, 0)
    assert pair.image_a.shape == (90, 120, 3)
    first, second = views_of(pair)
    camera = CAMERA.resized(120, 90)
    depth = scene().render(camera, POSES[first]).depth[pair.pixels_a[:, 1].astype(int), pair.pixels_a[:, 0].astype(int)]
    expected = true_places(pair.pixels_a, depth, POSES[first], POSES[second], camera)
    error = np.linalg.norm(pair.pixels_b - expected, axis=1)[pair.visible]
    assert np.median(error) < 0.02 and np.quantile(error, 0.95) < 0.1


def test_places_without_depth_in_the_second_view_are_left_out(changed):
    for file in (changed / "depth").iterdir():
        depth = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        depth[:, :100] = 0
        cv2.imwrite(str(file), depth)
    pairs = open_pairs(changed)
    for index in range(6):
        pair = pairs.pair(0, index)
        assert (pair.pixels_a[:, 0] >= 100).all()
        unknown = inside_image(pair.pixels_b, 240, 180) & (pair.pixels_b[:, 0] < 98.5)
        assert not unknown.any() and (pair.pixels_b[pair.visible, 0] > 98).all()


def test_a_tenth_of_the_images_can_be_held_out(pairs):
    training, held_out = pairs.split(every=4)
    assert held_out is not None
    used, others = ({i for pair in part.image_pairs for i in pair} for part in (training, held_out))
    assert not set(held_out.image_pairs) & set(training.image_pairs)
    assert others - used and all(not used.issuperset(pair) for pair in held_out.image_pairs)
    assert len(training.image_pairs) + len(held_out.image_pairs) == len(pairs.image_pairs)
    assert pairs.split(every=100)[1] is None


def test_what_the_pairs_depend_on_is_described(pairs):
    assert pairs.describe()["importer"] == "rgbd" and pairs.describe()["image_pairs"] == len(pairs.image_pairs)
    assert f"{len(pairs.image_pairs)} pairs of 8 images (8 have poses)" in pairs.summary()


# recordings that cannot be used


def test_depths_that_disagree_between_the_views_are_refused_with_numbers(changed):
    for number in range(0, 8, 2):
        file = changed / f"depth/frame-00000{number}.png"
        cv2.imwrite(str(file), (cv2.imread(str(file), cv2.IMREAD_UNCHANGED) * 1.3).astype(np.uint16))
    with pytest.raises(TrainingError, match=r"sample: depths disagree between the views in \d+ of \d+ .* needed 70%"):
        open_pairs(changed)


def test_depth_in_another_unit_is_refused_with_its_cure(folder):
    with pytest.raises(
        TrainingError, match=r"sample: POSES, CAMERA OR DEPTH ARE PROBABLY WRONG: only \d of \d+ .*unit"
    ):
        DepthPairs(partial(rgbd_folder_source, folder, depth_scale=250.0), "sample")


def test_poses_of_other_images_are_refused(changed):
    """Matches between the images, made without the poses, speak against them."""
    lines = (changed / "poses.txt").read_text().splitlines()
    (changed / "poses.txt").write_text("\n".join([lines[0], *lines[4:], *lines[1:4]]) + "\n")
    with pytest.raises(TrainingError, match=r"sample: POSES, CAMERA OR DEPTH ARE PROBABLY WRONG: only \d of \d+"):
        open_pairs(changed, check=True)


def test_right_poses_pass_the_comparison_with_the_images(folder):
    assert open_pairs(folder, check=True).notes == ()


def test_recordings_without_overlap_are_refused(tmp_path):
    folder = rgbd_folder(tmp_path / "rgbd", [pose(), pose(yaw=np.pi / 2 + 0.4), pose(yaw=np.pi)])
    with pytest.raises(TrainingError, match=r"no two images overlap enough .* largest overlap is \d+% \(needed 20%\)"):
        open_pairs(folder)


def test_images_that_cannot_be_read_are_left_out_and_named(changed):
    (changed / "images/frame-000003.png").write_bytes(b"\x89PNG but no more")
    pairs = open_pairs(changed)
    assert any("1 images cannot be read, the first: frame-000003.png" in note for note in pairs.notes)
    assert not any(3 in pair for pair in pairs.image_pairs)


def left_out_of(pairs, count=40) -> tuple[dict[str, str], set[int]]:
    """What the first pairs report as left out, and the images that they show."""
    found: dict[str, str] = {}
    shown: set[int] = set()
    for index in range(count):
        pair = pairs.pair(0, index)
        found |= pair.left_out
        shown |= set(views_of(pair))
    return found, shown


def test_images_and_depths_that_break_after_the_opening_are_left_out_and_named(changed):
    pairs = open_pairs(changed)
    before = [pairs.pair(0, index) for index in range(40)]
    os.remove(changed / "images/frame-000001.png")
    (changed / "depth/frame-000004.png").write_bytes(b"")
    found, shown = left_out_of(pickle.loads(pickle.dumps(pairs)))  # as in another process, which keeps no view
    assert sorted(found) == ["sample, frame-000001.png", "sample, frame-000004.png"]
    assert "sample: image frame-000001.png: " in found["sample, frame-000001.png"]
    assert "sample: depth of frame-000004.png: " in found["sample, frame-000004.png"]
    assert shown == {0, 2, 3, 5, 6, 7}
    again = pickle.loads(pickle.dumps(pairs))
    for index in (7, 3, 30, 12):  # in any order, the pairs without these images are the same as before
        if not {1, 4} & set(views_of(before[index])):
            assert same(again.pair(0, index), before[index])


def test_images_beyond_those_that_are_checked_at_the_opening_are_left_out(changed, monkeypatch):
    monkeypatch.setattr("nre_ros.learning.recorded_pairs._CHECKED_IMAGES", 4)
    for number in (1, 3, 6):
        (changed / f"images/frame-00000{number}.png").write_bytes(b"\x89PNG but no more")
    pairs = open_pairs(changed)
    noted = " ".join(pairs.notes)
    assert "images cannot be read" not in noted or "1 images cannot be read" in noted, "some were not checked"
    training, held_out = pairs.split(every=4)
    found, shown = left_out_of(training)
    assert not {1, 3, 6} & shown and set(found) <= {f"sample, frame-00000{number}.png" for number in (1, 3, 6)}
    assert found and (held_out is None or not {1, 3, 6} & left_out_of(held_out)[1])


def test_a_recording_that_is_gone_ends_in_one_line_with_the_first_image(changed):
    pairs = open_pairs(changed)
    shutil.rmtree(changed / "images")
    with pytest.raises(
        TrainingError, match=r"sample: none of 50 image pairs in a row can be read, the first image: .*"
    ):
        pairs.pair(0, 0)


def test_a_recording_of_one_readable_image_is_refused(changed):
    for number in range(1, 8):
        (changed / f"images/frame-00000{number}.png").write_bytes(b"")
    with pytest.raises(
        TrainingError, match=r"only 1 of 8 images can be used; 7 cannot be read, the first: frame-000001"
    ):
        open_pairs(changed)


def test_images_without_depth_are_left_out_or_refused(changed):
    os.remove(changed / "depth/frame-000002.png")
    pairs = open_pairs(changed)
    assert any("1 images have no usable depth, the first: frame-000002.png" in note for note in pairs.notes)
    for file in (changed / "depth").iterdir():
        file.unlink()
    with pytest.raises(TrainingError, match="sample: none of 6 images has usable depth, the first: .*cannot be read"):
        open_pairs(changed)


@pytest.mark.parametrize("value", [np.nan, -1.0])
def test_depth_that_is_no_depth_is_refused(folder, value):
    class Damaged(RgbdFolderSource):
        def depth(self, name):
            depth = super().depth(name)
            depth[3, 4] = value
            return depth

    arguments = [folder / name for name in ("images", "depth", "poses.txt", "list.txt", "cameras.txt")]
    with pytest.raises(TrainingError, match="none of 6 .*: 1 of 43200 values are negative or not finite"):
        DepthPairs(lambda: Damaged(*arguments), "sample", check=False)


def test_images_without_poses_are_counted(changed):
    lines = (changed / "poses.txt").read_text().splitlines()
    lines[2] = "1.0 nan 0 0 0 0 0 1"
    (changed / "poses.txt").write_text("\n".join(lines) + "\n")
    pairs = open_pairs(changed)
    assert len(pairs.names) == 7
    assert any("1 images have no pose or camera, the first: frame-000001.png" in note for note in pairs.notes)


def test_missing_folders_and_impossible_settings_are_refused(folder, tmp_path):
    with pytest.raises(TrainingError, match=f"sample: {tmp_path}/none is not a folder"):
        open_pairs(tmp_path / "none")
    with pytest.raises(TrainingError, match="max_side=8"):
        open_pairs(folder, max_side=8)
    with pytest.raises(TrainingError, match="partners=0"):
        PairSelection(partners=0)


def test_a_recording_that_keeps_files_open_is_opened_again_in_another_process(folder):
    class Closing(RgbdFolderSource):
        def close(self):
            raise ImageError("never called")

    opened = []
    arguments = [folder / name for name in ("images", "depth", "poses.txt", "list.txt", "cameras.txt")]

    def open_source():
        opened.append(os.getpid())
        return Closing(*arguments)

    pairs = DepthPairs(open_source, "sample", check=False)
    pairs.pair(0, 0)
    assert opened == [os.getpid()]
    pairs._process = -1  # as after a fork
    pairs.pair(0, 1)
    assert len(opened) == 2


def test_poses_of_the_folder_are_read_by_the_importer(pairs):
    for T, expected in zip(pairs.poses, POSES):
        np.testing.assert_allclose(T, pose_matrix(*position_quaternion(expected)), atol=1e-6)
