# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Trains an objective on training pairs, so that a stop at any step loses nothing.

Everything that a step draws at random depends on the seed and the number of the step alone. A run that is stopped and
resumed therefore ends with the weights of a run without a stop, on the same machine with the same number of threads. On
a GPU the weights may differ in the last digits.

With a validation, the weights with the smallest loss on its pairs are kept beside the present ones.
"""

from __future__ import annotations

import io
import math
import os
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import numpy as np
import torch

from nre_ros.errors import NreError, TrainingError, one_line
from nre_ros.features.weights import write_atomically
from nre_ros.learning.objectives import Objective, pair_generator
from nre_ros.learning.pair_sources import TrainingPairs
from nre_ros.learning.pairs import TrainingPair
from nre_ros.learning.validation import Validation

CHECKPOINT = "checkpoint.pt"
"""Name of the checkpoint in a training folder."""
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Name -> type in which the networks compute. Weights and losses are float32 in each of them."""
_FORMAT = "nre_ros training checkpoint 2"
_CURE = "put a copy of the file back, or train anew in another folder (the weights that were written stay usable)"
_MAX_BYTES = 2 << 30
_MAX_FAULTS = 10
"""So many steps in a row may have losses that are not finite."""
_MAX_EMPTY = 20
"""So many steps in a row may have no pair with enough points."""
_OUT_OF_MEMORY = re.compile("out of memory|allocate memory|Unable to allocate|Insufficient memory")
"""What torch says on a GPU and on a CPU, and what numpy and OpenCV say."""
_WORKER = "DataLoader worker"
"""What torch says of a process that makes pairs and has ended."""
_LAST_RATE = 0.05
"""Learning rate of the last step, as a fraction of the largest."""
_FIRST_SCALE = 1024.0
"""Factor on losses with float16 at the start; it is halved whenever a gradient overflows."""


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of a training.

    Attributes:
        steps: Number of steps.
        pairs_per_step: Pairs whose losses are averaged in a step.
        learning_rate: Of Adam, after the warm-up; it falls with half a cosine.
        warm_up: Steps until the learning rate has grown to that.
        max_gradient: Gradients with a larger norm are shortened to it.
        checkpoint_every: Steps between checkpoints.
        seed: Of what a step draws at random. The pairs and the network have seeds of their own.
        precision: One of ``PRECISIONS``: ``float32``, or mixed precision with ``bfloat16`` or ``float16``.

    Raises:
        TrainingError: A value is out of its range.
    """

    steps: int = 2000
    pairs_per_step: int = 4
    learning_rate: float = 2e-3
    warm_up: int = 50
    max_gradient: float = 1.0
    checkpoint_every: int = 100
    seed: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("pairs_per_step", 1), ("warm_up", 0), ("checkpoint_every", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise TrainingError(f"{name}={getattr(self, name)} must be at least {least}")
        for name in ("learning_rate", "max_gradient"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise TrainingError(f"{name}={getattr(self, name)} must be above 0")
        if self.precision not in PRECISIONS:
            raise TrainingError(f"precision={self.precision!r} is unknown, known: {', '.join(PRECISIONS)}")

    def rate(self, step: int) -> float:
        """Returns the learning rate of a step.

        Args:
            step: Number of the step, from 0.
        """
        if step < self.warm_up:
            return self.learning_rate * (step + 1) / self.warm_up
        progress = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        return self.learning_rate * (_LAST_RATE + (1 - _LAST_RATE) * 0.5 * (1 + math.cos(math.pi * progress)))


@dataclass(frozen=True)
class StepReport:
    """What is known after a step.

    Attributes:
        step: Number of finished steps.
        steps: Number of all steps.
        losses: Name -> mean over the step's pairs; empty where none took part.
        rate: Learning rate.
        seconds: Mean time of a step since the run began.
        updated: Whether the weights changed; not without a pair, nor with losses that are not finite.
        validation: Name -> mean loss on the pairs of the validation; empty where none took place after this step.
        best: Whether that is the smallest total so far.
        left_out: Recording and image -> why it cannot be read, for images that this step found first.
    """

    step: int
    steps: int
    losses: dict[str, float]
    rate: float
    seconds: float
    updated: bool
    validation: dict[str, float] = field(default_factory=dict)
    best: bool = False
    left_out: dict[str, str] = field(default_factory=dict)

    def line(self) -> str:
        """Formats the report as one line."""
        losses = "  ".join(f"{name} {value:.4g}" for name, value in self.losses.items()) or "no pair with enough points"
        skipped = "" if self.updated or not self.losses else "  (not finite: skipped)"
        remaining = (self.steps - self.step) * self.seconds
        return f"step {self.step}/{self.steps}  {losses}{skipped}  {self.seconds:.2f} s a step, {remaining:.0f} s left"


@dataclass(frozen=True)
class BestWeights:
    """The weights with the smallest loss on the pairs of the validation.

    Attributes:
        step: Number of steps after which they were found.
        loss: Their mean ``total`` on these pairs.
        state: Copy of ``Objective.state_dict()``, on the CPU.
    """

    step: int
    loss: float
    state: dict[str, torch.Tensor]


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended.

    Attributes:
        step: Number of finished steps.
        interrupted: Whether the run was stopped before its last step.
        skipped: Steps of this run that changed no weights.
        left_out: Recording and image -> why it cannot be read, for all images that this run had to leave out.
    """

    step: int
    interrupted: bool
    skipped: int
    left_out: dict[str, str] = field(default_factory=dict)


