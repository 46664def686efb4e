# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The coarse head: XFeat's own map at the start, a loss that falls, and files of its own kind."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage import data

from nre_ros.errors import TrainingError, WeightsError
from nre_ros.features import FeatureGrid, FeatureMap
from nre_ros.features.coarse_head import CoarseHead, coarse_maps
from nre_ros.features.fine_head import FineHead
from nre_ros.features.tensor_file import write_tensors
from nre_ros.features.xfeat import XFeatBackbone
from nre_ros.learning.losses import CoarseNRELoss
from nre_ros.learning.objectives import CoarseHeadObjective, coarse_pair_losses
from nre_ros.learning.pair_sources import PhotographPairs, TrainingPairs
from nre_ros.learning.pairs import TrainingPair
from nre_ros.learning.trainer import Trainer, TrainingConfig

NETWORK = "ab" * 32


@pytest.fixture(scope="module")
def xfeat() -> XFeatBackbone:
    return XFeatBackbone(torch.device("cpu"), max_imsize=256)


@pytest.fixture(scope="module")
def pairs() -> TrainingPairs:
    return TrainingPairs([PhotographPairs({"coffee": data.coffee(), "chelsea": data.chelsea()}, (128, 96), 120)])


class TwoPairs(TrainingPairs):
    """The first two pairs again and again."""

    def __init__(self, pairs: TrainingPairs):
        self._pairs, self.seed, self.first = pairs, 0, 0

    def pair(self, index):
        return self._pairs.pair(index % 2)


def photograph(width: int, height: int) -> np.ndarray:
    return np.ascontiguousarray(data.coffee()[40 : 40 + height, 100 : 100 + width, ::-1])


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("width, height", [(160, 128), (161, 121), (33, 44), (320, 240)])
def test_an_untrained_head_gives_the_coarse_map_of_xfeat(xfeat, width, height):
    image = photograph(width, height)
    found, expected = CoarseHead().feature_map(xfeat.first_pass(image)), xfeat.extract(image, fine=False).coarse
    torch.testing.assert_close(found.data, expected.data, atol=1e-6, rtol=0)
    assert found.grid.stride == pytest.approx(expected.grid.stride, rel=1e-12)
    assert found.grid.offset == pytest.approx(expected.grid.offset, rel=1e-12)
    assert CoarseHead().temperature.item() == pytest.approx(xfeat.coarse_temperature)


def test_the_head_has_123_thousand_parameters():
    assert sum(parameter.numel() for parameter in CoarseHead().parameters()) == 123_201


def test_a_correction_reaches_seven_cells():
    head = CoarseHead(width=4)
    torch.nn.init.ones_(head.expand.weight)
    with torch.no_grad():
        for convolution in (head.reduce, *head.residuals):
            torch.nn.init.constant_(convolution.weight, 0.01)
            torch.nn.init.ones_(convolution.bias)
    maps = torch.rand(1, 128, 31, 31, generator=draws())
    changed = maps.clone()
    changed[:, :64, 15, 15] += 1.0
    rows = torch.nonzero((head(maps) - head(changed)).abs().sum((0, 1)) > 1e-9)
    assert rows.min(0).values.tolist() == [8, 8] and rows.max(0).values.tolist() == [22, 22]


def test_the_loss_at_the_start_is_that_of_xfeats_features(xfeat, pairs):
    """Computed from the maps that the backbone extracts, point by point."""
    pair, objective = pairs.pair(0), CoarseHeadObjective(CoarseHead(), xfeat, CoarseNRELoss(False, False))
    maps = [xfeat.extract(image, fine=False).coarse for image in (pair.image_a, pair.image_b)]
    expected = []
    for source, target, at, to in ((0, 1, pair.pixels_a, pair.pixels_b), (1, 0, pair.pixels_b, pair.pixels_a)):
        at, to = (torch.from_numpy(pixels[pair.visible]) for pixels in (at, to))
        descriptors = torch.nn.functional.normalize(maps[source].sample(at), dim=1)
        scores = torch.einsum("nc,chw->nhw", descriptors, maps[target].data) / 0.03
        logarithm = scores.flatten(1).log_softmax(1).reshape(scores.shape)
        _, rows, columns = scores.shape
        # grid_sample's places: -1 and 1 are the outer edges of the border cells
        place = (2 * maps[target].grid.to_cells(to) + 1) / torch.tensor([columns, rows]) - 1
        sampled = torch.nn.functional.grid_sample(
            logarithm[:, None].double(), place[:, None, None], padding_mode="border", align_corners=False
        )
        inside = place.abs().amax(1) <= 1
        expected.append(-sampled[inside].mean())
    found = objective.pair_losses(pair, draws())
    assert found["nre"].item() == pytest.approx(float(sum(expected)) / 2, abs=1e-4)
    assert "outside" not in found


def test_the_gradient_is_a_finite_difference(xfeat, pairs):
    objective, pair = CoarseHeadObjective(CoarseHead(seed=1), xfeat), pairs.pair(1)
    with torch.no_grad():
        objective.head.expand.weight.normal_(0, 0.05, generator=draws())
    objective.pair_losses(pair, draws())["total"].backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in objective.parameters())
    norm = math.sqrt(sum(float(parameter.grad.square().sum()) for parameter in objective.parameters()))
    values, step = [], 3e-3
    with torch.no_grad():
        for sign in (1, -2):
            for parameter in objective.parameters():
                parameter += sign * step * parameter.grad / norm
            values.append(float(objective.pair_losses(pair, draws())["total"]))
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(norm, rel=0.02)


