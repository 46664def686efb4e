# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Dense feature backbones: ``load_backbone("xfeat")``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch

from nre_ros.errors import NreError, WeightsError
from nre_ros.features.base import FeatureBackbone, FeatureGrid, FeatureMap, ImageFeatures
from nre_ros.features.fine_head import PACKAGED_HEAD, FineHead
from nre_ros.features.weights import fine_head_path

__all__ = [
    "BACKBONES",
    "DEFAULT_BACKBONE",
    "FeatureBackbone",
    "FeatureGrid",
    "FeatureMap",
    "FineHead",
    "FineHeadSource",
    "ImageFeatures",
    "choose_device",
    "load_backbone",
]


FineHeadSource: TypeAlias = "FineHead | Path | str | None"
"""A fine head, its file, or None for the packaged one."""


def _xfeat(device: torch.device, fine_head: FineHeadSource) -> FeatureBackbone:
    from nre_ros.features.xfeat import XFeatBackbone

    return XFeatBackbone(device, head=PACKAGED_HEAD if fine_head is None else fine_head)


def _nre(device: torch.device, fine_head: FineHeadSource) -> FeatureBackbone:
    from nre_ros.features.nre_backbone import NREBackbone

    if fine_head is not None:
        raise WeightsError("the features nre have a fine network of their own: a fine head is for xfeat")
    return NREBackbone(device)


DEFAULT_BACKBONE = "xfeat"
"""The backbone of new maps, where none is named."""

BACKBONES: dict[str, Callable[[torch.device, FineHeadSource], FeatureBackbone]] = {"xfeat": _xfeat, "nre": _nre}
"""Name -> constructor that takes a device and a fine head. The network's package is imported by the constructor."""


def load_backbone(
    name: str, device: str | torch.device = "cpu", fine_head: FineHeadSource = None, weights_hash: str = ""
) -> FeatureBackbone:
    """Loads a backbone.

    Args:
        name: One of ``BACKBONES``.
        device: Where its weights go.
        fine_head: The fine head of ``xfeat``.
        weights_hash: The hash that is wanted, for example a map's. Without ``fine_head``, an imported fine head that
            gives this hash is preferred to the packaged one.

    Raises:
        ValueError: The name is unknown.
        WeightsError: The weights are absent or damaged.
    """
    if name not in BACKBONES:
        raise ValueError(f"unknown feature backbone {name!r}, known: {sorted(BACKBONES)}")
    device = torch.device(device)
    backbone = BACKBONES[name](device, fine_head)
    if fine_head is None and name == "xfeat" and weights_hash not in ("", backbone.weights_hash):
        imported = fine_head_path(weights_hash)
        if imported.exists():
            return BACKBONES[name](device, imported)
    return backbone


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
