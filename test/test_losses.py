# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The training losses against closed forms, finite differences and the maps that the estimator minimises."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from synthetic import CAMERA, GRID, as_maps, dips, points_in_view, true_pose

from nre_ros.errors import TrainingError
from nre_ros.features import FeatureGrid, FeatureMap
from nre_ros.learning.losses import CoarseNRELoss, FineNRELoss, draw_priors
from nre_ros.nre.fine import fine_maps
from nre_ros.nre.maps import correspondence_logits, nre_maps, reciprocal_loss, sample_loss
from nre_ros.nre.problem import PoseProblem

ALL, NONE = torch.ones(1, dtype=torch.bool), torch.zeros(1, dtype=torch.bool)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    """Unit vectors along dimension 1 of [N, C], or along dimension 0 of [C, H, W]; float64."""
    values = torch.from_numpy(np.random.default_rng(seed).normal(size=shape))
    return F.normalize(values, dim=1 if len(shape) == 2 else 0)


def indicator(height: int, width: int, row: int, column: int, value: float = 1.0) -> torch.Tensor:
    features = torch.zeros(1, height, width, dtype=torch.float64)
    features[0, row, column] = value
    return features


# the coarse loss


def test_a_map_that_knows_nothing_costs_ln_of_its_categories():
    loss = CoarseNRELoss(reciprocal=False)
    flat, point = torch.zeros(1, 3, 5), torch.ones(1, 1)
    for visible in (ALL, NONE):
        assert loss(point, flat, 0.1, torch.tensor([[2.0, 1.0]]), visible).item() == pytest.approx(math.log(16))
    without = CoarseNRELoss(reciprocal=False, outside=False)
    assert without(point, flat, 0.1, torch.tensor([[2.0, 1.0]]), ALL).item() == pytest.approx(math.log(15))


def test_a_reciprocal_map_that_knows_nothing_costs_the_same_whatever_the_keyframe():
    loss = CoarseNRELoss(reciprocal=True)
    flat, points = torch.zeros(1, 3, 5), torch.ones(7, 1)
    visible = torch.arange(7) < 4
    values = loss(points, flat, 0.1, torch.ones(7, 2), visible, torch.ones(6, 1), 100)
    torch.testing.assert_close(values, torch.full((7,), math.log(16)))


def test_coarse_loss_of_one_peak_has_its_closed_form():
    """Softmax of one cell at z = 2 / 0.5, 11 cells at 0 and the category at 0; a quarter cell off mixes two cells."""
    features, point = indicator(3, 4, row=1, column=2, value=2.0), torch.ones(1, 1, dtype=torch.float64)
    loss = CoarseNRELoss(reciprocal=False)
    total = math.log(math.exp(4) + 12)
    at = lambda x, y, visible=ALL: loss(point, features, 0.5, torch.tensor([[x, y]]), visible).item()  # noqa: E731
    assert at(2.0, 1.0) == pytest.approx(total - 4)
    assert at(2.25, 1.0) == pytest.approx(total - 3)
    assert at(2.25, 1.5) == pytest.approx(total - 1.5)
    assert at(0.0, 0.0) == pytest.approx(total) == at(0.0, 0.0, NONE)


def test_reciprocal_loss_of_two_points_has_its_closed_form():
    """Two points and one background descriptor for 3 cells, in a map of two cells; no category 'not in the image'."""
    z = torch.tensor([[1.0, 0.2], [0.5, -0.3]], dtype=torch.float64)
    background = torch.tensor([[0.1, 0.4]], dtype=torch.float64)
    features = torch.eye(2, dtype=torch.float64).reshape(2, 1, 2)
    found = CoarseNRELoss(outside=False)(
        z, features, 1.0, torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.ones(2, dtype=torch.bool), background, 3
    )
    r = (z.exp().sum(0) + 3 * background[0].exp()).log()
    mutual = (2 * z - r).exp()
    expected = [-(mutual[0, 0] / mutual[0].sum()).log(), -(mutual[1, 1] / mutual[1].sum()).log()]
    torch.testing.assert_close(found, torch.stack(expected))


