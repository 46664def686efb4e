# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The trainer: a falling loss, resumed runs, and stops of every kind that lose nothing."""

import os
import signal
import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from nre_ros.errors import ImageError, TrainingError
from nre_ros.features.fine_head import FineHead
from nre_ros.features.xfeat import XFeatBackbone
from nre_ros.learning import trainer as trainer_module
from nre_ros.learning.losses import FineNRELoss
from nre_ros.learning.objectives import FineHeadObjective, Objective, pair_generator
from nre_ros.learning.pair_sources import PhotographPairs, TrainingPairs
from nre_ros.learning.trainer import CHECKPOINT, StepReport, Trainer, TrainingConfig
from nre_ros.learning.validation import Validation

CONFIG = TrainingConfig(steps=8, pairs_per_step=1, warm_up=2, learning_rate=5e-3, checkpoint_every=3)


@pytest.fixture(scope="module")
def xfeat() -> XFeatBackbone:
    return XFeatBackbone(torch.device("cpu"))


@pytest.fixture(scope="module")
def pairs() -> TrainingPairs:
    return TrainingPairs([PhotographPairs({"coffee": data.coffee(), "chelsea": data.chelsea()}, (96, 80), 120)])


def fine_objective(xfeat: XFeatBackbone) -> FineHeadObjective:
    return FineHeadObjective(FineHead(channels=16, width=16), xfeat, FineNRELoss(window_size=12), prior_reach=1.0)


def weights(objective: torch.nn.Module) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in objective.state_dict().values()]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b))


class Bowl(Objective):
    """A quadratic with noise from the generator; ``on_pair`` may interfere with the n-th pair."""

    identity = "bowl"

    def __init__(self, on_pair=None):
        super().__init__()
        self.place = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
        self.calls, self.on_pair = 0, on_pair

    def pair_losses(self, pair, generator):
        self.calls += 1
        target = torch.rand(2, generator=generator) * 0.1
        losses = {"total": (self.place - target).square().sum()}
        return losses if self.on_pair is None else self.on_pair(self.calls, losses)


class SamePair(TrainingPairs):
    """Always the same pair, which costs no time."""

    def __init__(self, pair):
        self._pair, self.seed, self.first = pair, 0, 0

    def pair(self, index):
        return self._pair


@pytest.fixture(scope="module")
def same(pairs) -> SamePair:
    return SamePair(pairs.pair(0))


# the fine head


def test_the_loss_of_the_fine_head_falls_and_the_trained_head_can_be_saved(xfeat, pairs, tmp_path):
    objective = fine_objective(xfeat)

    def loss_of_unseen_pairs() -> float:
        with torch.no_grad():
            found = [objective.pair_losses(pairs.pair(1000 + i), torch.Generator().manual_seed(i)) for i in range(6)]
        return float(np.mean([float(losses["total"]) for losses in found if losses is not None]))

    before = loss_of_unseen_pairs()
    config = replace(CONFIG, steps=15, pairs_per_step=2, warm_up=3)
    result = Trainer(objective, pairs, config, tmp_path).run()
    assert (result.step, result.interrupted, result.skipped) == (15, False, 0)
    after = loss_of_unseen_pairs()
    assert after < before - 1
    objective.head.save(tmp_path / "head.safetensors", xfeat.network_hash)
    assert equal(weights(FineHead.load(tmp_path / "head.safetensors", xfeat.network_hash)), weights(objective.head))


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(xfeat, pairs, tmp_path):
    whole = fine_objective(xfeat)
    Trainer(whole, pairs, CONFIG, tmp_path / "whole").run()

    first = fine_objective(xfeat)
    trainer = Trainer(first, pairs, CONFIG, tmp_path / "parts")
    result = trainer.run(lambda report: trainer.request_stop() if report.step == 5 else None)
    assert (result.step, result.interrupted) == (5, True) and not equal(weights(first), weights(whole))

    second = fine_objective(xfeat)
    trainer = Trainer(second, pairs, CONFIG, tmp_path / "parts", resume=True)
    assert trainer.step == 5 and equal(weights(second), weights(first))
    assert trainer.run().step == 8
    assert equal(weights(second), weights(whole))


