# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The covariance against the scatter of many estimates, and against numerical differentiation."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from synthetic import CAMERA, CHANCE, GRID, dips, opencv_pixels, points_in_view, true_pose

from nre_ros.geometry import left_update
from nre_ros.nre.gnc import LocalMaps, cut_windows, refine
from nre_ros.nre.uncertainty import _Expansion, _left_to_map, pose_covariance

SIGMA, BLOCK = 1.0, 32.0


def centre_and_rotation(T_cam_map: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Error [6] of a camera's centre and of its rotation, in the map's axes."""
    R, R0 = T_cam_map[:3, :3], truth[:3, :3]
    centre = -R.T @ T_cam_map[:3, 3] + R0.T @ truth[:3, 3]
    return np.r_[centre, Rotation.from_matrix(R.T @ R0).as_rotvec()]


def blockwise_points(per_block: int, seed: int = 0):
    """Points [N, 3], their pixels and the index of their 32-pixel block, ``per_block`` in each of 35 blocks."""
    truth = true_pose(seed)
    points, pixels = points_in_view(6000, truth, seed, margin=16.0)
    block = (pixels // BLOCK).astype(int) @ [1, 100]
    chosen, index = [], []
    for i, name in enumerate(np.random.default_rng(seed).permutation(np.unique(block))[:35]):
        chosen += (block == name).nonzero()[0][:per_block].tolist()
        index += [i] * per_block
    return truth, points[chosen], pixels[chosen], np.array(index)


@pytest.mark.parametrize("per_block", [1, 4])
def test_covariance_is_the_scatter_of_estimates(per_block):
    """Peaks displaced by 0.3 cells of noise that the points of an image block share.

    With four points a block, which agree in their error, a count of points would say a quarter
    of the variance.
    """
    trials = 300
    truth, points, pixels, block = blockwise_points(per_block)
    noise = np.random.default_rng(1).normal(scale=0.3, size=(trials, 35, 2))[:, block]
    cells = torch.tensor(GRID.to_cells(pixels))[None]
    maps = [cut_windows(torch.tensor(dips(cells[0].numpy() + n)), CHANCE, GRID, cells, 7) for n in noise]
    values = torch.cat([m.values for m in maps])
    start = torch.tensor(truth).expand(trials, 4, 4)
    points = torch.tensor(points)
    found = refine(start, points, CAMERA, LocalMaps(values, maps[0].origin, GRID), GRID, (SIGMA,))
    scatter = np.array([centre_and_rotation(T, truth) for T in found.T.numpy()])
    told = torch.stack([pose_covariance(T, points, CAMERA, m, SIGMA) for T, m in zip(found.T, maps)]).numpy()
    ratio = np.sqrt(np.diagonal(told.mean(0))) / scatter.std(0)
    assert (ratio > 0.8).all() and (ratio < 1.25).all(), ratio
    # the whole matrix, not its diagonal alone: the squared distance in its units is 6 on average
    weight = np.linalg.inv(told.mean(0))
    assert 4 < np.einsum("ni,ij,nj->n", scatter, weight, scatter).mean() < 9


def test_increments_of_the_pose_become_those_of_the_camera_in_the_map():
    truth, step = true_pose(3), 1e-6
    columns = []
    for axis in range(6):
        delta = torch.zeros(6, dtype=torch.float64)
        delta[axis] = step
        columns.append(centre_and_rotation(left_update(torch.tensor(truth), delta).numpy(), truth) / step)
    np.testing.assert_allclose(_left_to_map(torch.tensor(truth)), np.array(columns).T, atol=1e-5)


def covariance_of(truth, points, pixels, noise: float = 0.3):
    cells = GRID.to_cells(pixels)
    loss = torch.tensor(dips(cells + np.random.default_rng(2).normal(scale=noise, size=cells.shape)))
    maps = cut_windows(loss, CHANCE, GRID, torch.tensor(cells)[None], 7)
    T, points = torch.tensor(truth), torch.tensor(points)
    T = refine(T[None], points, CAMERA, maps, GRID, (SIGMA,)).T[0]
    return pose_covariance(T, points, CAMERA, maps, SIGMA)


def test_covariance_is_symmetric_positive_and_shrinks_with_the_noise():
    truth, points, pixels, _ = blockwise_points(2)
    large, small = (covariance_of(truth, points, pixels, noise) for noise in (0.4, 0.1))
    for covariance in (large, small):
        torch.testing.assert_close(covariance, covariance.T, atol=0, rtol=0)
        assert torch.linalg.eigvalsh(covariance)[0] > 0
    ratio = (large.diagonal() / small.diagonal()).sqrt()
    assert (ratio > 2).all() and (ratio < 8).all()


def test_points_in_one_block_have_no_covariance():
    truth = true_pose()
    points, pixels = points_in_view(4000, truth)
    near = (np.floor(pixels / BLOCK) == [4, 3]).all(1)
    assert near.sum() > 30
    assert covariance_of(truth, points[near], pixels[near]) is None


def test_points_on_a_line_have_no_covariance():
    """They leave the rotation about the line open."""
    truth = true_pose()
    ends, _ = points_in_view(2, truth, seed=4)
    points = ends[0] + np.linspace(0, 1, 40)[:, None] * (ends[1] - ends[0])
    assert covariance_of(truth, points, opencv_pixels(points, truth), noise=0.0) is None


def test_flat_maps_have_no_covariance():
    truth, points, pixels, _ = blockwise_points(2)
    flat = torch.zeros(1, len(points), 15, 15, dtype=torch.float64)
    origin = torch.tensor(GRID.to_cells(pixels)).round()[None] - 7
    maps = LocalMaps(flat, origin, GRID)
    assert pose_covariance(torch.tensor(truth), torch.tensor(points), CAMERA, maps, SIGMA) is None


def test_a_pose_on_a_slope_or_maximum_has_no_covariance():
    """Two cells off every dip the loss curves the other way."""
    truth, points, pixels, _ = blockwise_points(2)
    cells = GRID.to_cells(pixels)
    maps = cut_windows(torch.tensor(dips(cells + [2.5, 2.5])), CHANCE, GRID, torch.tensor(cells)[None], 7)
    assert pose_covariance(torch.tensor(truth), torch.tensor(points), CAMERA, maps, SIGMA) is None


def test_no_points_have_no_covariance():
    maps = LocalMaps(torch.zeros(1, 0, 15, 15), torch.zeros(1, 0, 2), GRID)
    assert pose_covariance(torch.tensor(true_pose()), torch.zeros(0, 3).double(), CAMERA, maps, SIGMA) is None


def moved_keyframe(points, centre, xi):
    """Points [N, 3] of a keyframe whose camera at ``centre`` moves by xi [6]: position and rotation vector."""
    return (points - centre) @ Rotation.from_rotvec(xi[3:]).as_matrix().T + centre + xi[:3]


def test_the_estimate_follows_its_keyframes_by_their_influence():
    """Two keyframes with half of the points each; one moves a little, and the minimum is sought again."""
    truth, points, pixels, _ = blockwise_points(2)
    cells = torch.tensor(GRID.to_cells(pixels))
    maps = cut_windows(torch.tensor(dips(cells.numpy())), CHANCE, GRID, cells[None], 7)
    owners = torch.arange(len(points)) % 2
    centres = torch.tensor([[0.3, -0.2, 0.1], [-0.5, 0.4, 0.2]], dtype=torch.float64)

    def minimum(moved: np.ndarray) -> np.ndarray:
        return refine(torch.tensor(truth)[None], torch.tensor(moved), CAMERA, maps, GRID, (SIGMA,)).T[0].numpy()

    found = minimum(points)
    influence = _Expansion(torch.tensor(found), torch.tensor(points), CAMERA, maps, SIGMA).influence(owners, centres)
    # both together: the camera moves as the whole map does
    distance = -found[:3, :3].T @ found[:3, 3]
    for k, centre in enumerate(centres.numpy()):
        for axis in range(6):
            xi = np.zeros(6)
            xi[axis] = 2e-3
            moved = {}
            for sign in (-1, 1):
                shifted = points.copy()
                shifted[owners == k] = moved_keyframe(points[owners == k], centre, sign * xi)
                moved[sign] = centre_and_rotation(minimum(shifted), truth)
            measured = (moved[1] - moved[-1]) / (2 * xi[axis])
            np.testing.assert_allclose(influence[k, :, axis], measured, atol=0.05 * max(1.0, np.linalg.norm(distance)))
    whole = np.eye(6)
    for axis in range(3):
        turned = np.cross(np.eye(3)[axis], distance)
        whole[:3, 3 + axis] = turned
    about_origin = influence.numpy().copy()
    for k, centre in enumerate(centres.numpy()):  # rotations about the map's origin instead of the keyframe
        for axis in range(3):
            about_origin[k, :, 3 + axis] -= about_origin[k, :, :3] @ np.cross(np.eye(3)[axis], -centre)
    np.testing.assert_allclose(about_origin.sum(0), whole, atol=1e-6)
