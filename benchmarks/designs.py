"""Designs of the fine stage and of the hypotheses, compared before one was kept.

All on the same scenes, each with a map of its own features; the first row of a table is what the
package does.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from accuracy import summary
from common import Options, Table, timed
from scenes import THIN, fountain, kitchen

from nre_ros import features
from nre_ros.features import FeatureGrid, FeatureMap, ImageFeatures
from nre_ros.features.xfeat import XFeatBackbone
from nre_ros.geometry import invert
from nre_ros.localization.localizer import Localizer
from nre_ros.nre import consensus
from nre_ros.nre.consensus import TripletSampler

SCENES = {
    "kitchen": kitchen, f"kitchen, 1 of {THIN}": partial(kitchen, every=THIN),
    "kitchen, degraded": partial(kitchen, degraded=True), "fountain": fountain,
}


class WholeNetworkTwice(XFeatBackbone):
    """Fine map: the network's last map of the image enlarged twice, a second and larger pass."""

    fine_channels = 64
    fine_temperature = 0.02
    coarse_weight = 0.0

    def extract(self, image, detect=False, fine=True):
        found = super().extract(image, detect, fine=False)
        if not fine:
            return found
        channels = image if image.ndim == 3 else image[..., None]
        grey = torch.from_numpy(channels.mean(axis=2, dtype=np.float32)).to(self.device)[None, None]
        larger = _whole(self, F.interpolate(grey, scale_factor=2, mode="bilinear"), scale=2.0)
        return ImageFeatures(found.coarse, larger, found.detection)


class BothMaps(WholeNetworkTwice):
    """Fine map: the early one of the one pass and the last one of the enlarged image side by side."""

    fine_channels = 24 + 64
    fine_temperature = 0.03

    def extract(self, image, detect=False, fine=True):
        found = super().extract(image, detect, fine)
        if not fine:
            return found
        early = XFeatBackbone.extract(self, image).fine
        joined = torch.cat([early.data, _resampled(found.fine, early)]) / 2**0.5
        return ImageFeatures(found.coarse, FeatureMap(joined, early.grid), found.detection)


def _whole(backbone: XFeatBackbone, grey: torch.Tensor, scale: float) -> FeatureMap:
    with torch.inference_mode():
        height, width = grey.shape[2:]
        padded = F.pad(grey, (0, -width % 32, 0, -height % 32), mode="replicate")
        last = backbone._coarse(backbone._early(backbone.network.norm(padded)))[0, :, : -(-height // 8), : -(-width // 8)]
        last = F.normalize(last - last.mean((1, 2), keepdim=True), dim=0).contiguous()
    return FeatureMap(last, FeatureGrid(8 / scale, (3.25 + 0.5) / scale - 0.5))


def _resampled(source: FeatureMap, like: FeatureMap) -> torch.Tensor:
    """The features of ``source`` at the cells of ``like``, of unit length."""
    places = []
    for length, cells in zip(source.data.shape[1:], like.data.shape[1:]):
        place = source.grid.to_cells(like.grid.to_pixels(torch.arange(cells, dtype=torch.float64)))
        places.append((2 * place + 1) / length - 1)
    grid = torch.stack(torch.meshgrid(*places, indexing="ij"), -1).flip(-1).float()[None]
    sampled = F.grid_sample(source.data[None], grid, mode="bicubic", padding_mode="border", align_corners=False)
    return F.normalize(sampled[0], dim=0)


class EarlyMapAlone(XFeatBackbone):
    """The fine map without the coarse one's knowledge of which of several like edges is meant."""

    fine_temperature = 0.05
    coarse_weight = 0.0


class SeveralPeaks(TripletSampler):
    """Up to three peaks of a map, at least three cells apart, take part, each by its probability."""

    def __init__(self, points, maps, camera):
        super().__init__(points, maps, camera)
        loss, rays, weights = maps.loss.clone(), [], []
        y, x = (torch.arange(side, device=loss.device) for side in loss.shape[1:])
        for _ in range(3):
            lowest, cells = replace(maps, loss=loss).minimum()
            rays.append(camera.rays(maps.grid.to_pixels(cells.to(points))))
            weights.append(torch.exp(-lowest))
            near = ((y - cells[:, 1, None]).abs() < 3)[:, :, None] & ((x - cells[:, 0, None]).abs() < 3)[:, None]
            loss[near] = maps.chance
        self.peaks, self.weights = torch.stack(rays, 1), torch.stack(weights, 1)

    def draw(self, count, generator):
        triplets = consensus._draw_triplets(self.entropy, count, generator)
        share = (self.weights / self.weights.sum(1, keepdim=True))[triplets].cumsum(-1)
        uniform = torch.rand(count, 3, 1, generator=generator).to(share)
        peak = (uniform > share[..., :2]).sum(-1)
        return self.peaks[triplets, peak], self.points[triplets]


@dataclass(frozen=True)
class Design:
    """backbone: of map and query; config: changes of the estimator's; patches: of the module ``consensus``."""

    label: str
    backbone: type = XFeatBackbone
    config: dict = field(default_factory=dict)
    patches: dict = field(default_factory=dict)


FINE = (
    Design("second block of the one pass, coarse map as prior (used)"),
    Design("second block of the one pass", EarlyMapAlone),
    Design("whole network on the image enlarged twice", WholeNetworkTwice),
    Design("both side by side", BothMaps),
)
HYPOTHESES = (
    Design("one peak a map, local optimisation (used)"),
    Design("no local optimisation", patches={"_OPTIMISED": 1, "_OPTIMISATION": ()}),
    Design("three peaks a map", patches={"TripletSampler": SeveralPeaks}),
    Design("all points vote instead of a quarter", config={"top_n_p3p": 1.0}),
    Design("matching in one direction", config={"reciprocal": False}),
    Design("five starts refined", config={"starts": 5}),
    Design("always 5000 triplets", patches={"_MISSED": 0.0}),
)


def run(options: Options):
    """Yields the table of the fine stage and the one of the hypotheses."""
    yield _compare(options, "Designs of the fine stage", FINE, "fine_irls")
    yield _compare(options, "Designs of the hypotheses", HYPOTHESES, "P3P")


def _compare(options: Options, title: str, designs, stage: str) -> Table:
    names = [name for name in SCENES if not options.sets or name in options.sets]
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
        stack.enter_context(patch.dict(features.BACKBONES, xfeat=design.backbone))
        for name, value in design.patches.items():
            stack.enter_context(patch.object(consensus, name, value))
        scene = make(options)
        queries, outcomes = list(scene.queries()), []
        localizer = stack.enter_context(Localizer(scene.map_path, device=options.device, seed=options.seed))
        localizer.estimator.config = replace(localizer.estimator.config, **design.config)
        estimates = []
        original = localizer.estimator.localize
        localizer.estimator.localize = lambda *args, **kwargs: estimates.append(original(*args, **kwargs)) or estimates[-1]
        localizer.warm_up()
        for query in queries:
            seconds, _ = timed(localizer.localize, query.image, query.camera)
            T, _ = estimates[-1].stages.get(stage, (None, None))
            outcomes.append((None if T is None else invert(T).cpu().numpy(), seconds))
    median, _, _, share, seconds = summary(outcomes, queries)
    return median, share, seconds
