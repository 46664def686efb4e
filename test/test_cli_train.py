# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros train``: what a training writes, and that no interruption or fault of any kind loses it."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from recording_samples import rgbd_folder
from skimage import data

from nre_ros.cli import main
from nre_ros.errors import TrainingError
from nre_ros.features.coarse_head import CoarseHead
from nre_ros.features.fine_head import FineHead
from nre_ros.features.xfeat import installed_network_hash
from nre_ros.learning import trainer as trainer_module
from nre_ros.learning import training_folder as training_folder_module
from nre_ros.learning.objectives import FineHeadObjective
from nre_ros.learning.progress import ProgressBar
from nre_ros.learning.trainer import CHECKPOINT, StepReport
from nre_ros.learning.training_data import TrainingData
from nre_ros.learning.training_folder import LossTable, read_losses

STEPS = 6


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for k, name in enumerate(("coffee", "chelsea", "astronaut") * 2):  # of six photographs, one is held out
        cv2.imwrite(str(folder / f"{k}.png"), cv2.resize(getattr(data, name)()[::-1][:: 1 - 2 * (k % 2)], (300, 240)))
    (folder / "damaged.png").write_bytes(b"no image")
    return folder


def command(folder, photographs) -> list[str]:
    return (
        f"train -o {folder} --room-share 0 --photographs {photographs} --size 96x80 --points 100 --steps {STEPS} "
        "--pairs 1 --workers 0 --validation-pairs 2 --validate-every 2 --checkpoint-every 2 --head-width 8 "
        "--head-channels 8 --device cpu"
    ).split()


@pytest.fixture
def train(photographs, tmp_path, monkeypatch):
    """Runs ``nre_ros train`` with a small training in a folder of this test, without the picture, which takes long."""
    monkeypatch.setattr("nre_ros.learning.run_training.draw_losses", lambda losses, path: None)

    def run(*options: str, folder: str = "training") -> int:
        return main([*command(tmp_path / folder, photographs), *options])

    return run


@pytest.fixture(scope="module")
def whole(photographs, tmp_path_factory):
    """The folder of an uninterrupted training."""
    folder = tmp_path_factory.mktemp("whole") / "training"
    assert main(command(folder, photographs)) == 0
    return folder


