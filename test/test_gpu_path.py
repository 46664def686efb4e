# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The estimator's path for GPUs, without a GPU: on the stand-in of ``benchmarks/cuda_double.py``, and on fake tensors."""

import importlib
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from nre_ros.device_constants import device_constant
from nre_ros.features import FeatureGrid
from nre_ros.geometry import Camera
from nre_ros.nre import consensus, fine, gnc, maps, p3p, problem
from nre_ros.nre.fine import _cubic_matrix
from nre_ros.nre.operators import reference_only

sys.path.append(str(ROOT / "benchmarks"))
cuda_double = pytest.importorskip("cuda_double")
import counters  # noqa: E402

pytestmark = pytest.mark.skipif(
    not cuda_double.available(), reason="needs a build of torch without CUDA, and its table of device guards"
)
CAMERA = Camera(320, 240, 260.0, 258.0, 161.0, 118.0)
PRESENT = {"launches": 7600, "waits": 35, "copies": 8}
"""What a query asks of a GPU at most, at present; ``counters.TARGETS`` are to be reached."""


@pytest.fixture(scope="module")
def query():
    return counters.rendered_query(CAMERA, points=300)


@pytest.fixture(scope="module")
def counted(query):
    yield counters.count(query)
    for kept in (device_constant, _cubic_matrix):
        kept.cache_clear()  # no other test gets the stand-in's tensors


def test_the_path_for_gpus_reaches_the_pose_of_the_references(query, counted):
    """With data, to its end; two devices that meet anywhere would raise."""
    with reference_only():
        expected = query.estimator.localize(query.features, query.keyframes, CAMERA)
    np.testing.assert_allclose(counters.pose(counted[1]), expected.T_cam_map.numpy(), atol=1e-9)


def test_launches_waits_and_copies_of_a_query(counted):
    totals = counted[0].totals()
    assert {name: number for name, number in totals.items() if number > PRESENT[name]} == {}, counted[0]


# --- the stand-in itself ------------------------------------------------------------------------------


def counts_of(function):
    with torch.inference_mode(), cuda_double.CudaDouble() as double:
        function(cuda_double.to_device(torch.arange(12.0).reshape(3, 4)))
    return double.counts.totals()


@pytest.mark.parametrize(
    ("function", "launches", "waits", "copies"),
    [
        (lambda a: a + 1, 1, 0, 0),
        (lambda a: a.mT[1], 0, 0, 0),
        (lambda a: a @ a.mT, 1, 0, 0),
        (lambda a: a.sum().item(), 1, 1, 0),
        (lambda a: bool(a.any()), 1, 1, 0),
        (lambda a: a.tolist(), 0, 1, 1),
        (lambda a: a.cpu().numpy(), 0, 1, 1),
        (lambda a: torch.nonzero(a), 1, 1, 0),
        (lambda a: a[a > 2], 2, 1, 0),
        (lambda a: a[[0, 2]], 1, 0, 1),
        (lambda a: a.new_tensor([1.0, 2.0]), 0, 0, 1),
        (lambda a: torch.tensor([1.0], device=a.device), 0, 0, 1),
        (lambda a: torch.zeros(3).to(a.device), 0, 0, 1),
        (lambda a: torch.zeros(3, device=a.device), 1, 0, 0),
        (lambda a: a.to(torch.float64), 1, 0, 0),
        (lambda a: torch.linalg.inv(a[:, :3] + torch.eye(3, device=a.device)), 3, 1, 0),
        (lambda a: torch.cuda.synchronize(), 0, 1, 0),
    ],
)
def test_the_stand_in_counts_what_a_gpu_would_be_asked(function, launches, waits, copies):
    found = counts_of(function)
    assert (found["waits"], found["copies"]) == (waits, copies)
    assert launches <= found["launches"] <= launches + 1  # torch's versions differ by a fill


