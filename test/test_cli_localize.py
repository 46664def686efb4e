# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros localize`` as a user runs it: on the gallery with exact truth, on the kitchen, and with bad input."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from synthetic import CAMERA, QUERIES, small_room

from nre_ros.cli import main
from nre_ros.geometry import pose_error, pose_matrix
from nre_ros.keyframes.importers.colmap.cameras import write_cameras_txt
from nre_ros.keyframes.storage.store import KeyframeStore


def nre_ros(*arguments) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nre_ros", *map(str, arguments)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def errors(lines: list[dict], poses: np.ndarray) -> np.ndarray:
    """[N, 2] metres and degrees; infinite without a pose."""
    rows = []
    for line, (_, *numbers) in zip(lines, poses):
        metres, radians = np.inf, np.inf
        if line["success"]:
            estimated = pose_matrix(line["position"], line["quaternion"])
            metres, radians = pose_error(estimated, pose_matrix(numbers[:3], numbers[3:]))
        rows.append((metres, np.degrees(radians)))
    return np.array(rows)


@pytest.mark.parametrize("source", ["colmap", "rgbd"])
def test_kitchen(shared, tmp_path, source):
    """62 queries in a map of 63 frames of another part of the walk: at least 60 within 5 cm and 5 degrees."""
    kitchen = shared / "data/kitchen"
    options = {
        "colmap": [kitchen / "sparse", "--images", kitchen / "images", "--list", kitchen / "map.txt"],
        "rgbd": [
            "--images",
            kitchen / "images",
            "--depth",
            kitchen / "depth",
            "--poses",
            kitchen / "map_poses.txt",
            "--list",
            kitchen / "map.txt",
            "--camera",
            kitchen / "sparse/cameras.txt",
        ],
    }
    map_file, result = tmp_path / "kitchen.db", tmp_path / "result.jsonl"
    nre_ros("map", "build", source, *options[source], "-o", map_file, "--no-check")  # which takes a minute
    nre_ros(
        "localize",
        "--map",
        map_file,
        "--images",
        kitchen / "images",
        "--list",
        kitchen / "query.txt",
        "--camera",
        kitchen / "sparse/cameras.txt",
        "-o",
        result,
    )
    lines = read(result)
    assert [line["image"] for line in lines] == (kitchen / "query.txt").read_text().split()
    off = errors(lines, np.loadtxt(kitchen / "query_poses.txt"))
    good = (off[:, 0] <= 0.05) & (off[:, 1] <= 5)
    assert good.sum() >= 60
    assert np.median(off[:, 0]) <= 0.01 and np.median(off[:, 1]) <= 0.5
    assert all(line["success"] or line["reason"] for line in lines)


