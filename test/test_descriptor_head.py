# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The learned global descriptor: today's at the start, gradients, and similarities that follow the overlap."""

import math

import numpy as np
import pytest
import torch
from skimage import data

from nre_ros.errors import TrainingError, WeightsError
from nre_ros.features.descriptor_head import DescriptorHead, _SquareRoot
from nre_ros.features.xfeat import XFeatBackbone
from nre_ros.geometry import Camera, pose_matrix
from nre_ros.keyframes.global_descriptor import global_descriptor
from nre_ros.learning.augmentation import Augmentation
from nre_ros.learning.gallery_pairs import GalleryPairs
from nre_ros.learning.overlap import OverlapGroups, OverlapObjective, ViewGroup, ranking_loss, view_overlap
from nre_ros.learning.pair_sources import PhotographPairs, TrainingPairs
from nre_ros.learning.pairs import PosedView
from nre_ros.learning.trainer import Trainer, TrainingConfig

CAMERA = Camera(64, 48, 50.0, 50.0, 31.5, 23.5)


@pytest.fixture(scope="module")
def xfeat() -> XFeatBackbone:
    return XFeatBackbone(torch.device("cpu"))


class Groups(TrainingPairs):
    """Views of photographs: two of each, which overlap by three quarters; always the same groups of eight."""

    def __init__(self):
        photographs = {name: getattr(data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")}
        self._photographs = [PhotographPairs({name: image}, (96, 80), 10) for name, image in photographs.items()]
        self.seed = self.first = 0

    def pair(self, index):
        pairs = [source.pair(index % 3, i) for i, source in enumerate(self._photographs)]
        overlap = np.kron(np.eye(4), [[1, 0.75], [0.75, 1]])
        return ViewGroup(tuple(image for pair in pairs for image in (pair.image_a, pair.image_b)), overlap)


def test_an_untrained_head_gives_the_descriptor_without_training(xfeat):
    features = xfeat.extract(data.coffee()[::2, ::2, ::-1].copy(), fine=False).coarse
    found, expected = DescriptorHead().describe(features), global_descriptor(features)
    assert found.shape == expected.shape == (2080,) and found @ expected > 0.9999
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)


def test_square_roots_are_those_of_numpy_and_their_gradients_finite_differences():
    factors = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 5, 7)))
    matrices = (factors @ factors.mT).requires_grad_()
    roots = _SquareRoot.apply(matrices)
    torch.testing.assert_close(roots @ roots, matrices)
    assert torch.autograd.gradcheck(lambda x: _SquareRoot.apply((x + x.mT) / 2), (matrices,))
    equal = torch.eye(3, dtype=torch.float64)[None].requires_grad_()  # the derivative of X^(1/2) at 1 is 1/2
    _SquareRoot.apply(equal).sum().backward()
    torch.testing.assert_close(equal.grad, torch.full((1, 3, 3), 0.5, dtype=torch.float64))


def test_cells_that_a_head_gives_no_weight_do_not_count():
    head = DescriptorHead(width=1)
    with torch.no_grad():
        head.reduce.weight.zero_()[0, 0] = 1.0
        head.reduce.bias.zero_()
        head.weigh.weight.fill_(-1e4)  # cells with a positive first channel
    cells = torch.nn.functional.normalize(torch.randn(1, 64, 10, 12, generator=torch.Generator().manual_seed(0)), dim=1)
    cells[:, 0, :, :6] = -0.2
    cells[:, 0, :, 6:] = 0.2
    part = torch.cat([cells[..., :6], cells[..., :6]], dim=-1)
    torch.testing.assert_close(head(cells), head(part), atol=1e-5, rtol=0)


