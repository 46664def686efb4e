# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Building a map file: nothing that exists is lost, an interrupted build continues, the command line."""

import argparse
import json
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from child_process import child_process
from keyframe_samples import CAMERA, PlaceBackbone, random_keyframe, random_pose

from nre_ros.cli import map as map_command
from nre_ros.cli import map_build
from nre_ros.errors import ImportSourceError, MapError
from nre_ros.geometry import position_quaternion
from nre_ros.keyframes.building.builder import WITHOUT_SUPPORT, KeyframeBuilder
from nre_ros.keyframes.importers.build_map import build_map
from nre_ros.keyframes.importers.colmap.cameras import write_cameras_txt
from nre_ros.keyframes.importers.import_report import ImportReport
from nre_ros.keyframes.importers.map_source import MapSource
from nre_ros.keyframes.importers.pose_agreement.check import PoseCheck
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.tools.info import describe_map


class RandomSource(MapSource):
    """Random keyframes; stops like Ctrl-C at the image ``interrupt``, leaves out those in ``bad``."""

    def __init__(self, count=6, interrupt=None, bad=(), flavour="a"):
        self.count, self.interrupt, self.bad, self.flavour = count, interrupt, bad, flavour
        self.made = []

    def names(self):
        return [f"frame-{i}" for i in range(self.count)]

    def describe(self):
        return {"flavour": self.flavour}

    def keyframe(self, name, builder):
        if name == self.interrupt:
            raise KeyboardInterrupt
        if name in self.bad:
            raise ImportSourceError("bad on purpose")
        self.made.append(name)
        return random_keyframe(name, int(name[6:]), points=builder.points_per_keyframe, background=8, dimensions=50)


def build(source, path, points=10, seed=0, **options):
    return build_map(source, KeyframeBuilder(PlaceBackbone(), points, seed=seed), path, progress=False, **options)


def names(path):
    with KeyframeStore.open(path) as store:
        return list(store.names())


def test_a_map_is_built_and_skipped_images_are_reported(tmp_path, capsys):
    report = build(RandomSource(bad=["frame-1", "frame-4"]), tmp_path / "m.db")
    assert (report.keyframes, report.points, report.resumed) == (4, 40, 0)
    assert report.skipped == {"frame-1": "bad on purpose", "frame-4": "bad on purpose"}
    assert report.file_bytes == (tmp_path / "m.db").stat().st_size
    assert "skipped frame-1: bad on purpose" in capsys.readouterr().err
    assert names(tmp_path / "m.db") == ["frame-0", "frame-2", "frame-3", "frame-5"]
    assert [file.name for file in tmp_path.iterdir()] == ["m.db"]
    with KeyframeStore.open(tmp_path / "m.db") as store:
        store.check_features(PlaceBackbone())


def test_an_existing_map_needs_force_and_stays_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "m.db"
    build(RandomSource(count=2), path)
    before = path.read_bytes()
    with pytest.raises(MapError, match="--force"):
        build(RandomSource(count=3), path)
    with pytest.raises(KeyboardInterrupt):
        build(RandomSource(count=3, interrupt="frame-2"), path, force=True)
    with pytest.raises(ImportSourceError, match="none of the 3"):
        build(RandomSource(count=3, bad=["frame-0", "frame-1", "frame-2"], flavour="b"), path, force=True)
    assert path.read_bytes() == before
    build(RandomSource(count=3), path, force=True)
    assert names(path) == ["frame-0", "frame-1", "frame-2"]


def test_an_interrupted_build_is_continued(tmp_path):
    path = tmp_path / "m.db"
    with pytest.raises(KeyboardInterrupt):
        build(RandomSource(interrupt="frame-3"), path)
    assert not path.exists() and names(tmp_path / "m.db.partial") == ["frame-0", "frame-1", "frame-2"]
    again = RandomSource()
    report = build(again, path)
    assert again.made == ["frame-3", "frame-4", "frame-5"]
    assert (report.keyframes, report.resumed) == (6, 3)
    assert names(path) == again.names() and [file.name for file in tmp_path.iterdir()] == ["m.db"]


