# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the published networks' weights live on this machine, and how they get there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from nre_ros.errors import WeightsError
from nre_ros.features.checkpoint import Checkpoint, read_checkpoint

HOW_TO_GET = (
    "download weights/coarse.pth and weights/fine.pth of the GitHub repository germain-hug/NRE, "
    "then: nre_ros weights import coarse.pth fine.pth"
)


def weights_folder() -> Path:
    """``$XDG_DATA_HOME/nre_ros/weights``, or below ``~/.local/share``."""
    data_home = os.environ.get("XDG_DATA_HOME", "")
    # the XDG specification has relative paths ignored
    base = Path(data_home) if os.path.isabs(data_home) else Path.home() / ".local/share"
    return base / "nre_ros/weights"


def weights_path(level: str) -> Path:
    """Where the weights of that level (coarse or fine) are once imported."""
    return weights_folder() / f"{level}.pth"


def load_weights(level: str) -> Checkpoint:
    """The imported checkpoint of that level; ``WeightsError`` when absent or unusable."""
    path = weights_path(level)
    if not path.exists():
        raise WeightsError(f"no {level} weights of the NRE networks at {path}: {HOW_TO_GET}")
    checkpoint = read_checkpoint(path)
    if checkpoint.level != level:
        raise WeightsError(f"{path} holds a {checkpoint.level} network: import the {level} one")
    return checkpoint


def import_weights(source: str | Path, allow_unpublished: bool = False) -> tuple[Checkpoint, Path]:
    """Copies a checkpoint to where ``load_weights`` finds it: what it holds, and the copy's path.

    All or nothing: weights that were there stay until the new ones are complete.  Raises
    ``WeightsError`` for a file that is unusable or, unless allowed, not the published one.
    """
    checkpoint = read_checkpoint(source)
    if not checkpoint.published and not allow_unpublished:
        raise WeightsError(
            f"{source} holds a usable {checkpoint.level} network, but is not the published file: "
            "--allow-unpublished imports it all the same"
        )
    path = weights_path(checkpoint.level)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_atomically(path, checkpoint.data)
    except OSError as error:
        raise WeightsError(f"cannot write {path}: {error.strerror}") from None
    return checkpoint, path


def _write_atomically(path: Path, data: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # temporary files are for their owner alone
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