@pytest.mark.parametrize("reciprocal", [False, True])
def test_coarse_loss_is_what_the_estimator_samples(reciprocal):
    """Where the estimator does not truncate: its maps are single precision and have a small constant added."""
    # smooth features, so that the cells around the true places match too
    features = F.interpolate(unit(16, 4, 5)[None].float(), size=(9, 13), mode="bicubic", align_corners=True)[0]
    features, background = F.normalize(features, dim=0), unit(20, 16, seed=1).float()
    cells = torch.from_numpy(np.random.default_rng(3).uniform(-0.5, [12.5, 8.5], size=(30, 2)))
    x, y = cells.round().clamp_min(0).long().T
    descriptors = features[:, y.clamp_max(8), x.clamp_max(12)].T.contiguous()
    everywhere = torch.ones(30, dtype=torch.bool)
    if reciprocal:
        maps = torch.empty(30, 9 * 13)
        reciprocal_loss(descriptors, background, 117, features, 0.2, maps)
    else:
        maps = nre_maps(correspondence_logits(descriptors, features, 0.2), 9, 13, GRID).loss
    maps = maps.reshape(30, 9, 13)
    near = sample_loss((maps >= math.log(118) - 1e-4).float(), cells[None], everywhere[None])[0] == 0
    estimators = sample_loss(maps, cells[None], everywhere[None])[0]
    ours = CoarseNRELoss(reciprocal, outside=False)(descriptors, features, 0.2, cells, everywhere, background, 117)
    assert near.sum() > 20
    torch.testing.assert_close(ours[near], estimators[near], atol=2e-4, rtol=0)
    assert (ours >= estimators - 2e-4).all()  # truncated at ln|Omega| only


@pytest.mark.parametrize("reciprocal", [False, True])
def test_coarse_gradients_are_finite_differences(reciprocal):
    loss = CoarseNRELoss(reciprocal).double()
    cells = torch.tensor([[0.3, 0.8], [2.6, 1.1], [1.2, 1.9]], dtype=torch.float64)
    visible = torch.tensor([True, True, False])
    temperature = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    inputs = [unit(3, 4).requires_grad_(), unit(4, 3, 4, seed=1).requires_grad_(), temperature]

    def value(descriptors, features, temperature, background, outside):
        del outside  # the module's own parameter, moved by gradcheck in place
        return loss(descriptors, features, temperature, cells, visible, background, 10)

    assert loss.outside_correlation is not None
    assert torch.autograd.gradcheck(value, (*inputs, unit(2, 4, seed=2).requires_grad_(), loss.outside_correlation))


def test_training_lowers_the_loss_of_a_point_that_is_not_visible_by_the_category():
    loss = CoarseNRELoss(reciprocal=False)
    value = loss(torch.ones(1, 1), torch.zeros(1, 3, 5), 0.1, torch.zeros(1, 2), NONE).sum()
    value.backward()
    assert loss.outside_correlation.grad.item() == pytest.approx((1 / 16 - 1) / 0.1)


# the fine loss


