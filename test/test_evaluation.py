# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros evaluate`` and ``compare`` on a synthetic room with exact ground truth, and with invalid input."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bag_samples import START, TYPES, encoded_message, write_messages
from evaluation_samples import IMAGE, INFO, PERIOD, PLACES, views, write_bag, write_list, write_map
from synthetic import CAMERA

from nre_ros.cli import main
from nre_ros.errors import EvaluationError
from nre_ros.evaluation.bag_input import BagInput
from nre_ros.evaluation.evaluate import describe_run, used_min_confidence
from nre_ros.evaluation.ground_truth import read_tum_of_list
from nre_ros.evaluation.inputs import ImageListInput
from nre_ros.evaluation.metrics import summarize
from nre_ros.evaluation.options import EvaluationOptions
from nre_ros.evaluation.output_folder import prepare_output_folder, read_evaluations
from nre_ros.evaluation.records import read_records
from nre_ros.gallery.bag import camera_info_message
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.localization import confidence

COUNT = len(PLACES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with room.db, bag, and list/ with images."""
    folder = tmp_path_factory.mktemp("evaluation")
    write_map(folder / "room.db")
    write_bag(folder / "bag")
    write_list(folder / "list")
    return folder


@pytest.fixture(scope="module")
def done(folder):
    """Output folder of the evaluation of the bag by the command."""
    assert main(bag_arguments(folder, folder / "run", "--worst", 3)) == 0
    return folder / "run"


def bag_arguments(folder, output, *more, bag="bag"):
    return [
        *map(str, ("evaluate", "--map", folder / "room.db", "--bag", folder / bag, "-o", output, "--worst", 0, *more))
    ]


def list_arguments(folder, output, *more):
    images = folder / "list"
    return [
        *map(
            str,
            (
                "evaluate",
                "--map",
                folder / "room.db",
                "--images",
                images,
                "--list",
                images / "list.txt",
                "--camera",
                images / "cameras.txt",
                "--ground-truth",
                images / "truth.txt",
                "-o",
                output,
                "--worst",
                0,
                *more,
            ),
        )
    ]


def poses(run):
    """Image name to position and quaternion, of the images with a pose."""
    posed = (record for record in read_records(run / "records.jsonl") if record["success"])
    return {record["image"]: (record["position"], record["quaternion"]) for record in posed}


def test_the_figures_of_a_bag_match_its_poses_and_ground_truth(done, capsys):
    summary = json.loads((done / "summary.json").read_text())
    assert summary["shares"] == {
        "images": COUNT,
        "posed": COUNT,
        "accepted": COUNT,
        "with_truth": COUNT,
        "judged": COUNT,
        "wrong": 0,
    }
    lines = np.loadtxt(done / "poses.tum")
    truth = {stamp: T for stamp, _, T in views()}
    errors = []
    for line, (stamp, T) in zip(lines, truth.items()):
        assert line[0] == pytest.approx(stamp / 1e9)
        errors.append(np.linalg.norm(line[1:4] - T[:3, 3]))
    assert max(errors) < 0.03
    assert summary["position_error_m"]["median"] == pytest.approx(np.median(errors), abs=1e-9)
    rmse = np.sqrt(np.mean(np.square(errors)))
    assert summary["trajectory"]["ape"]["position_m"]["rmse"] == pytest.approx(rmse, abs=1e-9)
    assert summary["recall"]["0.05 m, 5 deg"] == 1.0 and summary["findings"] == []


def test_the_report_makes_no_external_requests(done):
    page = (done / "report.html").read_text()
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:|#)""", page)
    assert "<script" not in page and "@import" not in page and "url(http" not in page and page.count("<svg") == 5
    assert page.count("data:image/jpeg;base64,") == 3  # pictures of the worst images
    assert 'name="viewport"' in page and "@media print" in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))  # the figures of a page have different identifiers


def test_an_image_list_gives_the_same_poses_as_the_bag_of_the_same_images(folder, done, tmp_path):
    assert main(list_arguments(folder, tmp_path / "run")) == 0
    assert list(poses(tmp_path / "run").values()) == list(poses(done).values())
    summaries = [json.loads((run / "summary.json").read_text()) for run in (tmp_path / "run", done)]
    assert summaries[0]["position_error_m"] == pytest.approx(summaries[1]["position_error_m"])


