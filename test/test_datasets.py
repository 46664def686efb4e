# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Public benchmarks on miniatures of the data sets in their exact layouts, made from the real test images."""

import shutil

import cv2
import dataset_miniatures as miniatures
import numpy as np
import pytest

from nre_ros.cli import main
from nre_ros.errors import ImportSourceError, NreError
from nre_ros.evaluation.datasets import DATASETS, make_dataset
from nre_ros.evaluation.datasets.benchmark import can_reuse_map, format_table
from nre_ros.evaluation.datasets.euroc import EurocSource
from nre_ros.evaluation.inputs import DatasetInput
from nre_ros.features import load_backbone
from nre_ros.geometry import EQUIDISTANT, invert, pose_error, pose_matrix
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.importers.resume_file import source_fingerprint
from nre_ros.keyframes.importers.text_files import read_list
from nre_ros.keyframes.importers.text_trajectory import parse_tum_pose
from nre_ros.keyframes.storage.store import KeyframeStore

MAKERS = {
    "7scenes": (miniatures.seven_scenes, "kitchen"),
    "tum": (miniatures.tum, "kitchen"),
    "aachen": (miniatures.aachen, "kitchen"),
    "inloc": (miniatures.inloc, "kitchen"),
    "cambridge": (miniatures.cambridge, "fountain"),
    "euroc": (miniatures.euroc, "fountain"),
}


@pytest.fixture(scope="module")
def root(shared, tmp_path_factory):
    """A function: name of a data set to the folder of its miniature."""
    made = {}

    def make(name):
        if name not in made:
            maker, data = MAKERS[name]
            made[name] = maker(shared / "data" / data, tmp_path_factory.mktemp(name))
        return made[name]

    return make


def benchmark(name, root, output, *more):
    return main([*map(str, ("benchmark", name, "--root", root, "-o", output, "--device", "cpu", "--worst", 0, *more))])


def test_every_data_set_has_a_miniature():
    assert set(MAKERS) == set(DATASETS)


def test_seven_scenes_gives_its_table(root, tmp_path, capsys):
    assert benchmark("7scenes", root("7scenes"), tmp_path) == 0
    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert "note: map of redkitchen: 7-Scenes: 5 images of seq-01" in output.err
    assert lines[0].split("|")[1:3] == [" scene      ", " method                                    "]
    ours, theirs = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:4])
    centimetres, degrees = map(float, ours[2].split(" / "))
    assert ours[:2] == ["redkitchen", "nre_ros"] and ours[3:] == ["100.0", "100.0"]
    assert centimetres < 1.5 and degrees < 0.5
    assert theirs[:4] == ["redkitchen", "hloc (SuperPoint + SuperGlue) (published)", "4.03 / 1.38", "61.9"]
    assert (tmp_path / "redkitchen/report.html").is_file() and (tmp_path / "table.md").is_file()
    # a map with another number of points is not reused
    assert benchmark("7scenes", root("7scenes"), tmp_path, "--points", 400) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "redkitchen.db was built with other points: --force builds the map again" in error
    (scene,) = make_dataset("7scenes").scenes(root("7scenes"))
    usual, other = (
        source_fingerprint(scene.source, KeyframeBuilder(load_backbone("xfeat", "cpu"), points))
        for points in (500, 400)
    )
    path = tmp_path / "redkitchen.db"
    assert can_reuse_map(path, usual, force=False) and can_reuse_map(path, usual, force=True)
    assert not can_reuse_map(path, other, force=True) and not can_reuse_map(tmp_path / "none.db", usual, force=False)


def test_a_scene_without_a_sequence_of_its_split_is_refused(root, tmp_path):
    """Its figures would not be comparable with published ones."""
    shutil.copytree(root("7scenes") / "redkitchen", tmp_path / "redkitchen")
    for split in ("Train", "Test"):
        before = (tmp_path / f"redkitchen/{split}Split.txt").read_text()
        (tmp_path / f"redkitchen/{split}Split.txt").write_text(f"{before}sequence7\n")
        (tmp_path / "redkitchen/seq-07.zip").touch()
        with pytest.raises(NreError, match="redkitchen is incomplete: seq-07 is left out: it is still zipped"):
            make_dataset("7scenes").scenes(tmp_path)
        (tmp_path / f"redkitchen/{split}Split.txt").write_text(before)
    (scene,) = make_dataset("7scenes").scenes(tmp_path)
    assert scene.queries.notes == ("7-Scenes: 2 images of seq-02",) == scene.queries.subset(1).notes


