# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What all heads on XFeat have in common: the maps they see, a temperature, and files of their weights."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

import torch

from nre_ros.errors import WeightsError
from nre_ros.features.base import FeatureGrid
from nre_ros.features.tensor_file import read_tensors, write_tensors

_WIDEST = 1024
HeadType = TypeVar("HeadType", bound="Head")


@dataclass(frozen=True)
class FirstPass:
    """What XFeat's network computes on its way to the coarse map, with the cells of the padding.

    Attributes:
        half: ``[1, 8, H / 2, W / 2]``, the third layer.
        joined: ``[1, 24, H / 4, W / 4]``, the first block and its shortcut.
        early: ``[1, 24, H / 4, W / 4]``, the second block.
        middle: ``[1, 64, H / 8, W / 8]``, the third block.
        coarse: ``[1, 64, H / 8, W / 8]``, the network's result.
        size: Rows and columns of the maps of H / 4 x W / 4 cells that lie in the image.
        grid: Where the cells of these maps lie in the image.
        coarse_size: Rows and columns of the maps of H / 8 x W / 8 cells that lie in the image.
        coarse_grid: Where the cells of these maps lie in the image.
    """

    half: torch.Tensor
    joined: torch.Tensor
    early: torch.Tensor
    middle: torch.Tensor
    coarse: torch.Tensor
    size: tuple[int, int]
    grid: FeatureGrid
    coarse_size: tuple[int, int]
    coarse_grid: FeatureGrid


class Head(torch.nn.Module):
    """A small network on the maps of XFeat's first pass.

    Args:
        channels: Of the result.
        width: Channels between the convolutions.
        temperature: At the start.

    Attributes:
        kind: What the head makes, in errors and in the format of its files.
        channels: Of the result.
        width: Channels between the convolutions.
        log_temperature: Logarithm of the temperature of the softmax, learned with the weights.

    Raises:
        WeightsError: A number of channels is out of its range.
    """

    kind: ClassVar[str]

    def __init__(self, channels: int, width: int, temperature: float = 0.1):
        super().__init__()
        if not (1 <= channels <= _WIDEST and 1 <= width <= _WIDEST):
            raise WeightsError(f"a {self.kind} of {channels} channels and width {width}: 1 to {_WIDEST} are possible")
        self.channels, self.width = channels, width
        self.log_temperature = torch.nn.Parameter(torch.tensor(math.log(temperature)))

    @property
    def temperature(self) -> torch.Tensor:
        """Temperature of the softmax over the dot products of these features, without dimensions."""
        return self.log_temperature.exp()

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the weights, by name and shape."""
        content = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            content.update(f"{name} {list(tensor.shape)}".encode())
            content.update(tensor.detach().cpu().contiguous().numpy().astype("<f4").tobytes())
        return content.hexdigest()

    def save(self, path: Path | str, network_hash: str, description: str = "") -> None:
        """Writes the weights; an earlier file stays until the new one is complete.

        Args:
            path: The file (safetensors).
            network_hash: ``XFeatBackbone.network_hash`` of the network that the head was trained on.
            description: How the weights were made.

        Raises:
            WeightsError: A weight is not finite, or the file cannot be written.
        """
        metadata = {
            "format": _format(self.kind),
            "network": network_hash,
            "channels": str(self.channels),
            "width": str(self.width),
            "weights": self.weights_hash,
            "description": description,
        }
        write_tensors(path, self.state_dict(), metadata)

    @classmethod
    def load(cls: type[HeadType], path: Path | str, network_hash: str) -> HeadType:
        """Reads weights from a file that may be anything.

        Args:
            path: The file.
            network_hash: ``XFeatBackbone.network_hash`` of the network that the head is to be used on.

        Returns:
            The head, on the CPU.

        Raises:
            WeightsError: The file cannot be read, holds no head of this kind, damaged weights or others than it
                states, or the head was trained on another network.
        """
        state, metadata = read_tensors(path)
        if metadata.get("format") != _format(cls.kind):
            raise WeightsError(f"{path} holds no {cls.kind}: its format is {metadata.get('format', '')[:60]!r}")
        if metadata.get("network") != network_hash:
            found = metadata.get("network", "")[:16]
            raise WeightsError(f"{path} was trained on other weights of XFeat ({found!r}, not {network_hash[:16]!r})")
        head = cls(_number(metadata, "channels", path), _number(metadata, "width", path))
        _check_shapes(state, head.state_dict(), path)
        head.load_state_dict(state)
        stated = metadata.get("weights", head.weights_hash)  # files up to version 0.2 state none
        if stated != head.weights_hash:
            raise WeightsError(
                f"{path} is damaged: it states the hash {stated[:12]!r} of its weights, and they have "
                f"{head.weights_hash[:12]!r}; copy the file again, or take it from the training once more"
            )
        temperature = float(head.temperature.detach())
        if not 1e-4 <= temperature <= 1e4:
            raise WeightsError(f"{path}: a temperature of {temperature:.3g} is none of unit-length features")
        return head


def head_kind(metadata: Mapping[str, str]) -> str:
    """Returns which kind of head a file holds by its metadata, empty for another file.

    Args:
        metadata: Of ``read_tensors``.
    """
    found = re.fullmatch(_format("(.*)"), metadata.get("format", ""))
    return "" if found is None else found[1]


def _format(kind: str) -> str:
    return f"nre_ros {kind} 1"


def _check_shapes(state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], path: Path | str) -> None:
    for what, keys in (("lacks", expected.keys() - state.keys()), ("has an unknown", state.keys() - expected.keys())):
        if keys:
            raise WeightsError(f"{path} {what} tensor {min(keys)!r} (and {len(keys) - 1} more)")
    for key, tensor in state.items():
        if tensor.shape != expected[key].shape:
            raise WeightsError(f"{path}: tensor {key!r} is {list(tensor.shape)}, expected {list(expected[key].shape)}")


def _number(metadata: dict[str, str], name: str, path: Path | str) -> int:
    text = metadata.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) <= 4):
        raise WeightsError(f"{path}: {name} is {text[:20]!r}, expected a number")
    return int(text)
