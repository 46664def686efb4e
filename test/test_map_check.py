# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The check of a map: which keyframes and places it names, what it predicts and stores, and how it is interrupted."""

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nre_ros.cli import main
from nre_ros.errors import MapError
from nre_ros.features import load_backbone
from nre_ros.gallery import Gallery, build_room, camera_pose
from nre_ros.geometry import Camera, position_quaternion
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.importers.colmap.cameras import write_cameras_txt
from nre_ros.keyframes.importers.rebuild_source import FolderImages
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.localization.confidence import load_model
from nre_ros.localization.evidence import NUMBERS
from nre_ros.localization.localizer import Localizer
from nre_ros.localization.map_noise import MapNoise
from nre_ros.localization.map_quality import Expected, MapQuality, load_quality
from nre_ros.localization.other_places import negative_images
from nre_ros.map_check import negatives, repair
from nre_ros.map_check.aliasing import find_aliased
from nre_ros.map_check.check import check_map, evaluate_views, expectation
from nre_ros.map_check.leave_one_out import LeftOut, LeftOutResult, plan
from nre_ros.map_check.negatives import Negatives, localize_elsewhere, sort_far
from nre_ros.map_check.neighbours import ViewNeighbours
from nre_ros.map_check.partial import PartialCheck
from nre_ros.map_check.report.write import write_report
from nre_ros.map_check.suspicious import find_suspicious
from nre_ros.map_check.view_result import ViewResult, localize_view

CAMERA = Camera(320, 240, 260.0, 260.0, 159.5, 119.5)
MODEL = load_model("xfeat")
COUNT = 10


# --- a real map -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Images of a walk along a wall with pictures, and their map with exact poses."""
    folder = tmp_path_factory.mktemp("check")
    (folder / "images").mkdir()
    gallery = Gallery(build_room(seed=2, pixels_per_metre=80))
    builder = KeyframeBuilder(load_backbone("xfeat", "cpu"), 200)
    with KeyframeStore.create(folder / "map.db", "xfeat", builder.backbone.weights_hash) as store:
        for i in range(COUNT):
            seen = gallery.render(CAMERA, camera_pose([0.1 * i - 0.5, 0.1 * (i % 3), 1.4], 0.05 * i + 1.4))
            name = f"{i}.png"
            cv2.imwrite(str(folder / "images" / name), seen.image)
            stamp = 1_700_000_000_000_000_000 + i
            store.add(builder.build_rgbd(name, stamp, seen.image, seen.depth, CAMERA, seen.T_map_cam))
    return folder


@pytest.fixture
def map_file(scene, tmp_path):
    return shutil.copy(scene / "map.db", tmp_path / "map.db")


def test_a_good_map_is_found_good_and_keeps_the_outcome(scene, map_file):
    result = check_map(map_file, [FolderImages(scene / "images")], device="cpu", progress=False)
    assert result.suspicious == [] and result.skipped == [] and len(result.views) >= COUNT
    errors = [each.view.position_error for each in result.views if not each.span]
    assert result.expected.recall == 1.0 and 0 < result.expected.position < 0.02 and np.median(errors) < 0.02
    # the truth is that of the renderer: the stored keyframe takes no part in its own localization
    assert all(each.view.keyframe not in each.view.keyframes for each in result.views)
    assert result.noise.position < 0.01
    with KeyframeStore.open(map_file) as store:
        stored = load_quality(store)
        assert stored.noise.to_json() == result.noise.to_json() and stored.expected == result.expected
    assert not list(map_file.parent.glob("*.partial"))


def test_the_localizer_widens_its_covariance_by_the_errors_of_the_map(scene, map_file):
    image = cv2.imread(str(scene / "images" / "4.png"))
    with Localizer(map_file, "cpu") as localizer:
        before = localizer.localize(image, CAMERA)
    check_map(map_file, [FolderImages(scene / "images")], device="cpu", progress=False)
    with KeyframeStore.open(map_file) as store:
        quality = load_quality(store)
    worse = replace(quality, noise=MapNoise(position=0.05, rotation=0.01))
    with KeyframeStore.open(map_file, readonly=False) as store:
        store.set_quality(worse.to_json())
    with Localizer(map_file, "cpu") as localizer:
        after = localizer.localize(image, CAMERA)
    np.testing.assert_array_equal(before.T_map_cam, after.T_map_cam)
    assert before.map_share < 0.9 < after.map_share and after.to_json()["map_share"] == after.map_share
    # five keyframes at most share the pose: at least a fifth of the variance of one remains
    widened = after.covariance - before.covariance
    assert 0.05**2 / 5 <= np.diag(widened)[:3].min() and np.linalg.eigvalsh(widened)[0] > 0