def rows(folder) -> list[dict[str, str]]:
    """The table of losses without the times, which differ from run to run."""
    with (folder / "losses.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def head_bytes(folder) -> bytes:
    return (folder / "fine_head.safetensors").read_bytes()


def one_line(capsys) -> str:
    """The error, which is one line on stderr after what was printed on the way."""
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("nre_ros: ") and "Traceback" not in line
    return line


# files


def test_the_folder_has_the_head_the_table_the_picture_and_the_description(whole, photographs):
    head = FineHead.load(whole / "fine_head.safetensors", installed_network_hash())
    assert (head.channels, head.width) == (8, 8)
    table = rows(whole)
    assert [row["step"] for row in table] == [str(k) for k in range(1, STEPS + 1)]
    validated = {int(row["step"]): float(row["validation_total"]) for row in table if row["validation_total"]}
    assert list(validated) == [2, 4, 6]
    description = json.loads((whole / "training.json").read_text())
    (run,) = description["runs"]
    best = min(validated, key=lambda step: validated[step])
    assert run["best_step"] == best and run["best_loss"] == pytest.approx(validated[best], rel=1e-5)
    assert description["config"]["seed"] == 0 and description["data"][0]["folder"] == str(photographs)
    assert run["versions"]["torch"] == torch.__version__ and run["device"].startswith("cpu")
    picture = cv2.imread(str(whole / "losses.png"))
    assert picture is not None and picture.std() > 5, "curves are drawn"


def test_the_head_in_the_file_is_the_best_one_of_the_validation(whole):
    best = torch.load(whole / CHECKPOINT, weights_only=True)["best"]["state"]
    head = FineHead.load(whole / "fine_head.safetensors", installed_network_hash())
    assert all(torch.equal(tensor, best[f"head.{name}"]) for name, tensor in head.state_dict().items())


def test_the_figures_and_the_skipped_photograph_are_printed(train, capsys):
    assert train() == 0
    printed = capsys.readouterr()
    assert f"steps      {STEPS} of {STEPS}" in printed.out and "on held-out pairs, at step" in printed.out
    assert "damaged.png" in printed.err and "loss on held-out pairs" in printed.err


def test_without_validation_the_last_weights_are_kept(train, tmp_path):
    assert train("--validation-pairs", "0") == 0
    state = torch.load(tmp_path / "training" / CHECKPOINT, weights_only=True)
    head = FineHead.load(tmp_path / "training/fine_head.safetensors", installed_network_hash())
    assert state["best"] is None
    assert all(torch.equal(tensor, state["objective"][f"head.{k}"]) for k, tensor in head.state_dict().items())


def test_a_coarse_head_is_trained_by_the_same_command(train, tmp_path):
    assert train("--head", "coarse") == 0
    CoarseHead.load(tmp_path / "training/coarse_head.safetensors", installed_network_hash())
    assert "validation_outside" in rows(tmp_path / "training")[0]


def test_the_seed_decides_the_weights(train, whole, tmp_path):
    assert train() == 0 and head_bytes(tmp_path / "training") == head_bytes(whole)
    assert train("--seed", "1", folder="other") == 0
    assert head_bytes(tmp_path / "other") != head_bytes(whole)


# interruptions


@pytest.mark.parametrize("step, number", [(1, signal.SIGINT), (4, signal.SIGTERM)])
def test_an_interrupted_training_is_resumed_to_the_same_files(
    step, number, train, whole, tmp_path, monkeypatch, capsys
):
    show = ProgressBar.show

    def interrupted(self, report):
        show(self, report)
        if report.step == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(ProgressBar, "show", interrupted)
    folder = tmp_path / "training"
    assert train() == 130
    printed = capsys.readouterr()
    assert len(rows(folder)) == step
    if step == 1:  # within the warm-up and before the first validation: the head would be nearly untrained
        told = "interrupted after step 1, too early for weights: none were written: the same command with --resume"
        assert told in printed.err and "fine_head" not in printed.out
        assert not (folder / "fine_head.safetensors").exists()
    else:
        assert f"interrupted after step {step}: the same command with --resume continues" in printed.err
        FineHead.load(folder / "fine_head.safetensors", installed_network_hash())
    monkeypatch.setattr(ProgressBar, "show", show)
    assert train("--resume") == 0
    assert head_bytes(folder) == head_bytes(whole) and rows(folder) == rows(whole)
    runs = json.loads((folder / "training.json").read_text())["runs"]
    assert [run["first_step"] for run in runs] == [0, step] and [run["interrupted"] for run in runs] == [True, False]


def test_a_training_that_is_interrupted_before_its_first_step_writes_no_head(
    train, whole, tmp_path, monkeypatch, capsys
):
    def interrupted(self):
        os.kill(os.getpid(), signal.SIGINT)  # the first call of a run, before any step
        return {}

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module.Trainer, "_validate", interrupted)
        assert train("--validation-pairs", "0") == 130
    assert "interrupted after step 0, too early for weights: none were written" in capsys.readouterr().err
    assert not (tmp_path / "training/fine_head.safetensors").exists()
    assert train("--validation-pairs", "0", "--resume") == 0
    FineHead.load(tmp_path / "training/fine_head.safetensors", installed_network_hash())


