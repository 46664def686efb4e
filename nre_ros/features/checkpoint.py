# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Reads and writes checkpoints of the published networks, without PyTorch Lightning and without running what they hold.

A Lightning file is a pickle: besides ``state_dict`` and ``hyper_parameters`` it may name classes of Lightning and
OmegaConf (containers of settings, callbacks). torch's restricted unpickler reads it. Classes of these two packages
become containers that do nothing, and any other name is refused. Lightning 1.2.10, which wrote the published files,
wrote the settings as a plain dictionary that keeps OmegaConf's containers (read from the source of both).
"""

from __future__ import annotations

import argparse
import hashlib
import io
import pickletools
import re
import zipfile
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from nre_ros.errors import WeightsError
from nre_ros.features.inception import LEVELS, InceptionNetwork, layer_names

PUBLISHED = {
    "coarse": "af80cd6786779f3fa8e998f7fece8992f7243b5c",
    "fine": "1a9e197ffe7368da1dac451da58cae1f70c91b1e",
}
"""Git's blob ids of weights/coarse.pth and weights/fine.pth in germain-hug/NRE (CC0)."""

_MAX_BYTES = 2 << 30
_MINIBATCH_SIZE = 50
"""How many maps the published code computes at once; it asks for this setting."""
_LIGHTNING = re.compile(r"(pytorch_lightning|lightning|lightning_fabric|omegaconf)\.[\w.]+")
_READS_OTHERS_CLASSES = hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint")
"""torch 2.6 and newer accept another class in the place of a named one."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A network's weights and the settings that it is built from.

    Attributes:
        level: ``coarse`` or ``fine``.
        extraction_layer: Where the trunk is cut.
        second_pool: Whether there is pooling after Conv2d_4a.
        resize: Side of the feature map, in cells, that the published code wants (``image.resize``), or None.
        state: Names and float32 tensors of ``InceptionNetwork``.
        data: The file's bytes.
    """

    level: str
    extraction_layer: str
    second_pool: bool
    resize: int | None
    state: dict[str, torch.Tensor] = field(repr=False)
    data: bytes = field(repr=False)

    @cached_property
    def blob_id(self) -> str:
        """Git's id of the file."""
        return git_blob_id(self.data)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def published(self) -> bool:
        """Whether the file is, byte for byte, the published one of its level."""
        return self.blob_id == PUBLISHED[self.level]

    @property
    def parameters(self) -> int:
        """How many numbers the network has, running statistics included."""
        return sum(tensor.numel() for tensor in self.state.values() if tensor.is_floating_point())

    def network(self) -> InceptionNetwork:
        """Builds the network with these weights, for inference."""
        network = _empty_network(self.level, self.extraction_layer, self.second_pool)
        network.load_state_dict(self.state, assign=True)
        return network.eval().requires_grad_(False)


