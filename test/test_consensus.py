# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The sampling consensus on loss maps whose truth is known."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from synthetic import CAMERA, CHANCE, GRID, HEIGHT, WIDTH, as_maps, dips, opencv_pixels, points_in_view, true_pose

from nre_ros.geometry import RADIAL_TANGENTIAL, Camera, invert, pose_error
from nre_ros.nre import consensus
from nre_ros.nre.consensus import p3p_consensus
from nre_ros.nre.maps import NREMaps
from nre_ros.nre.problem import PoseProblem


def problem(count: int = 200, outliers: float = 0.4, twins: float = 0.2, seed: int = 0):
    """Points, maps and the true T_cam_map; some maps dip elsewhere, some at a second place as well."""
    rng = np.random.default_rng([seed, 1])
    T = true_pose(seed)
    points, pixels = points_in_view(count, T, seed)
    cells = GRID.to_cells(pixels)
    elsewhere = rng.uniform((0, 0), (WIDTH - 1, HEIGHT - 1), size=(count, 2))
    wrong = rng.uniform(size=count) < outliers
    cells[wrong] = elsewhere[wrong]
    loss = dips(cells)
    twin = ~wrong & (rng.uniform(size=count) < twins)
    other = rng.uniform((0, 0), (WIDTH - 1, HEIGHT - 1), size=(count, 2))
    loss[twin] = np.minimum(loss[twin], dips(other, depth=5.5)[twin])  # deeper than the true one
    return torch.from_numpy(points), as_maps(loss, rng.uniform(size=count)), T


def run(points, maps, seed: int = 0, **options):
    generator = torch.Generator().manual_seed(seed)
    return p3p_consensus(
        PoseProblem(points, maps, CAMERA), generator, **{"n_iter_p3p": 1000, "top_n_p3p": 1.0, **options}
    )


def errors(T_cam_map, truth):
    metres, radians = pose_error(invert(T_cam_map.numpy()), invert(truth))
    return metres, np.degrees(radians)


@pytest.mark.parametrize("seed", range(4))
def test_pose_is_found_among_outliers_and_maps_with_two_minima(seed):
    points, maps, truth = problem(seed=seed)
    metres, degrees = errors(run(points, maps).T[0], truth)
    assert metres < 0.02 and degrees < 0.5


@pytest.mark.parametrize("seed", range(5))
def test_a_pose_that_one_of_five_keyframes_shows_is_found(seed):
    """A tenth of the points is right: three of all points are so in 1 of 1000 draws, three of their keyframe in 1 of 8."""
    points, maps, truth = problem(count=500, outliers=1.0, twins=0.0, seed=seed)
    right, right_maps, _ = problem(count=50, outliers=0.0, twins=0.0, seed=seed)
    points[:50] = right
    maps = NREMaps.of(torch.cat([right_maps.loss, maps.loss[50:]]), maps.entropy, maps.grid)
    found = run(points, maps, seed, counts=(100,) * 5, n_iter_p3p=2000)
    assert errors(found.T[0], truth)[0] < 0.05 and not found.search_cut


@pytest.mark.parametrize("counts", [(), (200,), (60, 40, 100), (100, 0, 3, 97)])
def test_half_of_the_triplets_are_of_one_keyframe_each(solved, counts):
    points, maps, _ = problem(count=200, outliers=0.0, twins=0.0)
    maps = as_maps(maps.loss.numpy(), entropy=np.full(200, 2.0))
    run(points, maps, counts=counts)
    drawn = (torch.cat(solved)[:, :, None] == points).all(-1).double().argmax(-1)
    keyframes = torch.searchsorted(torch.tensor(counts or (200,)).cumsum(0), drawn, right=True)
    of_one = float((keyframes == keyframes[:, :1]).all(1).double().mean())
    shares = np.array(counts or (200,)) / 200
    assert of_one == pytest.approx(1 if len(counts) < 2 else 0.5 + 0.5 * (shares**3).sum(), abs=0.05)
    assert len(drawn) == 1000


def test_a_search_without_a_pose_that_explains_the_maps_is_reported_as_cut():
    points, maps, _ = problem(outliers=1.0, twins=0.0)
    assert run(points, maps).search_cut
    points, maps, _ = problem(outliers=0.0, twins=0.0)
    assert not run(points, maps).search_cut
    assert run(points[:3], maps[torch.arange(3)]).search_cut


def test_the_most_informative_share_of_the_points_is_used_and_is_enough():
    points, maps, truth = problem(count=400, outliers=0.2, twins=0.0)
    loss = maps.loss.clone()
    loss[::2] = CHANCE - 0.2 * (CHANCE - loss[::2])  # every second map tells little
    found = run(points, as_maps(loss.numpy()), top_n_p3p=0.25)
    assert len(found.rows) == 100 and (found.rows % 2 == 1).all()
    assert errors(found.T[0], truth)[0] < 0.05


def test_costs_are_mean_losses_at_opencvs_projections():
    points, maps, truth = problem(count=60)
    poses = np.stack([truth, true_pose(5)])
    ours = PoseProblem(points, maps, CAMERA).mean_losses(torch.from_numpy(poses))
    cells = GRID.to_cells(opencv_pixels(points.numpy(), truth))
    expected = [map_coordinates(m, c[::-1][:, None], order=1)[0] for m, c in zip(maps.loss.numpy(), cells)]
    assert float(ours[0]) == pytest.approx(np.mean(expected), abs=1e-3)
    assert ours[1] > ours[0] + 0.5