def test_an_interrupted_run_continues_and_gives_the_same_poses(folder, done, tmp_path):
    arguments = bag_arguments(folder, tmp_path / "run")
    assert main(arguments) == 0
    path = tmp_path / "run/records.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    # as if killed in the middle of the third line; the mark shows that the first line is kept
    marked = json.dumps({**json.loads(lines[0]), "mark": 1}).encode() + b"\n"
    path.write_bytes(marked + lines[1] + lines[2][:40])
    assert main(arguments) == 0
    again = list(read_records(path))
    assert again[0]["mark"] == 1 and len(again) == COUNT
    assert poses(tmp_path / "run") == poses(done)


def test_another_min_confidence_keeps_the_records_and_another_seed_is_refused(folder, tmp_path, capsys):
    assert main(bag_arguments(folder, tmp_path / "run", "--every", 2)) == 0
    before = (tmp_path / "run/records.jsonl").read_bytes()
    assert main(bag_arguments(folder, tmp_path / "run", "--every", 2, "--min-confidence", 1.0)) == 0
    assert (tmp_path / "run/records.jsonl").read_bytes() == before
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["shares"]["accepted"] == 0 and summary["shares"]["posed"] == summary["shares"]["images"] == 3
    assert any("is below 1.00" in reason for reason in summary["reasons"])
    assert "Crosses at the top" in (tmp_path / "run/report.html").read_text()  # a report without any accepted pose
    capsys.readouterr()
    assert main(bag_arguments(folder, tmp_path / "run", "--every", 2, "--seed", 1)) == 2
    assert "contains another evaluation (seed 0, now 1): --force replaces it" in capsys.readouterr().err
    assert (tmp_path / "run/records.jsonl").read_bytes() == before


