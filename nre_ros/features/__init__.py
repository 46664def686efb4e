# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Dense feature backbones: ``load_backbone("xfeat")``."""

from __future__ import annotations

from collections.abc import Callable

import torch

from nre_ros.errors import NreError
from nre_ros.features.base import FeatureBackbone, FeatureGrid, FeatureMap, ImageFeatures

__all__ = [
    "BACKBONES",
    "DEFAULT_BACKBONE",
    "FeatureBackbone",
    "FeatureGrid",
    "FeatureMap",
    "ImageFeatures",
    "choose_device",
    "load_backbone",
]


def _xfeat(device: torch.device) -> FeatureBackbone:
    from nre_ros.features.xfeat import XFeatBackbone

    return XFeatBackbone(device)


def _nre(device: torch.device) -> FeatureBackbone:
    from nre_ros.features.nre_backbone import NREBackbone

    return NREBackbone(device)


DEFAULT_BACKBONE = "xfeat"
"""The backbone of new maps, where none is named."""

BACKBONES: dict[str, Callable[[torch.device], FeatureBackbone]] = {"xfeat": _xfeat, "nre": _nre}
"""Name -> constructor that takes a device. The network's package is imported by the constructor."""


def load_backbone(name: str, device: str | torch.device = "cpu") -> FeatureBackbone:
    """Loads a backbone.

    Args:
        name: One of ``BACKBONES``.
        device: Where its weights go.

    Raises:
        ValueError: The name is unknown.
        WeightsError: The weights are absent or damaged.
    """
    if name not in BACKBONES:
        raise ValueError(f"unknown feature backbone {name!r}, known: {sorted(BACKBONES)}")
    return BACKBONES[name](torch.device(device))


def choose_device(name: str = "auto") -> torch.device:
    """Chooses where to compute.

    Args:
        name: ``auto`` (the GPU where there is one, else the CPU), ``cpu`` or ``cuda``.

    Returns:
        The device, ``cpu`` or ``cuda``.

    Raises:
        NreError: The name is unknown, or there is no GPU for ``cuda``.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise NreError(f"unknown device {name!r}, known: auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise NreError("device cuda was asked for, but torch finds no CUDA device here")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
