# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The refinement: derivatives against finite differences, windows against NumPy, poses against the truth."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import CAMERA, CHANCE, GRID, HEIGHT, WIDTH, dips, opencv_pixels, points_in_view, true_pose

from nre_ros.geometry import RADIAL_TANGENTIAL, Camera, left_update
from nre_ros.nre.gnc import (
    LocalMaps,
    _expand,
    curvature,
    cut_windows,
    newton_schedule,
    project_cells,
    refine,
    sigma_schedule,
    smoothed_loss,
    window_moments,
)

SIGMAS = (2.0, 1.0, 0.9, 0.8)
"""Without the smallest: a Gaussian of 0.6 cells sampled at whole cells pulls towards their centres."""


class Problem:
    """Points that are seen where their double-precision loss maps dip."""

    def __init__(self, count: int = 120, seed: int = 0, margin: float = 24.0, camera: Camera = CAMERA):
        self.camera = camera
        truth = true_pose(seed)
        points, pixels = points_in_view(count, truth, seed, margin, camera)
        self.truth, self.points = torch.from_numpy(truth), torch.from_numpy(points)
        self.loss = torch.from_numpy(dips(GRID.to_cells(pixels)))

    def moved(self, count: int = 1, seed: int = 0, scale: float = 0.02) -> torch.Tensor:
        """Poses [count, 4, 4] some 1 to 2 cells off the true one."""
        delta = torch.from_numpy(np.random.default_rng([seed, 2]).normal(scale=scale, size=(count, 6)))
        return left_update(self.truth.expand(count, 4, 4), delta)

    def windows(self, cells, sigma) -> LocalMaps:
        return cut_windows(self.loss, CHANCE, GRID, cells, math.ceil(3 * sigma) + 1)

    def fixed(self, T, radius: int = 9) -> LocalMaps:
        cells = project_cells(T, self.points, self.camera, GRID)
        return cut_windows(self.loss, CHANCE, GRID, cells, radius)

    def refine(self, T, sigmas=SIGMAS):
        return refine(T, self.points, self.camera, self.windows, GRID, sigmas)

    def cells_off(self, T) -> float:
        """Root mean square distance in cells between the projections under T [4, 4] and the true ones."""
        pixels = [opencv_pixels(self.points.numpy(), pose.numpy(), self.camera) for pose in (T, self.truth)]
        return float(np.sqrt((((pixels[0] - pixels[1]) / GRID.stride) ** 2).sum(1).mean()))


def test_schedule_is_the_published_one_within_its_bounds():
    assert sigma_schedule(2.0, 0.6) == (2.0, 1.0, 0.9, 0.8, 0.7, 0.6)
    assert sigma_schedule(16.0, 1.0) == (16.0, 8.0, 4.0, 2.0, 1.0)
    assert sigma_schedule(1e9, 0.0)[:2] == (11264.0, 10240.0) and sigma_schedule(1e9, 0.0)[-1] == 0.2
    assert len(sigma_schedule(1e9, 0.0)) == 29


def test_newtons_schedule_skips_the_scales_between_one_and_the_last():
    assert newton_schedule(2.0, 0.6) == (2.0, 1.0, 0.6) and newton_schedule(1.0, 0.8) == (1.0, 0.8)
    assert newton_schedule(0.9, 0.7) == (0.7,) and newton_schedule(4.0, 1.0) == (4.0, 2.0, 1.0)
    problem = Problem()
    starts = problem.moved(3, scale=0.01)
    few, all_scales = (problem.refine(starts, schedule(2.0, 0.8)) for schedule in (newton_schedule, sigma_schedule))
    torch.testing.assert_close(few.T, all_scales.T, atol=1e-4, rtol=0)


def test_windows_of_selected_maps_equal_those_of_all_maps():
    problem = Problem(20)
    cells = project_cells(problem.moved(2), problem.points, CAMERA, GRID)
    rows = torch.tensor([3, 17, 4])
    some = cut_windows(problem.loss, CHANCE, GRID, cells[:, rows], 3, rows)
    every = cut_windows(problem.loss, CHANCE, GRID, cells, 3)
    assert torch.equal(some.values, every.values[:, rows]) and torch.equal(some.origin, every.origin[:, rows])