def test_force_removes_only_the_records_of_an_evaluation(folder, tmp_path, capsys):
    """Other files stay, with and without --force. Records that no run.json describes stay as well."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "mine.jsonl").write_text("{}\n")
    prepare_output_folder(run, {"seed": 0})
    (run / "records.jsonl").write_text("")
    prepare_output_folder(run, {"seed": 1}, force=True)
    assert sorted(path.name for path in run.iterdir()) == ["mine.jsonl", "run.json"]
    (tmp_path / "records.jsonl").write_text("precious\n")
    for force in (False, True):
        with pytest.raises(EvaluationError, match="contains records.jsonl but no run.json"):
            prepare_output_folder(tmp_path, {"seed": 0}, force)
    assert (tmp_path / "records.jsonl").read_text() == "precious\n"


def test_baselines_can_be_added_to_a_run_but_not_with_other_map_images(tmp_path):
    for baselines in (None, {"map_images": "a"}, None, {"map_images": "a"}):
        prepare_output_folder(tmp_path, {"seed": 0, "baselines": baselines})
    with pytest.raises(EvaluationError, match='map_images "a", now "b"'):
        prepare_output_folder(tmp_path, {"seed": 0, "baselines": {"map_images": "b"}})
    prepare_output_folder(tmp_path, {"seed": 0, "baselines": None}, force=True)
    prepare_output_folder(tmp_path, {"seed": 0, "baselines": {"map_images": "b"}})


def test_baselines_can_be_added_to_a_run_of_version_0_1(tmp_path):
    """Version 0.1 wrote the key ``peers`` into run.json."""
    (tmp_path / "run.json").write_text(json.dumps({"seed": 0, "peers": {"map_images": "a"}}))
    prepare_output_folder(tmp_path, {"seed": 0, "baselines": {"map_images": "a"}})
    (tmp_path / "run.json").write_text(json.dumps({"seed": 0, "peers": {"map_images": "a"}}))
    with pytest.raises(EvaluationError, match='baselines: map_images "a", now "b"'):
        prepare_output_folder(tmp_path, {"seed": 0, "baselines": {"map_images": "b"}})


def test_a_run_of_another_confidence_model_or_other_weights_is_refused(folder, tmp_path, monkeypatch):
    options = EvaluationOptions(folder / "room.db", tmp_path, device="cpu")
    with KeyframeStore.open(folder / "room.db") as store:
        about = describe_run(BagInput(folder / "bag"), options, store)
        prepare_output_folder(tmp_path, about)
        model = tmp_path / "confidence.json"
        model.write_text(confidence.MODEL_FILE.read_text().replace('"bias": ', '"bias": 1'))
        monkeypatch.setattr(confidence, "MODEL_FILE", model)
        other_model = describe_run(BagInput(folder / "bag"), options, store)
    other_weights = {**about, "weights_hash": "0" * 64}
    for key, other in (("confidence_model", other_model), ("weights_hash", other_weights)):
        with pytest.raises(EvaluationError, match=rf'another evaluation \({key} "'):
            prepare_output_folder(tmp_path, other)


def test_a_run_described_without_weights_and_confidence_model_is_continued_once(tmp_path):
    """An older run.json lacks the keys; it then gets the values of the run that continues it."""
    prepare_output_folder(tmp_path, {"seed": 0})
    prepare_output_folder(tmp_path, {"seed": 0, "weights_hash": "a", "confidence_model": "b"})
    with pytest.raises(EvaluationError, match='confidence_model "b", now "c"'):
        prepare_output_folder(tmp_path, {"seed": 0, "weights_hash": "a", "confidence_model": "c"})


def test_unusual_intrinsics_are_noted(folder, tmp_path):
    images = folder / "list"
    assert not ImageListInput(images, images / "list.txt", images / "cameras.txt").notes
    (tmp_path / "cameras.txt").write_text("1 PINHOLE 320 240 40 40 160 120\n")
    (note,) = ImageListInput(images, images / "list.txt", tmp_path / "cameras.txt").notes
    assert note.startswith(f"camera of {tmp_path}/cameras.txt: focal length fx = 40")
    odd = replace(CAMERA, cx=CAMERA.width - 1.0)
    messages = [(START, INFO, "info", camera_info_message(START, "camera", odd))]
    messages.append((START, IMAGE, "compressed", encoded_message(START, "camera", b"")))
    source = BagInput(write_messages(tmp_path / "bag", messages))
    list(source.queries())
    assert any(f"camera of {INFO}: principal point cx" in line for line in source.damage)


def test_another_list_of_the_same_length_is_refused(folder, tmp_path, capsys):
    images = folder / "list"
    for k, name in enumerate(("0.jpg", "1.jpg")):
        (tmp_path / "list.txt").write_text(f"{name}\n")
        arguments = ["--images", images, "--list", tmp_path / "list.txt", "--camera", images / "cameras.txt"]
        arguments += ["--map", folder / "room.db", "-o", tmp_path / "run", "--worst", 0]
        assert main(["evaluate", *map(str, arguments)]) == 2 * k
    assert "contains another evaluation (input: names_sha256" in capsys.readouterr().err


def test_images_of_a_list_without_times_have_no_stamps(folder, tmp_path):
    """The third line is not a pose: the other poses are found by their line numbers, which are not used as stamps."""
    lines = (folder / "list/truth.txt").read_text().splitlines()
    lines[3] = "nothing"
    (tmp_path / "truth.txt").write_text("\n".join(lines) + "\n")
    names = [f"{k}.jpg" for k in range(COUNT)]
    truth, places, timed = read_tum_of_list(tmp_path / "truth.txt", names)
    assert not timed and "line 4" in truth.notes[0]
    found = truth.at(np.array([places[name] for name in names]), 0.0)
    for k, (_, _, T) in enumerate(views()):
        assert np.isnan(found[k]).all() if k == 2 else np.allclose(found[k], T)
    source = ImageListInput(folder / "list", folder / "list/list.txt", folder / "list/cameras.txt")
    options = EvaluationOptions(folder / "room.db", tmp_path, ground_truth=str(tmp_path / "truth.txt"))
    stamps, _ = source.ground_truth(options, "map").lookup(names, np.zeros(COUNT, np.int64))
    assert not stamps.any()


def test_an_image_without_a_stamp_gets_the_time_of_its_recording(tmp_path):
    messages = [(START, INFO, "info", camera_info_message(START, "camera", CAMERA))]
    for k, stamp in enumerate((0, 0, START, START)):
        messages.append((START + (k + 1) * PERIOD, IMAGE, "compressed", encoded_message(stamp, "camera", b"")))
    source = BagInput(write_messages(tmp_path / "bag", messages))
    for _ in range(2):
        assert [query.stamp for query in source.queries()] == [START + PERIOD, START + 2 * PERIOD, START]
        without, repeated = source.damage
        assert "2 images have no stamp" in without and "1 images have the same stamp as another image" in repeated
    assert source.first_stamp == START + PERIOD


@pytest.mark.parametrize("more", [("--every", 2), ("--config", "a.yml")])
def test_options_that_the_node_lacks_are_refused_with_through_ros(folder, tmp_path, capsys, more):
    with pytest.raises(SystemExit):
        main(bag_arguments(folder, tmp_path / "run", "--through-ros", *more))
    assert f"--through-ros and {more[0]} exclude each other" in capsys.readouterr().err


def test_the_description_of_a_run_contains_the_parameters_of_the_node(folder, tmp_path):
    """Parameters of the node override the options; both are part of the run."""
    options = EvaluationOptions(
        folder / "room.db",
        tmp_path,
        device="cpu",
        through_ros=True,
        min_confidence=0.6,
        seed=3,
        parameters={"min_confidence": "0.8", "seed": "4"},
    )
    with KeyframeStore.open(folder / "room.db") as store:
        about = describe_run(BagInput(folder / "bag"), options, store)
    assert about["through_ros"]["parameters"] == {
        "seed": "4",
        "retrieve": "5",
        "device": "cpu",
        "min_confidence": "0.8",
        "use_prior": "false",
    }
    assert about["seed"] == "4" and used_min_confidence(options, about) == "0.8"
    assert used_min_confidence(replace(options, through_ros=False), about) == 0.6


def test_ground_truth_odometry_of_the_base_is_converted_to_the_camera(folder, tmp_path):
    write_bag(tmp_path / "bag", "sqlite3", truth="odometry")
    arguments = bag_arguments(folder, tmp_path / "run", "--ground-truth", "/odom", "--every", 2, bag=tmp_path / "bag")
    assert main(arguments) == 0
    assert json.loads((tmp_path / "run/summary.json").read_text())["position_error_m"]["max"] < 0.03


def test_compare_shows_two_runs_in_every_figure(folder, done, tmp_path, capsys):
    assert main(list_arguments(folder, tmp_path / "other")) == 0
    assert main(["compare", str(done), str(tmp_path / "other"), "-o", str(tmp_path / "both.html")]) == 0
    page = (tmp_path / "both.html").read_text()
    assert page.count("<svg") == 5 and "run compared with other" in page
    assert re.search(r"position error +\S+ / .* cm .*\S+ / .* cm", capsys.readouterr().out)


def test_compare_reads_an_evaluation_of_version_0_1(done, tmp_path, capsys):
    """The stored folder was written by version 0.1, with baselines under the key ``peers``."""
    folder = Path(__file__).parent / "evaluation_0_1"
    stored = json.loads((folder / "summary.json").read_text())
    runs, summaries = read_evaluations([folder])
    (summary,) = summaries.values()
    assert summary["baselines"] == stored["peers"] and list(stored["peers"]) == ["SIFT + ratio test"]
    assert summary["about"]["baselines"] == stored["about"]["peers"] and "peers" not in summary
    (results,) = runs.values()
    figures = json.loads(json.dumps(summarize(results)))
    for name in ("shares", "wrong_beyond", "recall", "delays", "reasons"):
        assert figures[name] == stored[name]
    for name in ("position_error_m", "rotation_error_deg", "median_of_all"):
        assert figures[name] == pytest.approx(stored[name], rel=1e-9)
    assert main(["compare", str(folder), str(done), "-o", str(tmp_path / "both.html")]) == 0
    assert "evaluation_0_1 compared with run" in (tmp_path / "both.html").read_text()


@pytest.mark.parametrize(
    "damage",
    [
        lambda summary: summary.pop("about"),
        lambda summary: summary.pop("findings"),
        lambda summary: summary.update(shares=None),
        lambda summary: summary.update(notes=[3]),
        lambda summary: summary.update(reasons=["none"]),
        lambda summary: summary["latency_ms"].update(total=1.0),
        lambda summary: summary["about"].update(input="bag"),
        lambda summary: summary["about"]["map"].update(path=7),
    ],
)
def test_compare_refuses_a_damaged_summary_in_one_line(done, tmp_path, capsys, damage):
    other = tmp_path / "other"
    shutil.copytree(done, other)
    summary = json.loads((other / "summary.json").read_text())
    damage(summary)
    (other / "summary.json").write_text(json.dumps(summary))
    assert main(["compare", str(done), str(other), "-o", str(tmp_path / "x.html")]) == 2
    assert capsys.readouterr().err.startswith("nre_ros: run other: its summary.json is damaged")


@pytest.mark.parametrize("run, named", [("nowhere", "no evaluation found"), ("torn", "not a summary")])
def test_compare_refuses_a_folder_without_an_evaluation(done, tmp_path, capsys, run, named):
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn/summary.json").write_text('{"about":')
    assert main(["compare", str(done), str(tmp_path / run), "-o", str(tmp_path / "x.html")]) == 2
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1


def ground_truth_writer(lines):
    def write(path):
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


FAR = [f"{1.0e9 + k} 0 0 0 0 0 0 1" for k in range(5)]
BETWEEN = [f"{START / 1e9 + k + 0.5:.3f} 0 0 0 0 0 0 1" for k in range(4)]
NANS = [f"{START / 1e9 + k:.3f} nan 0 0 0 0 0 1" for k in range(5)]


@pytest.mark.parametrize(
    "lines, named",
    [
        (FAR, r"do not overlap in time: 1000000000.000 to 1000000004.000 s and 17000000.* are 699999996.000 s apart"),
        (BETWEEN, r"contains no pose at the times of the 5 images: the nearest pose is 0\.500 s away.*\(--max-gap\)"),
        (NANS, r"contains no pose: 5 invalid entries, the first: line 1: pose is not finite"),
        (["# nothing"], r"contains no pose: it is empty"),
        (["1 2 3"], r"contains no pose: 1 invalid entries, the first: line 1: pose has 3 numbers"),
    ],
)
def test_ground_truth_that_does_not_fit_is_reported_in_one_line(folder, done, tmp_path, capsys, lines, named):
    truth = ground_truth_writer(lines)(tmp_path / "truth.txt")
    run = tmp_path / "run"
    run.mkdir()
    for name in ("run.json", "records.jsonl"):  # localized already
        (run / name).write_bytes((done / name).read_bytes())
    assert main(bag_arguments(folder, run, "--ground-truth", truth)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("nre_ros: ") and re.search(named, error), error


def test_invalid_ground_truth_poses_are_reported_and_left_out(folder, done, tmp_path, capsys):
    lines = (folder / "list/truth.txt").read_text().splitlines()
    lines[2] = re.sub(r" \S+", " nan", lines[2], count=1)  # below a comment: the second pose, the third line
    (tmp_path / "truth.txt").write_text("\n".join(lines) + "\n")
    run = tmp_path / "run"
    run.mkdir()
    for name in ("run.json", "records.jsonl"):
        (run / name).write_bytes((done / name).read_bytes())
    assert main(bag_arguments(folder, run, "--ground-truth", tmp_path / "truth.txt", "--max-gap", 0.1)) == 0
    assert "1 of 5 entries are invalid and were left out, the first: line 3" in capsys.readouterr().err
    assert json.loads((run / "summary.json").read_text())["shares"]["with_truth"] == COUNT - 1


@pytest.mark.parametrize(
    "options, named",
    [
        (("--ground-truth", "/vicon"), "has no ground truth topic /vicon; it has: .*/ground_truth"),
        (("--ground-truth", "nowhere.txt"), "nowhere.txt is neither a file nor the name of a topic"),
        (("--image", "/front"), "has no image topic /front; it has: "),
        (("--bag", "nowhere"), "bag nowhere does not exist"),
        (("--map", "nowhere.db"), "nowhere.db does not exist"),
    ],
)
def test_missing_inputs_are_reported_in_one_line(folder, tmp_path, capsys, options, named):
    assert main(bag_arguments(folder, tmp_path / "run", *options)) == 2
    error = capsys.readouterr().err
    assert re.search(named, error) and error.count("\n") == 1 and not (tmp_path / "run").exists()


def test_a_bag_without_images_or_without_messages_is_refused(folder, tmp_path, capsys):
    write_bag(tmp_path / "blind", images=False)
    with pytest.raises(Exception, match="has no image topic; it has: .*camera_info"):
        BagInput(tmp_path / "blind")
    from rosbags.rosbag2 import Writer

    with Writer(tmp_path / "empty", version=9):
        pass
    with pytest.raises(EvaluationError, match="is empty: it contains no message"):
        BagInput(tmp_path / "empty")


def test_ground_truth_in_a_frame_of_another_name_is_refused(folder, tmp_path, capsys):
    write_bag(tmp_path / "bag", frame="world")
    assert main(bag_arguments(folder, tmp_path / "run", bag=tmp_path / "bag")) == 2
    error = capsys.readouterr().err
    assert "/ground_truth is in frame 'world', the map's frame is 'map'" in error and error.count("\n") == 1
    same = ("--truth-frame", "world", "--every", 4)
    assert main(bag_arguments(folder, tmp_path / "run", *same, bag=tmp_path / "bag")) == 0


def test_ground_truth_of_another_length_than_the_list_is_refused(folder, tmp_path, capsys):
    lines = (folder / "list/truth.txt").read_text().splitlines()
    (tmp_path / "truth.txt").write_text("\n".join(lines[:-1]) + "\n")
    assert main([*list_arguments(folder, tmp_path / "run"), "--ground-truth", str(tmp_path / "truth.txt")]) == 2
    assert f"contains {COUNT - 1} poses, the list {COUNT} images" in capsys.readouterr().err


def test_images_that_cannot_be_read_count_as_images_without_a_pose(folder, tmp_path):
    import shutil

    shutil.copytree(folder / "list", tmp_path / "list")
    (tmp_path / "list/1.jpg").write_bytes(b"no image")
    shutil.copy(folder / "room.db", tmp_path / "room.db")
    assert main(list_arguments(tmp_path, tmp_path / "run")) == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["shares"]["posed"] == COUNT - 1 and any("1.jpg cannot be decoded" in r for r in summary["reasons"])
    assert summary["delays"]["losses"] == 1 and summary["delays"]["after_loss"] == pytest.approx([PERIOD / 1e9])


def test_a_line_that_is_not_a_record_is_refused(tmp_path):
    (tmp_path / "records.jsonl").write_text('{"image": "a", "success": false}\n[1, 2]\n')
    with pytest.raises(EvaluationError, match="line 2 is not an evaluation record"):
        list(read_records(tmp_path / "records.jsonl"))


_LONG = """
import sys
from pathlib import Path
from nre_ros.evaluation.bag_input import BagInput
from nre_ros.evaluation.localize_queries import localize_queries