def test_worker_processes_change_nothing(xfeat, pairs, tmp_path):
    found = []
    for workers in (0, 2):
        objective = fine_objective(xfeat)
        Trainer(objective, pairs, replace(CONFIG, steps=3), tmp_path / str(workers), workers=workers).run()
        found.append(weights(objective))
    assert equal(*found)


class Failing(SamePair):
    """Fails at one pair, or ends its process there."""

    how = "error"

    def pair(self, index):
        if index == 2 and self.how == "error":
            raise TrainingError("room 7: no overlap")
        if index == 2 and self.how == "image":
            raise ImageError("image a.png cannot be decoded")
        if index == 2 and self.how == "numpy":
            np.empty((2**40, 2**10))
        if index == 2 and self.how == "opencv":
            raise cv2.error("(-4:Insufficient memory) Failed to allocate 9 bytes")
        if index == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._pair


@pytest.mark.parametrize(
    "how, message",
    [
        ("error", "^room 7: no overlap$"),
        ("image", "^image a.png cannot be decoded$"),
        ("numpy", "^step 2: out of memory"),
        ("opencv", "^step 2: out of memory"),
        ("killed", "a process .* has ended"),
    ],
)
def test_an_error_in_a_worker_process_is_one_line_and_loses_nothing(how, message, same, tmp_path):
    failing = Failing(same.pair(0))
    failing.how = how
    with pytest.raises(TrainingError, match=message) as caught:
        Trainer(Bowl(), failing, CONFIG, tmp_path, workers=1).run()
    assert "\n" not in str(caught.value)
    assert resumed(same, tmp_path)[0].step <= 2  # the killed process may take the pairs before with it


def test_a_pair_with_few_common_points_has_no_loss(xfeat, pairs):
    pair = pairs.pair(0)
    hidden = replace(pair, visible=pair.visible & (np.arange(len(pair.visible)) < 5))
    assert fine_objective(xfeat).pair_losses(hidden, torch.Generator()) is None


def test_features_that_are_not_finite_have_a_loss_that_is_not_finite(xfeat, pairs):
    objective = fine_objective(xfeat)
    with torch.no_grad():
        objective.head.reduce.weight.fill_(1e38)
    losses = objective.pair_losses(pairs.pair(0), torch.Generator())
    assert losses is not None and not torch.isfinite(losses["total"])


# settings and progress


def test_the_rate_rises_in_the_warm_up_and_falls_with_half_a_cosine():
    config = TrainingConfig(steps=110, warm_up=10, learning_rate=1.0)
    assert [config.rate(step) for step in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert config.rate(60) == pytest.approx((1 + 0.05) / 2) and config.rate(109) == pytest.approx(0.05, abs=1e-3)


@pytest.mark.parametrize(
    "changes", [dict(steps=0), dict(pairs_per_step=0), dict(learning_rate=float("nan")), dict(max_gradient=0.0)]
)
def test_impossible_settings_are_refused(changes):
    with pytest.raises(TrainingError, match=f"{next(iter(changes))}="):
        TrainingConfig(**changes)


def test_the_progress_line_has_steps_losses_and_the_remaining_time():
    report = StepReport(20, 100, {"total": 2.5, "nre": 2.25}, 1e-3, 0.5, True)
    assert report.line() == "step 20/100  total 2.5  nre 2.25  0.50 s a step, 40 s left"
    assert "not finite: skipped" in replace(report, updated=False).line()
    assert "no pair with enough points" in replace(report, losses={}, updated=False).line()


def test_every_step_is_reported_once(same, tmp_path):
    reports = []
    Trainer(Bowl(), same, CONFIG, tmp_path).run(reports.append)
    assert [report.step for report in reports] == list(range(1, 9)) and all(report.updated for report in reports)
    assert [report.rate for report in reports] == [CONFIG.rate(step) for step in range(8)]


def test_the_settings_of_torch_are_restored(same, tmp_path):
    inside = []
    Trainer(Bowl(), same, CONFIG, tmp_path).run(lambda _: inside.append(torch.are_deterministic_algorithms_enabled()))
    assert all(inside) and not torch.are_deterministic_algorithms_enabled()


# stops


def resumed(same, folder, config=CONFIG) -> tuple[Trainer, Bowl]:
    bowl = Bowl()
    return Trainer(bowl, same, config, folder, resume=True), bowl


@pytest.fixture(scope="module")
def undisturbed(same, tmp_path_factory) -> list[torch.Tensor]:
    bowl = Bowl()
    Trainer(bowl, same, CONFIG, tmp_path_factory.mktemp("undisturbed")).run()
    return weights(bowl)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 4, 7])