@pytest.mark.parametrize("options", [{"points": 11}, {"seed": 1}, {"flavour": "b"}, {"count": 7}])
def test_a_build_with_other_options_is_not_continued(tmp_path, options):
    path = tmp_path / "m.db"
    with pytest.raises(KeyboardInterrupt):
        build(RandomSource(interrupt="frame-3"), path)
    source = RandomSource(**{key: options[key] for key in options.keys() & {"flavour", "count"}})
    rest = {key: options[key] for key in options.keys() & {"points", "seed"}}
    with pytest.raises(MapError, match="partial.*--force"):
        build(source, path, **rest)
    assert len(names(tmp_path / "m.db.partial")) == 3
    assert build(source, path, force=True, **rest).resumed == 0


def test_a_resume_file_that_is_no_map_is_not_overwritten(tmp_path):
    (tmp_path / "m.db.partial").write_text("something of the user's")
    with pytest.raises(MapError, match="--force"):
        build(RandomSource(), tmp_path / "m.db")
    assert (tmp_path / "m.db.partial").read_text() == "something of the user's"


def test_the_log_of_a_replaced_map_is_not_read_into_the_new_one(tmp_path):
    path = tmp_path / "m.db"
    killed = (
        "import sys, os; sys.path.insert(0, sys.argv[2])\n"
        "from keyframe_samples import random_keyframe\n"
        "from nre_ros.keyframes.storage.store import KeyframeStore\n"
        "store = KeyframeStore.create(sys.argv[1], 'old', 'old')\n"
        "store.add(random_keyframe('old', 1)); os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", killed, str(path), str(Path(__file__).parent)], timeout=300)
    assert (tmp_path / "m.db-wal").exists()
    build(RandomSource(count=2), path, force=True)
    assert names(path) == ["frame-0", "frame-1"] and not (tmp_path / "m.db-wal").exists()


def test_an_empty_list_and_a_folder_as_map_are_refused(tmp_path):
    with pytest.raises(ImportSourceError, match="no images"):
        build(RandomSource(count=0), tmp_path / "m.db")
    with pytest.raises(MapError, match="folder"):
        build(RandomSource(), tmp_path, force=True)
    assert list(tmp_path.iterdir()) == []


def test_background_depends_on_seed_and_name_alone():
    image = np.random.default_rng(0).integers(0, 255, (480, 640, 3)).astype(np.uint8)

    def background(name, seed):
        builder = KeyframeBuilder(PlaceBackbone(), background=50, seed=seed)
        return builder.build(name, 0, image, CAMERA, np.eye(4), np.zeros((0, 2)), np.zeros((0, 3))).background

    np.testing.assert_array_equal(background("a", 0), background("a", 0))
    assert not np.array_equal(background("a", 0), background("b", 0))
    assert not np.array_equal(background("a", 0), background("a", 1))


_KILLED = """
import sys; sys.path.insert(0, {folder!r})
import test_import_build as t
t.build(t.RandomSource(count=100000), sys.argv[1])
"""


def test_a_killed_build_keeps_what_was_committed_and_is_continued(tmp_path):
    path, partial = tmp_path / "m.db", tmp_path / "m.db.partial"
    code = _KILLED.format(folder=str(Path(__file__).parent))
    with child_process([sys.executable, "-c", code, str(path)]) as process:
        while not (
            partial.with_name("m.db.partial-wal").exists()
            and partial.with_name("m.db.partial-wal").stat().st_size > 200_000
        ):
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    assert not path.exists()
    kept = names(partial)
    assert kept == [f"frame-{i}" for i in range(len(kept))] and len(kept) > 5
    source = RandomSource(count=100000, interrupt=f"frame-{len(kept) + 3}")
    with pytest.raises(KeyboardInterrupt):
        build(source, path)
    assert {f"frame-{len(kept) + i}" for i in range(3)} <= set(source.made)  # and what was begun beside them
    assert not set(source.made) & set(kept)


def command(*words):
    parser = argparse.ArgumentParser(prog="nre_ros")
    map_command.add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args([str(word) for word in words])
    return args.func(args)


