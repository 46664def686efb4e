# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Trains an objective on training pairs, so that a stop at any step loses nothing.

Everything that a step draws at random depends on the seed and the number of the step alone. A run that is stopped and
resumed therefore ends with the weights of a run without a stop, on the same machine with the same number of threads. On
a GPU the weights may differ in the last digits.
"""

from __future__ import annotations

import io
import math
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from nre_ros.errors import TrainingError
from nre_ros.features.weights import write_atomically
from nre_ros.learning.objectives import Objective
from nre_ros.learning.pair_sources import TrainingPairs
from nre_ros.learning.pairs import TrainingPair

CHECKPOINT = "checkpoint.pt"
"""Name of the checkpoint in a training folder."""
_FORMAT = "nre_ros training checkpoint 1"
_MAX_BYTES = 2 << 30
_MAX_FAULTS = 10
"""So many steps in a row may have losses that are not finite."""
_MAX_EMPTY = 20
"""So many steps in a row may have no pair with enough points."""
_OUT_OF_MEMORY = re.compile("out of memory|allocate memory")
"""What torch says on a GPU and on a CPU."""
_LAST_RATE = 0.05
"""Learning rate of the last step, as a fraction of the largest."""


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

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("pairs_per_step", 1), ("warm_up", 0), ("checkpoint_every", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise TrainingError(f"{name}={getattr(self, name)} must be at least {least}")
        for name in ("learning_rate", "max_gradient"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise TrainingError(f"{name}={getattr(self, name)} must be above 0")

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
    """

    step: int
    steps: int
    losses: dict[str, float]
    rate: float
    seconds: float
    updated: bool

    def line(self) -> str:
        """Formats the report as one line."""
        losses = "  ".join(f"{name} {value:.4g}" for name, value in self.losses.items()) or "no pair with enough points"
        skipped = "" if self.updated or not self.losses else "  (not finite: skipped)"
        remaining = (self.steps - self.step) * self.seconds
        return f"step {self.step}/{self.steps}  {losses}{skipped}  {self.seconds:.2f} s a step, {remaining:.0f} s left"


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended.

    Attributes:
        step: Number of finished steps.
        interrupted: Whether the run was stopped before its last step.
        skipped: Steps of this run that changed no weights.
    """

    step: int
    interrupted: bool
    skipped: int


class Trainer:
    """Minimises an objective.

    Args:
        objective: What is trained.
        pairs: Where the pairs come from; step s takes the pairs from s ``pairs_per_step`` on.
        config: The settings.
        folder: Where the checkpoint lies; created where it is absent.
        resume: Whether to continue from the folder's checkpoint. Without a checkpoint training starts anew.
        workers: Processes that make pairs; 0: this process makes them.

    Attributes:
        step: Number of finished steps.

    Raises:
        TrainingError: The folder has a checkpoint and ``resume`` is false, or the checkpoint is damaged or was made
            with other settings.
    """

    def __init__(
        self,
        objective: Objective,
        pairs: TrainingPairs,
        config: TrainingConfig,
        folder: Path | str,
        resume: bool = False,
        workers: int = 0,
    ):
        self._objective, self._pairs, self._config, self._workers = objective, pairs, config, workers
        self._optimizer = torch.optim.Adam(objective.parameters(), lr=config.learning_rate)
        self._stop = threading.Event()
        self._whole = True  # no update is half done
        self.step = self._saved_step = 0
        self._path = Path(folder) / CHECKPOINT
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            exists = self._path.exists()
        except OSError as error:
            raise TrainingError(f"training folder {folder}: {error.strerror}") from None
        if exists and not resume:
            raise TrainingError(f"{self._path} exists: resume that training, or choose another folder")
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
        skipped = faults = empty = 0
        begun = self.step, time.monotonic()
        pairs = self._pairs_from(self.step * self._config.pairs_per_step)
        try:
            with _stop_at_signals(self._stop), _deterministic():
                while self.step < self._config.steps and not self._stop.is_set():
                    report = self._advance(pairs, begun)
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
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and _OUT_OF_MEMORY.search(str(error)) is None:
                raise
            raise TrainingError(
                f"step {self.step}: out of memory (try smaller images, fewer points or fewer pairs a step)"
            ) from error
        finally:
            self._stop.clear()
            if self._whole and not faults and self._saved_step != self.step:
                self._save()
        return TrainingResult(self.step, self.step < self._config.steps, skipped)

    def _advance(self, pairs: Iterator[TrainingPair], begun: tuple[int, float]) -> StepReport:
        """Does one step, whose weights change at its end or not at all; the run began at a step and a time."""
        config = self._config
        rate = config.rate(self.step)
        self._optimizer.zero_grad(set_to_none=True)
        found: list[dict[str, float]] = []
        for index in range(self.step * config.pairs_per_step, (self.step + 1) * config.pairs_per_step):
            losses = self._objective.pair_losses(next(pairs), _generator(config.seed, index))
            if losses is not None:
                if bool(torch.isfinite(losses["total"])):
                    (losses["total"] / config.pairs_per_step).backward()
                found.append({name: float(value.detach()) for name, value in losses.items()})
        names = [name for name in found[0] if all(name in losses for losses in found)] if found else []
        means = {name: float(np.mean([losses[name] for losses in found])) for name in names}
        updated = False
        if found:
            parameters = [parameter for parameter in self._objective.parameters() if parameter.grad is not None]
            norm = torch.nn.utils.clip_grad_norm_(parameters, config.max_gradient)
            updated = math.isfinite(means["total"]) and bool(torch.isfinite(norm))
        if updated:
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            self._whole = False
            self._optimizer.step()
        self.step += 1
        self._whole = True
        seconds = (time.monotonic() - begun[1]) / (self.step - begun[0])
        return StepReport(self.step, config.steps, means, rate, seconds, updated)

    def _pairs_from(self, first: int) -> Iterator[TrainingPair]:
        pairs = self._pairs.starting_at(first)
        if self._workers == 0:
            yield from pairs
        loader = torch.utils.data.DataLoader(
            pairs, batch_size=None, num_workers=self._workers, worker_init_fn=_ignore_interrupts
        )
        try:
            yield from loader
        except TrainingError as error:  # whose message is the whole traceback of the worker
            raise TrainingError(str(error).strip().splitlines()[-1].partition(": ")[2]) from error
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise TrainingError(
                f"a process that makes pairs has ended: {' '.join(str(error).split())} (out of memory? try fewer workers)"
            ) from error

    def _save(self) -> None:
        content = {
            "format": _FORMAT,
            "identity": self._objective.identity,
            "config": asdict(self._config),
            "pairs_seed": self._pairs.seed,
            "step": self.step,
            "objective": self._objective.state_dict(),
            "optimizer": self._optimizer.state_dict(),
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
        expected = {"identity": self._objective.identity, "pairs_seed": self._pairs.seed}
        for name, value in expected.items():
            if content.get(name) != value:
                raise TrainingError(f"checkpoint {self._path}: {name} is {content.get(name)!r}, expected {value!r}")
        config = content.get("config")
        for field in fields(TrainingConfig):
            made_with = config.get(field.name) if isinstance(config, dict) else None
            if field.name != "checkpoint_every" and made_with != getattr(self._config, field.name):
                raise TrainingError(
                    f"checkpoint {self._path} was made with {field.name}={made_with}, "
                    f"not {getattr(self._config, field.name)}: resume with the same settings"
                )
        step = content.get("step")
        if type(step) is not int or not 0 <= step <= self._config.steps:
            raise TrainingError(f"checkpoint {self._path}: its step is {step!r}")
        try:
            self._objective.load_state_dict(content["objective"])
            self._optimizer.load_state_dict(content["optimizer"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise TrainingError(f"checkpoint {self._path} is damaged: {' '.join(str(error).split())[:200]}") from error
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self._objective.parameters()):
            raise TrainingError(f"checkpoint {self._path}: a weight is not finite")
        self.step = self._saved_step = step


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
        raise TrainingError(f"checkpoint {path} is none, or damaged") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise TrainingError(f"checkpoint {path} is none of this program and version")
    return content


def _generator(seed: int, index: int) -> torch.Generator:
    """The random numbers of one pair of one training."""
    state = np.random.SeedSequence([seed, index, 4]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


def _ignore_interrupts(worker: int) -> None:
    """Ctrl+C reaches all processes of a terminal; the trainer ends the workers itself."""
    del worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _deterministic() -> Iterator[None]:
    """Lets torch choose algorithms that give the same sums every time, where it has such algorithms."""
    settings = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    module: Any = getattr(torch.utils, "deterministic", None)  # from torch 2.2 on
    fills = getattr(module, "fill_uninitialized_memory", False)
    torch.use_deterministic_algorithms(True, warn_only=True)
    if fills:
        module.fill_uninitialized_memory = False  # it takes a fifth of the time and changes no result
    try:
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