def test_a_signal_ends_the_run_after_its_step_and_nothing_is_lost(number, step, same, undisturbed, tmp_path):
    def at(call, losses):
        if call == step:
            os.kill(os.getpid(), number)
        return losses

    before = signal.getsignal(number)
    result = Trainer(Bowl(at), same, CONFIG, tmp_path).run()
    assert (result.step, result.interrupted) == (step, True) and signal.getsignal(number) is before
    trainer, bowl = resumed(same, tmp_path)
    assert trainer.step == step and not trainer.run().interrupted
    assert equal(weights(bowl), undisturbed)


def test_a_second_interrupt_ends_the_run_at_once_and_nothing_is_lost(same, undisturbed, tmp_path):
    def at(call, losses):
        if call == 5:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
        return losses

    with pytest.raises(KeyboardInterrupt):
        Trainer(Bowl(at), same, CONFIG, tmp_path).run()
    trainer, bowl = resumed(same, tmp_path)
    assert trainer.step == 4
    trainer.run()
    assert equal(weights(bowl), undisturbed)


def test_an_interrupt_within_an_update_leaves_the_earlier_checkpoint(same, undisturbed, tmp_path, monkeypatch):
    bowl = Bowl()
    trainer = Trainer(bowl, same, CONFIG, tmp_path)
    update = trainer._optimizer.step

    def half_an_update():
        if trainer.step == 4:
            bowl.place.data[0] += 1
            raise KeyboardInterrupt
        update()

    monkeypatch.setattr(trainer._optimizer, "step", half_an_update)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    trainer, bowl = resumed(same, tmp_path)
    assert trainer.step == 3
    trainer.run()
    assert equal(weights(bowl), undisturbed)


def test_a_run_in_another_thread_is_stopped_by_request(same, tmp_path):
    trainer = Trainer(Bowl(), same, replace(CONFIG, steps=10**6), tmp_path)
    results = []
    reached = threading.Event()
    thread = threading.Thread(target=lambda: results.append(trainer.run(lambda _: reached.set())))
    thread.start()
    assert reached.wait(20)
    trainer.request_stop()
    thread.join(20)
    assert results[0].interrupted and resumed(same, tmp_path, replace(CONFIG, steps=10**6))[0].step == results[0].step


def test_an_error_in_the_progress_view_loses_nothing(same, tmp_path):
    def broken(report):
        if report.step == 2:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        Trainer(Bowl(), same, CONFIG, tmp_path).run(broken)
    assert resumed(same, tmp_path)[0].step == 2


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.cuda.OutOfMemoryError("CUDA out of memory."), RuntimeError("can't allocate memory")]
)
def test_exhausted_memory_is_a_clear_error_and_nothing_is_lost(error, same, tmp_path):
    def at(call, losses):
        if call == 3:
            raise error
        return losses

    with pytest.raises(TrainingError, match="step 2: out of memory"):
        Trainer(Bowl(at), same, CONFIG, tmp_path).run()
    assert resumed(same, tmp_path)[0].step == 2


def test_other_errors_keep_their_type(same, tmp_path):
    def at(call, losses):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        Trainer(Bowl(at), same, CONFIG, tmp_path).run()


# losses that are not finite, and pairs without points


def with_nan(*calls):
    return lambda call, losses: {"total": losses["total"] * float("nan")} if call in calls else losses