def test_poses_come_best_first_with_their_costs():
    points, maps, _ = problem()
    found = run(points, maps, best=5)
    assert found.T.shape == (5, 4, 4) and (found.cost.diff() >= 0).all()
    cost = PoseProblem(points, maps, CAMERA)[found.rows].mean_losses(found.T)
    torch.testing.assert_close(cost, found.cost)


@pytest.fixture
def solved(monkeypatch):
    """The points of all triplets that were handed to the solver."""
    seen = []

    def spy(rays, points):
        seen.append(points)
        return original(rays, points)

    original = consensus.solve_p3p
    monkeypatch.setattr(consensus, "solve_p3p", spy)
    return seen


@pytest.mark.parametrize("count", [4, 5, 200])
def test_the_points_of_a_triplet_are_distinct(solved, count):
    points, maps, _ = problem(count=count, outliers=0, twins=0)
    run(points, maps)
    triplets = torch.cat(solved)
    assert len(triplets) == 1000
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert ((triplets[:, i] - triplets[:, j]).norm(dim=-1) > 0).all()


def test_sharp_maps_are_drawn_more_often_and_flat_ones_still_are(solved):
    points, maps, _ = problem(count=100, outliers=0, twins=0)
    maps = as_maps(maps.loss.numpy(), entropy=np.repeat([1.0, 3.0, 5.0], [30, 60, 10]))
    run(points, maps, n_iter_p3p=3000)
    drawn = (torch.cat(solved).reshape(-1, 1, 3) == points).all(-1).double().mean(0)
    sharp, middle, flat = drawn[:30].mean(), drawn[30:90].mean(), drawn[90:].mean()
    assert sharp > 1.5 * middle > 0 and middle > 20 * flat


def test_the_same_seed_draws_the_same_triplets(solved):
    points, maps, _ = problem()
    first, again, _ = (run(points, maps, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.T, again.T) and torch.equal(first.cost, again.cost)
    assert torch.equal(solved[0], solved[1]) and not torch.equal(solved[0], solved[2])


@pytest.mark.parametrize("seed", range(5))
def test_preemption_finds_what_scoring_everything_finds(monkeypatch, seed):
    points, maps, _ = problem(count=400, seed=seed)
    quick = run(points, maps, seed=seed)
    monkeypatch.setattr(consensus, "_PRETEST_POINTS", 10**6)
    full = run(points, maps, seed=seed)
    assert quick.cost[0] >= full.cost[0]
    assert quick.cost[0] == pytest.approx(float(full.cost[0]), rel=0.01)


def flat_maps(count: int):
    return as_maps(np.full((count, HEIGHT, WIDTH), np.log(HEIGHT * WIDTH)))


@pytest.mark.parametrize("count", [1, 3])
def test_fewer_than_four_points_give_no_pose(count):
    points, maps, _ = problem(count=count, outliers=0, twins=0)
    assert run(points, maps).T.shape == (0, 4, 4)


def test_flat_maps_give_no_pose():
    points, _, _ = problem(count=100)
    found = run(points, flat_maps(100))
    assert len(found.T) == 0 and len(found.rows) == 0


def test_points_with_flat_maps_are_not_used():
    points, maps, truth = problem(count=100, outliers=0, twins=0)
    loss = maps.loss.numpy().copy()
    loss[:70] = np.log(HEIGHT * WIDTH)
    found = run(points, as_maps(loss))
    assert set(found.rows.tolist()) == set(range(70, 100)) and errors(found.T[0], truth)[0] < 0.05


@pytest.mark.parametrize("place", [[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
def test_coincident_points_give_no_pose(place):
    _, maps, _ = problem(count=50)
    assert len(run(torch.tensor(place, dtype=torch.float64).expand(50, 3), maps).T) == 0


def test_collinear_points_give_no_pose():
    _, maps, _ = problem(count=50)
    line = torch.linspace(0, 5, 50, dtype=torch.float64)[:, None] * torch.tensor([1.0, 2.0, -0.5], dtype=torch.float64)
    assert len(run(line, maps).T) == 0


def test_points_far_beside_the_camera_have_the_outlier_loss_in_single_precision_too():
    """A rational model's polynomials overflow there; a map of a town has such points for some pose."""
    lens = (0.3, -0.1, 0.0011, -0.0007, 0.02, 0.5, -0.05, 0.01)
    camera = Camera(320, 240, 260.0, 258.0, 161.0, 118.0, RADIAL_TANGENTIAL, lens)
    beside = torch.tensor([[800.0, 5.0, 1.01e-4], [-900.0, 0.0, 2e-4]], dtype=torch.float64)
    maps = NREMaps.of(torch.zeros(2, HEIGHT, WIDTH), torch.zeros(2), GRID)
    cost = PoseProblem(beside, maps, camera).mean_losses(torch.eye(4, dtype=torch.float64)[None])
    assert float(cost[0]) == pytest.approx(CHANCE)
