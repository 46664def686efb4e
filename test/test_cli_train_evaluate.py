# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros train evaluate`` and ``nre_ros weights info``."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from nre_ros.cli import main
from nre_ros.errors import EvaluationError
from nre_ros.evaluation import fine_heads
from nre_ros.evaluation.datasets import rendered_rooms
from nre_ros.evaluation.datasets.rendered_rooms import RenderedRooms
from nre_ros.evaluation.fine_heads import name_heads
from nre_ros.features import FineHead
from nre_ros.features.coarse_head import CoarseHead
from nre_ros.features.tensor_file import write_tensors
from nre_ros.features.xfeat import XFeatBackbone, installed_network_hash
from nre_ros.gallery import Sensor, build_room
from nre_ros.geometry import Camera
from nre_ros.keyframes.storage.store import KeyframeStore

KEYFRAMES, QUERIES = 6, 2


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> Path:
    """A head that was not trained, which is one that differs from the packaged one."""
    path = tmp_path_factory.mktemp("head") / "own.safetensors"
    FineHead(channels=16, width=16, seed=4).save(path, installed_network_hash(), "two\nlines\x1b[31m")
    return path


def short_page(path, runs, summaries) -> None:
    path.write_text("\n".join(f"{name} {len(runs[name])} {summaries[name]['shares']['images']}" for name in runs))