def test_a_loss_that_is_not_finite_changes_no_weight(same, tmp_path):
    seen = []
    bowl = Bowl(with_nan(4, 5))
    result = Trainer(bowl, same, CONFIG, tmp_path).run(lambda report: seen.append((report.updated, weights(bowl))))
    assert result.skipped == 2 and [updated for updated, _ in seen] == [True] * 3 + [False] * 2 + [True] * 3
    assert equal(seen[4][1], seen[2][1]) and not equal(seen[5][1], seen[4][1])


def test_a_gradient_that_is_not_finite_changes_no_weight(same, tmp_path):
    def infinite_slope(call, losses):
        return {"total": losses["total"] + (bowl.place[0] - bowl.place[0].detach()).sqrt()} if call == 4 else losses

    bowl = Bowl(infinite_slope)
    assert Trainer(bowl, same, CONFIG, tmp_path).run().skipped == 1
    assert torch.isfinite(bowl.place).all()


def test_many_losses_that_are_not_finite_are_an_error_and_leave_the_earlier_checkpoint(same, tmp_path):
    with pytest.raises(TrainingError, match="step 15: losses or gradients of 10 steps in a row are not finite"):
        Trainer(Bowl(with_nan(*range(6, 99))), same, replace(CONFIG, steps=50), tmp_path).run()
    assert resumed(same, tmp_path, replace(CONFIG, steps=50))[0].step == 3


def test_pairs_without_common_points_are_an_error(same, tmp_path):
    with pytest.raises(TrainingError, match="step 20: no pair of 20 steps in a row has enough points"):
        Trainer(Bowl(lambda call, losses: None), same, replace(CONFIG, steps=50), tmp_path).run()


# checkpoints


def test_a_training_is_never_overwritten_by_another(same, tmp_path):
    Trainer(Bowl(), same, CONFIG, tmp_path).run()
    content = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(TrainingError, match="exists: resume that training"):
        Trainer(Bowl(), same, CONFIG, tmp_path)
    assert (tmp_path / CHECKPOINT).read_bytes() == content
    assert resumed(same, tmp_path)[0].run().step == 8


def test_a_checkpoint_of_another_training_is_refused(same, tmp_path):
    Trainer(Bowl(), same, CONFIG, tmp_path).run()
    with pytest.raises(TrainingError, match="made with steps=8, not 9"):
        resumed(same, tmp_path, replace(CONFIG, steps=9))
    resumed(same, tmp_path, replace(CONFIG, checkpoint_every=1))
    other = Bowl()
    other.identity = "another"
    with pytest.raises(TrainingError, match="identity is 'bowl', expected 'another'"):
        Trainer(other, same, CONFIG, tmp_path, resume=True)
    seeded = SamePair(same.pair(0))
    seeded.seed = 1
    with pytest.raises(TrainingError, match="pairs_seed is 0, expected 1"):
        Trainer(Bowl(), seeded, CONFIG, tmp_path, resume=True)


class RunsCode:
    def __reduce__(self):
        return os.mkdir, (os.environ["NRE_TEST_TRACE"],)


