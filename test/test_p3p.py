# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""P3P on random problems with a known pose, against PoseLib, and on degenerate triplets."""

import numpy as np
import poselib
import pytest
import torch

from nre_ros.geometry import so3_exp
from nre_ros.nre.p3p import solve_p3p


def problems(count: int, seed: int):
    """Rays and points [count, 3, 3] of random cameras, and the true R, t."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    axis = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    R = so3_exp(axis / axis.norm(dim=1, keepdim=True) * np.pi * uniform(count, 1))
    depth = 1 + 9 * uniform(count, 3, 1)
    seen = torch.cat([(uniform(count, 3, 2) - 0.5) * 1.4 * depth, depth], dim=-1)
    t = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return seen / seen.norm(dim=-1, keepdim=True), (seen - t[:, None]) @ R, R, t


def test_the_true_pose_is_among_the_solutions():
    rays, points, R, t = problems(20_000, seed=0)
    T, valid = solve_p3p(rays, points)
    error = (T[..., :3, :3] - R[:, None]).abs().amax((-1, -2)) + (T[..., :3, 3] - t[:, None]).abs().amax(-1)
    found = (torch.where(valid, error, torch.inf).amin(-1) < 1e-6).double().mean()
    assert found >= 0.9999
    assert torch.isfinite(T).all()


def test_every_solution_sees_the_points_along_the_rays():
    rays, points, _, _ = problems(2000, seed=1)
    T, valid = solve_p3p(rays, points)
    seen = points[:, None] @ T[..., :3, :3].mT + T[..., None, :3, 3]
    seen = seen / seen.norm(dim=-1, keepdim=True)
    assert (seen - rays[:, None]).abs().amax((-1, -2))[valid].max() < 1e-7
    orthogonal = T[..., :3, :3] @ T[..., :3, :3].mT - torch.eye(3, dtype=torch.float64)
    assert orthogonal.abs().max() < 1e-12 and (torch.linalg.det(T[..., :3, :3]) > 0).all()


def test_solutions_are_those_of_poselib():
    rays, points, _, _ = problems(1000, seed=2)
    T, valid = solve_p3p(rays, points)
    same = 0
    for i in range(len(rays)):
        theirs = [np.c_[pose.R, pose.t] for pose in poselib.p3p(list(rays[i].numpy()), list(points[i].numpy()))]
        ours = list(T[i, valid[i], :3].numpy())
        same += len(ours) == len(theirs) and all(min(np.abs(a - b).max() for b in theirs) < 1e-5 for a in ours)
    assert same >= 995  # double roots may be counted once or twice


@pytest.mark.parametrize(
    "points",
    [
        [[0, 0, 2], [0, 0, 3], [0, 0, 4]],  # collinear
        [[1, 0, 2], [1, 0, 2], [0, 1, 3]],  # two the same
        [[1, 0, 2], [1, 0, 2], [1, 0, 2]],  # all the same
        [[0, 0, 0], [0, 0, 0], [0, 0, 0]],
        [[1e9, 0, 0], [0, 1e9, 0], [1e-9, 0, 1]],
    ],
)
def test_degenerate_triplets_have_no_nan(points):
    rays, _, _, _ = problems(5, seed=3)
    rays[0] = rays[0, :1]  # three times the same ray, too
    T, _ = solve_p3p(rays, torch.tensor(points, dtype=torch.float64).expand(5, 3, 3))
    assert torch.isfinite(T).all()


def test_collinear_and_coincident_points_have_no_solution():
    rays, _, _, _ = problems(2, seed=4)
    points = torch.tensor([[[0, 0, 2], [0, 0, 3], [0, 0, 4]], [[1, 0, 2], [1, 0, 2], [0, 1, 3]]], dtype=torch.float64)
    _, valid = solve_p3p(rays, points)
    assert not valid.any()
