# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Fine windows: where they lie, what they hold, and how they are enlarged, against closed forms and SciPy."""

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicHermiteSpline
from scipy.special import log_softmax
from synthetic import CAMERA, CHANCE, GRID, as_maps, dips, opencv_pixels, points_in_view, true_pose

from nre_ros.features import FeatureGrid, FeatureMap
from nre_ros.geometry import left_update
from nre_ros.nre.fine import fine_maps
from nre_ros.nre.problem import PoseProblem

FINE = FeatureGrid(4.0, 1.25)
ROWS, COLUMNS = 60, 80
WAVES = np.random.default_rng(0).normal(scale=1 / 14, size=(32, 2))
"""Spatial frequencies (radians a pixel) of the descriptor field."""


def field(pixels: np.ndarray) -> np.ndarray:
    """Unit-length descriptors [..., 64] of pixels: <f(a), f(b)> = mean cos(w (a - b)), largest at a = b."""
    phase = pixels @ WAVES.T
    return np.concatenate([np.cos(phase), np.sin(phase)], -1) / np.sqrt(len(WAVES))


def fine_features() -> FeatureMap:
    y, x = np.mgrid[:ROWS, :COLUMNS]
    descriptors = field(FINE.to_pixels(np.stack([x, y], -1).astype(float)))
    return FeatureMap(torch.tensor(descriptors.transpose(2, 0, 1), dtype=torch.float32), FINE)


class Scene:
    """Points with the descriptors of their true pixels, and a coarse pose that is off by some pixels."""

    def __init__(self, count: int = 150, margin: float = 30.0, seed: int = 0):
        truth = true_pose(seed)
        points, self.pixels = points_in_view(count, truth, seed, margin)
        self.truth, self.points = torch.from_numpy(truth), torch.from_numpy(points)
        self.descriptors = torch.tensor(field(self.pixels), dtype=torch.float32)
        self.coarse = as_maps(dips(GRID.to_cells(self.pixels), depth=6.0))
        delta = torch.tensor([0.012, -0.01, 0.01, 0.0, 0.0, 0.0], dtype=torch.float64)
        self.prior = left_update(self.truth, delta)
        self.prior_pixels = opencv_pixels(points, self.prior.numpy())

    def windows(self, T=None, temperature: float = 0.02, window_size: int = 16, enlarge: int = 2):
        T = self.prior if T is None else T
        return fine_maps(self.problem, T, fine_features(), self.descriptors, temperature, window_size, enlarge)

    @property
    def problem(self) -> PoseProblem:
        return PoseProblem(self.points, self.coarse, CAMERA)