def test_cambridge_gives_its_table(root, tmp_path, capsys):
    assert benchmark("cambridge", root("cambridge"), tmp_path, "--queries", 2) == 0
    out = capsys.readouterr().out
    ours = [cell.strip() for cell in out.splitlines()[2].split("|")[1:-1]]
    assert ours[0] == "ShopFacade" and float(ours[2].split(" / ")[0]) < 3 and ours[4] == "100.0"
    assert "5 / 0.23" in out and "Only 2 evenly spaced queries" in out


def test_aachen_gives_the_submission_file(shared, root, tmp_path, capsys):
    """The file contains the kitchen's ground-truth poses, world to camera, and image names without folders."""
    assert benchmark("aachen", root("aachen"), tmp_path) == 0
    assert "89.6 / 95.4 / 98.8" in capsys.readouterr().out
    kitchen = shared / "data/kitchen"
    names, poses = read_list(kitchen / "query.txt"), read_list(kitchen / "query_poses.txt")
    truth = {name: parse_tum_pose(line)[1] for name, line in zip(names, poses)}
    lines = (tmp_path / "submission.txt").read_text().split("\n")[:-1]
    assert [line.split()[0] for line in lines] == names[: 2 * miniatures.QUERIES]
    for line in lines:
        name, *numbers = line.split()
        w, x, y, z, *translation = map(float, numbers)
        metres, radians = pose_error(invert(pose_matrix(translation, [x, y, z, w])), truth[name])
        assert metres < 0.05 and np.degrees(radians) < 2
    assert sorted(path.name for path in tmp_path.glob("*.db")) == ["day.db"]  # day and night share the map


def test_inloc_gives_the_submission_file(shared, root, tmp_path, capsys):
    """The cutouts' cameras are computed from their points; the file contains the kitchen's ground-truth poses."""
    assert benchmark("inloc", root("inloc"), tmp_path) == 0
    assert "46.5 / 65.7 / 78.3 (DUC1)" in capsys.readouterr().out
    poses = read_list(shared / "data/kitchen/query_poses.txt")[: miniatures.QUERIES]
    truth = [parse_tum_pose(line)[1] for line in poses]
    lines = (tmp_path / "submission.txt").read_text().split("\n")[:-1]
    assert [line.split()[0][:4] for line in lines] == ["IMG_"] * miniatures.QUERIES
    for line, T in zip(lines, truth):
        w, x, y, z, *translation = map(float, line.split()[1:])
        metres, radians = pose_error(invert(pose_matrix(translation, [x, y, z, w])), T)
        assert metres < 0.05 and np.degrees(radians) < 2
    with KeyframeStore.open(tmp_path / "inloc.db") as store:
        camera = store.get(1).camera
    assert camera.fx == pytest.approx(554.2, abs=0.1) and (camera.cx, camera.cy) == (319.5, 239.5)


def test_tum_gives_its_table(root, tmp_path, capsys):
    scenes = "rgbd_dataset_freiburg3_map,rgbd_dataset_freiburg3_query"
    assert benchmark("tum", root("tum"), tmp_path, "--scenes", scenes) == 0
    ours = [cell.strip() for cell in capsys.readouterr().out.splitlines()[2].split("|")[1:-1]]
    assert ours[0] == "rgbd_dataset_freiburg3_query" and float(ours[3]) < 2 and ours[5:] == ["100.0", "100.0"]


def test_a_single_tum_sequence_is_halved_into_map_and_queries(root):
    (scene,) = make_dataset("tum").scenes(root("tum") / "rgbd_dataset_freiburg3_map")
    assert (len(scene.source.names()), len(scene.queries)) == (2, 3)
    assert not set(scene.source.names()) & set(scene.queries.images)


