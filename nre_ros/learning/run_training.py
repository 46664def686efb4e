# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A whole training with everything that is written into its folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nre_ros.learning.objectives import Objective
from nre_ros.learning.progress import ProgressBar, TensorBoardView, TrainingView
from nre_ros.learning.trainer import BestWeights, StepReport, Trainer, TrainingConfig
from nre_ros.learning.training_data import TrainingData
from nre_ros.learning.training_folder import (
    LOSSES,
    PICTURE,
    LossTable,
    TrainingDescription,
    device_name,
    draw_losses,
    read_losses,
    versions,
)
from nre_ros.learning.validation import Validation

SaveWeights = Callable[[Path, str, int], None]
"""Writes the objective's weights into a file, with a description in one line and the number of training steps."""
TENSORBOARD = "tensorboard"
"""Name of the folder of event files in a training folder."""


@dataclass(frozen=True)
class RunOptions:
    """How a training is run; none of it changes the weights.

    Attributes:
        resume: Whether to continue from the folder's checkpoint.
        workers: Processes that make pairs; 0: this process makes them.
        tensorboard: Whether event files are written.
        progress: Whether a progress bar is shown on stderr.
        command: The command line, for ``training.json``.
    """

    resume: bool = False
    workers: int = 0
    tensorboard: bool = False
    progress: bool = True
    command: str = ""


@dataclass(frozen=True)
class TrainingRun:
    """How a run ended.

    Attributes:
        step: Number of finished steps.
        interrupted: Whether it was stopped before its last step.
        skipped: Steps of this run that changed no weights.
        best: The weights with the smallest loss on held-out pairs; None before the first validation.
        weights: File of these weights; of the last ones where ``best`` is None. None where the training was interrupted
            within its warm-up and before its first validation: nearly untrained weights are not written.
        seconds: Duration of this run.
        left_out: Recording and image -> why it cannot be read, for all images that this run had to leave out.
    """

    step: int
    interrupted: bool
    skipped: int
    best: BestWeights | None
    weights: Path | None
    seconds: float
    left_out: dict[str, str] = field(default_factory=dict)


def run_training(
    objective: Objective,
    save: SaveWeights,
    weights_name: str,
    data: TrainingData,
    config: TrainingConfig,
    folder: Path,
    options: RunOptions = RunOptions(),
    validation_pairs: int = 32,
    validate_every: int = 200,
    about: dict[str, Any] | None = None,
) -> TrainingRun:
    """Trains an objective, or continues an interrupted training, and writes the files of its folder.

    Whatever ends the run, the checkpoint, the table of losses and the best weights so far are on the disk. An
    interruption within the warm-up and before the first validation leaves no weights, since these are nearly untrained.

    Args:
        objective: What is trained. At the end it has the best weights.
        save: Writes the objective's weights.
        weights_name: Name of their file in the folder.
        data: The pairs. The seed of the pairs is that of ``config``.
        config: Settings of the trainer.
        folder: The training's folder.
        options: How the training is run.
        validation_pairs: Number of held-out pairs; 0: no validation, and the last weights are kept.
        validate_every: Steps from one validation to the next.
        about: More settings for ``training.json``, as plain JSON values.

    Returns:
        How the run ended.

    Raises:
        NreError: The training cannot go on; see ``Trainer``.
    """
    started = time.monotonic()
    held_out = data.held_out_pairs(config.seed) if validation_pairs else None
    validation = None if held_out is None else Validation(held_out, validation_pairs, validate_every)
    trainer = Trainer(
        objective, data.training_pairs(config.seed), config, folder, options.resume, options.workers, validation
    )
    description = TrainingDescription(
        folder,
        {
            "objective": objective.identity,
            **(about or {}),
            "config": asdict(config),
            "data": data.describe(),
            "pairs": {**asdict(data.options), "images": str(data.options.images or "")},
            "credits": [line for source in data.sources for line in source.opened.credits],
            "augmentation": asdict(data.augmentation),
            "validation": None if validation is None else validation.identity,
        },
    )
    device = next(objective.parameters()).device
    description.begin(
        {
            "command": options.command,
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "first_step": trainer.step,
            "device": device_name(device),
            "workers": options.workers,
            "versions": versions(),
        }
    )
    weights = folder / weights_name

    def save_present(step: int, loss: float | None) -> None:
        found = "" if loss is None else f", loss on held-out pairs {loss:.4f}"
        line = f"step {step} of {config.steps}, {config.pairs_per_step} pairs a step, {data.summary()}{found}"
        save(weights, line, step)

    views: Sequence[TrainingView] = ()
    try:
        views = _views(folder, options, config, trainer)
        with LossTable(folder / LOSSES, trainer.step) as table:

            def show(report: StepReport) -> None:
                table.add(report)
                if report.best:
                    save_present(report.step, report.validation["total"])
                for view in views:
                    view.show(report)

            result = trainer.run(show)
    except BaseException as error:
        _end(description, folder, {"step": trainer.step, "error": str(error) or type(error).__name__}, quiet=True)
        raise
    finally:
        for view in views:
            view.close()
    best = trainer.best
    if best is not None:
        objective.load_state_dict(best.state)
    untrained = best is None and result.interrupted and result.step < config.warm_up
    if not untrained:
        save_present(trainer.step if best is None else best.step, None if best is None else best.loss)
    seconds = time.monotonic() - started
    _end(
        description,
        folder,
        {
            "step": result.step,
            "interrupted": result.interrupted,
            "skipped_steps": result.skipped,
            "seconds": round(seconds, 1),
            "best_step": None if best is None else best.step,
            "best_loss": None if best is None else best.loss,
            "left_out": result.left_out,
        },
    )
    return TrainingRun(
        result.step,
        result.interrupted,
        result.skipped,
        best,
        None if untrained else weights,
        seconds,
        result.left_out,
    )


def _views(folder: Path, options: RunOptions, config: TrainingConfig, trainer: Trainer) -> Sequence[TrainingView]:
    views: list[TrainingView] = []
    if options.tensorboard:
        views.append(TensorBoardView(folder / TENSORBOARD, trainer.step))
    if options.progress:
        views.append(ProgressBar(config.steps, trainer.step, trainer.best))
    return views


def _end(description: TrainingDescription, folder: Path, run: dict[str, Any], quiet: bool = False) -> None:
    """Writes what is known at the end; after another error, errors of this are not raised."""
    try:
        description.end(run)
        draw_losses(read_losses(folder / LOSSES), folder / PICTURE)
    except Exception:
        if not quiet:
            raise
