# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Ablation: alternatives of the fine stage and of hypothesis generation, on the same scenes.

Each alternative has a map of its own features. The first row of a table is what the package does.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from unittest.mock import patch

import cv2
import numpy as np
import torch
from accuracy import summary
from common import MIN_CONFIDENCE, Options, Table, timed
from scenes import THIN, fountain, kitchen

from nre_ros import features
from nre_ros.features import FeatureGrid, FeatureMap
from nre_ros.features.base import MAX_IMSIZE
from nre_ros.features.xfeat import XFeatBackbone
from nre_ros.geometry import invert
from nre_ros.localization.localizer import Localizer
from nre_ros.nre import consensus
from nre_ros.nre.consensus import TripletSampler

SCENES = {
    "kitchen": kitchen,
    "thin": partial(kitchen, every=THIN),
    "degraded": partial(kitchen, degraded=True),
    "fountain": fountain,
}
"""The sets of ``accuracy`` of the same names."""


class SecondPass(XFeatBackbone):
    """Fine map: the whole network on the image enlarged twice, for four times the work."""

    def __init__(self, device, max_imsize=MAX_IMSIZE):
        super().__init__(device, max_imsize)
        self.fine_channels, self.fine_temperature, self.weights_hash = 64, 0.02, "second pass"
        self.enlarged = XFeatBackbone(device, 2 * max_imsize)

    def extract(self, image, detect=False, fine=True):
        found = super().extract(image, detect, fine=False)
        if not fine:
            return found
        twice = self.enlarged.extract(cv2.resize(image, None, fx=2, fy=2), fine=False).coarse
        grid = FeatureGrid(twice.grid.stride / 2, (twice.grid.offset + 0.5) / 2 - 0.5)
        return replace(found, fine=FeatureMap(centred(twice.data), grid))


class SecondBlock(XFeatBackbone):
    """Fine map: the network's second block, without a head."""

    def __init__(self, device, max_imsize=MAX_IMSIZE):
        super().__init__(device, max_imsize)
        self.fine_channels, self.fine_temperature, self.weights_hash = 24, 0.05, "second block"  # best temperature

    def extract(self, image, detect=False, fine=True):
        found = super().extract(image, detect, fine=False)
        maps = self.first_pass(image)
        rows, columns = maps.size
        return replace(found, fine=FeatureMap(centred(maps.early[0, :, :rows, :columns]), maps.grid))


def centred(features: torch.Tensor) -> torch.Tensor:
    """Features [C, H, W] less their mean over the image, of unit length."""
    return torch.nn.functional.normalize(features - features.mean((1, 2), keepdim=True), dim=0)


class SeveralPeaks(TripletSampler):
    """Draws from up to three peaks of a map, at least three cells apart, each with its probability."""

    def __init__(self, problem, sets=()):
        super().__init__(problem, sets)
        points, maps, camera = problem.points, problem.maps, problem.camera
        loss, rays, weights = maps.loss.clone(), [], []
        y, x = (torch.arange(side, device=loss.device) for side in loss.shape[1:])
        for _ in range(3):
            lowest, cells = replace(maps, loss=loss).minimum()
            rays.append(camera.rays(maps.grid.to_pixels(cells.to(points))))
            weights.append(torch.exp(-lowest))
            near = ((y - cells[:, 1, None]).abs() < 3)[:, :, None] & ((x - cells[:, 0, None]).abs() < 3)[:, None]
            loss[near] = maps.outlier_loss
        self.peaks, self.weights = torch.stack(rays, 1), torch.stack(weights, 1)

    def draw(self, count, generator):
        triplets = self.triplets(count, generator)
        share = (self.weights / self.weights.sum(1, keepdim=True))[triplets].cumsum(-1)
        uniform = torch.rand(count, 3, 1, generator=generator).to(share)
        peak = (uniform > share[..., :2]).sum(-1)
        return self.peaks[triplets, peak], self.points[triplets]


@dataclass(frozen=True)
class Design:
    """One alternative.

    Attributes:
        label: name in the table.
        backbone: backbone of map and query.
        config: changes of the estimator's configuration.
        patches: changes of the module ``consensus``.
        second_search: whether an image whose search was cut is searched again.
    """

    label: str
    backbone: type = XFeatBackbone
    config: dict = field(default_factory=dict)
    patches: dict = field(default_factory=dict)
    second_search: bool = True


FINE = (
    Design("fine head (used)"),
    Design("second block, without a head", SecondBlock),
    Design("the whole network on the image enlarged twice", SecondPass),
)
HYPOTHESES = (
    Design("one peak a map, local optimisation (used)"),
    Design("triplets of all keyframes only", patches={"_SHARE_WITHIN_KEYFRAMES": 0.0}),
    Design("no second search", second_search=False),
    Design("no local optimisation", patches={"_OPTIMISED": 1, "_OPTIMISATION": ()}),
    Design("three peaks a map", patches={"TripletSampler": SeveralPeaks}),
    Design("hypotheses from all points instead of a quarter", config={"top_n_p3p": 1.0}),
    Design("matching in one direction", config={"reciprocal": False}),
    Design("five starts refined", config={"starts": 5}),
    Design("always 5000 triplets", patches={"_MISS_PROBABILITY": 1e-300}),
)


def run(options: Options):
    """Yields the table of the fine stage and the table of hypothesis generation."""
    yield _compare(options, "Alternatives of the fine stage", FINE, "fine_irls")
    yield _compare(options, "Alternatives of hypothesis generation", HYPOTHESES, "P3P")


def _compare(options: Options, title: str, designs, stage: str) -> Table:
    names = options.selected_sets(SCENES)
    table = Table(title, ("design", *(f"{name} [cm] ([%])" for name in names), "time [s]"))
    for design in designs:
        measured = [_measure(options, design, SCENES[name], stage) for name in names]
        cells = [f"{median:.3f} ({share:.0f})" for median, share, _ in measured]
        table.rows.append((design.label, *cells, float(np.median([seconds for *_, seconds in measured]))))
    table.notes.append(
        f"Median error of the position after the stage {stage} over all queries, in brackets the share within 5 cm and "
        "5 degrees. Time: median over the scenes of the median time a query, features to verdict."
    )
    return table


def _measure(options: Options, design: Design, make, stage: str) -> tuple[float, float, float]:
    folder = options.folder / design.backbone.__name__
    folder.mkdir(exist_ok=True)
    options = replace(options, folder=folder)
    with ExitStack() as stack:
        stack.enter_context(patch.dict(features.BACKBONES, xfeat=lambda device, _: design.backbone(device)))
        for name, value in design.patches.items():
            stack.enter_context(patch.object(consensus, name, value))
        if not design.second_search:
            stack.enter_context(patch.object(Localizer, "_search_further", lambda self, first, *_: first))
        scene = make(options)
        queries, outcomes = list(scene.queries()), []
        localizer = stack.enter_context(
            Localizer(scene.map_path, device=options.device, seed=options.seed, min_confidence=MIN_CONFIDENCE)
        )
        localizer.estimator.config = replace(localizer.estimator.config, **design.config)
        estimates, original = [], localizer.estimator.localize

        def recorded(*args, **kwargs):
            estimates.append(original(*args, **kwargs))
            return estimates[-1]

        localizer.estimator.localize = recorded
        localizer.warm_up()
        for query in queries:
            seconds, _ = timed(localizer.localize, query.image, query.camera)
            T, _ = estimates[-1].stages.get(stage, (None, None))
            outcomes.append((None if T is None else invert(T).cpu().numpy(), seconds))
    median, _, _, share, _, seconds = summary(outcomes, queries)
    return median, share, seconds
