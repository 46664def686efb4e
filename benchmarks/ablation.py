# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Ablation: alternatives of the fine stage and of hypothesis generation, on the same scenes.

Each alternative has a map of its own features. The first row of a table is what the package does. A last table has the
time of images that the map does not show. ``--methods`` chooses among the tables ``fine``, ``hypotheses`` and
``other_places``.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from time import process_time
from unittest.mock import patch

import cv2
import numpy as np
import torch
from accuracy import summary
from common import MIN_CONFIDENCE, Options, Table, check_names, timed
from confidence_queries import TEST, sets
from scenes import THIN, Scene, evenly_spaced, fountain, kitchen

from nre_ros import features
from nre_ros.features import FeatureGrid, FeatureMap
from nre_ros.features.base import MAX_IMSIZE
from nre_ros.features.xfeat import XFeatBackbone
from nre_ros.geometry import invert
from nre_ros.localization.localizer import Localizer
from nre_ros.nre import NREEstimator, consensus
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
        second_search: whether an image whose search was cut is searched again; otherwise its first pose is refined.
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
    Design("four times the triplets at most: 20,000", config={"n_iter_p3p": 20_000}),
)

OTHER_PLACES = (HYPOTHESES[0], next(design for design in HYPOTHESES if not design.second_search))
"""What is timed with images of other places."""
_PHOTOGRAPHS, _OTHER_IMAGES = 400, 40
"""The set of other places begins with pieces of photographs; so many of the first ones are timed, evenly spaced."""

TABLES = ("fine", "hypotheses", "other_places")


@dataclass(frozen=True)
class Measured:
    """One alternative on one scene.

    Attributes:
        median: error of the position after a stage, cm.
        share: of the queries within 5 cm and 5 degrees after this stage, percent.
        within: accepted poses within 5 and within 25 cm, and 5 degrees.
        queries: number of queries.
        seconds: median time of a query.
    """

    median: float
    share: float
    within: tuple[int, int]
    queries: int
    seconds: float


def run(options: Options):
    """Yields the table of the fine stage, the table of hypothesis generation, and that of images of other places."""
    check_names("table", options.methods, TABLES)
    tables = options.methods or TABLES
    if "fine" in tables:
        yield _compare(options, "Alternatives of the fine stage", FINE, "fine_irls")
    if "hypotheses" in tables:
        yield _compare(options, "Alternatives of hypothesis generation", HYPOTHESES, "P3P")
    if "other_places" in tables:
        yield _other_places(options)


def _compare(options: Options, title: str, designs, stage: str) -> Table:
    names = options.selected_sets(SCENES)
    heads = [head for name in names for head in (f"{name} [cm] ([%])", f"{name}: accepted < 5 cm, < 25 cm")]
    table = Table(title, ("design", *heads, "time [s]"))
    for design in designs:
        measured = [_measure(options, design, SCENES[name], stage) for name in names]
        cells = []
        for found in measured:
            cells.append(f"{found.median:.3f} ({found.share:.0f})")
            cells.append(f"{found.within[0]}, {found.within[1]} of {found.queries}")
        table.rows.append((design.label, *cells, float(np.median([found.seconds for found in measured]))))
        print(f"{design.label}: {', '.join(cells)}", file=sys.stderr, flush=True)
    table.notes.append(
        f"Median error of the position after the stage {stage} over all queries, in brackets the share within 5 cm and "
        "5 degrees. Accepted: final poses with a confidence of at least 0.5, within these errors and 5 degrees. Time: "
        "median over the scenes of the median time a query, features to verdict."
    )
    return table


def _measure(options: Options, design: Design, make, stage: str) -> Measured:
    with ExitStack() as stack:
        scene, localizer = _enter(stack, options, design, make)
        queries, after_stage, final = list(scene.queries()), [], []
        estimates, original = [], localizer.estimator.localize

        def recorded(*args, **kwargs):
            estimates.append(original(*args, **kwargs))
            return estimates[-1]

        localizer.estimator.localize = recorded
        for query in queries:
            seconds, result = timed(localizer.localize, query.image, query.camera)
            T, _ = estimates[-1].stages.get(stage, (None, None))
            after_stage.append((None if T is None else invert(T).cpu().numpy(), seconds))
            final.append((result.T_map_cam, seconds))
    median, _, _, share, _, seconds = summary(after_stage, queries)
    _, _, _, *shares, _ = summary(final, queries)
    near, far = (round(len(queries) * part / 100) for part in shares)
    return Measured(median, share, (near, far), len(queries), seconds)


def _enter(stack: ExitStack, options: Options, design: Design, make) -> tuple[Scene, Localizer]:
    """A scene with the map of a design, and a localizer that has the design until the stack is closed."""
    folder = options.folder / design.backbone.__name__
    folder.mkdir(exist_ok=True)
    stack.enter_context(patch.dict(features.BACKBONES, xfeat=lambda device, _: design.backbone(device)))
    for name, value in design.patches.items():
        stack.enter_context(patch.object(consensus, name, value))
    if not design.second_search:
        stack.enter_context(patch.object(Localizer, "_search_further", lambda self, first, *_: first))
        stack.enter_context(patch.object(NREEstimator, "localize", _whole_search))
    scene = make(replace(options, folder=folder))
    localizer = stack.enter_context(
        Localizer(scene.map_path, device=options.device, seed=options.seed, min_confidence=MIN_CONFIDENCE)
    )
    localizer.estimator.config = replace(localizer.estimator.config, **design.config)
    localizer.warm_up()
    return scene, localizer


_localize = NREEstimator.localize


def _whole_search(estimator: NREEstimator, *arguments, stop_if_cut=False, **options):
    """Refines the best pose of the first search although the search was cut."""
    return _localize(estimator, *arguments, **options)


def _other_places(options: Options) -> Table:
    """CPU time of images of other places in the kitchen's map, which do not depend on what else the machine does."""
    photographs = islice(sets(TEST)["other places in the kitchen"].queries(options), _PHOTOGRAPHS)
    images = evenly_spaced(list(photographs), options.queries or _OTHER_IMAGES)
    table = Table(
        "Images of other places, in the map of the kitchen",
        ("design", "images", "accepted poses", "search cut [%]", "median CPU time [s]", "90 % below [s]"),
    )
    for design in OTHER_PLACES:
        with ExitStack() as stack:
            _, localizer = _enter(stack, options, design, kitchen)
            seconds, results = [], []
            for image in images:
                started = process_time()
                results.append(localizer.localize(image.image, image.camera))
                seconds.append(process_time() - started)
        accepted, cut = sum(r.success for r in results), 100 * float(np.mean([r.search_cut for r in results]))
        within = float(np.quantile(seconds, 0.9, method="higher"))
        table.rows.append((design.label, len(images), accepted, cut, float(np.median(seconds)), within))
    ratio = table.rows[0][4] / table.rows[1][4]
    table.notes.append(f"Median time with the second search: {ratio:.2f} times that without. All threads' time counts.")
    return table
