# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Sources of training pairs are recognised by their files; photographs are found with their licences."""

import re
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
from recording_samples import POSES, model_folder, rgbd_folder
from test_import_posed import kapture_folder

from nre_ros.errors import TrainingError
from nre_ros.learning import open_pairs
from nre_ros.learning.gallery_pairs import GalleryPairs
from nre_ros.learning.open_pairs import KINDS, OpenedPairs, PairOptions, open_pair_source, recognise
from nre_ros.learning.pair_sources import PhotographPairs
from nre_ros.learning.photographs import PackagedPhotograph, folder_photographs, packaged_photographs, read_photographs
from nre_ros.learning.recorded_pairs import DepthPairs
from nre_ros.learning.track_pairs import TriangulatedPairs
from nre_ros.learning.training_data import DataSource, TrainingData

UNCHECKED = PairOptions(check=False)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """An RGB-D folder, and beside it the same images as a COLMAP model without points and depth."""
    folder = tmp_path_factory.mktemp("opened")
    rgbd_folder(folder / "rgbd", POSES[:6])
    model_folder(folder / "posed", POSES[:6])
    (folder / "posed/images").symlink_to(folder / "rgbd/images")
    return folder


@pytest.mark.parametrize(
    "files, kind",
    [
        (("rgb.txt", "depth.txt", "groundtruth.txt"), "rgbd"),
        (("frame-000000.pose.txt",), "rgbd"),
        (("seq-01/frame-000000.pose.txt",), "rgbd"),
        (("sensors/records_camera.txt",), "kapture"),
        (("metadata.yaml", "a_0.mcap"), "bag"),
        (("a_0.db3",), "bag"),
        (("reconstruction.nvm", "dataset_train.txt"), "cambridge"),
        (("mav0/cam0/data.csv",), "euroc"),
        (("cameras.bin", "images.bin", "points3D.bin"), "colmap"),
        (("sparse/0/cameras.bin", "sparse/0/images.bin", "sparse/0/points3D.bin", "images/a.jpg"), "colmap"),
        (("sparse/cameras.txt", "sparse/images.txt", "images/a.jpg"), "posed"),
        (("holiday/one.JPG", "notes.txt"), "photographs"),
    ],
)
def test_folders_are_recognised_by_their_files(tmp_path, files, kind):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert recognise(tmp_path) == kind and kind in KINDS


def test_files_are_recognised_by_their_endings(tmp_path):
    for name, kind in (("a.mcap", "bag"), ("a.db3", "bag"), ("a.db", "map")):
        (tmp_path / name).touch()
        assert recognise(tmp_path / name) == kind


@pytest.mark.parametrize(
    "name, message",
    [
        ("nowhere", "nowhere: not found; known names are rooms and photographs"),
        ("rgbd:", "rgbd:: a path is missing behind the colon"),
        ("colmap:{}", "no COLMAP model"),
        ("{}", "no recording that the importers read"),
        ("{}/file.txt", "neither a map"),
        ("map:{}/sample.db", "sample.db"),
        ("photographs:{}", "no image"),
        ("bag:{}", "bag"),
        ("euroc:{}", "."),
        ("cambridge:{}", "."),
        ("kapture:{}", "sensors"),
    ],
)
def test_what_cannot_be_opened_is_refused_in_one_line(tmp_path, name, message):
    (tmp_path / "file.txt").touch()
    with pytest.raises(TrainingError, match=message) as caught:
        open_pair_source(name.format(tmp_path), UNCHECKED)
    assert "\n" not in str(caught.value)


def test_recordings_are_opened_with_a_part_held_out(recording):
    opened = open_pair_source(recording / "rgbd", UNCHECKED)
    assert isinstance(opened.pairs, DepthPairs) and isinstance(opened.held_out, DepthPairs)
    assert opened.about["importer"] == "rgbd" and "pairs of 6 images" in opened.summary
    assert len(opened.pairs.pair(0, 0).visible) > 100 and len(opened.held_out.pair(0, 0).visible) > 100
    posed = open_pair_source(f"posed:{recording / 'posed'}", UNCHECKED)
    assert isinstance(posed.pairs, TriangulatedPairs) and posed.about["importer"] == "posed"


@pytest.mark.parametrize("name", ["rgbd", "posed"])
def test_a_recording_that_was_moved_is_the_same_data_and_one_with_other_poses_is_not(recording, name, tmp_path):
    """A resumed training compares ``identity``."""

    def identity(folder) -> str:
        return TrainingData.open([f"{name}:{folder / name}"], UNCHECKED, room_share=0).training_pairs(0).identity

    before = identity(recording)
    shutil.copytree(recording, tmp_path / "moved")  # with the images that a link names
    assert identity(tmp_path / "moved") == before
    poses = tmp_path / "moved" / {"rgbd": "rgbd/poses.txt", "posed": "posed/sparse/images.txt"}[name]
    lines = poses.read_text().splitlines()
    changed = [re.sub(r"(\.\d\d)\d+", r"\1", line) if "frame" in line else line for line in lines]
    poses.write_text("\n".join(changed if name == "posed" else [line[:-1] for line in lines]) + "\n")
    assert identity(tmp_path / "moved") != before


def test_a_map_that_was_moved_is_the_same_data_and_one_with_other_keyframes_is_not(recording):
    pairs = open_pair_source(recording / "rgbd", UNCHECKED).pairs

    def identity(path: str, keyframes: str) -> str:
        about = {"importer": "map rebuild", "map": path, "keyframes": keyframes}
        return TrainingData([DataSource(path, OpenedPairs(pairs, None, "a map", about))]).training_pairs(0).identity

    assert identity("/here/hall.db", "0123") == identity("/there/hall.db", "0123") != identity("/here/hall.db", "4567")