@pytest.fixture
def rgbd_folder(tmp_path, monkeypatch):
    """Five images; the second lacks depth, the third is torn, the fourth has a NaN pose."""
    monkeypatch.setattr("nre_ros.features.load_backbone", lambda name, *_: PlaceBackbone())
    rng = np.random.default_rng(0)
    lines = ["# t x y z qx qy qz qw"]
    for i in range(5):
        image = rng.integers(0, 255, (480, 640, 3)).astype(np.uint8)
        for kind, pixels in [("rgb", image), ("depth", np.full((480, 640), 2000, np.uint16))]:
            (tmp_path / kind).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / kind / f"{i}.{'jpg' if kind == 'rgb' else 'png'}"), pixels)
        position, quaternion = position_quaternion(random_pose(rng))
        lines.append(" ".join(map(repr, [1.5, *position.tolist(), *quaternion.tolist()])))
    (tmp_path / "depth/1.png").unlink()
    torn = (tmp_path / "rgb/2.jpg").read_bytes()
    (tmp_path / "rgb/2.jpg").write_bytes(torn[: len(torn) // 2])
    lines[4] = "1 nan 0 0 0 0 0 1"
    (tmp_path / "poses.txt").write_text("\n".join(lines))
    (tmp_path / "list.txt").write_text("\n".join(f"{i}.jpg" for i in range(5)))
    write_cameras_txt(tmp_path / "cameras.txt", {1: CAMERA})
    return tmp_path


def test_map_build_and_info(rgbd_folder, capsys):
    folder = rgbd_folder
    words = [
        "map",
        "build",
        "rgbd",
        "--images",
        folder / "rgb",
        "--depth",
        folder / "depth",
        "--poses",
        folder / "poses.txt",
        "--list",
        folder / "list.txt",
        "--camera",
        folder / "cameras.txt",
        "-o",
        folder / "m.db",
        "--points",
        50,
        "--device",
        "cpu",
    ]
    assert command(*words) == 0
    out, err = capsys.readouterr()
    table = dict(line.split(None, 1) for line in out.splitlines())
    assert (table["keyframes"], table["points"], table["skipped"]) == ("2", "100", "3")
    assert table["poses"] == "t x y z qx qy qz qw in seconds, camera-to-map (by the header)"
    for name, reason in [("1.jpg", "No such file"), ("2.jpg", "truncated"), ("3.jpg", "not finite")]:
        assert sum(f"skipped {name}" in line and reason in line for line in err.splitlines()) == 1
    with pytest.raises(MapError, match="exists"):
        command(*words)
    lines = (folder / "poses.txt").read_text().splitlines()
    (folder / "poses.txt").write_text("\n".join(["timestamp tx ty tz qx qy qz qw", *lines]))
    assert command(*words, "--force", "--pose-direction", "map-to-camera") == 0
    assert "t x y z qx qy qz qw in seconds, map-to-camera (by the header)" in capsys.readouterr().out

    assert command("map", "info", folder / "m.db") == 0
    shown = capsys.readouterr().out
    assert "place" in shown and "640x480 radial_tangential" in shown
    assert command("map", "info", folder / "m.db", "--json") == 0
    info = json.loads(capsys.readouterr().out)
    assert (info["keyframes"], info["points"], info["frame_id"], info["schema_version"]) == (2, 100, "map", 4)
    with pytest.raises(MapError, match="does not exist"):
        command("map", "info", folder / "none.db")


def test_many_points_without_support_are_a_warning_in_the_map_and_of_the_command(tmp_path):
    class Unsupported(RandomSource):
        def keyframe(self, name, builder):
            builder.tally[WITHOUT_SUPPORT] += self.unsupported
            return super().keyframe(name, builder)

    for unsupported, count, warned in [(2, 6, False), (4, 6, True), (4, 4, False)]:
        source = Unsupported(count)
        source.unsupported = unsupported
        report = build(source, tmp_path / f"{unsupported}_{count}.db")
        text = "40% of the points are without support by another view (good maps: up to 30%)"
        assert report.support_warning() == (text if warned else "")
        with KeyframeStore.open(report.path) as store:
            assert describe_map(store).warning == (text if warned else "")


def test_names_that_a_source_has_more_than_once_are_counted(tmp_path):
    class Twice(RandomSource):
        def names(self):
            return [*super().names(), "frame-2"]

    report = build(Twice(4), tmp_path / "m.db")
    assert (report.keyframes, report.repeated) == (4, 1)


def test_poses_that_disagree_with_the_images_stop_the_build_unless_accepted(rgbd_folder, capsys, monkeypatch):
    refused = PoseCheck(8, 0, camera_warnings=("camera of 0.jpg: odd",))
    monkeypatch.setattr("nre_ros.keyframes.importers.pose_agreement.check.check_poses", lambda *_: refused)
    words = ["map", "build", "rgbd", "--images", rgbd_folder / "rgb", "--depth", rgbd_folder / "depth"]
    words += ["--poses", rgbd_folder / "poses.txt", "--list", rgbd_folder / "list.txt"]
    words += ["--camera", rgbd_folder / "cameras.txt", "--points", 20]
    monkeypatch.setattr("sys.argv", ["nre_ros", *map(str, words), "-o", "m.db", "--force"])
    output = ["-o", rgbd_folder / "m.db"]
    with pytest.raises(ImportSourceError, match=r"is not written: .*only 0 of 8 .* --points 20 --diagnose\)"):
        command(*words, *output)
    assert not (rgbd_folder / "m.db").exists()
    err = capsys.readouterr().err
    assert "warning: camera of 0.jpg: odd" in err and "warning: likely causes: poses of other images" in err
    assert command(*words, "--diagnose") == 1
    assert "only 0 of 8 image pairs agree" in capsys.readouterr().out
    assert command(*words, *output, "--accept-poses") == 0
    out, err = capsys.readouterr()
    # the map is complete although its features are none that a localizer knows
    assert "pose check" in out and "the map was not checked: " in err
    with KeyframeStore.open(rgbd_folder / "m.db") as store:
        assert "only 0 of 8 image pairs agree" in describe_map(store).warning


@pytest.mark.parametrize(
    "check, cause", [(PoseCheck(8, 8), "The poses agree with the images that were"), (PoseCheck(8, 5), "Likely causes")]
)
def test_the_cause_of_points_without_support_follows_from_the_pose_check(
    rgbd_folder, tmp_path, capsys, monkeypatch, check, cause
):
    monkeypatch.setattr("nre_ros.keyframes.importers.pose_agreement.check.check_poses", lambda *_: check)
    monkeypatch.setattr(ImportReport, "support_warning", lambda _: "90% of the points are without support")
    words = ["map", "build", "rgbd", "--images", rgbd_folder / "rgb", "--depth", rgbd_folder / "depth"]
    words += ["--poses", rgbd_folder / "poses.txt", "--list", rgbd_folder / "list.txt"]
    words += ["--camera", rgbd_folder / "cameras.txt", "--points", 20, "--no-check"]
    assert command(*words, "-o", tmp_path / "m.db") == 0
    err = capsys.readouterr().err
    assert f"warning: 90% of the points are without support. {cause}" in err and "checked" not in err


@pytest.mark.parametrize(
    "words", ["-o m.db --force", "-om.db", "--output m.db --accept-poses", "--output=m.db", "--out m.db --accept"]
)
def test_the_command_that_diagnoses_names_no_map(words, monkeypatch):
    monkeypatch.setattr("sys.argv", ["nre_ros", *f"map build bag rec {words} --points 20".split()])
    assert map_build._diagnosis_command() == "map build bag rec --points 20 --diagnose"


def test_the_old_names_of_the_culling_options_work_with_a_warning(capsys):
    parser = argparse.ArgumentParser(prog="nre_ros")
    map_command.add_parser(parser.add_subparsers(required=True))
    words = ["map", "build", "colmap", "x", "--images", "y", "-o", "m.db"]
    args = parser.parse_args([*words, "--thin-motion", "0.1", "--thin-overlap", "0.5"])
    assert (args.cull_motion, args.cull_overlap) == (0.1, 0.5)
    warnings = capsys.readouterr().err
    for old, new in (("--thin-motion", "--cull-motion"), ("--thin-overlap", "--cull-overlap")):
        assert f"warning: {old} is deprecated and will be removed: use {new}" in warnings
    args = parser.parse_args([*words, "--cull-motion", "0.2"])
    assert (args.cull_motion, args.cull_overlap) == (0.2, None) and not capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["map"],
        ["map", "build"],
        ["map", "build", "colmap", "x", "-o", "m.db"],
        ["map", "info"],
        ["map", "build", "colmap", "x", "--images", "y", "-o", "m.db", "--points", "0"],
    ],
)
def test_wrong_command_lines_exit_with_usage(words, capsys):
    with pytest.raises(SystemExit) as stop:
        command(*words)
    assert stop.value.code == 2 and "usage: nre_ros map" in capsys.readouterr().err