def check_training_folder(folder: Path | str, resume: bool) -> bool:
    """Checks that a training may begin or continue in a folder.

    Args:
        folder: The folder, which need not exist.
        resume: Whether a training may be continued.

    Returns:
        Whether there is a checkpoint to continue from.

    Raises:
        TrainingError: There is a checkpoint and ``resume`` is false, or the folder cannot be used.
    """
    path = Path(folder) / CHECKPOINT
    try:
        exists = path.exists()
    except OSError as error:
        raise TrainingError(f"training folder {folder}: {error.strerror}") from None
    if exists and not resume:
        raise TrainingError(f"{path} exists: resume that training (--resume), or choose another folder")
    return exists


class Trainer:
    """Minimises an objective.

    Args:
        objective: What is trained.
        pairs: Where the pairs come from; step s takes the pairs from s ``pairs_per_step`` on.
        config: The settings.
        folder: Where the checkpoint lies; created where it is absent.
        resume: Whether to continue from the folder's checkpoint. Without a checkpoint training starts anew.
        workers: Processes that make pairs; 0: this process makes them.
        validation: Pairs that are not trained on, and how often the losses on them are computed; None: never.

    Attributes:
        step: Number of finished steps.
        best: The best weights so far; None before the first validation.

    Raises:
        TrainingError: The folder has a checkpoint and ``resume`` is false, the checkpoint is damaged or was made
            with other settings, or the device does not compute in the precision.
    """

    def __init__(
        self,
        objective: Objective,
        pairs: TrainingPairs,
        config: TrainingConfig,
        folder: Path | str,
        resume: bool = False,
        workers: int = 0,
        validation: Validation | None = None,
    ):
        self._objective, self._pairs, self._config, self._workers = objective, pairs, config, workers
        self._validation = validation
        self._optimizer = torch.optim.Adam(objective.parameters(), lr=config.learning_rate)
        self._device = next(objective.parameters()).device.type
        if config.precision == "float16" and self._device != "cuda":
            raise TrainingError(f"precision=float16 needs a GPU, not {self._device}: choose bfloat16 or float32")
        self._scaler = _loss_scaler(config.precision == "float16")
        self._stop = threading.Event()
        self._whole = True  # no update is half done
        self._left_out: dict[str, str] = {}
        self.step = self._saved_step = self._validated_step = 0
        self.best: BestWeights | None = None
        self._path = Path(folder) / CHECKPOINT
        exists = check_training_folder(folder, resume)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"training folder {folder}: {error.strerror}") from None
        if exists:
            self._load()

    def request_stop(self) -> None:
        """Lets ``run`` save a checkpoint and return after the present step; any thread may call it."""
        self._stop.set()

    def run(self, progress: Callable[[StepReport], None] | None = None) -> TrainingResult:
        """Trains until the last step, or until SIGINT, SIGTERM or ``request_stop``.

        A checkpoint is written every ``checkpoint_every`` steps and at the end, whatever ends the run, except that
        losses which are not finite leave the earlier checkpoint. A second SIGINT or SIGTERM raises KeyboardInterrupt.

        Args:
            progress: Called after each step.

        Returns:
            How the run ended.

        Raises:
            TrainingError: Losses are not finite or no pair has enough points for many steps in a row, memory is
                exhausted, or a checkpoint cannot be written.
        """
        self._objective.train()
        skipped = faults = empty = reported = 0
        begun = self.step, time.monotonic()
        pairs = self._pairs_from(self.step * self._config.pairs_per_step)
        try:
            with _stop_at_signals(self._stop), _deterministic():
                self._validate()  # where an earlier run was interrupted before
                while self.step < self._config.steps and not self._stop.is_set():
                    report = self._advance(pairs, begun)
                    report = replace(report, **self._validate())
                    report.left_out.update(list(self._left_out.items())[reported:])
                    reported = len(self._left_out)
                    skipped += not report.updated
                    empty = empty + 1 if not report.losses else 0
                    faults = faults + 1 if report.losses and not report.updated else 0
                    if progress is not None:
                        progress(report)
                    if faults >= _MAX_FAULTS:
                        raise TrainingError(
                            f"step {self.step}: losses or gradients of {faults} steps in a row are not finite "
                            "(try a smaller learning rate)"
                        )
                    if empty >= _MAX_EMPTY:
                        raise TrainingError(
                            f"step {self.step}: no pair of {empty} steps in a row has enough points in common "
                            "(do the images overlap?)"
                        )
                    if self.step % self._config.checkpoint_every == 0 and not faults:
                        self._save()
        except (MemoryError, RuntimeError, cv2.error) as error:
            if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None:
                raise TrainingError(
                    f"step {self.step}: out of memory (try smaller images, fewer points or fewer pairs a step)"
                ) from error
            if _WORKER not in str(error):
                raise
            if not (self._stop.is_set() and self._whole):  # else a signal to all processes ended the worker first
                raise TrainingError(
                    f"step {self.step}: a process that makes pairs has ended: {one_line(error)} (out of "
                    "memory? try fewer workers)"
                ) from error
        finally:
            self._stop.clear()
            try:
                if self._whole and not faults and self._saved_step != self.step:
                    self._save()
            finally:
                pairs.close()  # which ends the workers and may take seconds
        return TrainingResult(self.step, self.step < self._config.steps, skipped, self._left_out)

    def _advance(self, pairs: Iterator[TrainingPair], begun: tuple[int, float]) -> StepReport:
        """Does one step, whose weights change at its end or not at all; the run began at a step and a time."""
        config = self._config
        rate = config.rate(self.step)
        self._optimizer.zero_grad(set_to_none=True)
        found: list[dict[str, float]] = []
        for index in range(self.step * config.pairs_per_step, (self.step + 1) * config.pairs_per_step):
            pair = next(pairs)
            self._leave_out(pair.left_out)
            with torch.autocast(self._device, PRECISIONS[config.precision], config.precision != "float32"):
                losses = self._objective.pair_losses(pair, pair_generator(config.seed, index))
            if losses is not None:
                if bool(torch.isfinite(losses["total"])):
                    self._scaler.scale(losses["total"] / config.pairs_per_step).backward()
                found.append({name: float(value.detach()) for name, value in losses.items()})
        names = [name for name in found[0] if all(name in losses for losses in found)] if found else []
        means = {name: float(np.mean([losses[name] for losses in found])) for name in names}
        updated = False
        if found:
            parameters = [parameter for parameter in self._objective.parameters() if parameter.grad is not None]
            if parameters:
                self._scaler.unscale_(self._optimizer)
            norm = torch.nn.utils.clip_grad_norm_(parameters, config.max_gradient)
            updated = math.isfinite(means["total"]) and bool(torch.isfinite(norm))
            self._whole = False
            if updated:
                for group in self._optimizer.param_groups:
                    group["lr"] = rate
                self._scaler.step(self._optimizer)
            if parameters:
                self._scaler.update()
        self.step += 1
        self._whole = True
        seconds = (time.monotonic() - begun[1]) / (self.step - begun[0])
        return StepReport(self.step, config.steps, means, rate, seconds, updated)

    def _validate(self) -> dict[str, Any]:
        """Computes the losses on the validation's pairs where they are due, and keeps the best weights.

        Returns what the step's report says about it.
        """
        due = self._validation is not None and self.step and self.step % self._validation.every == 0
        due = due or (self._validation is not None and self.step == self._config.steps)
        if self._validation is None or not due or self._validated_step == self.step:
            return {}
        losses = self._validation.losses(self._objective)
        self._leave_out(self._validation.left_out)
        best = math.isfinite(losses["total"]) and (self.best is None or losses["total"] < self.best.loss)
        if best:
            state = {name: value.detach().cpu().clone() for name, value in self._objective.state_dict().items()}
            self.best = BestWeights(self.step, losses["total"], state)
        self._validated_step = self.step
        return {"validation": losses, "best": best}

    def _leave_out(self, images: Mapping[str, str]) -> None:
        """Counts images that cannot be read; several processes may find the same one."""
        for name, reason in images.items():
            self._left_out.setdefault(name, reason)

    def _pairs_from(self, first: int) -> Generator[TrainingPair, None, None]:
        pairs = self._pairs.starting_at(first)
        if self._workers == 0:
            yield from pairs
        loader = torch.utils.data.DataLoader(
            pairs, batch_size=None, num_workers=self._workers, worker_init_fn=_leave_group
        )
        try:
            yield from loader
        except NreError as error:  # whose message is the whole traceback of the worker
            raise TrainingError(str(error).strip().splitlines()[-1].partition(": ")[2]) from error

    def _save(self) -> None:
        content = {
            "format": _FORMAT,
            "identity": self._objective.identity,
            "config": asdict(self._config),
            "pairs_seed": self._pairs.seed,
            "data": self._pairs.identity,
            "step": self.step,
            "objective": self._objective.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "validation": _identity(self._validation),
            "validated_step": self._validated_step,
            "best": None if self.best is None else vars(self.best),
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        try:
            write_atomically(self._path, buffer.getvalue())
        except OSError as error:
            raise TrainingError(f"checkpoint {self._path} cannot be written: {error.strerror}") from error
        self._saved_step = self.step

    def _load(self) -> None:
        content = _read_checkpoint(self._path)
        expected = {
            "identity": self._objective.identity,
            "pairs_seed": self._pairs.seed,
            "data": self._pairs.identity,
            "validation": _identity(self._validation),
        }
        for name, value in expected.items():
            if content.get(name) != value:
                raise TrainingError(f"checkpoint {self._path}: {name} is {content.get(name)!r}, expected {value!r}")
        config = content.get("config")
        for setting in fields(TrainingConfig):
            made_with = config.get(setting.name) if isinstance(config, dict) else None
            if setting.name != "checkpoint_every" and made_with != getattr(self._config, setting.name):
                raise TrainingError(
                    f"checkpoint {self._path} was made with {setting.name}={made_with}, "
                    f"not {getattr(self._config, setting.name)}: resume with the same settings"
                )
        step, validated = content.get("step"), content.get("validated_step")
        if type(step) is not int or type(validated) is not int or not 0 <= validated <= step <= self._config.steps:
            raise TrainingError(f"checkpoint {self._path}: its step is {step!r}, validated {validated!r}: {_CURE}")
        try:
            if content["best"] is not None:
                best = BestWeights(**content["best"])
                self._objective.load_state_dict(best.state)
                self._check_weights()
                self.best = replace(best, step=int(best.step), loss=float(best.loss))
            self._objective.load_state_dict(content["objective"])
            self._optimizer.load_state_dict(content["optimizer"])
            self._scaler.load_state_dict(content["scaler"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise TrainingError(f"checkpoint {self._path} is damaged ({one_line(error)[:200]}): {_CURE}") from error
        self._check_weights()
        self.step = self._saved_step = step
        self._validated_step = validated

    def _check_weights(self) -> None:
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self._objective.parameters()):
            raise TrainingError(f"checkpoint {self._path}: a weight is not finite: {_CURE}")


def _identity(validation: Validation | None) -> str:
    return "" if validation is None else validation.identity


def _loss_scaler(enabled: bool) -> Any:
    """Scales losses so that small gradients do not vanish in float16; does nothing where it is not enabled."""
    if hasattr(torch.amp, "GradScaler"):  # from torch 2.3 on
        return torch.amp.GradScaler("cuda", init_scale=_FIRST_SCALE, enabled=enabled)
    return torch.cuda.amp.GradScaler(init_scale=_FIRST_SCALE, enabled=enabled)


def _read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, read without running what it holds."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise TrainingError(f"checkpoint {path}: {path.stat().st_size} bytes are too many")
        content = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
    except OSError as error:
        raise TrainingError(f"checkpoint {path} cannot be read: {error.strerror}") from None
    except TrainingError:
        raise
    except Exception as error:  # torch, zipfile and the unpickler raise a dozen kinds for a damaged file
        raise TrainingError(f"checkpoint {path} is none, or damaged: {_CURE}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise TrainingError(f"checkpoint {path} is none of this program and version: {_CURE}")
    return content


def _leave_group(worker: int) -> None:
    """Ctrl+C and ``timeout`` signal a process group: the trainer finishes its step and ends the workers itself."""
    del worker
    os.setpgid(0, 0)


@contextmanager
def _deterministic() -> Iterator[None]:
    """Lets torch choose algorithms that give the same sums every time, where it has such algorithms."""
    settings = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    module: Any = getattr(torch.utils, "deterministic", None)  # from torch 2.2 on
    fills = getattr(module, "fill_uninitialized_memory", False)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # of which cuBLAS makes its sums reproducible
    torch.use_deterministic_algorithms(True, warn_only=True)
    if fills:
        module.fill_uninitialized_memory = False  # it takes a fifth of the time and changes no result
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*deterministic")  # for a GPU the module's text says so
            yield
    finally:
        torch.use_deterministic_algorithms(settings[0], warn_only=settings[1])
        if fills:
            module.fill_uninitialized_memory = True


@contextmanager
def _stop_at_signals(stop: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set ``stop``; a second one raises KeyboardInterrupt. Only the main thread gets signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    earlier = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