@pytest.mark.parametrize("radius", [1, 4])
def test_windows_are_cut_where_they_belong_also_at_the_border_and_beyond(radius):
    loss = np.random.default_rng(0).uniform(0, CHANCE, size=(8, HEIGHT, WIDTH))
    cells = np.array(
        [[20.4, 10.6], [0.2, 0.3], [-0.6, 12], [WIDTH - 1, HEIGHT - 1], [WIDTH + 2, 5], [7, -3], [-500, 4], [1e9, -1e9]]
    )
    maps = cut_windows(torch.from_numpy(loss), CHANCE, GRID, torch.from_numpy(cells)[None], radius)
    pad = 12
    padded = np.pad(CHANCE - loss, ((0, 0), (pad, pad), (pad, pad)))
    for n, (x, y) in enumerate(np.round(cells).astype(int)):
        near = -pad + radius <= x < WIDTH + pad - radius and -pad + radius <= y < HEIGHT + pad - radius
        expected = np.zeros((2 * radius + 1,) * 2)
        if near:
            rows, columns = (slice(c + pad - radius, c + pad + radius + 1) for c in (y, x))
            expected = padded[n, rows, columns]
            assert maps.origin[0, n].tolist() == [x - radius, y - radius]
        np.testing.assert_allclose(maps.values[0, n], expected, atol=1e-12)


def test_smoothed_loss_is_the_sum_over_the_whole_map():
    problem = Problem(30)
    T = problem.moved()
    cells = GRID.to_cells(opencv_pixels(problem.points.numpy(), T[0].numpy()))
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for sigma in (1.0, 0.6):
        squared = (x - cells[:, 0, None, None]) ** 2 + (y - cells[:, 1, None, None]) ** 2
        kernel = np.exp(-squared / (2 * sigma**2)) / (2 * np.pi * sigma**2)
        expected = -(kernel * (CHANCE - problem.loss.numpy())).sum((1, 2))
        ours = smoothed_loss(T, problem.points, CAMERA, problem.fixed(T), sigma)
        np.testing.assert_allclose(ours[0], expected, atol=1e-9)
        # what the windows of the estimator leave out is negligible
        cut = smoothed_loss(T, problem.points, CAMERA, problem.windows(torch.from_numpy(cells)[None], sigma), sigma)
        np.testing.assert_allclose(cut[0], expected, rtol=5e-3)


@pytest.mark.parametrize("sigma", [2.0, 0.6])
def test_gradient_is_the_finite_difference_of_the_smoothed_loss(sigma):
    problem, step = Problem(margin=0.0), 1e-6
    T = problem.moved()
    maps = problem.fixed(T)
    _, gradient, _, _ = _expand(T, problem.points, CAMERA, maps, sigma)
    for axis in range(6):
        delta = torch.zeros(1, 6, dtype=torch.float64)
        delta[0, axis] = step
        ahead, behind = (
            smoothed_loss(left_update(T, sign * delta), problem.points, CAMERA, maps, sigma).sum() for sign in (1, -1)
        )
        assert float(gradient[0, axis]) == pytest.approx(float((ahead - behind) / (2 * step)), rel=1e-5, abs=1e-3)


@pytest.mark.parametrize("sigma", [2.0, 0.7])
def test_curvature_is_the_second_difference_in_the_image(sigma):
    """The principal point moves every projection by as many pixels."""
    problem, step = Problem(40), 1e-2
    T = problem.moved(scale=0.1)  # far off: of both signs
    maps = problem.fixed(T)

    def loss(dx, dy):
        camera = replace(CAMERA, cx=CAMERA.cx + dx * GRID.stride, cy=CAMERA.cy + dy * GRID.stride)
        return smoothed_loss(T, problem.points, camera, maps, sigma)[0]

    xx = (loss(step, 0) + loss(-step, 0) - 2 * loss(0, 0)) / step**2
    yy = (loss(0, step) + loss(0, -step) - 2 * loss(0, 0)) / step**2
    xy = (loss(step, step) + loss(-step, -step) - loss(step, -step) - loss(-step, step)) / (4 * step**2)
    moments, _, _ = window_moments(T, problem.points, CAMERA, maps, sigma)
    ours = curvature(moments[0], sigma)
    expected = torch.stack([xx, xy, xy, yy], -1).reshape(-1, 2, 2)
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)
    assert (torch.linalg.eigvalsh(expected) < 0).any() and (torch.linalg.eigvalsh(expected) > 0).all(-1).any()


def test_a_lower_bound_of_the_curvature_changes_low_eigenvalues_only():
    problem, sigma, share = Problem(80), 0.9, 0.05
    T = problem.moved(scale=0.05)
    moments, _, _ = window_moments(T, problem.points, CAMERA, problem.fixed(T), sigma)
    values, vectors = torch.linalg.eigh(curvature(moments[0], sigma))
    floor = share * moments[0, :, 0, 0, None] / sigma**2
    expected = vectors @ torch.diag_embed(values.maximum(floor)) @ vectors.mT
    torch.testing.assert_close(curvature(moments[0], sigma, smallest=share), expected, atol=1e-9, rtol=1e-6)
    assert (values < floor).any()
    _, _, H, _ = _expand(T, problem.points, CAMERA, problem.fixed(T), sigma)
    torch.testing.assert_close(H, H.mT)
    assert (torch.linalg.eigvalsh(H) >= -1e-9 * torch.linalg.eigvalsh(H).max()).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_true_pose_is_found_to_a_hundredth_of_a_cell(seed):
    problem = Problem(seed=seed)
    start = problem.moved(seed=seed, scale=0.04)
    found = problem.refine(start)
    assert problem.cells_off(start[0]) > 0.5  # it had something to do
    assert problem.cells_off(found.T[0]) < 0.01
    R = found.T[0, :3, :3]
    torch.testing.assert_close(R @ R.T, torch.eye(3, dtype=torch.float64), atol=1e-12, rtol=0)