def gaussian_window(centre: tuple[float, float], width: float, size: int = 17) -> torch.Tensor:
    """Features [1, size, size] whose correlation with 1 is a log-Gaussian about a place."""
    y, x = torch.meshgrid(*(torch.arange(size, dtype=torch.float64),) * 2, indexing="ij")
    return (((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (-2 * width**2))[None]


def test_fine_loss_of_a_flat_window_is_ln_of_its_cells():
    loss = FineNRELoss(window_size=8, enlarge=2)
    place = torch.tensor([[5.2, 5.4]])
    found = loss(torch.ones(1, 3), torch.zeros(3, 11, 11), 0.1, place, torch.tensor([[5.0, 5.0]]))
    assert found.nre.item() == pytest.approx(math.log(81))
    np.testing.assert_allclose(found.offset.detach(), [[0, 0]], atol=0.02)


def test_expected_offset_of_a_gaussian_is_that_of_the_product_of_two():
    """Weights exp(-|x - c|^2 / 2 w^2 - |x - p|^2 / 2 s^2): their mean lies at p + (c - p) s^2 / (s^2 + w^2)."""
    features = gaussian_window((8.4, 7.7), width=0.9)
    loss = FineNRELoss(window_size=16, enlarge=1, sigma=1.2)
    truth = torch.tensor([[8.1, 8.3]], dtype=torch.float64)
    found = loss(torch.ones(1, 1, dtype=torch.float64), features, 1.0, truth, torch.tensor([[8.0, 8.0]]))
    share = 1.2**2 / (1.2**2 + 0.9**2)
    np.testing.assert_allclose(found.offset.detach(), [[0.3 * share, -0.6 * share]], atol=1e-3)
    expected = found.nre.mean() + 0.5 * share**2 * (0.3**2 + 0.6**2)
    assert found.total.item() == pytest.approx(expected.item(), abs=1e-3)


def test_points_without_a_whole_window_take_no_part():
    loss = FineNRELoss(window_size=8, enlarge=2)  # 2 cells on either side
    features, descriptors = unit(4, 9, 12), unit(4, 4)
    cells = torch.tensor([[5.0, 4.0], [1.0, 4.0], [5.0, 7.4], [8.0, 4.0]], dtype=torch.float64)
    prior = torch.tensor([[5.3, 3.6], [1.4, 4.0], [5.0, 7.0], [5.0, 4.0]], dtype=torch.float64)
    assert loss(descriptors, features, 0.1, cells, prior).rows.tolist() == [0]


@pytest.mark.parametrize("enlarge", [1, 2])
def test_fine_loss_is_what_the_estimator_minimises(enlarge):
    """V = ln|Omega| + ln C + ln mass - ln window_size, clamped at 0; the mass is 1 with certain coarse maps."""
    grid = FeatureGrid(4.0, 1.25)
    T = true_pose()
    points, pixels = points_in_view(60, T, margin=40.0)
    waves = np.random.default_rng(0).normal(scale=1 / 14, size=(16, 2))
    field = lambda places: np.concatenate([np.cos(places @ waves.T), np.sin(places @ waves.T)], -1) / 4  # noqa: E731
    y, x = np.mgrid[:60, :80]
    features = torch.tensor(field(grid.to_pixels(np.stack([x, y], -1).astype(float))).transpose(2, 0, 1))
    descriptors, cells = torch.tensor(field(pixels)), grid.to_cells(torch.from_numpy(pixels))
    coarse = as_maps(dips(GRID.to_cells(pixels), depth=60.0, width=0.6))  # more than all of the probability
    problem = PoseProblem(torch.from_numpy(points), coarse, CAMERA)
    maps, rows = fine_maps(problem, torch.from_numpy(T), FeatureMap(features, grid), descriptors, 0.2, 16, enlarge)
    omega = math.log(60 * 80 * enlarge**2 + 1)
    truth = cells[rows] * enlarge - maps.origin[0]
    value = sample_loss(maps.values[0], truth[None], torch.ones(1, len(rows), dtype=torch.bool))[0]
    found = FineNRELoss(16, enlarge)(descriptors, features, 0.2, cells, cells)
    assert found.rows.tolist() == rows.tolist() and len(rows) == 60
    torch.testing.assert_close(omega - found.nre - math.log(16), value)


def test_fine_gradients_are_finite_differences():
    loss = FineNRELoss(window_size=8, enlarge=2)
    cells = torch.tensor([[4.3, 3.2], [5.1, 4.6], [3.7, 4.4]], dtype=torch.float64)
    prior = cells + 0.8
    inputs = (
        unit(3, 3).requires_grad_(),
        unit(3, 9, 9, seed=1).requires_grad_(),
        torch.tensor(0.3, dtype=torch.float64, requires_grad=True),
    )
    assert torch.autograd.gradcheck(lambda *tensors: loss(*tensors, cells, prior).total, inputs)


def test_training_works_in_a_process_that_has_localized():
    """What estimation keeps between two images is made in inference mode, unless it says otherwise."""
    cells, settings = torch.tensor([[6.3, 6.2]]), {"window_size": 12, "enlarge": 3}  # of no other test
    features, descriptors = unit(3, 13, 13).float(), unit(1, 3).float().requires_grad_()
    with torch.inference_mode():
        FineNRELoss(**settings)(descriptors, features, 0.3, cells, cells)
    FineNRELoss(**settings)(descriptors, features, 0.3, cells, cells).total.backward()
    assert bool(descriptors.grad.abs().sum() > 0)


def test_the_sub_pixel_term_moves_the_peak_to_the_true_place():
    """The place of a peak as the only parameter: the descent ends where the peak is at the true place."""
    truth = torch.tensor([[8.35, 7.8]], dtype=torch.float64)
    place = torch.tensor([8.9, 8.3], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([place], lr=0.2)
    loss = FineNRELoss(window_size=16, enlarge=1, subpixel_weight=1.0)
    y, x = torch.meshgrid(*(torch.arange(17, dtype=torch.float64),) * 2, indexing="ij")
    for _ in range(100):
        features = (((x - place[0]) ** 2 + (y - place[1]) ** 2) / -2)[None]
        found = loss(torch.ones(1, 1, dtype=torch.float64), features, 1.0, truth, truth)
        optimizer.zero_grad()
        found.offset.square().sum().backward()
        optimizer.step()
    np.testing.assert_allclose(place.detach(), truth[0], atol=2e-3)


def test_priors_are_drawn_within_their_reach_from_the_generator():
    cells = torch.zeros(2000, 2, dtype=torch.float64)
    drawn = [draw_priors(cells, 2.5, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert 2.45 < drawn[0].abs().max() <= 2.5 and drawn[0].mean(0).abs().max() < 0.15


# unusable input


def broken(**changes):
    """Arguments of both losses that are right but for the changes."""
    return {
        **dict(descriptors=unit(2, 3), features=unit(3, 9, 9), temperature=0.1, cells=torch.full((2, 2), 4.0).double()),
        **changes,
    }


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(descriptors=torch.zeros(0, 3), cells=torch.zeros(0, 2)), "at least one point"),
        (dict(descriptors=torch.full((2, 3), math.nan)), "descriptors .* not finite"),
        (dict(features=torch.full((3, 9, 9), math.inf)), "features .* not finite"),
        (dict(features=unit(4, 9, 9)), r"expected \[3, H, W\]"),
        (dict(features=torch.zeros(3, 0, 9)), r"expected \[3, H, W\]"),
        (dict(cells=torch.full((2, 2), math.nan)), "cells .* not finite"),
        (dict(cells=torch.zeros(3, 2)), r"cells are \[3, 2\]"),
        (dict(temperature=0.0), "temperature 0.0"),
        (dict(temperature=torch.tensor(math.nan)), "temperature nan"),
    ],
)
def test_unusable_input_is_refused_with_its_name(changes, message):
    arguments = broken(**changes)
    with pytest.raises(TrainingError, match=message):
        CoarseNRELoss()(**arguments, visible=torch.ones(len(arguments["descriptors"]), dtype=torch.bool))
    with pytest.raises(TrainingError, match=message):
        FineNRELoss(8)(**arguments, prior=torch.zeros_like(arguments["cells"]))


def test_the_coarse_loss_refuses_wrong_visibility_and_background():
    arguments, both = broken(), torch.ones(2, dtype=torch.bool)
    with pytest.raises(TrainingError, match="outside the map of 9x9"):
        CoarseNRELoss()(**broken(cells=torch.full((2, 2), 8.6).double()), visible=both)
    with pytest.raises(TrainingError, match="visible is torch.float32"):
        CoarseNRELoss()(**arguments, visible=both.float())
    with pytest.raises(TrainingError, match="no category"):
        CoarseNRELoss(outside=False)(**arguments, visible=~both)
    with pytest.raises(TrainingError, match="background is"):
        CoarseNRELoss()(**arguments, visible=both, background=unit(5, 3))
    with pytest.raises(TrainingError, match="not finite"):
        CoarseNRELoss()(**arguments, visible=both, background=unit(5, 3) * math.nan, background_cells=9)


def test_the_fine_loss_refuses_wrong_settings_and_priors():
    for settings in (dict(window_size=6), dict(window_size=0), dict(sigma=0.0), dict(subpixel_weight=math.nan)):
        with pytest.raises(TrainingError):
            FineNRELoss(**settings)
    with pytest.raises(TrainingError, match="none of 2 points"):
        FineNRELoss()(**broken(), prior=torch.zeros(2, 2))
    with pytest.raises(TrainingError, match="prior is"):
        FineNRELoss()(**broken(), prior=torch.zeros(1, 2))
    with pytest.raises(TrainingError, match="prior of"):
        FineNRELoss()(**broken(), prior=torch.full((2, 2), math.nan))
    with pytest.raises(TrainingError, match="reach"):
        draw_priors(torch.zeros(1, 2), -1.0, torch.Generator())