def test_a_keyframe_with_a_wrong_pose_is_named(scene, map_file, capsys):
    with KeyframeStore.open(map_file, readonly=False) as store:
        wrong = store.get(store.find("5.png"))
        T = wrong.T_map_cam.copy()
        T[:3, 3] += [0.25, 0.1, 0.0]
        store.update_pose(wrong.id, T)
    assert main(["map", "check", str(map_file), "--images", str(scene / "images"), "--device", "cpu", "--dry-run"]) == 1
    out = capsys.readouterr().out
    assert "suspicious keyframes" in out and "5.png" in out and "0.27 m" in out
    with KeyframeStore.open(map_file) as store:
        assert load_quality(store) is None  # a dry run stores nothing


def built(scene, folder) -> list[str]:
    """Words of the command that builds folder/built.db from four of the images."""
    gallery = Gallery(build_room(seed=2, pixels_per_metre=80))
    (folder / "depth").mkdir(parents=True)
    poses = ["# t x y z qx qy qz qw"]
    for i in range(4, 8):
        seen = gallery.render(CAMERA, camera_pose([0.1 * i - 0.5, 0.1 * (i % 3), 1.4], 0.05 * i + 1.4))
        cv2.imwrite(str(folder / "depth" / f"{i}.png"), np.rint(1000 * seen.depth).astype(np.uint16))
        position, quaternion = position_quaternion(seen.T_map_cam)
        poses.append(" ".join(map(repr, [float(i), *position.tolist(), *quaternion.tolist()])))
    (folder / "poses.txt").write_text("\n".join(poses))
    (folder / "list.txt").write_text("\n".join(f"{i}.png" for i in range(4, 8)))
    write_cameras_txt(folder / "cameras.txt", {1: CAMERA})
    words = ["map", "build", "rgbd", "--images", scene / "images", "--depth", folder / "depth", "--poses"]
    words += [folder / "poses.txt", "--list", folder / "list.txt", "--camera", folder / "cameras.txt"]
    words += ["--points", 100, "--device", "cpu", "-o", folder / "built.db"]
    return [str(word) for word in words]


def test_a_map_is_checked_when_it_is_built(scene, tmp_path, capsys):
    assert main(built(scene, tmp_path)) == 0
    assert "localized without themselves" in capsys.readouterr().out
    with KeyframeStore.open(tmp_path / "built.db") as store:
        assert load_quality(store).views == load_quality(store).keyframes == 4