def test_ranking_loss_has_its_closed_form():
    similarity = torch.tensor([[1.0, 0.5, 0.1], [0.5, 1.0, 0.2], [0.1, 0.2, 1.0]], dtype=torch.float64)
    overlap = torch.tensor([[1.0, 0.6, 0.2], [0.6, 1.0, 0.0], [0.2, 0.0, 1.0]], dtype=torch.float64)
    p = lambda a, b: -math.log(math.exp(a / 0.5) / (math.exp(a / 0.5) + math.exp(b / 0.5)))  # noqa: E731
    expected = (0.75 * p(0.5, 0.1) + 0.25 * p(0.1, 0.5) + p(0.5, 0.2) + p(0.1, 0.2)) / 3
    assert ranking_loss(similarity, overlap, 0.5).item() == pytest.approx(expected)
    assert ranking_loss(similarity, torch.eye(3), 0.5) is None
    similarity.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ranking_loss(x, overlap, 0.5), (similarity,))


def test_the_loss_falls_and_the_trained_head_can_be_saved(xfeat, tmp_path):
    objective, groups = OverlapObjective(DescriptorHead(), xfeat), Groups()

    def loss() -> float:
        with torch.no_grad():
            return float(objective.pair_losses(groups.pair(0), torch.Generator())["total"])

    before = loss()
    config = TrainingConfig(steps=8, pairs_per_step=1, learning_rate=1e-2, warm_up=1)
    assert Trainer(objective, groups, config, tmp_path).run().skipped == 0
    assert loss() < before - 0.02
    objective.head.save(tmp_path / "head.safetensors", xfeat.network_hash)
    read = DescriptorHead.load(tmp_path / "head.safetensors", xfeat.network_hash)
    features = xfeat.extract(groups.pair(0).images[0], fine=False).coarse
    assert np.array_equal(read.describe(features), objective.head.describe(features))


def test_overlap_of_views_of_a_wall_is_their_common_area():
    """Views of a plane at 2 m, shifted by a quarter of the 2.56 m that each shows."""
    depth, image = np.full((48, 64), 2.0, np.float32), np.zeros((48, 64, 3), np.uint8)
    views = [PosedView(image, depth, CAMERA, pose_matrix((x, 0, 0), (0, 0, 0, 1))) for x in (0.0, 0.64, 5.0)]
    overlap = view_overlap(views)
    np.testing.assert_allclose(np.diag(overlap), 1)
    assert overlap[0, 1] == pytest.approx(0.75, abs=0.01) and overlap[0, 2] == overlap[1, 2] == 0


def test_groups_of_rooms_overlap_within_rooms_only_and_are_repeatable():
    rooms = GalleryPairs([CAMERA], rooms_at_once=2, pixels_per_metre=40)
    groups = OverlapGroups(rooms, views=4, rooms_per_group=2, augmentation=Augmentation(0, 0, 0, 0, 0, 0, 0))
    group = groups.pair(1)
    assert len(group.images) == 8 and group.overlap[:4, 4:].max() == 0
    assert group.overlap[:4, :4][~np.eye(4, dtype=bool)].max() < 1
    again = groups.starting_at(1).pair(1)
    assert np.array_equal(group.overlap, again.overlap) and np.array_equal(group.images, again.images)
    assert not np.array_equal(group.images, groups.pair(2).images)


def test_unusable_groups_and_heads_are_refused(xfeat):
    image = np.zeros((48, 64, 3), np.uint8)
    with pytest.raises(TrainingError, match="1 images"):
        ViewGroup((image,), np.eye(1))
    for overlap in (np.array([[1, 0.5], [0.4, 1]]), np.array([[1, 1.5], [1.5, 1]]), np.full((2, 2), math.nan)):
        with pytest.raises(TrainingError, match="overlaps are not"):
            ViewGroup((image, image), overlap)
    with pytest.raises(TrainingError, match="at least 2 views"):
        OverlapGroups(GalleryPairs([CAMERA]), views=1)
    with pytest.raises(WeightsError, match="descriptor head of 32 channels"):
        DescriptorHead(32)
    objective = OverlapObjective(DescriptorHead(), xfeat)
    assert objective.pair_losses(ViewGroup((image, image), np.eye(2)), torch.Generator()) is None
    with torch.no_grad():
        objective.head.expand.bias[0] = math.inf
    found = objective.pair_losses(ViewGroup((image, image), np.ones((2, 2))), torch.Generator())
    assert math.isnan(float(found["total"]))
