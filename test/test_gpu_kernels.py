# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The GPU's kernels equal the references in torch, run by Triton's interpreter on the CPU."""

import math
import os
import sys

import pytest
import torch

if "nre_ros.nre.triton_kernels" not in sys.modules:
    os.environ.setdefault("TRITON_INTERPRET", "1")
pytest.importorskip(
    "triton", reason="needs Triton, whose interpreter runs the GPU's kernels on a CPU: requirements/triton.txt"
)

from synthetic import CAMERA as RADIAL
from synthetic import CHANCE, GRID, dips, points_in_view, true_pose
from triton.runtime import interpreter as triton_interpreter

from nre_ros.geometry import EQUIDISTANT, RADIAL_TANGENTIAL, Camera, left_update
from nre_ros.nre import fine, gnc, gpu, maps, problem, triton_kernels

if not type(triton_kernels.refine).__name__.startswith("Interpreted"):
    pytest.skip("Triton was imported without its interpreter", allow_module_level=True)

_patched = getattr(triton_interpreter, "_patch_lang_tensor", None)
if _patched is not None:

    def _patch_lang_tensor(tensor, scope):
        """Triton 3.6 takes arrays of one number for numbers, which numpy 2.4 refuses."""
        _patched(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    triton_interpreter._patch_lang_tensor = _patch_lang_tensor

PINHOLE_CAMERA = Camera(320, 240, 260.0, 258.0, 161.0, 118.0)
_RATIONAL = (0.1, -0.05, 1e-3, -5e-4, 0.02, 0.15, -0.02, 0.01)
CAMERAS = {
    "pinhole": PINHOLE_CAMERA,
    "radial": RADIAL,
    "rational": Camera(320, 240, 260.0, 258.0, 161.0, 118.0, RADIAL_TANGENTIAL, _RATIONAL),
    "fisheye": Camera(320, 240, 160.0, 158.0, 161.0, 118.0, EQUIDISTANT, (-0.02, 0.01, -0.004, 0.001)),
}


@pytest.fixture(autouse=True)
def interpreter():
    with gpu.interpreted(), torch.inference_mode():
        yield


def both(operator, *arguments):
    """The kernel's results, and those of the reference."""
    found = gpu.KERNELS[operator.__name__](*arguments)
    assert found is not NotImplemented
    return found, operator.reference(*arguments)


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def unit(*shape, seed=0):
    return torch.nn.functional.normalize(random(*shape, seed=seed), dim=-1)


# --- loss maps --------------------------------------------------------------------------------------


def map_inputs(counts, size, background=7, channels=24, dtype=torch.float32):
    height, width = size
    features = torch.nn.functional.normalize(random(channels, height, width, seed=3), dim=0)
    loss = torch.empty(sum(counts), height, width, dtype=dtype)
    back = unit(len(counts), background, channels, seed=2)
    cells = tuple(100 + k for k in range(len(counts)))
    limit = 0.5 * maps.outlier_loss(height, width)
    return [unit(sum(counts), channels), counts, back, cells, features, 0.05, loss, limit, 3]


def with_own_loss(arguments):
    return [*arguments[:6], torch.empty(arguments[6].shape), *arguments[7:]]


@pytest.mark.parametrize("counts", [(5,), (17, 1, 40), (3, 2)])
@pytest.mark.parametrize("size", [(1, 1), (7, 13), (30, 40)])
def test_loss_maps(counts, size):
    arguments = map_inputs(counts, size)
    arguments[0][0] = arguments[4][:, 0, 0]  # one point that is seen for sure
    other = with_own_loss(arguments)
    found = gpu._loss_maps(*arguments)
    entropy, lowest, best, rate = maps.loss_maps.reference(*other)
    torch.testing.assert_close(arguments[6], other[6], atol=2e-4, rtol=1e-5)
    torch.testing.assert_close(found[0], entropy, atol=5e-4, rtol=1e-4)
    torch.testing.assert_close(found[1], lowest, atol=2e-4, rtol=1e-5)
    torch.testing.assert_close(other[6].flatten(1).gather(1, found[2][:, None])[:, 0], lowest, atol=4e-4, rtol=1e-5)
    torch.testing.assert_close(found[3], rate, atol=2e-2, rtol=0)
    assert found[2].dtype == best.dtype


def test_loss_maps_in_half_precision_are_the_same_rounded():
    arguments = map_inputs((9, 4), (11, 9), dtype=torch.float16)
    full = with_own_loss(arguments)
    found, expected = gpu._loss_maps(*arguments), gpu._loss_maps(*full)
    torch.testing.assert_close(arguments[6].float(), full[6], atol=4e-3, rtol=0)
    for a, b in zip(found, expected):
        assert torch.equal(a, b)


def test_loss_maps_without_points_or_background():
    arguments = map_inputs((0,), (4, 5))
    assert [len(part) for part in gpu._loss_maps(*arguments)] == [0] * 4
    arguments = map_inputs((6, 3), (4, 5), background=0)
    other = with_own_loss(arguments)
    gpu._loss_maps(*arguments)
    maps.loss_maps.reference(*other)
    torch.testing.assert_close(arguments[6], other[6], atol=2e-4, rtol=1e-5)


def test_a_point_whose_matches_all_underflow_says_nothing():
    arguments = map_inputs((3,), (5, 6))
    arguments[5] = 0.005
    mean = arguments[4].mean((1, 2))
    arguments[0][1] = -mean / mean.norm()
    other = with_own_loss(arguments)
    found, expected = gpu._loss_maps(*arguments), maps.loss_maps.reference(*other)
    torch.testing.assert_close(arguments[6], other[6], atol=2e-3, rtol=1e-4)
    torch.testing.assert_close(found[0], expected[0], atol=2e-3, rtol=1e-3)


# --- scores -----------------------------------------------------------------------------------------


def scene(count, camera, seed=0):
    """Points [N, 3] before a camera, loss maps with their minima there, and the true pose [4, 4]."""
    T = true_pose(seed)
    points = torch.tensor(points_in_view(count, T, seed, camera=PINHOLE_CAMERA)[0])
    pixels, _ = gnc.project_points.reference(torch.tensor(T), points, camera)
    loss = torch.tensor(dips(GRID.to_cells(pixels.numpy()), width=2.0), dtype=torch.float32)
    return points, loss, torch.tensor(T)


def moved(T, count, size=0.02):
    return left_update(T.expand(count, 4, 4), size * random(count, 6, seed=5, dtype=torch.float64))


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
def test_mean_losses(camera):
    points, loss, T = scene(203, camera)
    rows = torch.randperm(203, generator=torch.Generator().manual_seed(1))
    poses = torch.cat([moved(T, 4), moved(T, 3, 1.0)])
    poses[-1] = torch.eye(4)  # most points lie behind it
    found, expected = both(problem.mean_losses, poses, points, loss, rows, CHANCE, GRID, camera)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-5)


