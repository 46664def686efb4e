# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the published networks' weights and own fine heads lie on this machine, and how they are imported."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import torch

from nre_ros.errors import WeightsError
from nre_ros.features.checkpoint import Checkpoint, read_checkpoint

HOW_TO_GET = (
    "download weights/coarse.pth and weights/fine.pth of the GitHub repository germain-hug/NRE, "
    "then: nre_ros weights import coarse.pth fine.pth"
)

FINE_HEAD_SUFFIX = ".safetensors"
_FINE_HEAD = "fine_head_"


def weights_folder() -> Path:
    """Returns the folder of imported weights: ``$XDG_DATA_HOME/nre_ros/weights``, or below ``~/.local/share``."""
    data_home = os.environ.get("XDG_DATA_HOME", "")
    # the XDG specification asks to ignore relative paths
    base = Path(data_home) if os.path.isabs(data_home) else Path.home() / ".local/share"
    return base / "nre_ros/weights"


def weights_path(level: str) -> Path:
    """Returns the path of the imported weights of a level.

    Args:
        level: ``coarse`` or ``fine``.
    """
    return weights_folder() / f"{level}.pth"


def fine_head_path(weights_hash: str) -> Path:
    """Returns the path of an imported fine head.

    Args:
        weights_hash: ``XFeatBackbone.weights_hash`` with this head, as a map has it.
    """
    # a map may be of unknown origin: nothing but letters and digits becomes a part of the name
    return weights_folder() / f"{_FINE_HEAD}{''.join(filter(str.isalnum, weights_hash))[:16]}{FINE_HEAD_SUFFIX}"


def fine_heads() -> list[Path]:
    """Returns the imported fine heads."""
    return sorted(weights_folder().glob(f"{_FINE_HEAD}*{FINE_HEAD_SUFFIX}"))


def load_weights(level: str) -> Checkpoint:
    """Loads an imported checkpoint.

    Args:
        level: ``coarse`` or ``fine``.

    Raises:
        WeightsError: The checkpoint is absent or unusable.
    """
    path = weights_path(level)
    if not path.exists():
        raise WeightsError(f"no {level} weights of the NRE networks at {path}: {HOW_TO_GET}")
    checkpoint = read_checkpoint(path)
    if checkpoint.level != level:
        raise WeightsError(f"{path} holds a {checkpoint.level} network: import the {level} one")
    return checkpoint


def import_weights(source: str | Path, allow_unpublished: bool = False) -> tuple[Checkpoint, Path]:
    """Copies a checkpoint to the folder where ``load_weights`` finds it.

    Earlier weights stay until the new ones are complete.

    Args:
        source: The checkpoint's file.
        allow_unpublished: Whether a file other than the published ones is imported.

    Returns:
        The checkpoint, and the path of the copy.

    Raises:
        WeightsError: The file is unusable or, unless allowed, not a published one, or the copy cannot be written.
    """
    checkpoint = read_checkpoint(source)
    if not checkpoint.published and not allow_unpublished:
        raise WeightsError(
            f"{source} holds a usable {checkpoint.level} network, but is not the published file: "
            "--allow-unpublished imports it all the same"
        )
    path = weights_path(checkpoint.level)
    _write(path, checkpoint.data)
    return checkpoint, path


def import_fine_head(source: str | Path) -> Path:
    """Copies a fine head for XFeat to the folder where maps that were made with it find it.

    Args:
        source: The head's file (safetensors).

    Returns:
        The path of the copy.

    Raises:
        WeightsError: The file holds no fine head for these weights of XFeat, or the copy cannot be written.
    """
    from nre_ros.features.xfeat import XFeatBackbone

    path = fine_head_path(XFeatBackbone(torch.device("cpu"), head=source).weights_hash)
    _write(path, Path(source).read_bytes())
    return path


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as error:
        raise WeightsError(f"cannot write {path}: {error.strerror}") from None


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file so that at any time either the earlier file or the complete new one is there.

    Args:
        path: The file.
        data: Its content.

    Raises:
        OSError: The file cannot be written; the earlier one is still there.
    """
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
