# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Correspondence and NRE maps against SciPy in double precision and closed forms."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from scipy.special import log_softmax, logsumexp
from synthetic import CHANCE, GRID, HEIGHT, WIDTH, as_maps, dips

from nre_ros.features import FeatureGrid, FeatureMap
from nre_ros.keyframes.types import KeyframeStack
from nre_ros.nre.maps import (
    EPSILON,
    correspondence_logits,
    keyframe_maps,
    nre_maps,
    reciprocal_loss,
    reprojection_error_maps,
    sample_loss,
)

TEMPERATURE = 0.05


def unit_rows(shape, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=shape)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def descriptors() -> np.ndarray:
    return unit_rows((40, 16), seed=0)


@pytest.fixture
def features() -> np.ndarray:
    """[16, 12, 17]: a map that is not square, so that x and y cannot be confused."""
    return np.ascontiguousarray(unit_rows((12, 17, 16), seed=1).transpose(2, 0, 1))


def scipy_loss(logits: np.ndarray) -> np.ndarray:
    return np.minimum(-np.log(np.exp(log_softmax(logits, axis=1)) + EPSILON), np.log(logits.shape[1] + 1))


def test_maps_are_scipys_softmax(descriptors, features):
    logits = np.einsum("nc,chw->nhw", descriptors.astype(float), features.astype(float)) / TEMPERATURE
    ours = correspondence_logits(torch.from_numpy(descriptors), torch.from_numpy(features), TEMPERATURE)
    maps = nre_maps(ours, 12, 17, GRID)
    np.testing.assert_allclose(maps.loss, scipy_loss(logits.reshape(40, -1)).reshape(40, 12, 17), atol=1e-4)
    probability = np.exp(log_softmax(logits.reshape(40, -1), axis=1))
    np.testing.assert_allclose(maps.entropy, -(probability * np.log(probability)).sum(1), atol=2e-3)


def test_omega_counts_the_category_outside_the_image():
    maps = nre_maps(torch.zeros(1, 12 * 17), 12, 17, GRID)
    assert maps.outlier_loss == pytest.approx(np.log(12 * 17 + 1))
    np.testing.assert_allclose(maps.loss, np.log(12 * 17), atol=1e-4)  # a flat map is just below it


def test_losses_never_exceed_the_outlier_loss():
    logits = torch.from_numpy(np.random.default_rng(2).normal(scale=30, size=(5, 204)).astype(np.float32))
    maps = nre_maps(logits, 12, 17, GRID)
    assert maps.loss.max() == pytest.approx(np.log(205)) and (maps.loss > np.log(204.9)).sum() > 800


def test_entropy_of_a_flat_map_is_ln_of_its_cells_and_of_a_certain_one_zero():
    logits = torch.zeros(2, HEIGHT * WIDTH)
    logits[1, 77] = 200.0
    entropy = nre_maps(logits, HEIGHT, WIDTH, GRID).entropy
    assert entropy[0] == pytest.approx(np.log(HEIGHT * WIDTH), abs=0.01)
    assert entropy[1] == pytest.approx(0.0, abs=0.01)


def reciprocal(points, background, cells, query, temperature):
    """Losses [N, 204] and entropies [N] of rows of descriptors in a query of 12 x 17 cells."""
    loss = torch.empty(len(points), 204)
    tensors = (torch.from_numpy(np.asarray(array, dtype=np.float32)) for array in (points, background))
    entropy = reciprocal_loss(*tensors, cells, torch.from_numpy(query.T.reshape(-1, 12, 17).copy()), temperature, loss)
    return loss.numpy(), entropy.numpy()