def test_mean_losses_of_small_maps_no_poses_and_nan():
    points, loss, T = scene(5, PINHOLE_CAMERA)
    rows = torch.arange(5)
    for size in ((1, 1), (1, 7), (6, 1)):
        small = loss[:, : size[0], : size[1]].contiguous()
        outside = maps.outlier_loss(*size)
        found, expected = both(problem.mean_losses, moved(T, 3), points, small, rows, outside, GRID, PINHOLE_CAMERA)
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-5)
    assert both(problem.mean_losses, T[None][:0], points, loss, rows, CHANCE, GRID, PINHOLE_CAMERA)[0].shape == (0,)
    loss[2] = math.nan
    found, expected = both(problem.mean_losses, T[None], points, loss, rows, CHANCE, GRID, PINHOLE_CAMERA)
    assert found.isnan().all() and expected.isnan().all()


# --- refinement -------------------------------------------------------------------------------------


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
def test_refinement_in_maps(camera):
    points, loss, T = scene(45, camera)
    rows, starts = torch.arange(45), moved(T, 2, 0.01)
    arguments = (starts, points, camera, loss, rows, CHANCE, GRID, (1.0, 0.6), 1e-4)
    found, expected = both(gnc.refine_in_maps, *arguments)
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1], expected[1], atol=1e-3, rtol=1e-6)
    assert (found[2] - expected[2]).abs().max() <= 2
    assert (found[0][0] - T).abs().max() < (starts[0] - T).abs().max() / 2


def test_refinement_in_windows():
    points, loss, T = scene(33, RADIAL)
    starts = moved(T, 1, 0.01)
    cells = gnc.project_cells(starts, points, RADIAL, GRID)
    local = gnc.cut_windows(loss, CHANCE, GRID, cells, 4)
    found, expected = both(gnc.refine_in_windows, starts, points, RADIAL, local, (1.0, 0.6), 1e-4)
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1], expected[1], atol=1e-3, rtol=1e-6)


def test_refinement_of_poses_that_see_no_point_leaves_them():
    points, loss, T = scene(7, PINHOLE_CAMERA)
    away = T.clone()
    away[:3] *= -1
    arguments = (away[None], points, PINHOLE_CAMERA, loss, torch.arange(7), CHANCE, GRID, (1.0,), 1e-6)
    found, expected = both(gnc.refine_in_maps, *arguments)
    assert torch.equal(found[0], away[None]) and torch.equal(found[1], expected[1]) and int(found[2]) == 0
    none = (away[None], points[:0], *arguments[2:4], torch.arange(0), *arguments[5:])
    found, expected = both(gnc.refine_in_maps, *none)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    assert gpu._refine_in_maps(T[None][:0], *arguments[1:])[0].shape == (0, 4, 4)


# --- fine windows -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("enlarge", "half"), [(1, 3), (2, 4), (4, 2)])
@pytest.mark.parametrize("count", [0, 1, 6])
def test_window_values(enlarge, half, count):
    features = torch.nn.functional.normalize(random(20, 31, 27), dim=0)
    descriptors = unit(count, 20, seed=1)
    centre = torch.tensor([[half, half], [26 - half, 30 - half], [13, 11], [5, 17], [20, 8], [half, 12]])[:count]
    cubic = fine._cubic_matrix(half, enlarge, torch.float32, torch.device("cpu"))
    offset = random(count, seed=4) + 3
    found, expected = both(fine.window_values, descriptors, features, centre, cubic, half, 0.05, offset)
    torch.testing.assert_close(found, expected, atol=3e-5, rtol=1e-5)


def test_window_values_of_features_that_are_not_finite_are_nan_as_the_references():
    features = torch.nn.functional.normalize(random(8, 20, 20), dim=0)
    features[:, 10, 10] = math.nan
    cubic = fine._cubic_matrix(2, 1, torch.float32, torch.device("cpu"))
    arguments = (unit(2, 8), features, torch.tensor([[10, 10], [4, 4]]), cubic, 2, 0.1, torch.ones(2))
    found, expected = both(fine.window_values, *arguments)
    torch.testing.assert_close(found, expected, atol=3e-5, rtol=1e-5, equal_nan=True)
    assert found[0].isnan().any() and not found[1].isnan().any()
