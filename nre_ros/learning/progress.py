# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Views of a running training: a progress bar on the terminal, and event files for TensorBoard."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from nre_ros.errors import TrainingError
from nre_ros.learning.trainer import BestWeights, StepReport
from nre_ros.packages import require

_FORGETS = 0.95
"""Weight of the earlier steps in the running mean of the loss."""
_MOST_NAMED = 10
"""So many images that are left out are named while the training runs; ``training.json`` names all."""


class TrainingView(Protocol):
    """Something that shows a training."""

    def show(self, report: StepReport) -> None:
        """Shows a step.

        Args:
            report: Of the step.
        """

    def close(self) -> None:
        """Ends the view."""


class ProgressBar:
    """One line on stderr with the running mean of the loss, the last validation, and the remaining time.

    Args:
        steps: Number of all steps.
        step: Number of steps that are done.
        best: Of an earlier run.
    """

    def __init__(self, steps: int, step: int = 0, best: BestWeights | None = None):
        interval = 0.2 if sys.stderr.isatty() else 5.0  # a bar that is redrawn fills a log file
        self._bar = tqdm(total=steps, initial=step, unit="step", desc="train", mininterval=interval)
        self._mean: float | None = None
        self._named = 0
        self._validation = "" if best is None else f", best {best.loss:.3f} at step {best.step}"

    def show(self, report: StepReport) -> None:
        """Moves the bar, and prints a line for each validation and for the first images that are left out.

        Args:
            report: Of the step.
        """
        if report.updated:
            total = report.losses["total"]
            self._mean = total if self._mean is None else _FORGETS * self._mean + (1 - _FORGETS) * total
        if report.validation:
            total = report.validation["total"]
            self._bar.write(
                f"step {report.step}: loss on held-out pairs {total:.3f}{' (best)' if report.best else ''}",
                file=sys.stderr,
            )
            if report.best:
                self._validation = f", best {total:.3f} at step {report.step}"
        for reason in list(report.left_out.values())[: max(0, _MOST_NAMED - self._named)]:
            self._bar.write(f"step {report.step}: left out: {reason}", file=sys.stderr)
        self._named += len(report.left_out)
        if report.losses and not report.updated:
            self._bar.write(f"step {report.step}: not finite, skipped", file=sys.stderr)
        loss = "no pair yet" if self._mean is None else f"loss {self._mean:.3f}"
        self._bar.set_postfix_str(loss + self._validation, refresh=False)
        self._bar.update()

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()


class TensorBoardView:
    """Event files with the losses, the validation and the learning rate.

    Args:
        folder: Where the files are written.
        step: Number of steps that are done; events of later steps, of a run that was killed, are hidden.

    Raises:
        MissingPackageError: Neither tensorboardX nor tensorboard is installed.
        TrainingError: The files cannot be written.
    """

    def __init__(self, folder: Path, step: int = 0):
        self._folder = folder
        with self._written():
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = _summary_writer(folder, step)

    def show(self, report: StepReport) -> None:
        """Writes the values of a step.

        Args:
            report: Of the step.

        Raises:
            TrainingError: They cannot be written.
        """
        values = {f"loss/{name}": value for name, value in report.losses.items()}
        values |= {f"validation/{name}": value for name, value in report.validation.items()}
        with self._written():
            for name, value in {**values, "learning_rate": report.rate, "seconds_a_step": report.seconds}.items():
                self._writer.add_scalar(name, value, report.step)

    def close(self) -> None:
        """Writes what is waiting to be written.

        Raises:
            TrainingError: It cannot be written.
        """
        with self._written():
            self._writer.close()

    @contextmanager
    def _written(self) -> Iterator[None]:
        """Errors of writing become one line."""
        try:
            yield
        except OSError as error:
            raise TrainingError(
                f"event files for TensorBoard cannot be written to {self._folder}: {error.strerror or error} (make the "
                "folder writable, or train without --tensorboard)"
            ) from error


def require_tensorboard() -> None:
    """Checks that a package that writes event files is installed.

    Raises:
        MissingPackageError: Neither tensorboardX nor tensorboard is.
    """
    if find_spec("tensorboard") is None:
        require("tensorboardX")


def _summary_writer(folder: Path, step: int) -> Any:
    require_tensorboard()
    if find_spec("tensorboardX") is not None:
        from tensorboardX import SummaryWriter
    else:
        from torch.utils.tensorboard import SummaryWriter
    return SummaryWriter(str(folder), purge_step=step + 1)