def localize(query):
    image, camera = query.load()
    return {"success": False, "reason": f"{image.mean():.3f}", "milliseconds": {}}

source = BagInput(sys.argv[1])
localize_queries(localize, source.queries(), Path(sys.argv[2]), len(source), progress=False)
# the peak of this process alone: the value of getrusage includes the parent's peak
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to measure a process's memory")
def test_reading_an_hour_takes_no_more_memory_than_reading_a_minute(tmp_path):
    """One minute and one hour of 320x240 images of 50 kB every two seconds: 90 MB, decoded one at a time."""
    from nre_ros.gallery.bag import image_message

    rng, peaks = np.random.default_rng(0), []
    image = rng.integers(0, 255, (240, 320, 3), dtype=np.uint8)
    for count in (30, 1800):
        bag = tmp_path / f"bag{count}"
        messages = [(START, INFO, "info", camera_info_message(START, "camera", CAMERA))]
        message = image_message(START, "camera", image, "jpeg", 60)
        messages += [(START + 2 * k * PERIOD, "/image/compressed", "compressed", (k, message)) for k in range(count)]
        _write_repeated(bag, messages)
        out = subprocess.run(
            [sys.executable, "-c", _LONG, str(bag), str(tmp_path / f"{count}.jsonl")],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert out.returncode == 0, out.stderr
        assert sum(1 for _ in read_records(tmp_path / f"{count}.jsonl")) == count
        peaks.append(int(out.stdout) / 1024)
    size = sum(file.stat().st_size for file in (tmp_path / "bag1800").iterdir()) / 2**20
    assert size > 60 and peaks[1] < peaks[0] + 25, (size, peaks)


def _write_repeated(path, messages):
    """As ``write_messages``; an image message is (number, message) and gets its stamp when it is written."""
    from bag_samples import STORE, header
    from rosbags.rosbag2 import StoragePlugin, Writer

    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {}
        for log_time, topic, kind, message in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, TYPES[kind], typestore=STORE)
            if kind == "compressed":
                message = STORE.types[TYPES[kind]](header(log_time, "camera"), message[1].format, message[1].data)
            writer.write(connections[topic], log_time, STORE.serialize_cdr(message, TYPES[kind]))


def test_the_poses_through_the_node_are_the_same(folder, done, tmp_path, ros_environment, monkeypatch):
    """Player, node and listener are separate processes. The same seed gives the same pose for the same image."""
    for name, value in ros_environment.items():
        monkeypatch.setenv(name, value)
    assert main(bag_arguments(folder, tmp_path / "run", "--through-ros")) == 0
    direct, node = poses(done), poses(tmp_path / "run")
    assert node and set(node) <= set(direct)  # the node processes the newest image, and may withhold the first poses
    for name in node:
        np.testing.assert_allclose(node[name][0], direct[name][0], atol=1e-9)
        np.testing.assert_allclose(np.abs(node[name][1]), np.abs(direct[name][1]), atol=1e-9)
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["through_ros"]["images_sent"] == COUNT >= summary["through_ros"]["images_taken"] >= len(node)