def test_outliers_do_not_move_the_pose():
    """The truncated loss is blind to what lies beyond a few sigma: no bias from gross outliers."""
    problem = Problem(200)
    wrong = np.random.default_rng(5).uniform((0, 0), (WIDTH - 1, HEIGHT - 1), size=(200, 2))
    truth = GRID.to_cells(opencv_pixels(problem.points.numpy(), problem.truth.numpy()))
    far = np.linalg.norm(wrong - truth, axis=1) > 12
    problem.loss[far.nonzero()[0][:80]] = torch.from_numpy(dips(wrong))[far.nonzero()[0][:80]]
    assert problem.cells_off(problem.refine(problem.moved()).T[0]) < 0.01


@pytest.mark.parametrize("sigma", [2.0, 1.0])
def test_no_scale_ends_with_a_higher_loss_than_it_began(sigma):
    problem = Problem()
    starts = problem.moved(20, scale=0.06)
    maps = problem.fixed(starts)
    found = refine(starts, problem.points, CAMERA, maps, GRID, (sigma,))
    before = smoothed_loss(starts, problem.points, CAMERA, maps, sigma).sum(-1)
    after = smoothed_loss(found.T, problem.points, CAMERA, maps, sigma).sum(-1)
    assert (after <= before + 1e-9).all() and (after < before - 1).any()
    torch.testing.assert_close(found.cost, after)


def test_the_refined_pose_is_a_minimum():
    """No pose nearby has a lower loss at the last scale."""
    problem = Problem()
    found = problem.refine(problem.moved())
    maps = problem.fixed(found.T)
    near = left_update(
        found.T.expand(200, 4, 4), torch.randn(200, 6, generator=torch.Generator().manual_seed(0)).double() * 1e-3
    )
    costs = smoothed_loss(near, problem.points, CAMERA, maps, SIGMAS[-1]).sum(-1)
    assert costs.min() >= smoothed_loss(found.T, problem.points, CAMERA, maps, SIGMAS[-1]).sum() - 1e-3


def test_several_starts_at_once_end_where_each_ends_alone():
    problem = Problem()
    starts = problem.moved(6, scale=0.03)
    together = problem.refine(starts)
    for i in range(6):
        alone = problem.refine(starts[i : i + 1])
        torch.testing.assert_close(together.T[i], alone.T[0], atol=1e-7, rtol=0)
        assert int(together.steps[i]) == int(alone.steps[0]) > 0


def assert_stays(points, loss, T, camera=CAMERA):
    def windows(cells, sigma):
        return cut_windows(loss, CHANCE, GRID, cells, 7)

    found = refine(T, points, camera, windows, GRID, SIGMAS)
    torch.testing.assert_close(found.T, T)
    assert (found.cost == 0).all() and (found.steps == 0).all()


def test_points_behind_the_camera_leave_the_pose_alone():
    problem = Problem(20)
    behind = problem.truth[None].clone()
    behind[0, 2, 3] -= 100
    assert_stays(problem.points, problem.loss, behind)


def test_flat_maps_and_no_points_leave_the_pose_alone():
    problem = Problem(20)
    assert_stays(problem.points, torch.full_like(problem.loss, CHANCE), problem.moved())
    assert_stays(problem.points[:0], problem.loss[:0], problem.moved())


@pytest.mark.parametrize("depth", [1.01e-4, 1e-3, 1e-2])
def test_points_beside_the_camera_do_not_disturb_the_others(depth):
    """In front by a hair and far to the side: with k3 their projections are beyond single precision."""
    camera = Camera(320, 240, 260.0, 258.0, 161.0, 118.0, RADIAL_TANGENTIAL, (-0.12, 0.03, 1e-3, -5e-4, 0.01))
    alone = Problem(camera=camera)
    start = alone.moved()
    beside = torch.linalg.inv(start[0]) @ torch.tensor([500.0, 3.0, depth, 1.0], dtype=torch.float64)
    both = Problem(camera=camera)
    both.points = torch.cat([both.points, beside[None, :3]])
    both.loss = torch.cat([both.loss, both.loss[:1]])
    torch.testing.assert_close(both.refine(start).T, alone.refine(start).T, atol=1e-6, rtol=0)


def test_one_and_two_points_give_finite_poses():
    for count in (1, 2):
        problem = Problem(count)
        found = problem.refine(problem.moved())
        assert torch.isfinite(found.T).all() and problem.cells_off(found.T[0]) < 0.05