def test_ctrl_c_in_a_terminal_ends_the_command_and_its_workers(photographs, tmp_path):
    words = (
        f"{sys.executable} -m nre_ros train -o {tmp_path}/training --room-share 0 --photographs {photographs} "
        "--size 96x80 --points 100 --steps 100000 --pairs 1 --workers 1 --validation-pairs 0 --device cpu"
    ).split()
    process = subprocess.Popen(words, start_new_session=True, stderr=subprocess.PIPE, text=True)
    table = tmp_path / "training/losses.csv"
    deadline = time.monotonic() + 60
    while not (table.exists() and table.read_text().count("\n") > 3) and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = [int(pid) for path in Path(f"/proc/{process.pid}/task").iterdir() for pid in children(path)]
    os.killpg(process.pid, signal.SIGINT)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted after step" in printed and "Traceback" not in printed
    step = torch.load(tmp_path / "training" / CHECKPOINT, weights_only=True)["step"]
    assert step == table.read_text().count("\n") - 1
    assert workers and not any(Path(f"/proc/{pid}").exists() for pid in workers)


def children(task: Path) -> list[str]:
    return (task / "children").read_text().split()


def test_rows_of_steps_after_the_last_checkpoint_are_removed_when_a_killed_training_is_resumed(
    train, whole, tmp_path, monkeypatch
):
    folder = tmp_path / "training"
    write = trainer_module.write_atomically
    saved = []

    def remembered(path, content):
        write(path, content)
        saved.append(content)

    monkeypatch.setattr(trainer_module, "write_atomically", remembered)
    assert train() == 0
    (folder / CHECKPOINT).write_bytes(saved[0])  # as if the process was killed after its first checkpoint
    with (folder / "losses.csv").open("a") as file:
        file.write("7,0.0")  # and while a row was written
    assert train("--resume") == 0
    assert rows(folder) == rows(whole) and head_bytes(folder) == head_bytes(whole)


# faults


