# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What ``nre_ros train`` trains: a head on XFeat, or one of the published networks."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nre_ros.cli.arguments import positive_int

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from nre_ros.features.checkpoint import Checkpoint
    from nre_ros.learning.objectives import Objective
    from nre_ros.learning.run_training import SaveWeights
    from nre_ros.learning.training_data import TrainingData

_FINE_CHANNELS = 32
_LAYERS = {"coarse": "Mixed_7a", "fine": "Mixed_5d"}
"""Level -> where the published networks are cut: 1280 channels at 1/16 of the resolution, 288 channels at 1/2."""
_STATISTICS_PAIRS = 6
"""Pairs whose images give a network with random weights its statistics."""


@dataclass(frozen=True)
class Trained:
    """What is trained.

    Attributes:
        objective: The network and its losses.
        save: Writes the weights.
        file: Name of their file.
    """

    objective: Objective
    save: SaveWeights
    file: str


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that choose what is trained.

    Args:
        parser: The parser of the command.
    """
    group = parser.add_argument_group("what is trained")
    chosen = group.add_mutually_exclusive_group()
    chosen.add_argument(
        "--head",
        choices=("fine", "coarse"),
        default="fine",
        help="a head on XFeat: of the fine stage, or one that improves the map of the coarse stage (default: fine)",
    )
    chosen.add_argument(
        "--published",
        choices=tuple(_LAYERS),
        help="no head, but the published coarse or fine network (Inception), with the losses of the paper",
    )
    group.add_argument(
        "--head-width", type=positive_int, metavar="N", help="channels inside the head (default: fine 32, coarse 64)"
    )
    group.add_argument(
        "--head-channels",
        type=positive_int,
        metavar="N",
        help=f"channels of the fine features (default: {_FINE_CHANNELS})",
    )
    group.add_argument(
        "--layer",
        metavar="NAME",
        help="with --published: where the network is cut (default: "
        f"{', '.join(f'{level} {layer}' for level, layer in _LAYERS.items())})",
    )
    group.add_argument(
        "--start",
        metavar="FILE.pth",
        help="with --published: weights from which the training begins (default: random ones)",
    )


def check_options(arguments: argparse.Namespace) -> Checkpoint | None:
    """Checks the options before data is read, which takes long.

    Args:
        arguments: Parsed arguments. Options that do not belong together are a usage error.

    Returns:
        The weights to begin with; None for random ones.

    Raises:
        NreError: The file of these weights cannot be used, or the network has no such layer.
    """
    from nre_ros.errors import TrainingError
    from nre_ros.features.checkpoint import read_checkpoint
    from nre_ros.features.inception import layer_names

    of_heads, of_networks = ("head_width", "head_channels"), ("layer", "start")
    wrong = [
        name for name in (of_heads if arguments.published else of_networks) if getattr(arguments, name) is not None
    ]
    if wrong:
        what = "without" if arguments.published else "with"
        arguments.usage_error(f"--{wrong[0].replace('_', '-')} is possible {what} --published only")
    if arguments.start is not None and arguments.layer is not None:
        arguments.usage_error("--start and --layer: the file says where its network is cut")
    level, layer = arguments.published, arguments.layer
    if layer is not None and layer not in layer_names(level):
        raise TrainingError(f"the {level} network has no layer {layer!r}, known: {', '.join(layer_names(level))}")
    if arguments.start is None:
        return None
    start = read_checkpoint(arguments.start)
    if start.level != level:
        raise TrainingError(f"{arguments.start} holds a {start.level} network, not a {level} one")
    return start


def make_objective(
    arguments: argparse.Namespace, start: Checkpoint | None, device: torch.device, data: TrainingData
) -> Trained:
    """Makes what is trained.

    Args:
        arguments: Parsed arguments.
        start: Of ``check_options``.
        device: Where it is trained.
        data: The pairs. A network with random weights gets the statistics of some of them.

    Returns:
        The objective, and how its weights are written.

    Raises:
        NreError: A width is out of its range, or a pair cannot be made.
    """
    if arguments.published is not None:
        return _published(arguments, start, device, data)
    from nre_ros.features.coarse_head import CoarseHead
    from nre_ros.features.fine_head import FineHead
    from nre_ros.features.xfeat import XFeatBackbone
    from nre_ros.learning.objectives import CoarseHeadObjective, FineHeadObjective

    backbone = XFeatBackbone(device, head=FineHead())  # whose own head takes no part
    width = {} if arguments.head_width is None else {"width": arguments.head_width}
    head: FineHead | CoarseHead
    objective: Objective
    if arguments.head == "fine":
        channels = _FINE_CHANNELS if arguments.head_channels is None else arguments.head_channels
        head = FineHead(channels, seed=arguments.seed, **width).to(device)
        objective = FineHeadObjective(head, backbone)
    else:
        head = CoarseHead(seed=arguments.seed, **width).to(device)
        objective = CoarseHeadObjective(head, backbone)
    return Trained(
        objective,
        lambda path, description, _: head.save(path, backbone.network_hash, description),
        f"{arguments.head}_head.safetensors",
    )


def _published(
    arguments: argparse.Namespace, start: Checkpoint | None, device: torch.device, data: TrainingData
) -> Trained:
    from nre_ros.learning.published import PublishedObjective, random_network

    level = arguments.published
    if start is None:
        print("note: random weights get the statistics of a few images", file=sys.stderr)
        pairs = data.training_pairs(arguments.seed)
        images: list[npt.NDArray[np.uint8]] = []
        for index in range(_STATISTICS_PAIRS):
            pair = pairs.pair(index)
            images += [pair.image_a, pair.image_b]
        layer = arguments.layer or _LAYERS[level]
        objective = PublishedObjective(random_network(level, layer, images, seed=arguments.seed, device=device))
    else:
        resize = start.resize if level == "coarse" else None
        objective = PublishedObjective(start.network().to(device), resize)
    return Trained(objective, lambda path, _, step: objective.save(path, step), f"{level}.pth")