def test_damaged_and_foreign_checkpoints_are_refused(same, tmp_path, monkeypatch):
    Trainer(Bowl(), same, CONFIG, tmp_path).run()
    path = tmp_path / CHECKPOINT
    content = path.read_bytes()
    right = torch.load(path, weights_only=True)
    monkeypatch.setenv("NRE_TEST_TRACE", str(tmp_path / "trace"))

    def refused(message):
        cure = "" if "made with" in message else ".*: put a copy of the file back, or train anew in another folder"
        with pytest.raises(TrainingError, match=message + cure):
            resumed(same, tmp_path)

    for damaged in (b"", content[: len(content) // 2], b"x" * 500):
        path.write_bytes(damaged)
        refused("none, or damaged")
    torch.save({**right, "config": RunsCode()}, path)
    refused("none, or damaged")
    assert not (tmp_path / "trace").exists()
    for changes, message in (
        ({"format": "other"}, "none of this program"),
        ({"step": 99}, "step is 99"),
        ({"step": True}, "step is True"),
        ({"config": 3}, "made with steps=None"),
        ({"objective": {"place": torch.zeros(5)}}, "damaged"),
        ({"objective": 3}, "damaged"),
        ({"optimizer": {}}, "damaged"),
        ({"objective": {"place": torch.full((2,), float("nan"))}}, "not finite"),
    ):
        torch.save({**right, **changes}, path)
        refused(message)


def test_a_checkpoint_that_cannot_be_written_leaves_the_earlier_one(same, tmp_path, monkeypatch):
    write, calls = trainer_module.write_atomically, []

    def full_disk(path, content):
        calls.append(path)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(trainer_module, "write_atomically", full_disk)
    with pytest.raises(TrainingError, match="cannot be written: No space left on device"):
        Trainer(Bowl(), same, CONFIG, tmp_path).run()
    assert resumed(same, tmp_path)[0].step == 3


def test_a_folder_that_cannot_be_made_is_an_error(same, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TrainingError, match="training folder"):
        Trainer(Bowl(), same, CONFIG, tmp_path / "file" / "folder")


# validation


class TwoHalves(Bowl):
    """Its loss on the pairs of a validation (pairs 0, 1, ... of seed 0) is that of a place far from the target."""

    def pair_losses(self, pair, generator):
        losses = super().pair_losses(pair, generator)
        return losses if self.training else {"total": (self.place - torch.tensor([2.99, -1.99])).square().sum()}


def test_the_validation_is_reported_at_its_steps_and_after_the_last_one(same, tmp_path):
    reports = []
    Trainer(Bowl(), same, CONFIG, tmp_path, validation=Validation(same, 2, every=3)).run(reports.append)
    assert [report.step for report in reports if report.validation] == [3, 6, 8]
    assert all(report.best for report in reports if report.validation), "the loss of the bowl falls"


def test_the_validation_changes_nothing_in_the_training(same, undisturbed, tmp_path):
    bowl = Bowl()
    Trainer(bowl, same, CONFIG, tmp_path, validation=Validation(same, 2, every=2)).run()
    assert equal(weights(bowl), undisturbed)


def test_the_weights_with_the_smallest_validation_loss_are_kept(same, tmp_path):
    bowl, seen = TwoHalves(), {}
    trainer = Trainer(bowl, same, CONFIG, tmp_path, validation=Validation(same, 1, every=1))
    trainer.run(lambda report: seen.update({report.step: (report, weights(bowl))}))
    losses = {step: report.validation["total"] for step, (report, _) in seen.items()}
    step = min(losses, key=lambda step: losses[step])
    assert 0 < step < 8, "the loss falls and rises again"
    assert (trainer.best.step, trainer.best.loss) == (step, losses[step])
    assert equal(list(trainer.best.state.values()), seen[step][1])


def test_a_resumed_run_has_the_best_weights_of_the_run_before(same, tmp_path):
    bowl = TwoHalves()
    trainer = Trainer(bowl, same, CONFIG, tmp_path, validation=Validation(same, 1, every=1))
    trainer.run(lambda report: trainer.request_stop() if report.step == 6 else None)
    again = Trainer(TwoHalves(), same, CONFIG, tmp_path, resume=True, validation=Validation(same, 1, every=1))
    assert (again.best.step, again.best.loss) == (trainer.best.step, trainer.best.loss)
    assert equal(list(again.best.state.values()), list(trainer.best.state.values()))
    with pytest.raises(TrainingError, match="validation is '1 pairs of seed 0, every 1 steps', expected ''"):
        Trainer(TwoHalves(), same, CONFIG, tmp_path, resume=True)


def test_a_validation_that_was_interrupted_takes_place_after_the_resume(same, tmp_path):
    class Interrupted(Bowl):
        def pair_losses(self, pair, generator):
            if not self.training and self.calls == 8:
                raise KeyboardInterrupt
            return super().pair_losses(pair, generator)

    with pytest.raises(KeyboardInterrupt):
        Trainer(Interrupted(), same, CONFIG, tmp_path, validation=Validation(same, 1, every=100)).run()
    trainer = Trainer(Bowl(), same, CONFIG, tmp_path, resume=True, validation=Validation(same, 1, every=100))
    assert trainer.step == 8 and trainer.best is None
    trainer.run()
    assert trainer.best.step == 8


def test_a_validation_without_common_points_is_an_error(same):
    class Empty(Bowl):
        def pair_losses(self, pair, generator):
            return None

    with pytest.raises(TrainingError, match="validation: none of 2 pairs has enough points"):
        Validation(same, 2).losses(Empty())
    with pytest.raises(TrainingError, match="count=0"):
        Validation(same, 0)


def test_the_validation_of_a_head_is_the_mean_over_its_pairs(xfeat, pairs):
    objective = fine_objective(xfeat)
    found = Validation(pairs, 3).losses(objective)
    with torch.no_grad():
        each = [objective.pair_losses(pairs.pair(i), pair_generator(pairs.seed, i)) for i in range(3)]
    assert found["total"] == pytest.approx(np.mean([float(losses["total"]) for losses in each])) and objective.training


# mixed precision


def test_the_network_computes_in_bfloat16_and_the_losses_in_float32(xfeat, same, tmp_path):
    objective, types = fine_objective(xfeat), {}
    objective.head.expand.register_forward_hook(lambda *call: types.update(head=call[2].dtype))
    objective.loss.register_forward_hook(lambda *call: types.update(loss=call[2].nre.dtype))
    reports = []
    Trainer(objective, same, replace(CONFIG, precision="bfloat16"), tmp_path).run(reports.append)
    assert types == {"head": torch.bfloat16, "loss": torch.float32}
    totals = [report.losses["total"] for report in reports]
    assert np.mean(totals[-2:]) < np.mean(totals[:2]) - 0.5


def test_a_loss_in_mixed_precision_is_that_in_float32(xfeat, pairs):
    objective, pair = fine_objective(xfeat), pairs.pair(0)
    losses = []
    for enabled in (False, True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled):
            losses.append(float(objective.pair_losses(pair, torch.Generator().manual_seed(1))["total"]))
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], rel=0.01)