def git_blob_id(data: bytes) -> str:
    """Computes git's id of a file's content, as ``git hash-object FILE`` prints it.

    Args:
        data: The content of the file.

    Returns:
        40 hexadecimal digits.
    """
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a checkpoint and checks its weights.

    Args:
        path: The file.

    Raises:
        WeightsError: The file cannot be read, is no checkpoint, holds code, or has weights that are not finite or do
            not fit its network.
    """
    path = Path(path)
    return parse_checkpoint(read_weights_file(path, _MAX_BYTES, "is no checkpoint"), str(path))


def read_weights_file(path: Path, max_bytes: int, fault: str) -> bytes:
    """Reads the bytes of a file of weights.

    Args:
        path: The file.
        max_bytes: Size of the largest file that is read.
        fault: What is said of a larger file, or of something that is no file.

    Raises:
        WeightsError: The file cannot be read, is too large or is no file.
    """
    try:
        size = path.stat().st_size
        if not path.is_file() or size > max_bytes:
            raise WeightsError(f"{path} {fault}: {'no file' if not path.is_file() else f'{size} bytes'}")
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from None


def parse_checkpoint(data: bytes, name: str) -> Checkpoint:
    """Reads a checkpoint from a file's content.

    Args:
        data: The content.
        name: The file's name, for errors.

    Raises:
        WeightsError: As of ``read_checkpoint``.
    """
    content = _unpickle(data, name)
    if not isinstance(content, dict) or "state_dict" not in content or "hyper_parameters" not in content:
        raise WeightsError(f"{name} is no Lightning checkpoint: it lacks state_dict or hyper_parameters")
    settings = _mapping(content["hyper_parameters"])
    level = _setting(settings, "level")
    if level not in LEVELS:
        raise WeightsError(f"{name} is no NRE network: its level is {level!r}, not coarse or fine")
    layer = _setting(settings, "extraction_layer")
    if layer not in layer_names(level):
        raise WeightsError(f"{name}: the {level} network has no layer {layer!r}")
    second_pool = not _setting(settings, "no_maxpool")
    resize = _setting(_mapping(settings.get("image")), "resize")
    if type(resize) is not int or resize <= 0:
        resize = None
    expected = _empty_network(level, layer, second_pool).state_dict()
    state = _checked_state(content["state_dict"], expected, name)
    return Checkpoint(level, layer, second_pool, resize, state, data)


def checkpoint_bytes(network: InceptionNetwork, resize: int | None = None, step: int = 0) -> bytes:
    """Packs a network in the published layout, with plain dictionaries as settings.

    Args:
        network: The network; its batch normalisations must not be folded into the convolutions.
        resize: Side of the coarse feature map, in cells, for which the network was trained; None: no setting.
        step: Number of training steps.

    Returns:
        The content of a file that ``read_checkpoint`` reads.

    Raises:
        WeightsError: A weight is not finite, or the network is not as it was built.
    """
    content = {
        "epoch": 0,
        "global_step": step,
        "pytorch-lightning_version": "1.2.10",
        "state_dict": {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()},
        "hparams_name": "kwargs",
        "hyper_parameters": {
            "level": network.level,
            "extraction_layer": network.extraction_layer,
            "no_maxpool": not network.second_pool,
            "image": {} if resize is None else {"resize": resize},
            "minibatch_size": _MINIBATCH_SIZE,
        },
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = buffer.getvalue()
    parse_checkpoint(data, f"the {network.level} network")
    return data


def _empty_network(level: str, layer: str, second_pool: bool) -> InceptionNetwork:
    with torch.device("meta"):  # no time spent on random weights
        return InceptionNetwork(level, layer, second_pool)


def _checked_state(state: object, expected: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """``state`` in float32; ``WeightsError`` unless it has the names and shapes of ``expected``."""
    if not isinstance(state, dict):
        raise WeightsError(f"{name}: its state_dict is a {type(state).__name__}")
    for what, keys in (("lacks", expected.keys() - state.keys()), ("has an unknown", state.keys() - expected.keys())):
        if keys:
            raise WeightsError(f"{name} {what} tensor {min(map(str, keys))!r} (and {len(keys) - 1} more)")
    checked = {}
    for key, model in expected.items():
        tensor = state[key]
        if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided or tensor.shape != model.shape:
            found = list(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            raise WeightsError(f"{name}: tensor {key!r} is {found}, expected {list(model.shape)}")
        if tensor.is_floating_point() != model.is_floating_point() or tensor.is_complex():
            raise WeightsError(f"{name}: tensor {key!r} has type {tensor.dtype}, expected {model.dtype}")
        tensor = tensor.detach().to(model.dtype).contiguous()
        if model.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"{name}: tensor {key!r} is not finite")
        if key.endswith("running_var") and bool((tensor < 0).any()):
            raise WeightsError(f"{name}: tensor {key!r} is negative, but holds variances")
        checked[key] = tensor
    return checked


class _Inert:
    """Replaces an object of another package: accepts any arguments and does nothing."""

    attributes: dict[str, Any] = {}

    def __init__(self, *_: object):
        pass

    def __setstate__(self, state: object) -> None:
        self.attributes = state if isinstance(state, dict) else {}


def _mapping(value: object) -> dict[str, Any]:
    """A container of settings as a dictionary, whichever package wrote it."""
    if isinstance(value, argparse.Namespace):
        return vars(value)
    if isinstance(value, _Inert):  # OmegaConf's DictConfig
        value = value.attributes.get("_content")
    return value if isinstance(value, dict) else {}


def _setting(settings: dict[str, Any], name: str) -> Any:
    value = settings.get(name)
    return value.attributes.get("_val") if isinstance(value, _Inert) else value


def _unpickle(data: bytes, name: str) -> Any:
    if not data:
        raise WeightsError(f"{name} is empty")
    if data.lstrip()[:1] == b"<":
        raise WeightsError(f"{name} is a web page: download the file itself (raw)")
    _check_archive(data, name)
    try:
        with _stand_ins(data):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zipfile and the unpickler raise a dozen kinds for a damaged file
        message = str(error)
        named = re.search(r"GLOBAL (\S+)|function (<.+?>)", message)
        if named is None:
            raise WeightsError(f"{name} is no PyTorch file, or a damaged one") from None
        what = named[1] or named[2]
        if _LIGHTNING.fullmatch(what) and not _READS_OTHERS_CLASSES:
            raise WeightsError(f"{name} holds {what}, which torch {torch.__version__} cannot skip (2.6 can)") from None
        raise WeightsError(f"{name} holds {what}, which no weights need: refused, nothing of it was run") from None


def _check_archive(data: bytes, name: str) -> None:
    """Refuses an archive that takes more memory than the file: torch compresses nothing and stores nothing twice."""
    if not (data.startswith(b"PK") or zipfile.is_zipfile(io.BytesIO(data))):
        return  # from before torch 1.6
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):
        raise WeightsError(f"{name} is no PyTorch file, or a damaged one") from None
    size = sum(max(entry.file_size, entry.compress_size) for entry in entries)
    if size > len(data) or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise WeightsError(
            f"{name} of {len(data)} bytes would take {size} bytes in memory: no PyTorch file is compressed"
        )


def _stand_ins(data: bytes) -> AbstractContextManager[object]:
    """Context in which torch's restricted unpickler knows the classes that a Lightning file may name."""
    if not _READS_OTHERS_CLASSES:
        return nullcontext()
    stand_ins: list[Any] = [
        (argparse.Namespace, "argparse.Namespace"),
        # OmegaConf's containers name these in their metadata
        (_Inert, "typing.Any"),
        (_Inert, "collections.defaultdict"),
        *((_Inert, f"builtins.{kind}") for kind in ("bool", "dict", "float", "int", "list", "str")),
        # settings may hold paths
        (_Inert, "pathlib.PosixPath"),
        (_Inert, "pathlib.Path"),
    ]
    # any other class that the published files name is harmless, too, once it does nothing
    genuine = git_blob_id(data) in PUBLISHED.values()
    for found in _names_of_classes(data):
        if genuine or _LIGHTNING.fullmatch(found):
            # the unpickler fills dictionaries, but no classes derived from them
            stand_ins.append((dict if found.endswith(".AttributeDict") else _Inert, found))
    return torch.serialization.safe_globals(stand_ins)


def _names_of_classes(data: bytes) -> set[str]:
    """'module.name' of all classes and functions in the pickles of a PyTorch file, also of one from before torch 1.6."""
    streams = [io.BytesIO(data)]
    if zipfile.is_zipfile(streams[0]):
        with zipfile.ZipFile(streams[0]) as archive:
            streams = [io.BytesIO(archive.read(entry)) for entry in archive.namelist() if entry.endswith("data.pkl")]
    names: set[str] = set()
    for stream in streams:
        stream.seek(0)
        try:
            while True:
                operations = pickletools.genops(stream)
                names.update(str(name).replace(" ", ".") for code, name, _ in operations if code.name == "GLOBAL")
        except ValueError:  # behind the last pickle
            pass
    return names
