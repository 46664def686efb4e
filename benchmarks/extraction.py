# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Time of an image's features: one pass of XFeat and the fine head, beside the two passes up to version 0.2.

Both extract the same image right after each other, in turns first and second, so that a busy machine disturbs both
alike. The ratio is that of each image's own two times.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from ablation import SecondPass
from common import Options, Table, timed
from scenes import kitchen_images

from nre_ros.features import FeatureBackbone
from nre_ros.features.xfeat import XFeatBackbone

ROUNDS = 3
"""How often each image is measured."""
LARGEST = 0.4
"""The ratio to reach."""


def run(options: Options) -> Iterator[Table]:
    """Yields the table."""
    images = list(kitchen_images(options))
    columns = ("device", "images", "one pass [ms]", "two passes [ms]", "ratio", "quartiles of the ratio")
    height, width = images[0].shape[:2]
    table = Table(f"Features of an image of {width}x{height}", columns)
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    for device in devices:
        backbones = [kind(torch.device(device)) for kind in (XFeatBackbone, SecondPass)]
        seconds = measure(backbones, images, ROUNDS)
        ratio = seconds[:, 0] / seconds[:, 1]
        one, two = 1e3 * np.median(seconds, axis=0)
        quartiles = " to ".join(f"{x:.3f}" for x in np.quantile(ratio, (0.25, 0.75)))
        table.rows.append((device, len(images), float(one), float(two), float(np.median(ratio)), quartiles))
    table.notes.append(
        f"Medians over {ROUNDS} rounds; CPU with {options.threads} threads. Ratio: median of the ratios of the two times of an "
        f"image. To reach: {LARGEST}."
    )
    yield table


def measure(backbones: list[FeatureBackbone], images: list[np.ndarray], rounds: int) -> np.ndarray:
    """Measures the times of the backbones on each image, in seconds [rounds * images, backbones]."""
    for backbone in backbones:
        backbone.extract(images[0])
    seconds = []
    for turn in range(rounds * len(images)):
        order = list(enumerate(backbones))[:: 1 if turn % 2 else -1]
        found = {k: timed(backbone.extract, images[turn % len(images)])[0] for k, backbone in order}
        seconds.append([found[k] for k in range(len(backbones))])
    return np.array(seconds)
