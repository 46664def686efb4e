# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Maps that are rebuilt from their images: poses and points stay, the descriptors are those of a new build."""

import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
from bag_samples import encoded_message, write_messages
from keyframe_samples import PlaceBackbone, pixels_of

from nre_ros.cli import main
from nre_ros.errors import ImageError, ImportSourceError, MapError
from nre_ros.features import FineHead, load_backbone
from nre_ros.gallery import Gallery, build_room, camera_pose
from nre_ros.geometry import Camera
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.importers.build_map import build_map
from nre_ros.keyframes.importers.rebuild_source import (
    OUTSIDE_IMAGE,
    FolderImages,
    RebuildSource,
    named_images,
    project_into_image,
    recorded_images,
)
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.localization.localizer import Localizer

CAMERA = Camera(160, 120, 130.0, 131.0, 79.0, 60.0, "radial_tangential", (-0.05, 0.01, 0.001, -0.001))
NAMES = ("a/0.png", "a/1.png", "b 2.png")


class OldBackbone(PlaceBackbone):
    """Features of an earlier version, with longer descriptors."""

    weights_hash = "f" * 64

    def extract(self, image, detect=False, fine=True):
        found = super().extract(image, detect, fine)
        twice = replace(found.fine, data=found.fine.data.repeat(2, 1, 1))
        return replace(found, fine=twice)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A folder of images, and a map of old features that was made of them."""
    folder = tmp_path_factory.mktemp("rebuild")
    gallery = Gallery(build_room(seed=2, pixels_per_metre=60, furniture=False))
    builder = KeyframeBuilder(OldBackbone(), 60)
    with KeyframeStore.create(folder / "old.db", "place", "f" * 64, "hall", source="hand-made") as store:
        for i, name in enumerate(NAMES):
            seen = gallery.render(CAMERA, camera_pose([0.1 * i, 0.2, 1.4], 0.3 * i))
            path = folder / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), seen.image)
            keyframe = builder.build_rgbd(name, 7 + i, seen.image, seen.depth, CAMERA, seen.T_map_cam)
            store.add(replace(keyframe, point_ids=np.arange(len(keyframe.points)) + 100 * i))
        store.set_warning("doubtful")
    return folder


def rebuild(scene, path, images=None, **options):
    with KeyframeStore.open(scene / "old.db") as store:
        source = RebuildSource(store, [FolderImages(scene / "images")] if images is None else images)
        return build_map(source, KeyframeBuilder(PlaceBackbone()), path, progress=False, **options)


def test_poses_and_points_stay_and_descriptors_are_those_of_a_new_build(scene, tmp_path):
    report = rebuild(scene, tmp_path / "new.db")
    assert (report.keyframes, report.skipped, report.tally[OUTSIDE_IMAGE]) == (3, {}, 0)
    with KeyframeStore.open(scene / "old.db") as old, KeyframeStore.open(tmp_path / "new.db") as new:
        new.check_features(PlaceBackbone())
        assert new.names() == old.names() and new.metadata()["frame_id"] == "hall"
        for keyframe_id in old.names().values():
            before, after = old.get(keyframe_id), new.get(keyframe_id)
            for name in ("T_map_cam", "points", "point_ids", "background", "global_descriptor"):
                np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
            assert (before.stamp, before.camera, before.thumbnail) == (after.stamp, after.camera, after.thumbnail)
            assert (before.fine.shape[1], after.fine.shape[1]) == (8, 4)
            # the points were lifted from pixels, so that they project there; PlaceBackbone's descriptors say where
            np.testing.assert_allclose(pixels_of(after.fine), pixels_of(before.fine), atol=0.05)
            np.testing.assert_allclose(after.coarse, before.coarse, atol=0.03)


def test_projections_are_opencvs(scene):
    with KeyframeStore.open(scene / "old.db") as store:
        keyframe = store.get(1)
    T = np.linalg.inv(keyframe.T_map_cam)
    points = np.r_[keyframe.points, keyframe.points + [[0.0, 0.0, 3.0]]].astype(np.float64)
    expected = cv2.projectPoints(points, cv2.Rodrigues(T[:3, :3])[0], T[:3, 3], CAMERA.K, np.array(CAMERA.distortion))
    expected = expected[0][:, 0]
    pixels, inside = project_into_image(points, CAMERA, keyframe.T_map_cam)
    np.testing.assert_allclose(pixels[inside], expected[inside], atol=1e-6)
    assert inside[: len(keyframe.points)].all() and not inside.all()


def test_missing_and_other_images_are_left_out_and_counted(scene, tmp_path, capsys):
    folder = tmp_path / "images"
    (folder / "a").mkdir(parents=True)
    cv2.imwrite(str(folder / "a/0.png"), cv2.imread(str(scene / "images" / NAMES[0])))
    cv2.imwrite(str(folder / "b 2.png"), 255 - cv2.imread(str(scene / "images" / NAMES[2])))
    report = rebuild(scene, tmp_path / "new.db", [FolderImages(folder)])
    assert report.keyframes == 1 and set(report.skipped) == {NAMES[1], NAMES[2]}
    assert "cannot be read" in report.skipped[NAMES[1]]
    assert "another image than the keyframe's" in report.skipped[NAMES[2]]
    assert f"skipped {NAMES[1]}" in capsys.readouterr().err
    # a second folder has the others
    report = rebuild(scene, tmp_path / "both.db", [FolderImages(folder), FolderImages(scene)])
    assert report.keyframes == 2 and set(report.skipped) == {NAMES[2]}
    cv2.imwrite(str(folder / "a/0.png"), np.zeros((60, 80, 3), np.uint8))
    with pytest.raises(ImportSourceError, match="none of the 3 images could be imported"):
        rebuild(scene, tmp_path / "none.db", [FolderImages(folder)])
    assert not (tmp_path / "none.db").exists()


def test_points_outside_the_image_are_left_out(scene, tmp_path):
    path = tmp_path / "old.db"
    with KeyframeStore.open(scene / "old.db") as store, KeyframeStore.create(path, "place", "f" * 64) as changed:
        for i in (1, 2):
            keyframe = store.get(i)
            points = keyframe.points.copy()
            behind = points[: 10 if i == 1 else None]
            behind += 20 * (keyframe.T_map_cam[:3, 3] - behind).astype(np.float32)
            changed.add(replace(keyframe, points=points))
    with KeyframeStore.open(path) as store:
        source = RebuildSource(store, [FolderImages(scene / "images")])
        report = build_map(source, KeyframeBuilder(PlaceBackbone()), tmp_path / "new.db", progress=False)
    assert report.keyframes == 1 and report.tally[OUTSIDE_IMAGE] == 10
    assert "none of the keyframe's points projects into its image" in report.skipped[NAMES[1]]


def test_an_interrupted_rebuild_continues(scene, tmp_path):
    class Interrupted(FolderImages):
        def image(self, name):
            if name == NAMES[2]:
                raise KeyboardInterrupt
            return super().image(name)

    with pytest.raises(KeyboardInterrupt):
        rebuild(scene, tmp_path / "new.db", [Interrupted(scene / "images")])
    report = rebuild(scene, tmp_path / "new.db")
    assert (report.keyframes, report.resumed) == (3, 2)
    rebuild(scene, tmp_path / "whole.db")
    with KeyframeStore.open(tmp_path / "new.db") as new, KeyframeStore.open(tmp_path / "whole.db") as whole:
        for i in (1, 2, 3):
            np.testing.assert_array_equal(new.get(i).fine, whole.get(i).fine)


def test_a_rebuild_of_a_map_that_changed_meanwhile_is_not_continued(scene, tmp_path):
    class Interrupted(FolderImages):
        def image(self, name):
            if name == NAMES[1]:
                raise KeyboardInterrupt
            return super().image(name)

    def attempt(images, **options):
        with KeyframeStore.open(copy) as store:
            source = RebuildSource(store, [images])
            return build_map(source, KeyframeBuilder(PlaceBackbone()), tmp_path / "new.db", progress=False, **options)

    copy = tmp_path / "old.db"
    shutil.copy(scene / "old.db", copy)
    with pytest.raises(KeyboardInterrupt):
        attempt(Interrupted(scene / "images"))
    with KeyframeStore.open(copy, readonly=False) as store:
        moved = store.get(1).T_map_cam.copy()
        moved[0, 3] += 1.0
        store.update_pose(1, moved)
    with pytest.raises(MapError, match="left from an import with other input"):
        attempt(FolderImages(scene / "images"))
    assert attempt(FolderImages(scene / "images"), force=True).keyframes == 3
    with KeyframeStore.open(tmp_path / "new.db") as new:
        np.testing.assert_array_equal(new.get(1).T_map_cam, moved)


def test_images_of_a_bag_are_found_by_their_stamps(scene, tmp_path):
    files = [(scene / "images" / name).read_bytes() for name in NAMES]
    stamps = [1_700_000_000_000_000_000 + 10**9 * i for i in range(3)]
    messages = [
        (at, "/c/image", "compressed", encoded_message(at, "c", file, "png")) for at, file in zip(stamps, files)
    ]
    bag = named_images(write_messages(tmp_path / "bag", messages))
    for i, name in enumerate(NAMES):
        image = cv2.imread(str(scene / "images" / name))
        np.testing.assert_array_equal(bag.image(f"{1_700_000_000 + i}.000000000"), image)
    with pytest.raises(ImageError, match="no image of this stamp"):
        bag.image("1700000009.000000000")
    bag.close()
    with pytest.raises(ImportSourceError, match="/other"):
        named_images(tmp_path / "bag", "/other")


def test_names_that_lead_out_of_the_folder_are_refused(scene):
    for name in ("../old.db", "/etc/hostname", "a/../../old.db"):
        with pytest.raises(ImageError, match="no name of an image"):
            FolderImages(scene / "images").image(name)


@pytest.mark.parametrize("name", ["x" * 300, "nul\0.png", "."])
def test_names_that_no_file_can_have_are_refused(scene, name):
    with pytest.raises(ImageError, match="cannot be read"):
        FolderImages(scene / "images").image(name)


@pytest.mark.parametrize(
    "source, expected",
    [
        ('{"importer": "colmap", "images_folder": "HERE"}', ["HERE"]),
        ('{"importer": "bag", "bag": "HERE"}', ["HERE"]),
        (
            '{"importer": "map merge", "maps": [{"source": {"folder": "HERE"}}, {"source": {"folder": "HERE"}}]}',
            ["HERE"],
        ),
        ('{"importer": "map prune", "source": "{\\"folder\\": \\"HERE\\"}"}', ["HERE"]),
        ('{"folder": "/no/such/folder", "source": 3, "maps": 5}', "no longer at /no/such/folder"),
        ("keyframes by topic", "names no images"),
        ('{"folder": "\\u0000"}', "no longer"),
    ],
)
def test_recorded_places_of_images(tmp_path, source, expected):
    source = source.replace("HERE", str(tmp_path))
    with KeyframeStore.create(tmp_path / "m.db", "place", "f" * 64, source=source) as store:
        if isinstance(expected, str):
            with pytest.raises(ImportSourceError, match=expected + ".*--images"):
                recorded_images(store)
        else:
            assert recorded_images(store) == [str(tmp_path)]


def test_the_command_rebuilds_a_map_and_reports_what_it_left_out(scene, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("nre_ros.features.load_backbone", lambda *_: PlaceBackbone())
    command = ["map", "rebuild", str(scene / "old.db"), "-o", str(tmp_path / "new.db")]
    assert main(command) == 2
    assert "--images" in capsys.readouterr().err
    assert main([*command, "--images", str(scene / "nowhere")]) == 2
    assert str(scene / "nowhere") in capsys.readouterr().err
    assert main([*command, "--images", str(scene)]) == 0  # the images lie in its folder images
    table = capsys.readouterr().out
    assert "keyframes" in table and "skipped" in table
    with KeyframeStore.open(tmp_path / "new.db") as store:
        assert len(store) == 3 and store.metadata()["warning"] == "doubtful"
    assert main([*command, "--images", str(scene)]) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*command, "--images", str(scene), "--force"]) == 0


def test_a_fine_head_of_the_users_own_is_used_and_imported(scene, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    head = FineHead(channels=16, seed=4)
    backbone = load_backbone("xfeat", fine_head=head)
    head.save(tmp_path / "head.safetensors", backbone.network_hash)
    command = ["map", "rebuild", str(scene / "old.db"), "--images", str(scene), "--device", "cpu"]
    own = ["--fine-head", str(tmp_path / "head.safetensors")]
    assert main([*command, "-o", str(tmp_path / "no.db"), "--features", "nre", *own]) == 2
    assert "a fine head is for xfeat" in capsys.readouterr().err
    assert main([*command, "-o", str(tmp_path / "new.db"), *own]) == 0
    with Localizer(tmp_path / "new.db", "cpu") as localizer:
        assert localizer.backbone.weights_hash == backbone.weights_hash == localizer.store.metadata()["weights_hash"]
        assert localizer.store.get(1).fine.shape[1] == localizer.backbone.fine_channels == 16
    assert main(["weights", "list"]) == 0
    assert f"fine_head_{backbone.weights_hash[:16]}.safetensors" in capsys.readouterr().out


def test_an_empty_map_is_refused(tmp_path, scene):
    with KeyframeStore.create(tmp_path / "m.db", "place", "f" * 64) as store:
        with pytest.raises(ImportSourceError, match="has no keyframes"):
            RebuildSource(store, [FolderImages(scene)])