# --- a room with exact truth ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """map.db, cameras.txt, list.txt and images/: three views of a room, and what is none of its views."""
    room, folder = small_room(), tmp_path_factory.mktemp("room")
    with KeyframeStore.create(folder / "map.db", room.backbone.name, room.backbone.weights_hash) as store:
        for keyframe in room.keyframes:
            store.add(keyframe)
    write_cameras_txt(folder / "cameras.txt", {1: CAMERA.resized(160, 120), 2: CAMERA})
    images = folder / "images"
    (images / "sub").mkdir(parents=True)
    for i, place in enumerate(QUERIES):
        cv2.imwrite(str(images / f"{i}.png"), room.view(*place)[0])
    cv2.imwrite(str(images / "sub/0.png"), room.view(*QUERIES[0], camera=CAMERA.resized(160, 120))[0])
    cv2.imwrite(str(images / "large.png"), np.zeros((480, 640, 3), np.uint8))
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    cv2.imwrite(str(images / "noise.jpg"), noise)
    whole = (images / "0.png").read_bytes()
    (images / "torn.png").write_bytes(whole[: len(whole) // 2])
    (folder / "list.txt").write_text(
        "0.png\n1.png\n2.png\nsub/0.png\nlarge.png\nnoise.jpg\ntorn.png\nmissing.png\n", encoding="utf-8"
    )
    return folder


def arguments(folder: Path, **changes) -> list[str]:
    options = {
        "map": folder / "map.db",
        "images": folder / "images",
        "list": folder / "list.txt",
        "camera": folder / "cameras.txt",
        "device": "cpu",
        **changes,
    }
    return ["localize"] + [
        str(word) for key, value in options.items() if value is not None for word in (f"--{key}", value)
    ]


def test_every_image_of_the_list_has_its_line(folder, tmp_path, capsys):
    result, drawings = tmp_path / "result.jsonl", tmp_path / "drawings"
    assert main(arguments(folder, output=result, draw=drawings)) == 0
    lines = {line["image"]: line for line in read(result)}
    assert list(lines) == (folder / "list.txt").read_text().split()
    room = small_room()
    for i, place in enumerate(QUERIES):
        line = lines[f"{i}.png"]
        metres, radians = pose_error(pose_matrix(line["position"], line["quaternion"]), room.view(*place)[1])
        assert metres < 0.03 and np.degrees(radians) < 0.6
        assert np.linalg.eigvalsh(line["covariance"])[0] > 0 and 0.9 < line["confidence"] <= 1
        assert line["seconds"] > 0 and line["reason"] == ""
    for name, named in (
        ("large.png", "640x480"),
        ("torn.png", "truncated"),
        ("missing.png", "missing.png"),
        ("noise.jpg", ""),
    ):
        assert not lines[name]["success"] and named in lines[name]["reason"] != ""
        assert lines[name]["position"] is None
    # the small image was taken by the small camera
    small = lines["sub/0.png"]
    if small["success"]:
        assert pose_error(pose_matrix(small["position"], small["quaternion"]), room.view(*QUERIES[0])[1])[0] < 0.2
    assert "of 8 images localized" in capsys.readouterr().err
    drawn = sorted(path.name for path in drawings.iterdir())
    assert drawn == ["0.jpg", "1.jpg", "2.jpg", "noise.jpg", "space.html", "sub_0.jpg"]


def test_sheets_show_the_points_that_agree(folder, tmp_path):
    (tmp_path / "list.txt").write_text("0.png\nnoise.jpg\n")
    main(arguments(folder, list=tmp_path / "list.txt", output=tmp_path / "r.jsonl", draw=tmp_path / "d"))
    sheets = [cv2.imread(str(tmp_path / "d" / name)).astype(int) for name in ("0.jpg", "noise.jpg")]
    good = [(np.abs(sheet - (80, 200, 60)).max(2) < 45).sum() for sheet in sheets]  # the colour of a point that agrees
    assert good[0] > 300 and good[1] < good[0] / 10


def test_the_view_in_space_names_the_localized_images(folder, tmp_path):
    (tmp_path / "list.txt").write_text("0.png\nnoise.jpg\n")
    main(arguments(folder, list=tmp_path / "list.txt", output=tmp_path / "r.jsonl", draw=tmp_path / "d"))
    page = (tmp_path / "d/space.html").read_text()
    assert "0.png" in page and "noise.jpg" not in page


def test_without_a_list_all_images_of_the_folder(folder, tmp_path, capsys):
    assert main(arguments(folder, list=None)) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["image"] for line in lines] == ["0.png", "1.png", "2.png", "large.png", "noise.jpg", "torn.png"]


def test_the_same_seed_writes_the_same_poses(folder, tmp_path):
    (tmp_path / "list.txt").write_text("0.png\n1.png\n")
    for name in "ab":
        main(arguments(folder, list=tmp_path / "list.txt", seed=5, output=tmp_path / name))
    a, b = (read(tmp_path / name) for name in "ab")
    for key in ("position", "quaternion", "covariance", "confidence", "cost"):
        assert [line[key] for line in a] == [line[key] for line in b]


@pytest.mark.parametrize(
    "change, named",
    [
        ({"map": "absent.db"}, "absent.db does not exist"),
        ({"map": __file__}, "is no map"),
        ({"images": "nowhere"}, "nowhere is not a folder"),
        ({"list": "no_list.txt"}, "no_list.txt"),
        ({"camera": "no_cameras.txt"}, "no_cameras.txt"),
        ({"output": "/nonexistent/result.jsonl"}, "/nonexistent"),
        ({"draw": __file__}, "cannot be a folder: File exists"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_code_two(folder, capsys, change, named):
    assert main(arguments(folder, **change)) == 2
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1 and error.startswith("nre_ros: ")


def test_unusual_intrinsics_are_warned_about(folder, tmp_path, capsys):
    (tmp_path / "cameras.txt").write_text("1 PINHOLE 320 240 40 40 160 120\n")
    assert main(arguments(folder, camera=tmp_path / "cameras.txt", map="/nonexistent.db")) == 2
    assert "warning: camera of" in capsys.readouterr().err


def test_an_empty_image_list_is_reported(folder, tmp_path, capsys):
    (tmp_path / "list.txt").write_text("# nothing\n")
    assert main(arguments(folder, list=tmp_path / "list.txt")) == 2
    assert "names no image" in capsys.readouterr().err


@pytest.mark.parametrize("option", [{"retrieve": 0}, {"retrieve": -1}, {"device": "tpu"}, {"seed": "x"}])
def test_impossible_options_are_refused(folder, capsys, option):
    with pytest.raises(SystemExit) as stopped:
        main(arguments(folder, **option))
    assert stopped.value.code == 2 and f"--{next(iter(option))}" in capsys.readouterr().err
