# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The batched P3P solver against PoseLib's, on random problems with known poses.

Problems as in PoseLib's own benchmark: image points evenly over a field of view of 75 degrees,
depths of 0.1 to 10, a random rotation and translation.
"""

from __future__ import annotations

import math
from time import perf_counter

import numpy as np
import torch
from common import Options, Skip, Table, timed
from scipy.spatial.transform import Rotation

from nre_ros.nre.p3p import solve_p3p

PROBLEMS = 100_000
BATCH = 5000
TOLERANCE = 1e-6
_HALF_VIEW = math.tan(math.radians(75 / 2))


def run(options: Options):
    """Yields the table of random problems and the one of degenerate ones."""
    rays, points, T = problems(PROBLEMS, options.seed)
    rows = [_row("ours, cpu", *_ours(rays, points, "cpu"), T)]
    if torch.cuda.is_available():
        rows.append(_row("ours, cuda", *_ours(rays, points, "cuda"), T))
    notes = [
        f"True: share with a solution whose rotation matrix and translation differ by less than {TOLERANCE:g} "
        "(sum of the two norms) from the true pose. To reach: 99.99 %, 0 not finite.",
        f"Ours: float64, batches of {BATCH}. PoseLib: one Python call a problem, one thread.",
    ]
    try:
        rows.append(_row("PoseLib", *_poselib(rays, points), T))
    except Skip as reason:
        notes.append(f"PoseLib skipped: {reason}")
    columns = ("solver", "problems", "true [%]", "missed", "not finite", "solutions a problem", "time a problem [us]")
    yield Table("Random problems", columns, rows, notes)
    yield _degenerate(options.seed)


def problems(count: int, seed: int):
    """Unit rays [count, 3, 3], points [count, 3, 3] and true poses [count, 4, 4], float64."""
    rng = np.random.default_rng(seed)
    image = rng.uniform(-_HALF_VIEW, _HALF_VIEW, (count, 3, 2))
    rays = np.concatenate([image, np.ones((count, 3, 1))], 2)
    rays /= np.linalg.norm(rays, axis=2, keepdims=True)
    seen = rays * rng.uniform(0.1, 10.0, (count, 3, 1))
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, :3, :3] = Rotation.random(count, random_state=rng).as_matrix()
    T[:, :3, 3] = rng.normal(size=(count, 3))
    return rays, (seen - T[:, None, :3, 3]) @ T[:, :3, :3], T


def _ours(rays, points, device):
    """Candidates [B, 4, 4, 4], their validity [B, 4], seconds."""
    rays, points = (torch.from_numpy(array).to(device) for array in (rays, points))
    with torch.inference_mode():
        solve_p3p(rays[:BATCH], points[:BATCH])
        batches = [timed(solve_p3p, *pair) for pair in zip(rays.split(BATCH), points.split(BATCH))]
    T, valid = (torch.cat([batch[1][k] for batch in batches]).cpu().numpy() for k in range(2))
    return T, valid, sum(batch[0] for batch in batches)


def _poselib(rays, points):
    """The same of PoseLib, one problem after the other."""
    try:
        import poselib
    except ImportError as error:
        raise Skip(f"needs the Python package poselib ({error})") from error
    T = np.tile(np.eye(4), (len(rays), 4, 1, 1))
    valid = np.zeros((len(rays), 4), bool)
    seconds = 0.0
    for k, pair in enumerate(zip(rays, points)):
        started = perf_counter()
        poses = poselib.p3p(*pair)
        seconds += perf_counter() - started
        for i, pose in enumerate(poses):
            T[k, i, :3] = pose.Rt
            valid[k, i] = True
    return T, valid, seconds


def _row(name, candidates, valid, seconds, T):
    difference = candidates - T[:, None]
    error = np.linalg.norm(difference[..., :3, :3], axis=(2, 3)) + np.linalg.norm(difference[..., :3, 3], axis=2)
    finite = np.isfinite(candidates).all((2, 3))
    true = (np.where(valid & finite, error, np.inf) < TOLERANCE).any(1)
    count = len(T)
    not_finite = int((~finite).sum())
    solutions = float(valid.sum() / count)
    return name, count, 100 * float(true.mean()), int((~true).sum()), not_finite, solutions, seconds / count * 1e6


def _degenerate(seed: int) -> Table:
    """Problems that have no isolated solution: what comes back, and that none of it is NaN."""
    rays, points, _ = problems(10_000, seed + 1)
    cases = {
        "collinear points": (rays, np.stack([points[:, 0], (points[:, 0] + points[:, 1]) / 2, points[:, 1]], 1)),
        "two points coincide": (rays, points[:, [0, 0, 2]]),
        "all points coincide": (rays, points[:, [0, 0, 0]]),
        "one point and ray twice": (rays[:, [0, 0, 2]], points[:, [0, 0, 2]]),
        "two rays coincide": (rays[:, [0, 0, 2]], points),
        "all rays coincide": (rays[:, [0, 0, 0]], points),
    }
    table = Table("Degenerate problems, ours", ("case", "problems", "not finite", "solutions a problem"))
    for name, case in cases.items():
        T, valid, _ = _ours(*case, "cpu")
        table.rows.append((name, len(T), int((~np.isfinite(T)).any((2, 3)).sum()), float(valid.mean() * 4)))
    return table