@pytest.mark.parametrize("temperature, length", [(TEMPERATURE, 1.0), (0.02, 1.0), (1.0, 3.0)])
def test_reciprocal_losses_are_those_of_both_directions(temperature, length):
    """With every cell of the keyframe as background the reverse softmax is over its whole dense map."""
    keyframe, query = (length * unit_rows((rows, 16), seed) for rows, seed in ((300, 3), (204, 4)))
    points = keyframe[:25]
    forward = points.astype(float) @ query.T.astype(float) / temperature
    dense = keyframe.astype(float) @ query.T.astype(float) / temperature
    # the points are among the dense cells, and are counted beside them
    logits = 2 * forward - np.logaddexp(logsumexp(dense, axis=0), logsumexp(forward, axis=0))
    loss, entropy = reciprocal(points, keyframe, 300, query, temperature)
    exact = logsumexp(logits, axis=1, keepdims=True) - logits
    np.testing.assert_allclose(loss, exact.clip(max=np.log(205)), atol=1e-4)
    np.testing.assert_allclose(entropy, (np.exp(-exact) * exact).sum(1), atol=1e-4)


def test_points_whose_matches_all_underflow_have_flat_maps():
    """Features of any length: what is left in the range of a float32 counts, and never NaN."""
    query = np.zeros((204, 16), np.float32)
    query[:, 0] = 1e3
    points = np.zeros((3, 16), np.float32)
    points[0, 0], points[1, 0] = 1.0, -1.0
    loss, entropy = reciprocal(points, points[:1], 300, query, 1.0)
    assert np.isfinite(loss).all() and np.isfinite(entropy).all()
    np.testing.assert_allclose(loss[1:], np.log(205), rtol=1e-6)


def test_few_background_cells_stand_for_all():
    """The normaliser from 256 of 4800 cells is that of all of them, to a fraction of the losses' spread."""
    keyframe, query = unit_rows((4800, 16), seed=5), unit_rows((204, 16), seed=6)
    drawn = np.random.default_rng(7).choice(4800, 256, replace=False)
    few, _ = reciprocal(keyframe[:50], keyframe[drawn], 4800, query, 0.2)
    full, _ = reciprocal(keyframe[:50], keyframe, 4800, query, 0.2)
    certain = (few < 5) & (full < 5)
    difference = (few - full)[certain]
    assert certain.sum() > 500 and np.abs(difference.mean()) < 0.02 and difference.std() < 0.2 < full[certain].std()


def test_keyframes_are_matched_each_with_its_own_background(features):
    """A stack of three (one without points) against SciPy, keyframe by keyframe."""
    counts, cells = (7, 0, 12), (300, 50, 120)
    descriptors, background = unit_rows((19, 16), seed=8), unit_rows((3, 20, 16), seed=9)
    stack = KeyframeStack(
        (1, 2, 3),
        torch.zeros(19, 3, dtype=torch.float64),
        torch.from_numpy(descriptors),
        torch.zeros(19, 4),
        counts,
        torch.from_numpy(background),
        cells,
        torch.zeros(19, 3),
        torch.zeros(3, 3),
    )
    maps = keyframe_maps(stack, FeatureMap(torch.from_numpy(features), GRID), TEMPERATURE)
    flat = features.reshape(16, -1).astype(float)
    for rows, k in ((slice(0, 7), 0), (slice(7, 19), 2)):
        forward = descriptors[rows] @ flat / TEMPERATURE
        behind = logsumexp(background[k] @ flat / TEMPERATURE, axis=0, b=cells[k] / 20)
        reverse = forward - np.logaddexp(logsumexp(forward, axis=0), behind)
        np.testing.assert_allclose(maps.loss[rows].flatten(1), scipy_loss(forward + reverse), atol=2e-4)


@pytest.mark.parametrize("width", [0.8, 1.2, 2.0])
def test_minimum_finds_the_centre_of_a_dip_below_a_cell(width):
    """Three samples of a Gaussian are no parabola, the sharper the less; still far better than a cell."""
    centres = np.random.default_rng(0).uniform((3, 3), (WIDTH - 4, HEIGHT - 4), size=(200, 2))
    lowest, cells = as_maps(dips(centres, width=width)).minimum()
    assert np.abs(cells.numpy() - centres).max() < 0.06 / width**2
    assert (
        np.abs(lowest.numpy() - (CHANCE - 5)) < 5 * (1 - np.exp(-0.25 / width**2))
    ).all()  # half a cell off, at most