@pytest.fixture(scope="module", autouse=True)
def short_pages():
    """The pages, which other tests are about, take longer than all the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nre_ros.evaluation.report.write.write_report", lambda *arguments: None)
        patch.setattr(fine_heads, "write_comparison", short_page)
        yield


@pytest.fixture(scope="module")
def evaluated(head, tmp_path_factory):
    """The folder of an evaluation in a small room, and the arguments that made it."""
    folder = tmp_path_factory.mktemp("evaluated")
    arguments = f"train evaluate {head} -o {folder} --rooms 7 --keyframes {KEYFRAMES} --room-queries {QUERIES} --worst 0".split()
    arguments += "--min-confidence 0 --device cpu".split()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendered_rooms, "CAMERA", Camera(160, 120, 130.0, 130.0, 79.5, 59.5))
        patch.setattr(rendered_rooms, "_QUERY_SENSOR", Sensor())
        patch.setattr(rendered_rooms, "build_room", lambda seed, size: build_room(seed, size, pixels_per_metre=80))
        assert main(arguments) == 0
    return folder, arguments


def pose(line: str) -> tuple[np.ndarray, Rotation]:
    numbers = np.array(line.split()[1:], dtype=float)
    return numbers[:3], Rotation.from_quat(numbers[3:])


def test_the_errors_are_those_of_the_poses_in_the_files(evaluated):
    folder, _ = evaluated
    figures = json.loads((folder / "figures.json").read_text())
    assert list(figures) == ["room_7"] and list(figures["room_7"]) == ["packaged", "own"]
    truth = (folder / f"rooms/room_7_{KEYFRAMES}_{QUERIES}/queries/poses.txt").read_text().splitlines()[1:]
    assert len(truth) == QUERIES
    for name, found in figures["room_7"].items():
        stamps = {line.split()[0]: pose(line) for line in truth}
        lines = (folder / name / "room_7/poses.tum").read_text().splitlines()[1:]
        errors = {line.split()[0]: np.linalg.norm(pose(line)[0] - stamps[line.split()[0]][0]) for line in lines}
        angles = {
            line.split()[0]: np.degrees((pose(line)[1].inv() * stamps[line.split()[0]][1]).magnitude())
            for line in lines
        }
        assert found["shares"]["images"] == QUERIES and found["shares"]["accepted"] == len(lines)
        all_errors = [errors.get(stamp, np.inf) for stamp in stamps]
        median = np.median(all_errors)
        assert found["median_of_all"]["position_m"] == (
            pytest.approx(median, abs=1e-6) if np.isfinite(median) else None
        )
        within = np.mean([errors.get(s, np.inf) <= 0.25 and angles[s] <= 2 for s in stamps])
        assert found["recall"]["0.25 m, 2 deg"] == pytest.approx(within)
    page = (folder / "room_7_comparison.html").read_text()
    assert page.splitlines() == [f"packaged {QUERIES} {QUERIES}", f"own {QUERIES} {QUERIES}"]


def test_each_map_is_of_its_head(evaluated, head):
    folder, _ = evaluated
    hashes = []
    for name, backbone in (("packaged", XFeatBackbone(torch.device("cpu"))), ("own", XFeatBackbone("cpu", head=head))):
        with KeyframeStore.open(folder / name / "room_7.db") as store:
            store.check_features(backbone)
            hashes.append(store.metadata()["weights_hash"])
            assert store.get(next(iter(store.names().values()))).fine.shape[1] == backbone.fine_channels
    assert hashes[0] != hashes[1]


def test_the_same_command_continues_and_prints_the_heads_side_by_side(evaluated, monkeypatch, capsys):
    folder, arguments = evaluated
    records = (folder / "own/room_7/records.jsonl").read_bytes()

    def computed_again(*args, **options):
        raise AssertionError("rendered or built again")

    monkeypatch.setattr(rendered_rooms, "write_rgbd", computed_again)
    monkeypatch.setattr("nre_ros.evaluation.datasets.benchmark.build_map", computed_again)
    assert main(arguments) == 0
    assert (folder / "own/room_7/records.jsonl").read_bytes() == records
    table = capsys.readouterr().out
    assert table.splitlines()[0].split() == ["room_7", "packaged", "own"]
    assert "position error" in table and "recall at 5 cm" in table and "room_7_comparison.html" in table


def test_a_map_is_rebuilt_with_each_head_and_its_queries_are_those_of_evaluate(evaluated, head, tmp_path, monkeypatch):
    folder, _ = evaluated
    queries = folder / f"rooms/room_7_{KEYFRAMES}_{QUERIES}/queries"
    command = f"train evaluate {head} -o {tmp_path} --map {folder}/packaged/room_7.db --images {queries}/images"
    command += f" --list {queries}/list.txt --camera {queries}/cameras.txt --ground-truth {queries}/poses.txt"
    assert main([*command.split(), *"--min-confidence 0 --worst 0 --device cpu".split()]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())["room_7"]
    assert [found["shares"]["with_truth"] for found in figures.values()] == [QUERIES] * 2
    with KeyframeStore.open(folder / "packaged/room_7.db") as before:
        with KeyframeStore.open(tmp_path / "own/room_7.db") as after:
            after.check_features(XFeatBackbone("cpu", head=head))
            for name, number in before.names().items():
                np.testing.assert_array_equal(before.get(number).points, after.get(after.names()[name]).points)


def test_an_interrupted_rendering_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(rendered_rooms, "CAMERA", Camera(160, 120, 130.0, 130.0, 79.5, 59.5))
    monkeypatch.setattr(
        rendered_rooms, "build_room", lambda seed, size: build_room(seed, size, pixels_per_metre=40, furniture=False)
    )
    write, calls = rendered_rooms.write_rgbd, []

    def interrupted(*args, **options):
        calls.append(args[0])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return write(*args, **options)

    monkeypatch.setattr(rendered_rooms, "write_rgbd", interrupted)
    rooms = RenderedRooms([3], keyframes=4, queries=1)
    with pytest.raises(KeyboardInterrupt):
        rooms.scenes(tmp_path)
    (scene,) = rooms.scenes(tmp_path)
    assert len(scene.queries) == 1 and len(scene.source.names()) == 4 and len(calls) == 4


def test_heads_are_named_by_their_files_or_folders():
    files = [Path("/a/night/fine_head.safetensors"), Path("/a/wide.safetensors"), Path("/b/wide.safetensors")]
    assert list(name_heads(files)) == ["packaged", "night", "wide", "wide'"]
    assert name_heads(files)["packaged"] is None and name_heads(files)["wide'"] == files[2]


@pytest.mark.parametrize(
    "options, message",
    [
        ("", "give either --rooms SEED, or --dataset NAME, or --map MAP.db"),
        ("--rooms 1 --map a.db", "give either --rooms SEED"),
        ("--dataset tum", "--dataset needs --root DIR"),
        ("--map a.db", "give either --bag BAG or --images DIR"),
    ],
)
def test_images_must_come_from_one_place(options, message, head, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "evaluate", str(head), "-o", str(tmp_path / "out"), *options.split()])
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_a_head_that_cannot_be_used_is_reported_before_anything_is_rendered(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rendered_rooms, "write_rgbd", None)
    for content in (b"", b"\x08\0\0\0\0\0\0\0{}      "):
        (tmp_path / "damaged.safetensors").write_bytes(content)
        options = ["-o", str(tmp_path / "out"), "--rooms", "1"]
        assert main(["train", "evaluate", str(tmp_path / "damaged.safetensors"), *options]) == 2
        printed = capsys.readouterr().err
        assert printed.count("\n") == 1 and "damaged.safetensors" in printed
    assert main(["train", "evaluate", str(tmp_path / "absent.safetensors"), *options]) == 2
    assert "absent.safetensors" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_made_is_one_line(evaluated, head, tmp_path, capsys):
    folder, _ = evaluated
    queries = folder / f"rooms/room_7_{KEYFRAMES}_{QUERIES}/queries"
    (tmp_path / "file").touch()
    command = f"train evaluate {head} -o {tmp_path}/file --map {folder}/packaged/room_7.db --images {queries}/images"
    command += f" --list {queries}/list.txt --camera {queries}/cameras.txt --ground-truth {queries}/poses.txt"
    assert main(command.split()) == 2
    assert f"nre_ros: folder {tmp_path}/file/packaged cannot be made: Not a directory\n" in capsys.readouterr().err


def test_rooms_without_views_are_refused():
    for arguments in (([],), ([1], 3), ([1], 8, 0)):
        with pytest.raises(EvaluationError, match="rendered rooms: .*at least 1 room, 4 keyframes"):
            RenderedRooms(*arguments)
    assert fine_heads.PACKAGED == "packaged"


# weights info


def info(path, capsys) -> tuple[int, dict[str, str], str]:
    code = main(["weights", "info", str(path)])
    printed = capsys.readouterr()
    return code, {line.split()[0]: line.split(maxsplit=1)[1] for line in printed.out.splitlines()}, printed.err


def test_info_shows_what_a_head_holds(head, capsys):
    code, shown, error = info(head, capsys)
    assert code == 0 and error == ""
    weights = sum(tensor.numel() for tensor in FineHead(16, 16).state_dict().values())
    assert shown["holds"] == f"a fine head, {weights:,} parameters, {head.stat().st_size / 1024:.1f} KiB"
    assert shown["weights"] == FineHead(16, 16, seed=4).weights_hash
    assert shown["channels"] == "16 (width 16)" and shown["temperature"] == "0.1"
    assert shown["network"] == installed_network_hash() and shown["fits"] == "the installed XFeat"
    assert shown["description"] == "two lines [31m", "no control characters reach the terminal"


def test_info_shows_a_coarse_head_and_whether_it_fits(tmp_path, capsys):
    CoarseHead(width=8).save(tmp_path / "coarse.safetensors", "a" * 64)
    code, shown, _ = info(tmp_path / "coarse.safetensors", capsys)
    assert code == 1 and shown["holds"].startswith("a coarse head, ") and "other weights" in shown["fits"]


def test_info_refuses_other_files_in_one_line(head, tmp_path, capsys):
    write_tensors(tmp_path / "other.safetensors", {"a": torch.zeros(2)}, {"format": "another"})
    (tmp_path / "cut.safetensors").write_bytes(head.read_bytes()[:-4])
    for name in ("other", "cut", "absent"):
        code, shown, error = info(tmp_path / f"{name}.safetensors", capsys)
        assert code == 2 and shown == {} and error.count("\n") == 1 and name in error