def loaded_images(queries):
    for query in queries.images.values():
        yield query, *query.load()


def test_euroc_images_poses_and_cameras_equal_the_originals(shared, root):
    (scene,) = make_dataset("euroc").scenes(root("euroc"))
    assert scene.name == "V1_02_medium" and len(scene.source.names()) == 7 and len(scene.queries) == 4
    originals = [entry for entry in miniatures.fountain_frames(shared / "data/fountain") if entry[4]]
    for (query, image, camera), (_, original, theirs, T, _) in zip(loaded_images(scene.queries), originals):
        metres, radians = pose_error(query.T_map_cam, T)
        assert metres < 1e-6 and radians < 1e-6  # the transform from body to camera is removed and applied again
        assert (camera.width, camera.fx, camera.cy) == (theirs.width, theirs.fx, theirs.cy)
        grey = cv2.cvtColor(original, cv2.COLOR_BGR2GRAY)
        assert image.shape == original.shape and np.abs(image - grey[..., None].astype(int)).max() <= 1


def test_cambridge_poses_and_cameras_equal_the_originals(shared, root):
    (scene,) = make_dataset("cambridge").scenes(root("cambridge") / "ShopFacade")
    originals = [entry for entry in miniatures.fountain_frames(shared / "data/fountain") if entry[4]]
    for (query, _, camera), (_, _, theirs, T, _) in zip(loaded_images(scene.queries), originals):
        metres, radians = pose_error(query.T_map_cam, T)
        assert metres < 1e-6 and radians < 1e-6
        assert camera.fx == camera.fy == pytest.approx(theirs.fx / 2) and camera.cx == (theirs.width // 2 - 1) / 2


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_a_folder_of_another_kind_is_refused(tmp_path, name):
    with pytest.raises(NreError, match=str(tmp_path)):
        make_dataset(name).scenes(tmp_path)


def test_a_missing_scene_is_refused(root):
    with pytest.raises(NreError, match="contains no scene with a TrainSplit.txt: chess"):
        make_dataset("7scenes").scenes(root("7scenes"), ("redkitchen", "chess"))


def test_an_image_without_a_ground_truth_pose_keeps_its_stamp():
    class Source:
        stamps = {"a": 5, "b": 6}

        def names(self):
            return list(self.stamps)

        def pose(self, name):
            if name == "a":
                raise NreError("no pose at this image's time")
            return self.stamps[name], np.eye(4)

    queries = DatasetInput.from_source(Source(), "made up")
    assert [query.stamp for query in queries.queries()] == [5, 6]
    assert np.isfinite(queries.poses(["a", "b"])[:, 0, 0]).tolist() == [False, True]


def test_damaged_files_are_refused(root, tmp_path):
    for name, path, text, named in (
        ("cambridge", "ShopFacade/reconstruction.nvm", "NVM_V2\n", "is not an NVM_V3 model"),
        (
            "cambridge",
            "ShopFacade/dataset_test.txt",
            "a\nb\n\nseq1/frame00001.png 1 2\n",
            "expected 'image x y z qw qx",
        ),
        (
            "aachen",
            "queries/day_time_queries_with_intrinsics.txt",
            "a.jpg PINHOLE 640\n",
            "expected 'image MODEL width",
        ),
        ("euroc", "V1_01_easy/mav0/cam0/sensor.yaml", "T_BS: 1\n", "is not a sensor.yaml"),
        (
            "euroc",
            "V1_01_easy/mav0/cam0/data.csv",
            "#t,name\nabc,1.png\n",
            "line 2: expected 'timestamp,filename', got 'abc",
        ),
        ("euroc", "V1_01_easy/mav0/cam0/data.csv", "12\n", "line 1: expected 'timestamp,filename'"),
        (
            "euroc",
            "V1_02_medium/mav0/state_groundtruth_estimate0/data.csv",
            "1,2,3\n",
            "line 1: expected 'timestamp,x,y",
        ),
    ):
        broken = tmp_path / f"{name}{len(list(tmp_path.iterdir()))}"
        shutil.copytree(root(name), broken)
        (broken / path).write_text(text)
        with pytest.raises(NreError, match=named):
            make_dataset(name).scenes(broken)


def test_an_equidistant_camera_is_read_and_an_unknown_distortion_model_is_refused(root, tmp_path):
    shutil.copytree(root("euroc") / "V1_01_easy", tmp_path / "V1_01_easy")
    path = tmp_path / "V1_01_easy/mav0/cam0/sensor.yaml"
    before = path.read_text()
    path.write_text(before.replace("radial-tangential", "equidistant"))
    assert EurocSource(tmp_path / "V1_01_easy").camera("").model == EQUIDISTANT
    path.write_text(before.replace("radial-tangential", "fov"))
    with pytest.raises(NreError, match="sensor.yaml: unknown distortion_model 'fov'"):
        EurocSource(tmp_path / "V1_01_easy")


def test_published_figures_are_listed_only_for_scenes_that_were_run():
    summary = {
        "shares": {"accepted": 1, "images": 2},
        "median_of_all": {"position_m": None, "rotation_deg": None},
        "recall": {"0.05 m, 5 deg": 0.5},
    }
    lines = format_table(make_dataset("7scenes"), {"heads": summary})
    assert len(lines[:4]) == 4 and "heads" in lines[3] and not any("chess" in line for line in lines)
    assert "| - " in lines[2] and "50.0" in lines[2]
    summary["recall"]["0.05 m, 5 deg"] = None  # no query has a true pose
    assert lines[2].count("| - ") + 1 == format_table(make_dataset("7scenes"), {"heads": summary})[2].count("| - ")


def test_lists_of_euroc_are_read_with_a_byte_order_mark_and_any_header(tmp_path):
    from nre_ros.evaluation.datasets.euroc import _rows

    path = tmp_path / "data.csv"
    for header in (b"", b"#timestamp [ns],filename\n", b"timestamp,filename\n", b"\xef\xbb\xbftimestamp,filename\r\n"):
        path.write_bytes(header + b"10,10.png\n20,20.png\n")
        assert list(_rows(path, "timestamp,filename", str)) == [(10, "10.png"), (20, "20.png")]


def test_lists_of_cambridge_have_no_fixed_number_of_header_lines(tmp_path):
    from nre_ros.evaluation.datasets.cambridge import CambridgeSource

    (tmp_path / "reconstruction.nvm").write_text("NVM_V3\n\n1\nseq1/a.jpg 40 1 0 0 0 0 0 0 0 0\n")
    for header in ("", "Visual Landmark Dataset V1\nImageFile, Camera Position [X Y Z W P Q R]\n\n", "\ufefftitle\n"):
        (tmp_path / "dataset_train.txt").write_text(f"{header}seq1/a.png 1 2 3 1 0 0 0\nseq1/b.png 2 2 3 1 0 0 0\n")
        source = CambridgeSource(tmp_path, "train")
        assert source.names() == ["seq1/a.png", "seq1/b.png"]
        np.testing.assert_array_equal(source.pose("seq1/a.png")[1][:3, 3], [1, 2, 3])
    (tmp_path / "dataset_train.txt").write_text("seq1/a.png 1 2 3 1 0 0 0\nseq1/b.png 2 2 3 1 0 0\n")
    with pytest.raises(ImportSourceError, match="expected 'image x y z qw qx qy qz'"):
        CambridgeSource(tmp_path, "train")


def test_distortion_coefficients_of_euroc_may_end_with_zeros(tmp_path):
    from nre_ros.evaluation.datasets.euroc import _read_sensor

    path = tmp_path / "sensor.yaml"
    path.write_text(
        "T_BS: {data: [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]}\nresolution: [752, 480]\n"
        "intrinsics: [458, 457, 367, 248]\ndistortion_model: equidistant\n"
        "distortion_coefficients: [-0.01, 0.02, 0.001, 0.002, 0]\n"
    )
    assert _read_sensor(path)[0].distortion == (-0.01, 0.02, 0.001, 0.002)