@pytest.mark.parametrize("key", ["folder", "images_folder", "depth", "bag"])
def test_where_the_data_lies_is_described_but_not_compared(key):
    opened = open_pair_source("rooms")
    sources = [replace(opened, about={**opened.about, key: place}) for place in ("/a", "/b")]
    data = [TrainingData([DataSource("x", source)]) for source in sources]
    assert data[0].training_pairs(0).identity == data[1].training_pairs(0).identity
    assert data[0].describe()[0][key] == "/a"


def test_kapture_folders_are_read_by_their_importer(tmp_path):
    with pytest.raises(TrainingError, match="kapture|images"):  # whose records have no image files here
        open_pair_source(kapture_folder(tmp_path), UNCHECKED)


def test_rooms_and_photographs_need_no_path(tmp_path, monkeypatch):
    # whatever wallpapers this machine has
    monkeypatch.setattr(open_pairs, "packaged_photographs", lambda: packaged_photographs(tmp_path))
    rooms = open_pair_source("rooms", PairOptions(size=(160, 120)))
    assert isinstance(rooms.pairs, GalleryPairs) and rooms.about["size"] == [160, 120]
    photographs = open_pair_source("photographs", PairOptions(size=(80, 60), points=50))
    assert isinstance(photographs.pairs, PhotographPairs)
    assert photographs.pairs.pair(0, 0).image_a.shape == (60, 80, 3)
    assert any(line.startswith("coffee.png (scikit-image): Rachel Michetti, CC0-1.0") for line in photographs.credits)


def test_rooms_with_photographs_name_their_authors(tmp_path, monkeypatch):
    monkeypatch.setattr(open_pairs, "packaged_photographs", lambda: packaged_photographs(tmp_path)[:3])
    rooms = open_pair_source("rooms:photographs", PairOptions(size=(80, 60)))
    assert isinstance(rooms.pairs, GalleryPairs) and len(rooms.about["pictures"]) == len(rooms.credits) == 3
    cv2.imwrite(str(tmp_path / "own.png"), np.full((60, 80, 3), 90, np.uint8))
    assert open_pair_source(f"rooms:{tmp_path}", PairOptions(size=(80, 60))).about["pictures"] == ["own.png"]


def test_one_photograph_in_ten_of_a_folder_is_held_out(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(8):
        cv2.imwrite(str(tmp_path / f"{number}.png"), rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    opened = open_pair_source(tmp_path, PairOptions(size=(40, 32)))
    assert opened.summary.startswith("8 photographs") and "1 held out" in opened.summary
    assert "broken.jpg" in opened.notes[0] and opened.held_out is not None
    assert {opened.held_out.pair(0, i).source for i in range(5)} == {"photograph 5.png"}
    assert "photograph 5.png" not in {opened.pairs.pair(0, i).source for i in range(40)}


# photographs


def test_every_packaged_photograph_has_an_author_and_a_free_licence():
    found = packaged_photographs()
    assert {"coffee.png", "camera.png", "astronaut.png"} <= {photo.path.name for photo in found}
    free = {"CC0-1.0", "CC-BY-2.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "GPL-2.0-or-later", "public domain"}
    assert {photo.licence for photo in found} <= free | {"no known copyright restrictions"}
    assert all(photo.author and photo.path.is_file() for photo in found)


def test_wallpapers_of_debian_are_found_where_they_are_installed(tmp_path):
    for file in ("mate/nature/Dune.jpg", "Bridge_by_Sander_Klootwijk.jpg", "unknown.jpg", "mate/abstract/Silk.png"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    found = [photo for photo in packaged_photographs(tmp_path) if "scikit" not in photo.package]
    assert [photo.credit() for photo in found] == [
        "Bridge_by_Sander_Klootwijk.jpg (lomiri-wallpapers-16.04): Sander Klootwijk, CC-BY-SA-4.0",
        "Dune.jpg (mate-backgrounds): Marco Cogoni, Hylke Bons, GPL-2.0-or-later",
    ]
    assert isinstance(found[0], PackagedPhotograph) and found[0].name == (
        "lomiri-wallpapers-16.04/Bridge_by_Sander_Klootwijk.jpg"
    )


def test_large_photographs_are_reduced_and_unreadable_and_too_small_ones_named(tmp_path):
    cv2.imwrite(str(tmp_path / "large.jpg"), np.full((300, 500, 3), 80, np.uint8))
    (tmp_path / "below").mkdir()
    cv2.imwrite(str(tmp_path / "below/small.png"), np.full((60, 50, 3), 80, np.uint8))
    cv2.imwrite(str(tmp_path / "icon.png"), np.full((16, 16, 3), 80, np.uint8))
    cv2.imwrite(str(tmp_path / "panorama.png"), np.full((60, 1000, 3), 80, np.uint8))  # 15 pixels high when reduced
    (tmp_path / "empty.png").touch()
    images, notes = read_photographs(folder_photographs(tmp_path), max_side=250)
    assert {name: image.shape for name, image in images.items()} == {
        "below/small.png": (60, 50, 3),
        "large.jpg": (150, 250, 3),
    }
    assert len(notes) == 3 and "empty.png" in notes[0]
    assert "icon.png: image of 16x16 pixels is too small" in notes[1] and "panorama.png: image of 250x15" in notes[2]
    with pytest.raises(TrainingError, match="none of 1 photographs can be used.*empty.png"):
        read_photographs([("empty", tmp_path / "empty.png")])
    with pytest.raises(TrainingError, match="not a folder"):
        folder_photographs(tmp_path / "none")