def test_a_checkpoint_of_another_precision_is_refused(same, tmp_path):
    Trainer(Bowl(), same, CONFIG, tmp_path).run()
    with pytest.raises(TrainingError, match="made with precision=float32, not bfloat16"):
        resumed(same, tmp_path, replace(CONFIG, precision="bfloat16"))


def test_a_precision_that_is_unknown_or_impossible_is_refused(same, tmp_path):
    with pytest.raises(TrainingError, match="precision='half' is unknown, known: float32"):
        replace(CONFIG, precision="half")
    with pytest.raises(TrainingError, match="precision=float16 needs a GPU, not cpu"):
        Trainer(Bowl(), same, replace(CONFIG, precision="float16"), tmp_path)


def scaled(monkeypatch, scale: float) -> None:
    """Lets losses be scaled as for float16 on a GPU, on the CPU."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    monkeypatch.setattr(trainer_module, "_loss_scaler", lambda enabled: scaler)


@pytest.mark.skipif(not hasattr(torch.amp, "GradScaler"), reason="needs torch 2.3")
def test_scaled_losses_give_the_same_weights_also_after_a_resume(same, undisturbed, tmp_path, monkeypatch):
    scaled(monkeypatch, 2.0**10)  # a power of two changes no digit
    trainer = Trainer(Bowl(), same, CONFIG, tmp_path)
    trainer.run(lambda report: trainer.request_stop() if report.step == 3 else None)
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["scaler"]["scale"] == 2.0**10
    trainer, bowl = resumed(same, tmp_path)
    trainer.run()
    assert equal(weights(bowl), undisturbed)


@pytest.mark.skipif(not hasattr(torch.amp, "GradScaler"), reason="needs torch 2.3")
def test_a_scaled_gradient_that_overflows_changes_no_weight_and_halves_the_scale(same, tmp_path, monkeypatch):
    scaled(monkeypatch, 2.0**126)  # times the first gradients, 4 to 6, it is beyond float32
    bowl, scales = Bowl(), []
    trainer = Trainer(bowl, same, CONFIG, tmp_path)
    result = trainer.run(lambda report: scales.append((report.updated, trainer._scaler.get_scale())))
    assert scales[0] == (False, 2.0**125) and result.skipped == sum(not updated for updated, _ in scales) < 4
    assert torch.isfinite(bowl.place).all() and scales[-1][0]