def test_minimum_at_the_border_stays_in_the_map():
    corners = np.array([[0.0, 0.0], [WIDTH - 1, 0], [0, HEIGHT - 1], [WIDTH - 1, HEIGHT - 1]])
    _, cells = as_maps(dips(corners)).minimum()
    np.testing.assert_array_equal(cells, corners)


def test_pixels_and_cells_are_each_others_inverse_and_follow_a_shift():
    """A cell of 8 pixels with its centre at pixel 3.5 covers pixels 0 to 7."""
    pixels = torch.tensor([[3.5, 11.5], [0.0, 7.0]])
    torch.testing.assert_close(GRID.to_cells(pixels), torch.tensor([[0.0, 1.0], [-0.4375, 0.4375]]))
    torch.testing.assert_close(GRID.to_pixels(GRID.to_cells(pixels)), pixels)
    torch.testing.assert_close(GRID.to_cells(pixels + 8), GRID.to_cells(pixels) + 1)


def test_features_are_sampled_at_their_pixels_and_repeat_the_border():
    height, width = 5, 9
    grid = FeatureGrid(4.0, 1.25)
    y, x = np.mgrid[:height, :width] * 4.0 + 1.25  # each cell holds its own pixel
    features = FeatureMap(torch.tensor(np.stack([x, y]), dtype=torch.float32), grid)
    pixels = np.random.default_rng(0).uniform((-10, -10), (45, 30), size=(100, 2))
    expected = pixels.clip((1.25, 1.25), (1.25 + 4 * (width - 1), 1.25 + 4 * (height - 1)))
    # cubic interpolation need not be exact for a ramp, nor where the ramp ends: an eighth of a cell
    np.testing.assert_allclose(features.sample(torch.tensor(pixels)), expected, atol=0.5)
    whole = torch.tensor([[1.25 + 4 * 3, 1.25 + 4 * 2]])
    np.testing.assert_allclose(features.sample(whole), whole, atol=1e-4)


def test_plain_reprojection_error_maps():
    loss = np.random.default_rng(1).uniform(0, CHANCE, size=(6, HEIGHT, WIDTH))
    maps = reprojection_error_maps(as_maps(loss))
    expected = np.full((6, HEIGHT * WIDTH), CHANCE)
    expected[np.arange(6), loss.reshape(6, -1).argmin(1)] = 1e-3
    np.testing.assert_allclose(maps.loss.flatten(1), expected, rtol=1e-6)


def test_samples_are_scipys_bilinear_interpolation():
    rng = np.random.default_rng(2)
    loss = rng.uniform(0, CHANCE, size=(10, HEIGHT, WIDTH))
    cells = rng.uniform((-0.5, -0.5), (WIDTH - 0.5, HEIGHT - 0.5), size=(30, 10, 2))
    sampled = sample_loss(torch.tensor(loss), torch.tensor(cells), torch.ones(30, 10, dtype=torch.bool))
    for n in range(10):
        expected = map_coordinates(loss[n], cells[:, n, ::-1].T, order=1, mode="nearest")
        np.testing.assert_allclose(sampled[:, n], expected, atol=1e-9)


def test_points_outside_and_behind_have_the_outlier_loss():
    loss = torch.zeros(1, HEIGHT, WIDTH)
    cells = torch.tensor(
        [
            [-0.51, 5],
            [5, -0.51],
            [WIDTH - 0.49, 5],
            [5, HEIGHT - 0.49],
            [1e30, 5],
            [5, -1e30],
            [float("inf"), 5],
            [5, 5],
            [-0.49, 5],
        ]
    )[:, None]
    valid = torch.tensor([True] * 7 + [False, True])[:, None]
    expected = torch.tensor([CHANCE] * 8 + [0.0])[:, None]
    torch.testing.assert_close(sample_loss(loss, cells, valid), expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1)])
def test_maps_of_one_row_or_column(shape):
    values = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    y, x = torch.meshgrid(torch.arange(shape[0]), torch.arange(shape[1]), indexing="ij")
    cells = torch.stack([x, y], -1).reshape(-1, 1, 2).double()
    sampled = sample_loss(values, cells, torch.ones(len(cells), 1, dtype=torch.bool))
    torch.testing.assert_close(sampled[:, 0], values.flatten())