def peaks(maps) -> np.ndarray:
    """Pixels [M, 2] of the largest value of each window, by the grid and origin that it names."""
    values = maps.values[0].numpy()
    flat = values.reshape(len(values), -1).argmax(1)
    offset = np.stack([flat % values.shape[2], flat // values.shape[2]], -1)
    return maps.grid.to_pixels(maps.origin[0].numpy() + offset)


def test_peaks_lie_at_the_true_pixels_whatever_the_prior():
    """Fine cells are 2 pixels wide: the nearest is at most 1 off, and on average none.

    The published windows land window_size / 2 fine cells, 16 pixels here, too far right and down.
    """
    scene = Scene()
    assert np.linalg.norm(scene.prior_pixels - scene.pixels, axis=1).min() > 2
    maps, kept = scene.windows()
    assert len(kept) == 150 and maps.grid.stride == 2.0
    off = peaks(maps) - scene.pixels[kept]
    assert np.abs(off).max() < 1.5 and np.abs(off.mean(0)).max() < 0.15


def test_windows_are_centred_on_the_prior():
    scene = Scene()
    maps, kept = scene.windows()
    middle = maps.grid.to_pixels(maps.origin[0].numpy() + 8)
    assert maps.values.shape == (1, 150, 17, 17)
    assert np.abs(middle - scene.prior_pixels[kept]).max() <= 2.0 + 1e-9  # half a cell of the feature map


def hermite(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Catmull-Rom along axis 0: the cubic Hermite spline with central differences as slopes."""
    cells = np.arange(1, len(values) - 1)
    slopes = (values[2:] - values[:-2]) / 2
    return CubicHermiteSpline(cells, values[1:-1], slopes)(places)


def brute_force(scene: Scene, T, n: int, temperature: float, enlarge: int) -> np.ndarray:
    """V of point n's window by the definition, with the features enlarged (not the correlations)."""
    pixel = opencv_pixels(scene.points.numpy()[n : n + 1], T.numpy())[0]
    column, row = np.round(FINE.to_cells(pixel)).astype(int)
    features = fine_features().data.numpy().astype(float).transpose(1, 2, 0)
    padded = np.pad(features, ((2, 2), (2, 2), (0, 0)), mode="edge")  # the border repeats
    half = 8 // enlarge
    patch = padded[row - half : row + half + 5, column - half : column + half + 5]
    places = 2 + np.arange(17) / enlarge
    enlarged = hermite(hermite(patch, places).swapaxes(0, 1), places).swapaxes(0, 1)
    log_probability = log_softmax(enlarged @ scene.descriptors[n].numpy().astype(float) / temperature)
    x, y = np.round(GRID.to_cells(pixel)).astype(int)
    loss = np.pad(scene.coarse.loss[n].numpy().astype(float), 1, constant_values=CHANCE)[y : y + 3, x : x + 3]
    mass = np.exp(-loss[loss < CHANCE - 1e-6]).sum()
    return np.maximum(np.log(enlarge**2 * ROWS * COLUMNS + 1) + log_probability + np.log(mass) - np.log(16), 0)


@pytest.mark.parametrize("temperature, enlarge", [(1.0, 2), (0.05, 2), (0.05, 1), (0.05, 4)])
def test_values_agree_with_a_direct_computation(temperature, enlarge):
    """Points near the border too: their coarse windows and interpolation reach beyond the maps."""
    scene = Scene(40, margin=17.0)
    maps, kept = scene.windows(scene.truth, temperature, enlarge=enlarge)
    assert len(kept) > 15 and maps.grid.stride == 4 / enlarge
    for m, n in enumerate(kept.tolist()):
        expected = brute_force(scene, scene.truth, n, temperature, enlarge)
        np.testing.assert_allclose(maps.values[0, m], expected, atol=2e-3)
    assert (maps.values > 0).any()


def test_points_without_a_whole_window_in_the_image_are_left_out():
    scene = Scene(400, margin=0.0)
    _, kept = scene.windows(scene.truth)
    cells = np.round(FINE.to_cells(scene.pixels))
    inside = ((cells >= 4) & (cells <= [COLUMNS - 5, ROWS - 5])).all(1)
    assert kept.tolist() == inside.nonzero()[0].tolist() and 0 < len(kept) < 400


def test_points_behind_the_camera_are_left_out():
    scene = Scene(20)
    behind = scene.truth.clone()
    behind[2, 3] -= 100.0
    maps, kept = scene.windows(behind)
    assert len(kept) == 0 and maps.values.shape == (1, 0, 17, 17)


@pytest.mark.parametrize("window_size", [8, 32])
def test_a_window_has_window_size_plus_one_cells_along_a_side(window_size):
    scene = Scene(margin=60.0)
    maps, kept = scene.windows(window_size=window_size, temperature=0.05)
    assert maps.values.shape == (1, len(kept), window_size + 1, window_size + 1)
    off = peaks(maps) - scene.pixels[kept]
    near = np.abs(scene.prior_pixels - scene.pixels)[kept].max(1) < window_size - 4
    assert near.sum() > 50 and np.abs(off[near]).max() < 1.5


def test_a_point_without_coarse_probability_there_has_no_weight():
    scene = Scene(20)
    loss = scene.coarse.loss.clone()
    loss[:10] = CHANCE
    scene.coarse = as_maps(loss.numpy())
    maps, _ = scene.windows()
    assert (maps.values[0, :10] == 0).all() and (maps.values[0, 10:].amax((1, 2)) > 1).all()


def test_a_feature_map_smaller_than_a_window_keeps_no_point():
    scene = Scene(10)
    tiny = FeatureMap(fine_features().data[:, :5, :5], FINE)
    _, kept = fine_maps(scene.problem, scene.truth, tiny, scene.descriptors, 0.02)
    assert len(kept) == 0


def test_the_memory_layout_of_the_features_changes_nothing():
    """XFeat's features have their channels innermost, those of the published networks outermost."""
    scene, data = Scene(30), fine_features().data
    outermost, innermost = data.contiguous(), data.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert innermost.stride() != outermost.stride()
    found, expected = (
        fine_maps(scene.problem, scene.prior, FeatureMap(each, FINE), scene.descriptors, 0.05, 16, 2)[0]
        for each in (innermost, outermost)
    )
    torch.testing.assert_close(found.values, expected.values, atol=1e-5, rtol=0)


@pytest.mark.parametrize("window_size, enlarge", [(16, 3), (10, 2), (8, 8)])
def test_windows_that_are_no_whole_number_of_cells_are_refused(window_size, enlarge):
    with pytest.raises(ValueError, match=f"window_size={window_size} must be a multiple of {2 * enlarge}"):
        Scene().windows(window_size=window_size, enlarge=enlarge)


def test_three_fine_cells_per_cell_work_with_a_fitting_window():
    windows, rows = Scene().windows(window_size=12, enlarge=3)
    assert windows.values.shape == (1, len(rows), 13, 13) and len(rows) > 100