def test_an_interrupted_check_at_the_end_of_a_build_keeps_the_map(scene, map_file, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("nre_ros.map_check.check.check_map", interrupted)
    assert main(built(scene, map_file.with_name("built"))) == 130
    assert "the map is complete" in capsys.readouterr().err
    with KeyframeStore.open(map_file.with_name("built") / "built.db") as store:
        assert len(store) == 4


def test_an_interrupted_check_continues(scene, map_file, monkeypatch):
    images = FolderImages(scene / "images")
    asked = []

    class Interrupted(FolderImages):
        def image(self, name):
            asked.append(name)
            if len(asked) == 4:
                raise KeyboardInterrupt
            return images.image(name)

    with pytest.raises(KeyboardInterrupt):
        check_map(map_file, [Interrupted(scene / "images")], 6, "cpu", progress=False)
    whole = check_map(map_file, [Interrupted(scene / "images")], 6, "cpu", progress=False)
    assert len(asked) == 4 + len(whole.views) - 3  # three were kept
    fresh = check_map(map_file, [images], 6, "cpu", progress=False)
    assert [each.view.position_error for each in fresh.views] == [each.view.position_error for each in whole.views]


def test_images_of_elsewhere_continue_after_an_interruption_and_show_their_progress(
    scene, map_file, monkeypatch, capsys
):
    images = FolderImages(scene / "images")
    asked = []

    def places(count, seed):
        for place in negative_images(count, seed):
            asked.append(place.name)
            yield place
            if len(asked) == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(negatives, "negative_images", places)
    with pytest.raises(KeyboardInterrupt):
        check_map(map_file, [images], device="cpu", progress=False)
    estimated = []

    def estimate(self, *arguments, **options):
        estimated.append(arguments)
        raise AssertionError("nothing is left to be localized")

    with monkeypatch.context() as patch:
        patch.setattr(Localizer, "estimate", estimate)
        continued = check_map(map_file, [images], device="cpu")
    assert "localizing images of elsewhere" in capsys.readouterr().err and not estimated
    whole = check_map(map_file, [images], device="cpu", progress=False)
    assert continued.confidence == whole.confidence and continued.confidence.negatives >= 1


def test_a_check_that_stores_nothing_needs_no_file_beside_the_map(scene, map_file, caplog, capsys):
    map_file.with_name("map.db.check.partial").mkdir()  # a folder that cannot be written, also for root
    words = ["map", "check", str(map_file), "--images", str(scene / "images"), "--device", "cpu", "--views", "3"]
    assert main(words) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert main([*words, "--dry-run"]) == 0
    assert "begins anew" in caplog.text and "localized without themselves" in capsys.readouterr().out


def test_keyframes_that_another_process_removes_during_the_check_are_left_out(scene, map_file):
    class Removing(FolderImages):
        """After the second image a keyframe is gone that was localized already, and one that was not."""

        asked = 0

        def image(self, name):
            self.asked += 1
            if self.asked == 3:
                with KeyframeStore.open(map_file, readonly=False) as store:
                    for gone in ("1.png", "5.png"):
                        store.remove(store.find(gone))
            return super().image(name)

    result = check_map(map_file, [Removing(scene / "images")], device="cpu", progress=False)
    assert {each.view.name for each in result.views} == {f"{i}.png" for i in range(COUNT) if i not in (1, 5)}
    assert len(result.names) == COUNT - 2
    assert any("1.png" in line and "removed" in line for line in result.skipped)
    assert any("no keyframe" in line for line in result.skipped)
    write_report(map_file.with_name("check.html"), result, None)


def test_images_that_are_missing_are_counted_and_a_map_without_any_is_not_checked(scene, map_file, tmp_path):
    some = tmp_path / "some"
    some.mkdir()
    for i in (0, 2, 3, 4, 5, 6):
        shutil.copy(scene / "images" / f"{i}.png", some)
    result = check_map(map_file, [FolderImages(some)], device="cpu", progress=False)
    assert len(result.skipped) == COUNT - 6 and "1.png" in result.skipped[0]
    with pytest.raises(MapError, match="no keyframe has its image"):
        check_map(map_file, [FolderImages(tmp_path)], device="cpu", progress=False)


def test_another_image_of_the_same_name_and_size_is_no_image_of_the_keyframe(scene, map_file, tmp_path):
    others = tmp_path / "others"
    others.mkdir()
    for i in range(COUNT):
        cv2.imwrite(str(others / f"{i}.png"), 255 - cv2.imread(str(scene / "images" / f"{i}.png")))
    with pytest.raises(MapError, match="another image than the keyframe's"):
        check_map(map_file, [FolderImages(others)], device="cpu", progress=False)


@pytest.mark.parametrize("target", ["map.db", "folder", "existing.db", "no_folder/new.db", "text.txt"])
def test_a_repaired_map_that_cannot_be_written_is_refused_before_the_check(scene, map_file, capsys, target):
    shutil.copy(map_file, map_file.with_name("existing.db"))
    map_file.with_name("folder").mkdir()
    map_file.with_name("text.txt").write_text("text")
    target = str(map_file.with_name(target.split("/")[0]).joinpath(*target.split("/")[1:]))
    assert main(["map", "check", str(map_file), "--images", str(scene), "--repair-to", target]) == 2
    assert "localized" not in capsys.readouterr().out
    with KeyframeStore.open(map_file) as store:
        assert load_quality(store) is None


def test_a_report_that_cannot_be_written_is_refused_before_the_check(scene, map_file, capsys):
    assert main(["map", "check", str(map_file), "--images", str(scene), "-o", str(map_file)]) == 2
    assert "cannot be a folder" in capsys.readouterr().err
    with KeyframeStore.open(map_file) as store:
        assert load_quality(store) is None


def test_an_interrupted_repair_leaves_no_file(map_file, monkeypatch):
    with KeyframeStore.open(map_file) as store:
        result = evaluate_views(store, [], [], 0.5)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(repair, "check_map", interrupted)
    with pytest.raises(KeyboardInterrupt):
        repair.repair_map(result, [], map_file.with_name("new.db"))
    assert [path.name for path in map_file.parent.iterdir()] == [map_file.name]


def test_a_repair_is_judged_by_the_views_of_the_check_and_kept_where_they_err_less(map_file, monkeypatch):
    with KeyframeStore.open(map_file) as store:
        result = evaluate_views(store, [], [], 0.5)
        found = [LeftOutResult(replace(view(i), keyframe=i), 0, 0) for i in result.names]
        hash_before = store.content_hash()
    asked = []

    def checked(path, images, most, *_, **__):
        asked.append(most)
        return replace(result, path=path)

    monkeypatch.setattr(repair, "check_map", checked)
    monkeypatch.setattr(repair, "_is_better", lambda before, after: len(asked) == 1)
    new = map_file.with_name("new.db")
    new.with_name("new.db-wal").write_bytes(b"of a map that was there before")
    outcome = repair.repair_map(replace(result, views=found[:3]), [], new, rounds=3, most=123)
    assert asked == [123, 123] and outcome.kept and outcome.rounds == 1 and outcome.after.path == new
    with KeyframeStore.open(new) as store:
        assert len(store) == COUNT and store.content_hash() == hash_before  # without views nothing moves
    with KeyframeStore.open(map_file) as store:
        assert store.content_hash() == hash_before


def test_the_other_cameras_of_the_same_time_are_left_out(scene, tmp_path):
    with KeyframeStore.open(scene / "map.db") as store, KeyframeStore.create(tmp_path / "rig.db", "xfeat", "0") as rig:
        for name, stamp in (("0.png", 5), ("9.png", 5), ("5.png", 6)):
            rig.add(replace(store.get(store.find(name)), stamp=stamp, id=-1))
        neighbours = ViewNeighbours(rig, np.array([1, 2, 3]))
        alone = ViewNeighbours(store, np.array(list(store.names().values())))
        later_first = ViewNeighbours(
            rig, np.array([3, 2, 1])
        )  # a recording whose stamps are not in the order of the ids
        assert [later_first.of(rig.get(i)) for i in (1, 2, 3)] == [neighbours.of(rig.get(i)) for i in (1, 2, 3)]
        assert later_first.within(rig.get(3).T_map_cam[:3, 3], 0.01) == [3]
        assert 2 in neighbours.of(rig.get(1)).near_duplicates and 1 in neighbours.of(rig.get(2)).near_duplicates
        assert store.find("9.png") not in alone.of(store.get(store.find("0.png"))).near_duplicates


def test_a_map_of_one_keyframe_cannot_be_checked(scene, tmp_path):
    with KeyframeStore.open(scene / "map.db") as store:
        keyframe, metadata = store.get(store.find("0.png")), store.metadata()
    with KeyframeStore.create(tmp_path / "one.db", "xfeat", metadata["weights_hash"]) as store:
        store.add(replace(keyframe, id=-1))
    with pytest.raises(MapError, match="two at least"):
        check_map(tmp_path / "one.db", [FolderImages(scene / "images")], device="cpu", progress=False)


def test_keyframes_that_were_changed_after_the_check_err_by_themselves(map_file):
    with KeyframeStore.open(map_file, readonly=False) as store:
        ids = np.array(list(store.names().values()))
        noise = MapNoise(0.01, 0.001, 1.0, 5.0, ids=ids, factors=np.full(len(ids), 2.0))
        store.set_quality(MapQuality(5, len(ids), store.changes().position, noise).to_json())
        assert load_quality(store).noise.ids.tolist() == ids.tolist()
        store.update_pose(int(ids[3]), store.get(int(ids[3])).T_map_cam)
        assert load_quality(store).noise.ids.tolist() == [*ids[:3], *ids[4:]]


@pytest.mark.parametrize(
    "entry",
    [
        "{",
        "[]",
        '{"version": 99}',
        '{"version": 1}',
        '{"version": 1, "noise": 3, "views": "x"}',
        "[" * 100000,
        MapQuality(float("inf"), 2, (0, 2), MapNoise()).to_json(),
        MapQuality(2, 2, (2**70, 2), MapNoise()).to_json(),
        MapQuality(2, 2, (0, -1), MapNoise()).to_json(),
        MapQuality(2, 2, (0, 2), MapNoise(), expected=Expected(5.0, 1.0, 0.1, 0.1)).to_json(),
    ],
)
def test_an_entry_that_cannot_be_used_is_reported_and_ignored(map_file, caplog, entry):
    with KeyframeStore.open(map_file, readonly=False) as store:
        store.set_quality(entry)
    with Localizer(map_file, "cpu") as localizer:
        assert localizer.quality is None
    assert "map check` again" in caplog.text


# --- a map with far parts -------------------------------------------------------------------------------

WALL_VIEWS = 9


@pytest.fixture(scope="module")
def two_walls(tmp_path_factory):
    """Images of a walk along two opposite walls, and their map: no keyframe of one wall shows the other."""
    folder = tmp_path_factory.mktemp("walls")
    (folder / "images").mkdir()
    gallery = Gallery(build_room(seed=2, pixels_per_metre=80))
    builder = KeyframeBuilder(load_backbone("xfeat", "cpu"), 200)
    with KeyframeStore.create(folder / "map.db", "xfeat", builder.backbone.weights_hash) as store:
        for wall, direction in (("north", 1.57), ("south", -1.57)):
            for i in range(WALL_VIEWS):
                seen = gallery.render(CAMERA, camera_pose([0.2 * i - 0.8, 0.0, 1.4], direction + 0.04 * (i % 3)))
                cv2.imwrite(str(folder / "images" / f"{wall}{i}.png"), seen.image)
                store.add(builder.build_rgbd(f"{wall}{i}.png", 0, seen.image, seen.depth, CAMERA, seen.T_map_cam))
    return folder


def test_keyframes_that_show_the_place_of_a_view_are_those_of_the_same_wall(two_walls):
    with KeyframeStore.open(two_walls / "map.db") as store:
        names = store.names()
        neighbours = ViewNeighbours(store, np.array(list(names.values())))
        for name, keyframe_id in names.items():
            same_wall = [i for other, i in names.items() if other[:5] == name[:5]]
            assert neighbours.overlapping(store.get(keyframe_id)) == same_wall
        one = store.get(1)
        assert neighbours.overlapping(replace(one, points=one.points[:0])) == list(names.values())


def test_far_parts_of_the_map_are_wrong_places_for_its_own_images(two_walls, tmp_path, monkeypatch):
    path = shutil.copy(two_walls / "map.db", tmp_path / "map.db")
    searched = []

    def localized(localizer, name, image, camera, T_map_cam, keyframe, exclude):
        found = localize_view(localizer, name, image, camera, T_map_cam, keyframe, exclude)
        searched.append((name, found))
        if len(searched) == 1:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(negatives, "localize_view", localized)
    images = [FolderImages(two_walls / "images")]
    with pytest.raises(KeyboardInterrupt):
        check_map(path, images, device="cpu", progress=False)
    result = check_map(path, images, device="cpu", progress=False)
    # 18 views and some that are localized again: one image of elsewhere for eight, half of them the map's own
    count = len(result.views) // 8
    assert count >= 2 and len(searched) == 1 + count // 2
    for name, found in searched:
        with KeyframeStore.open(path) as store:
            assert all(store.get(i).name[:5] != name[:5] for i in found.keyframes) and len(found.keyframes) >= 5
        assert not found.right and found.confidence < 0.5
    wrong_views = sum(each.view.posed and not each.view.right for each in result.views)
    assert result.confidence.negatives - wrong_views <= count
    assert result.confidence.positives == sum(each.view.right for each in result.views)


def test_a_map_without_far_parts_has_images_of_other_places_alone(scene, map_file, monkeypatch):
    def localized(*_):
        raise AssertionError("every keyframe shows the same wall")

    asked = []

    def places(count, seed):
        asked.append(count)
        return negative_images(count, seed)

    with KeyframeStore.open(map_file) as store:  # with twice the views there would be room for a far one
        found = [LeftOutResult(replace(view(i), keyframe=i), 0, 0) for i in list(store.names().values()) * 2]
        ids = np.array(list(store.names().values()))
    monkeypatch.setattr(negatives, "localize_view", localized)
    monkeypatch.setattr(negatives, "negative_images", places)
    with Localizer(map_file, "cpu") as localizer:
        elsewhere = localize_elsewhere(
            localizer, [FolderImages(scene / "images")], ids, found, 0, PartialCheck(), progress=False
        )
    assert asked == [2] and elsewhere.far == []


def test_far_poses_are_wrong_ones_unless_the_own_place_is_seen_or_looks_alike():
    own = [LeftOutResult(view(i, ring(i)), 0, 0) for i in range(8)]
    own[5] = LeftOutResult(view(5, ring(5), (1.0, 0.0)), 0, 0)  # nobody knows where its place is
    far = [
        view(0, ring(6), (1.5, 0.0), confidence=0.1, inliers=20),  # at another place: more than half of 2 m away
        view(1, ring(6), (0.5, 10.0), confidence=0.1, inliers=20),  # near its own: something there is seen
        view(2, ring(6), (0.5, 90.0), confidence=0.1, inliers=20),  # near its own, but turned away
        view(3, ring(6), (3.0, 0.0), confidence=0.9, inliers=70),  # explains the image as well as its own place
        view(4, ring(6), (3.0, 0.0), confidence=0.9, inliers=40),  # does not
        view(5, ring(6), (3.0, 0.0), confidence=0.9, inliers=40),
        view(6, ring(6), (3.0, 0.0), confidence=0.9, inliers=40),
        ViewResult("7.png", 7, np.eye(4), reason="nothing"),
    ]
    wrong, alike = sort_far(far, own, suspicious={6})
    assert [each.keyframe for each in wrong] == [0, 2, 4] and [each.keyframe for each in alike] == [3]
    names, poses = {i: f"{i}.png" for i in range(12)}, {i: view(i).T_map_cam for i in range(12)}
    (found,) = find_aliased(own[:5], names, poses, alike)
    assert (found.name, found.twin, found.score) == ("3.png", "3.png", 0.7) and found.distance == pytest.approx(3.0)


def test_wrong_poses_in_far_parts_lower_the_confidence_of_the_map(map_file):
    surely_wrong = MODEL.mean + 2 * MODEL.scale * np.sign(MODEL.weights)
    with KeyframeStore.open(map_file) as store:
        own = [LeftOutResult(replace(view(i), keyframe=i, name=name), 0, 0) for name, i in store.names().items()]
        far = [
            replace(each.view, estimated=view(40).estimated, evidence=surely_wrong, confidence=0.9, inliers=40)
            for each in own
        ]
        without = evaluate_views(store, own, [], 0.5)
        result = evaluate_views(store, own, [], 0.5, Negatives(far=far))
        as_places = evaluate_views(store, own, [], 0.5, Negatives([surely_wrong] * len(far)))
    assert without.confidence.negatives == 0 and result.confidence.negatives == COUNT
    assert result.confidence == as_places.confidence
    calibrated = result.confidence.of_model(MODEL)
    assert calibrated.probability(surely_wrong) < MODEL.probability(surely_wrong)


# --- what is concluded from views ---------------------------------------------------------------------------


def view(i: int, keyframes=(), error=(0.0, 0.0), confidence=0.99, **changes) -> ViewResult:
    """A view at x = i metres, with an error in metres along y and degrees about z."""
    stored, T = np.eye(4), np.eye(4)
    stored[0, 3] = T[0, 3] = i
    T[1, 3] += error[0]
    T[:3, :3] = Rotation.from_euler("z", error[1], degrees=True).as_matrix()
    numbers = np.zeros(len(NUMBERS))
    numbers[NUMBERS.index("inlier_ratio")] = 0.7
    count = len(keyframes)
    values = dict(
        name=f"{i}.png",
        keyframe=i,
        T_map_cam=stored,
        keyframes=tuple(keyframes),
        estimated=T,
        covariance=1e-6 * np.eye(6),
        influence=np.repeat(np.eye(6)[None] / max(count, 1), count, 0),
        disagreement=1e-6 * np.eye(6),
        evidence=numbers,
        distance=2.0,
        inliers=100,
        inlier_ratios=np.full(count, 0.5),
        confidence=confidence,
    )
    return ViewResult(**{**values, **changes})


def named(views, noise=MapNoise(0.002, 0.001)):
    results = [LeftOutResult(each, 0, 0) for each in views]
    return {
        each.keyframe: each
        for each in find_suspicious(
            results, noise, MODEL, {i: f"{i}.png" for i in range(30)}, {each.keyframe: each.T_map_cam for each in views}
        )
    }


def ring(i, count=12):
    return [(i + k) % count for k in (-2, -1, 1, 2)]


def test_the_keyframe_that_is_off_is_named_and_not_those_around_it():
    views = [view(i, ring(i)) for i in range(12)]
    assert named(views) == {}
    views[5] = view(5, ring(5), (0.3, 0.0))
    found = named(views)
    assert list(found) == [5] and "0.30 m" in found[5].cause and found[5].position == pytest.approx(0.3)
    # those around it follow it half of the way: its own view tells who is at fault
    views[4], views[6] = view(4, [5, 3], (-0.15, 0.0)), view(6, [5, 7], (-0.15, 0.0))
    assert list(named(views)) == [5]


def test_errors_that_the_map_or_the_image_explain_accuse_nobody():
    views = [view(i, ring(i)) for i in range(12)]
    views[5] = view(5, ring(5), (0.1, 0.0))
    assert list(named(views)) == [5]
    assert named(views, MapNoise(0.05, 0.01)) == {}
    uncertain = [*views[:5], view(5, ring(5), (0.1, 0.0), covariance=4e-4 * np.eye(6)), *views[6:]]
    assert named(uncertain) == {}
    assert named([*views[:5], view(5, ring(5), (0.1, 0.0), confidence=0.3), *views[6:]]) == {}


@pytest.mark.parametrize(
    ("error", "cause"),
    [((0.0, 90.0), "turned by 90 degrees"), ((0.0, 5.0), "5.0 degrees"), ((1.0, 0.0), "off by 1.00 m")],
)
def test_the_likely_cause_is_named(error, cause):
    views = [view(i, ring(i)) for i in range(12)]
    views[5] = view(5, ring(5), error)
    assert cause in named(views)[5].cause


def test_swapped_images_name_each_other():
    views = [view(i, ring(i)) for i in range(12)]
    for i, other in ((3, 9), (9, 3)):
        T = np.eye(4)
        T[0, 3] = other
        views[i] = view(i, ring(other), estimated=T)
    found = named(views)
    assert set(found) == {3, 9} and "shows the pose of 9.png" in found[3].cause and "swapped" in found[9].cause


def test_points_that_fit_no_view_accuse_their_keyframe():
    views = [view(i, ring(i)) for i in range(12)]
    useless = [
        replace(each, inlier_ratios=np.where(np.array(each.keyframes) == 7, 0.0, 0.5)) if 7 in each.keyframes else each
        for each in views
    ]
    found = named(useless)
    assert list(found) == [7] and "wrong depth, or wrong intrinsics" in found[7].cause


def test_places_that_look_alike_are_named():
    T = np.eye(4)
    T[0, 3] = 8.0
    numbers = view(0).evidence.copy()
    numbers[NUMBERS.index("alternative_score")] = 0.95
    views = [view(i, ring(i)) for i in range(12)]
    views[2] = replace(views[2], alternative=T, evidence=numbers)
    views[3] = view(3, ring(3), estimated=T, evidence=numbers)
    results = [LeftOutResult(each, 0, 0) for each in views]
    found = find_aliased(results, {i: f"{i}.png" for i in range(12)}, {i: views[i].T_map_cam for i in range(12)})
    assert {(each.name, each.twin) for each in found} == {("2.png", "8.png"), ("3.png", "8.png")}
    assert found[0].distance == pytest.approx(5.0) and found[0].score > 1


def expected(results, ordered, noise=MapNoise()):
    return expectation(results, 0.5, ordered, noise, MODEL)


def test_the_expectation_of_images_without_a_time_corrects_the_missing_neighbour():
    views = [LeftOutResult(view(i, ring(i), (0.02, 0.0)), 0, 0) for i in range(8)]
    far = [LeftOutResult(view(i, ring(i), (0.04, 0.0)), 3, 0) for i in range(8)]
    assert expected(views, True).position == pytest.approx(0.02)
    assert expected(views + far, True).position == pytest.approx(0.03)
    assert expected(views + far, False).position == pytest.approx(0.02 / 2**0.5)
    assert expected(views[:4], True) is None
    lost = LeftOutResult(ViewResult("9.png", 9, np.eye(4), reason="nothing"), 0, 0)
    assert expected([*views, lost], True).recall == pytest.approx(8 / 9)
    # found without its neighbours in time: found with them, too
    assert expected([*views, replace(lost, span=3), LeftOutResult(view(9, ring(9)), 0, 0)], True).recall == 1.0


# --- the plan and the resume file ---------------------------------------------------------------------------


def test_a_third_of_a_recording_is_left_out_with_its_neighbours_in_time():
    ids = np.arange(1, 64)
    views = plan(ids)
    assert [each.keyframe for each in views] == ids.tolist()
    assert sum(bool(each.span) for each in views) == 21 and {each.span for each in views} == {0, 7, 15}
    assert [each.span for each in plan(np.arange(5))] == [0] * 5
    few = plan(np.arange(1000), 50)
    assert len(few) == 50 and (few[0].keyframe, few[-1].keyframe) == (0, 999)


def partial_check(path, content="content", seed=0):
    results = PartialCheck(path, content, seed)
    results.read()
    return results


def test_the_partial_file_keeps_whole_lines_of_the_same_map(tmp_path):
    views = [LeftOutResult(view(i, ring(i)), 3 * i, i) for i in range(3)]
    path = tmp_path / "x.partial"
    results = partial_check(path)
    results.begin()
    for each in views:
        results.add_view(each)
    results.add_far(view(7, ring(7), (1.0, 20.0)))
    results.add_place(0, None)
    results.add_place(1, MODEL.mean)
    found = partial_check(path)
    assert list(found.views) == [LeftOut(0, 0), LeftOut(1, 3), LeftOut(2, 6)]
    assert json.dumps(found.views[LeftOut(1, 3)].to_json()) == json.dumps(views[1].to_json())
    assert found.far[7].position_error == 1.0
    assert found.places[0] is None
    np.testing.assert_array_equal(found.places[1], MODEL.mean)
    found.begin()  # keeps what was read
    assert list(partial_check(path).places) == [0, 1]
    text = path.read_text()
    path.write_text(text[:-40])
    assert list(partial_check(path).places) == [0]
    for other in (partial_check(path, "other content"), partial_check(path, seed=1)):
        assert (other.views, other.far, other.places) == ({}, {}, {})
    path.write_bytes(b"\xff\xfe")
    assert partial_check(path).views == {}


@pytest.mark.parametrize("name", ["EVIDENCE_VERSION", "__version__", "_VERSION"])
def test_partial_results_of_another_version_are_not_mixed_with_new_ones(tmp_path, monkeypatch, name):
    results = partial_check(tmp_path / "x.partial")
    results.begin()
    results.add_view(LeftOutResult(view(1, ring(1)), 0, 0))
    assert len(partial_check(tmp_path / "x.partial").views) == 1
    monkeypatch.setattr(f"nre_ros.map_check.partial.{name}", "another")
    assert partial_check(tmp_path / "x.partial").views == {}


def test_partial_results_of_other_keyframes_are_dropped():
    results = PartialCheck()
    for i in range(4):
        results.add_view(LeftOutResult(view(i, [k for k in range(4) if k != i]), 0, 0))
        results.add_far(view(i, [k for k in range(4) if k != i]))
    names = {i: f"{i}.png" for i in range(4)}
    poses = {i: view(i).T_map_cam for i in range(4)}
    results.keep_views_of(names, poses)
    assert len(results.views) == len(results.far) == 4
    results.keep_views_of({**names, 1: "other.png"}, {**poses, 2: np.eye(4)})
    assert [key.keyframe for key in results.views] == list(results.far) == [0, 3]
    results.keep_views_of({0: "0.png"}, poses)  # others were retrieved for it that the map does not have
    assert results.views == results.far == {}


NO_ROTATION = (2 * np.eye(4)).tolist()


@pytest.mark.parametrize(
    "change",
    [
        {"influence": [[1]]},
        {"T_map_cam": None},
        {"T_map_cam": NO_ROTATION},
        {"estimated": NO_ROTATION},
        {"alternative": np.diag([1.0, 1, -1, 1]).tolist()},
        {"estimated": None},
        {"evidence": None},
        {"keyframes": 3},
        {"keyframes": [2, 2]},
        {"keyframes": [2, -3]},
        {"keyframes": [2, True]},
        {"keyframe": 1.5},
        {"keyframe": 2**64},
        {"inliers": "x"},
        {"inliers": -1},
        {"inliers": float("inf")},
        {"inlier_ratios": [0.5, 1.5]},
        {"confidence": 1.01},
        {"confidence": float("nan")},
        {"distance": 0.0},
        {"distance": -2.0},
        {"distance": 1e300},
        {"gap": 4.0},
        {"seconds": -1.0},
        {"seconds": True},
        {"name": 5},
        {"reason": None},
        {"covariance": (-np.eye(6)).tolist()},
        {"disagreement": np.triu(np.ones((6, 6))).tolist()},
        {"evidence": (MODEL.mean - 10).tolist()},
        {"evidence": [*MODEL.mean[:-1].tolist(), -1.0]},
        {"evidence": [*MODEL.mean[:-1].tolist(), float("nan")]},
    ],
)
def test_results_that_no_check_writes_are_refused(tmp_path, change):
    values = view(1, (2, 3)).to_json()
    assert ViewResult.from_json(values).keyframes == (2, 3)
    with pytest.raises(ValueError):
        ViewResult.from_json({**values, **change})
    results = partial_check(tmp_path / "x.partial")
    results.begin()
    results.add_view(LeftOutResult(view(1, (2, 3)), 0, 0))
    with (tmp_path / "x.partial").open("a") as file:
        file.write(json.dumps(["view", [0, 0, {**values, "keyframe": 5, **change}, None]]) + "\n")
        file.write(json.dumps(["place", [0, None]]) + "\n")
    found = partial_check(tmp_path / "x.partial")
    assert list(found.views) == [LeftOut(1, 0)] and found.places == {}  # what follows is not read


@pytest.mark.parametrize(
    "line",
    [
        "3",
        "[]",
        '["view"]',
        '["view", [0, 0]]',
        '["view", [-1, 0, {}, null]]',
        '["unknown", []]',
        '["far", null]',
        '["place", [-1, null]]',
        '["place", [true, null]]',
        '["place", ["0", null]]',
        '["place", [0, [1, 2]]]',
        '["place", [0, "x"]]',
        '["place", {}]',
        "[" * 100000,
    ],
)
def test_lines_that_no_check_writes_end_the_reading(tmp_path, line):
    results = partial_check(tmp_path / "x.partial")
    results.begin()
    with (tmp_path / "x.partial").open("a") as file:
        file.write(line + "\n" + json.dumps(["place", [0, None]]) + "\n")
    found = partial_check(tmp_path / "x.partial")
    assert found.views == found.far == found.places == {}


def test_the_expectation_leaves_out_the_error_of_the_own_keyframe():
    """Independent errors: four keyframes share a query's error, and the view's own adds four times as much."""
    views = [LeftOutResult(view(i, ring(i), (0.05, 0.0)), 0, 0) for i in range(8)]
    found = expected(views, True, MapNoise(position=10.0, rotation=1.0))
    assert found.position == pytest.approx(0.05 * (0.25 / 1.25) ** 0.5, rel=1e-3)


def test_a_partial_file_that_cannot_be_written_is_reported_where_it_is_needed(tmp_path, caplog):
    with pytest.raises(MapError, match="cannot be written"):
        PartialCheck(tmp_path, "content").begin()
    results = PartialCheck(tmp_path, "content", required=False)
    results.begin()
    results.add_place(0, None)
    assert results.places == {0: None} and "begins anew" in caplog.text
    results.remove()


def test_a_partial_file_that_cannot_be_removed_does_not_end_a_complete_check(tmp_path, caplog, monkeypatch):
    results = partial_check(tmp_path / "x.partial")
    results.begin()

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.unlink", refused)
    results.remove()
    assert "cannot be removed: Permission denied" in caplog.text


def test_views_are_accepted_by_the_confidence_that_the_localizer_has_after_the_check(map_file):
    wrong = [MODEL.mean + 2 * MODEL.scale * np.sign(MODEL.weights)] * 20
    with KeyframeStore.open(map_file) as store:
        results = [LeftOutResult(replace(view(i), keyframe=i, name=name), 0, 0) for name, i in store.names().items()]
        result = evaluate_views(store, results, [], 0.5, Negatives(wrong))
    calibrated = result.confidence.of_model(MODEL)
    assert result.confidence.offset < -0.1 or result.confidence.scale < 0.95
    for each in result.views:
        assert each.view.confidence == calibrated.probability(each.view.evidence)