def files(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_training_is_not_overwritten_without_resume(train, whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / "training")
    before = files(tmp_path / "training")
    assert train() == 2
    assert "exists: resume that training (--resume), or choose another folder" in one_line(capsys)
    assert files(tmp_path / "training") == before


@pytest.mark.parametrize(
    "options, message",
    [
        (("--steps", "9"), "made with steps=6, not 9"),
        (("--points", "50"), "data is"),
        (("--head-width", "16"), "identity is"),
        (("--validation-pairs", "3"), "validation is"),
        (("--seed", "3"), "pairs_seed is 0, expected 3"),
    ],
)
def test_a_training_is_not_resumed_with_other_settings(options, message, train, whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / "training")
    before = files(tmp_path / "training")
    assert train("--resume", *options) == 2
    assert message in one_line(capsys)
    assert files(tmp_path / "training") == before


def test_images_that_cannot_be_read_are_left_out_counted_and_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("nre_ros.learning.run_training.draw_losses", lambda losses, path: None)
    recording = rgbd_folder(tmp_path / "rgbd")
    broken = ("frame-000002.png", "frame-000006.png")  # of the training; frame-000005 is held out
    words = f"train -o {tmp_path}/training --room-share 0 --data rgbd:{recording} --steps 12 --pairs 2 --workers 1"
    words += " --validation-pairs 2 --validate-every 6 --head-width 8 --head-channels 8 --points 100 --device cpu"
    opened = TrainingData.open.__func__

    def break_images(cls, *arguments):
        data = opened(cls, *arguments)
        for name in broken:
            (recording / "images" / name).write_bytes(b"")
        return data

    monkeypatch.setattr(TrainingData, "open", classmethod(break_images))
    assert main(words.split()) == 0
    printed = capsys.readouterr()
    assert "images left out  2 cannot be read, the first: " in printed.out
    assert all(printed.err.count(f"left out: {recording}: image {name}: ") == 1 for name in broken)
    (run,) = json.loads((tmp_path / "training/training.json").read_text())["runs"]
    assert sorted(run["left_out"]) == [f"{recording}, {name}" for name in broken]


def test_photographs_may_be_moved_between_two_runs(whole, photographs, tmp_path):
    shutil.copytree(whole, tmp_path / "training")
    shutil.copytree(photographs, tmp_path / "moved")
    assert main([*command(tmp_path / "training", tmp_path / "moved"), "--resume"]) == 0


def fail_from(monkeypatch, step: int, fail) -> None:
    """Lets the losses of training pairs fail from a step on."""
    losses, calls = FineHeadObjective.pair_losses, []

    def failing(self, pair, generator):
        if self.training:
            calls.append(0)
            if len(calls) >= step:
                return fail()
        return losses(self, pair, generator)

    monkeypatch.setattr(FineHeadObjective, "pair_losses", failing)


def raises(error: Exception):
    def fail():
        raise error

    return fail


@pytest.mark.parametrize(
    "fail, message",
    [
        (lambda: {"total": torch.tensor(torch.nan, requires_grad=True)}, "are not finite"),
        (raises(torch.cuda.OutOfMemoryError("CUDA out of memory.")), "step 3: out of memory"),
    ],
)
def test_a_fault_is_one_line_and_loses_nothing(fail, message, train, whole, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trainer_module, "_MAX_FAULTS", 2)
    folder = tmp_path / "training"
    with monkeypatch.context() as patch:
        fail_from(patch, 4, fail)
        assert train() == 2
    assert message in one_line(capsys)
    assert FineHead.load(folder / "fine_head.safetensors", installed_network_hash()).width == 8
    assert message in json.loads((folder / "training.json").read_text())["runs"][0]["error"]
    assert train("--resume") == 0
    assert head_bytes(folder) == head_bytes(whole) and rows(folder) == rows(whole)


@pytest.mark.parametrize("module", [trainer_module, training_folder_module])
def test_a_full_disk_is_one_line_and_leaves_the_earlier_files(module, train, whole, tmp_path, monkeypatch, capsys):
    write, calls = module.write_atomically, []

    def full_disk(path, content):
        calls.append(path)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomically", full_disk)
        assert train() == 2
    assert "No space left on device" in one_line(capsys)
    assert train("--resume") == 0
    assert head_bytes(tmp_path / "training") == head_bytes(whole) and rows(tmp_path / "training") == rows(whole)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_table_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(TrainingError, match=r"losses.csv cannot be written: No space left"):
        with LossTable(tmp_path / "losses.csv") as table:
            table._file.close()
            table._file = open("/dev/full", "w")
            with pytest.raises(TrainingError, match=r"losses.csv cannot be written: No space left"):
                table.add(StepReport(1, 2, {"total": 1.0}, 1e-3, 0.1, True))


@pytest.mark.parametrize(
    "options, message",
    [
        (("--precision", "float16"), "precision=float16 needs a GPU"),
        (("--photographs", "/nowhere"), "/nowhere"),
        (("--data", "rgbd:/nowhere"), "/nowhere"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(options, message, train, tmp_path, capsys):
    assert train(*options) == 2
    assert message in one_line(capsys) and not (tmp_path / "training" / CHECKPOINT).exists()


def test_a_training_without_data_is_refused(tmp_path, capsys):
    assert main(["train", "-o", str(tmp_path / "training"), "--room-share", "0"]) == 2
    assert "nothing to train on" in one_line(capsys)


@pytest.mark.parametrize("options", [[], ["-o", "x", "--size", "20x20"], ["-o", "x", "--size", "wide"], ["unknown"]])
def test_a_wrong_command_line_is_a_usage_error(options, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", *options])
    assert stopped.value.code == 2 and "usage: nre_ros train" in capsys.readouterr().err


# the table of losses


def test_losses_are_read_back_and_steps_without_a_pair_have_none(tmp_path):
    with LossTable(tmp_path / "losses.csv") as table:
        table.add(StepReport(1, 3, {}, 1e-3, 0.5, False))
        table.add(StepReport(2, 3, {"total": 2.5, "nre": 2.0}, 2e-3, 0.25, True, {"total": 3.0, "nre": 1.0}, True))
        table.add(StepReport(3, 3, {"total": 1.5, "nre": 1.0}, 1e-3, 0.25, True))
    found = read_losses(tmp_path / "losses.csv")
    np.testing.assert_array_equal(found["step"], [1, 2, 3])
    np.testing.assert_array_equal(found["total"], [np.nan, 2.5, 1.5])
    np.testing.assert_array_equal(found["validation_nre"], [np.nan, 1.0, np.nan])
    assert read_losses(tmp_path / "absent.csv") == {}


def test_a_damaged_table_and_description_do_not_stop_a_training(train, whole, tmp_path):
    folder = tmp_path / "training"
    shutil.copytree(whole, folder)
    (folder / "losses.csv").write_bytes(b"\xff\x00\n\n,,,")
    (folder / "training.json").write_text('{"runs": 3')
    assert train("--resume") == 0
    assert head_bytes(folder) == head_bytes(whole)


# TensorBoard


def test_event_files_get_the_losses_and_the_validation(train, tmp_path, monkeypatch):
    written, closed = {}, []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            assert folder == str(tmp_path / "training/tensorboard") and purge_step == 1

        def add_scalar(self, name, value, step):
            written[name, step] = value

        def close(self):
            closed.append(True)

    stand_in = types.ModuleType("tensorboardX")
    stand_in.SummaryWriter = SummaryWriter
    stand_in.__spec__ = types.SimpleNamespace(name="tensorboardX")
    monkeypatch.setitem(sys.modules, "tensorboardX", stand_in)
    assert train("--tensorboard") == 0
    table = read_losses(tmp_path / "training/losses.csv")
    for column, name in (("total", "loss/total"), ("validation_total", "validation/total")):
        steps = np.flatnonzero(np.isfinite(table[column])) + 1
        assert [step for (key, step) in written if key == name] == steps.tolist()
        np.testing.assert_allclose([written[name, step] for step in steps], table[column][steps - 1], rtol=1e-5)
    assert ("learning_rate", STEPS) in written and closed


def test_event_files_can_be_read_by_tensorboard(train, tmp_path):
    pytest.importorskip("tensorboardX", reason="needs tensorboardX")
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard")
    assert train("--tensorboard") == 0
    events = loader.EventAccumulator(str(tmp_path / "training/tensorboard"))
    events.Reload()
    totals = [event.value for event in events.Scalars("loss/total")]
    np.testing.assert_allclose(totals, read_losses(tmp_path / "training/losses.csv")["total"], rtol=1e-5)


def test_a_missing_package_of_tensorboard_is_one_line_with_the_cure(train, tmp_path, monkeypatch, capsys):
    for name in ("tensorboard", "tensorboardX"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("nre_ros.learning.progress.find_spec", lambda name: None)
    monkeypatch.setattr("nre_ros.packages._is_installed", lambda name: "tensorboard" not in name)
    assert train("--tensorboard") == 2
    assert "pip install tensorboardX" in one_line(capsys) and not (tmp_path / "training").exists()


@pytest.mark.parametrize("at", ["start", "first step"])
def test_event_files_that_cannot_be_written_are_one_line_with_the_cure(at, train, tmp_path, monkeypatch, capsys):
    class SummaryWriter:
        def __init__(self, folder, purge_step):
            if at == "start":
                raise PermissionError(13, "Permission denied")

        def add_scalar(self, name, value, step):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    stand_in = types.ModuleType("tensorboardX")
    stand_in.SummaryWriter = SummaryWriter
    stand_in.__spec__ = types.SimpleNamespace(name="tensorboardX")
    monkeypatch.setitem(sys.modules, "tensorboardX", stand_in)
    assert train("--tensorboard") == 2
    reason = "Permission denied" if at == "start" else "No space left on device"
    line = one_line(capsys)
    assert f"cannot be written to {tmp_path}/training/tensorboard: {reason}" in line and "without --tensorboard" in line
    assert reason in json.loads((tmp_path / "training/training.json").read_text())["runs"][0]["error"]


def test_a_file_in_the_place_of_the_event_files_is_one_line(train, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("nre_ros.learning.progress.find_spec", lambda name: True)
    (tmp_path / "training").mkdir()
    (tmp_path / "training/tensorboard").write_text("")
    assert train("--tensorboard") == 2
    assert "cannot be written to" in one_line(capsys)