def test_the_loss_of_the_coarse_head_falls_and_the_trained_head_can_be_saved(xfeat, pairs, tmp_path):
    objective, few = CoarseHeadObjective(CoarseHead(), xfeat), TwoPairs(pairs)

    def losses() -> dict[str, float]:
        with torch.no_grad():
            found = [objective.pair_losses(few.pair(i), draws(i)) for i in range(2)]
        return {name: float(np.mean([float(part[name]) for part in found])) for name in ("total", "nre")}

    before = losses()
    config = TrainingConfig(steps=10, pairs_per_step=2, learning_rate=2e-3, warm_up=2)
    assert Trainer(objective, few, config, tmp_path).run().skipped == 0
    after = losses()
    assert after["total"] < before["total"] - 0.2 and after["nre"] < before["nre"] - 0.1
    objective.head.save(tmp_path / "head.safetensors", xfeat.network_hash)
    read = CoarseHead.load(tmp_path / "head.safetensors", xfeat.network_hash)
    maps = coarse_maps(xfeat.first_pass(photograph(96, 64)))
    assert torch.equal(read(maps), objective.head(maps))
    assert not torch.equal(read(maps), CoarseHead()(maps))


def test_a_backbone_uses_the_coarse_head_and_has_a_hash_of_its_own(xfeat, tmp_path):
    head, image = CoarseHead(seed=3), photograph(96, 64)
    with torch.no_grad():
        head.expand.weight.normal_(0, 0.05, generator=draws())
        head.log_temperature.fill_(math.log(0.04))
    head.save(tmp_path / "head.safetensors", xfeat.network_hash)
    backbone = XFeatBackbone(torch.device("cpu"), 256, coarse_head=tmp_path / "head.safetensors")
    assert backbone.coarse_temperature == pytest.approx(0.04) and xfeat.coarse_temperature == 0.03
    assert backbone.weights_hash != xfeat.weights_hash
    features, plain = backbone.extract(image), xfeat.extract(image)
    with torch.no_grad():
        torch.testing.assert_close(features.coarse.data, head.feature_map(xfeat.first_pass(image)).data)
    assert not torch.allclose(features.coarse.data, plain.coarse.data, atol=1e-2)
    torch.testing.assert_close(features.fine.data, plain.fine.data)
    untrained = XFeatBackbone(torch.device("cpu"), 256, coarse_head=CoarseHead())
    torch.testing.assert_close(untrained.extract(image).coarse.data, plain.coarse.data, atol=1e-6, rtol=0)


def test_pairs_without_common_points_take_no_part(xfeat, pairs):
    pair = pairs.pair(0)
    apart = replace(pair, visible=np.zeros_like(pair.visible))
    assert CoarseHeadObjective(CoarseHead(), xfeat).pair_losses(apart, draws()) is None


def test_places_beyond_the_outermost_cells_take_no_part():
    """Cells of 16 pixels from pixel 0 on: the last ones of 64 pixels reach to pixel 56."""
    unit = torch.nn.functional.normalize(torch.randn(8, 4, 4, generator=draws()), dim=0)
    features = FeatureMap(unit, FeatureGrid(16.0, 0.0))
    pixels = np.random.default_rng(0).uniform(0, 55, (20, 2))
    image = np.zeros((64, 64, 3), np.uint8)

    def loss(places):
        pair = TrainingPair(image, image, places, places, np.ones(len(places), np.bool_))
        return coarse_pair_losses(CoarseNRELoss(False, False), (features, features), pair, 0.1, 0.0, draws())

    beyond = np.concatenate([pixels, [[60.0, 30.0], [30.0, 63.4]]])
    assert loss(beyond)["nre"].item() == pytest.approx(loss(pixels)["nre"].item(), rel=1e-6)
    assert loss(pixels[:7]) is None


def test_features_that_are_not_finite_give_a_loss_that_is_not(xfeat, pairs):
    objective = CoarseHeadObjective(CoarseHead(), xfeat)
    with torch.no_grad():
        objective.head.expand.bias[0] = math.nan
    assert math.isnan(float(objective.pair_losses(pairs.pair(0), draws())["total"]))


def test_the_weight_of_points_outside_is_checked(xfeat):
    for weight in (-1.0, math.nan):
        with pytest.raises(TrainingError, match="outside_weight"):
            CoarseHeadObjective(CoarseHead(), xfeat, outside_weight=weight)


def test_files_of_other_heads_are_refused(tmp_path):
    path = tmp_path / "head.safetensors"
    FineHead().save(path, NETWORK)
    with pytest.raises(WeightsError, match="holds no coarse head: its format is 'nre_ros fine head 1'"):
        CoarseHead.load(path, NETWORK)
    CoarseHead().save(path, NETWORK)
    with pytest.raises(WeightsError, match="holds no fine head"):
        FineHead.load(path, NETWORK)
    metadata = {"format": "nre_ros coarse head 1", "network": NETWORK, "channels": "32", "width": "64"}
    write_tensors(path, CoarseHead().state_dict(), metadata)
    with pytest.raises(WeightsError, match="coarse head of 32 channels"):
        CoarseHead.load(path, NETWORK)