@pytest.mark.parametrize("function", [lambda a: a + torch.ones(4), lambda a: torch.cat([a, torch.ones(1, 4)])])
def test_tensors_of_two_devices_that_meet_raise(function):
    with pytest.raises(RuntimeError, match="same device"):
        counts_of(function)


def test_numbers_on_the_stand_in_are_not_read_by_accident():
    with pytest.raises(TypeError, match="numpy"):
        counts_of(lambda a: a.numpy())
    with pytest.raises(TypeError, match="numpy"):
        counts_of(lambda a: np.asarray(a))


# --- torch's fake tensors ---------------------------------------------------------------------------------


@pytest.fixture
def fake():
    """Fake tensors on the GPU: ``fake(shape, dtype)``."""
    kept = (device_constant, _cubic_matrix)
    with cuda_double.device_guard(), FakeTensorMode(), torch.inference_mode():
        for function in kept:
            function.cache_clear()
        yield lambda *shape, dtype=torch.float32: torch.empty(*shape, dtype=dtype, device=cuda_double.DEVICE)
    for function in kept:
        function.cache_clear()


def test_no_reference_waits_for_the_gpu_and_all_its_tensors_are_there(fake):
    """A wait raises here, and so do tensors of two devices."""
    T, points, rows = fake(3, 4, 4, dtype=torch.float64), fake(50, 3, dtype=torch.float64), fake(50, dtype=torch.long)
    loss, features = fake(50, 30, 40), fake(24, 30, 40)
    grid = FeatureGrid(8.0, 3.5)
    triplets = fake(9, 3, 3, dtype=torch.float64)
    local = gnc.cut_windows(loss, 7.0, grid, fake(3, 50, 2, dtype=torch.float64), 4, rows)
    cubic = fine._cubic_matrix(4, 2, torch.float32, cuda_double.DEVICE)
    centre = fake(50, 2, dtype=torch.long)
    results = [
        p3p.solve_p3p.reference(triplets, triplets),
        problem.mean_losses.reference(T, points, loss, rows, 7.0, grid, CAMERA),
        maps.loss_maps.reference(fake(50, 24), (20, 30), fake(2, 8, 24), (9, 9), features, 0.1, loss, 3.5, 3),
        gnc.window_moments.reference(T, points, CAMERA, local, 1.0),
        gnc.project_points.reference(T, points, CAMERA),
        fine.window_values.reference(fake(50, 24), features, centre, cubic, 4, 0.1, fake(50)),
        consensus.draw_weighted_triplets.reference(fake(50, dtype=torch.float64), fake(9, 3, dtype=torch.float64)),
        gnc._step(gnc._expand(T, points, CAMERA, local, 1.0), fake(3, dtype=torch.float64)),
    ]
    flat = [part for result in results for part in (result if isinstance(result, tuple) else (result,))]
    assert {part.device for part in flat} == {cuda_double.DEVICE}


def test_fake_tensors_notice_waits_and_tensors_of_two_devices(fake):
    a = fake(3)
    for wait in (lambda: a[0].item(), lambda: a[a > 0], lambda: torch.nonzero(a), lambda: bool(a.any())):
        with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
            wait()
    with pytest.raises(RuntimeError, match="same device"):
        a + torch.empty(3)


# --- the script for a GPU -------------------------------------------------------------------------------


def test_the_script_for_a_gpu_runs_dry_on_the_cpu(query):
    script = importlib.import_module("gpu")
    operators, queries = script.measure(query, torch.device("cpu"), seconds=5.0, repetitions=2)
    names = {row[0] for row in operators.rows}
    assert {"loss_maps", "solve_p3p", "mean_losses", "refine_in_maps", "refine_in_windows", "window_values"} <= names
    differences = {row[0]: row[1] for row in operators.rows}
    assert differences["refine_in_maps"] < 1e-3 and differences["window_values"] < 1e-3
    assert [row[0] for row in queries.rows] == ["network", "estimator", "both"]
    assert any("equal poses" in note for note in queries.notes)
    millimetres = float(queries.notes[0].split()[1])
    assert millimetres < script.POSE_LIMITS[0]
