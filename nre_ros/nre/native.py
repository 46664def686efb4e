# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The operators' kernels for CPUs, in C++ (``src/``).

Each kernel has the arguments and the results of the operator of the same name, which describes them. It returns
``NotImplemented`` for what it does not take: tensors on another device or of another type, shapes that do not fit, indices
out of range, numbers that are not finite. The reference in torch then answers, or raises its own error: a caller sees no
difference between an installation with kernels and one without.
"""

from __future__ import annotations

import functools
import importlib
import logging
import operator
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nre_ros.errors import one_line
from nre_ros.features.base import FeatureGrid
from nre_ros.geometry import EQUIDISTANT, PINHOLE, RADIAL_TANGENTIAL, Camera

if TYPE_CHECKING:
    from nre_ros.nre.gnc import LocalMaps

_LOG = logging.getLogger(__name__)

_INTERFACE = 2
"""Of the extension that this file calls; ``src/CMakeLists.txt`` has the same number."""
_MODELS = {PINHOLE: 0, RADIAL_TANGENTIAL: 1, EQUIDISTANT: 2}


def _load() -> tuple[ModuleType | None, str]:
    """The extension, or why there is none."""
    try:
        extension = importlib.import_module("nre_ros._operators")  # built from src/, if at all
    except ModuleNotFoundError:
        return None, "nre_ros was built without its CPU kernels"
    except ImportError as error:
        return None, f"the CPU kernels of nre_ros cannot be loaded ({one_line(error)})"
    if extension.INTERFACE != _INTERFACE:
        return None, f"the CPU kernels are of another version of nre_ros, build it again ({extension.__file__})"
    return extension, ""


_extension, _absent = _load()


def available() -> bool:
    """Whether the kernels can be used."""
    return _extension is not None


def why_absent() -> str:
    """Returns why the kernels cannot be used; empty if they can."""
    return _absent


def instruction_set() -> str:
    """Returns the instruction set that the kernels use on this processor; empty without kernels."""
    return _extension.instruction_set() if _extension is not None else ""


def instruction_sets() -> list[str]:
    """Returns the instruction sets of the kernels that this processor has, best first; empty without kernels."""
    return _extension.instruction_sets() if _extension is not None else []


@lru_cache(maxsize=1)
def warn_once() -> None:
    """Logs once in the process that the kernels are missing."""
    if _extension is None:
        _LOG.warning(
            "%s: an image takes about three times as long (docs/installation.md#cpu-kernels; `nre_ros info`)", _absent
        )


@lru_cache(maxsize=64)
def _camera(camera: Camera) -> Any:
    assert _extension is not None
    distortion = camera.distortion
    intrinsics = [camera.fx, camera.fy, camera.cx, camera.cy]
    return _extension.Camera(_MODELS[camera.model], intrinsics, list(distortion), camera.max_radius)


_REFUSALS = (AttributeError, IndexError, OverflowError, RuntimeError, TypeError, ValueError)
"""What the extension and the conversions of arguments raise; not MemoryError, since the references need more."""


def _kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel that declines whatever it refuses."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except _REFUSALS as error:
            _LOG.debug("%s declines: %s", function.__name__, error)
            return NotImplemented

    return call


def _fits_float32(number: float) -> bool:
    return abs(number) <= torch.finfo(torch.float32).max


def _on_cpu(*tensors: torch.Tensor) -> bool:
    """Whether all tensors are on the CPU, and none needs a gradient."""
    return all(tensor.device.type == "cpu" and not tensor.requires_grad for tensor in tensors)


def _are(dtype: torch.dtype, *tensors: torch.Tensor) -> bool:
    return all(tensor.dtype == dtype for tensor in tensors)


def _array(tensor: torch.Tensor) -> Any:
    """The tensor's numbers as an array without gaps."""
    return tensor.contiguous().numpy()


def _whole_numbers(values: Iterable[int]) -> Any:
    """Whole numbers as an array; numpy would round others."""
    return np.array([operator.index(value) for value in values], dtype=np.int64)


def _threads() -> int:
    return torch.get_num_threads()


@_kernel
def _solve_p3p(rays: torch.Tensor, points: torch.Tensor) -> Any:
    """Kernel of ``p3p.solve_p3p``."""
    if not (_on_cpu(rays, points) and _are(torch.float64, rays, points)):
        return NotImplemented
    assert _extension is not None
    T = torch.empty(len(rays), 4, 4, 4, dtype=torch.float64)
    valid = torch.empty(len(rays), 4, dtype=torch.uint8)
    _extension.solve_p3p(_array(rays), _array(points), T.numpy(), valid.numpy(), _threads())
    return T, valid.bool()


@_kernel
def _draw_weighted_triplets(weight: torch.Tensor, uniform: torch.Tensor) -> Any:
    """Kernel of ``consensus.draw_weighted_triplets``."""
    if not (_on_cpu(weight, uniform) and _are(torch.float64, weight, uniform) and len(weight) >= 3):
        return NotImplemented
    assert _extension is not None
    drawn = torch.empty(len(uniform), 3, dtype=torch.int64)
    _extension.draw_weighted_triplets(_array(weight), _array(weight.cumsum(0)), _array(uniform), drawn.numpy())
    return drawn


@_kernel
def _project_points(T: torch.Tensor, points: torch.Tensor, camera: Camera) -> Any:
    """Kernel of ``gnc.project_points``."""
    if not (_on_cpu(T, points) and _are(torch.float64, T, points) and T.shape[-2:] == (4, 4)):
        return NotImplemented
    assert _extension is not None
    poses = T.reshape(-1, 4, 4)
    pixels = torch.empty(len(poses), len(points), 2, dtype=torch.float64)
    valid = torch.empty(len(poses), len(points), dtype=torch.bool)
    _extension.project_points(
        _array(poses), _array(points), _camera(camera), pixels.numpy(), valid.view(torch.uint8).numpy(), _threads()
    )
    return pixels.reshape(*T.shape[:-2], len(points), 2), valid.reshape(*T.shape[:-2], len(points))


@_kernel
def _loss_maps(
    descriptors: torch.Tensor,
    counts: Sequence[int],
    background: torch.Tensor,
    background_cells: Sequence[int],
    features: torch.Tensor,
    temperature: float,
    loss: torch.Tensor,
    match_limit: float,
    rate_stride: int,
) -> Any:
    """Kernel of ``maps.loss_maps``."""
    tensors = (descriptors, background, features, loss)
    if not (_on_cpu(*tensors) and _are(torch.float32, *tensors) and loss.is_contiguous()):
        return NotImplemented
    assert _extension is not None
    entropy, lowest, rate = torch.empty(3, len(descriptors)).unbind(0)
    best = torch.empty(len(descriptors), dtype=torch.int64)
    _extension.loss_maps(
        _array(descriptors),
        _array(features),
        _array(background),
        _whole_numbers(counts),
        _whole_numbers(background_cells),
        temperature,
        match_limit,
        rate_stride,
        loss.numpy(),
        entropy.numpy(),
        lowest.numpy(),
        best.numpy(),
        rate.numpy(),
        _threads(),
    )
    return entropy, lowest, best, rate


@_kernel
def _peak_heights(descriptors: torch.Tensor, features: torch.Tensor, temperature: float) -> Any:
    """Kernel of ``reranking.peak_heights``."""
    if not (_on_cpu(descriptors, features) and _are(torch.float32, descriptors, features)):
        return NotImplemented
    assert _extension is not None
    heights = torch.empty(len(descriptors))
    _extension.peak_heights(_array(descriptors), _array(features), temperature, heights.numpy(), _threads())
    return heights


@_kernel
def _mean_losses(
    T: torch.Tensor,
    points: torch.Tensor,
    loss: torch.Tensor,
    rows: torch.Tensor,
    outlier_loss: float,
    grid: FeatureGrid,
    camera: Camera,
) -> Any:
    """Kernel of ``problem.mean_losses``."""
    if not (_on_cpu(T, points, loss, rows) and _are(torch.float64, T, points) and _are(torch.float32, loss)):
        return NotImplemented
    if not _fits_float32(outlier_loss):
        return NotImplemented
    assert _extension is not None
    mean = torch.empty(len(T), dtype=torch.float64)
    _extension.mean_losses(
        _array(T),
        _array(points),
        _array(loss),
        _array(rows),
        _camera(camera),
        grid.stride,
        grid.offset,
        outlier_loss,
        mean.numpy(),
        _threads(),
    )
    return mean


@_kernel
def _refine_in_windows(
    T: torch.Tensor, points: torch.Tensor, camera: Camera, maps: LocalMaps, sigmas: Sequence[float], gain: float
) -> Any:
    """Kernel of ``gnc.refine_in_windows``."""
    if not (_on_cpu(T, points, maps.values, maps.origin) and _are(torch.float64, T, points)):
        return NotImplemented
    assert _extension is not None
    T, cost, steps = _refinement_results(T)
    _extension.refine_in_windows(
        T.numpy(),
        _array(points),
        _camera(camera),
        maps.grid.stride,
        maps.grid.offset,
        _array(maps.values),
        _array(maps.origin),
        np.array(sigmas, dtype=np.float64),
        gain,
        cost.numpy(),
        steps.numpy(),
        _threads(),
    )
    return T, cost, steps


@_kernel
def _refine_in_maps(
    T: torch.Tensor,
    points: torch.Tensor,
    camera: Camera,
    loss: torch.Tensor,
    rows: torch.Tensor,
    outlier_loss: float,
    grid: FeatureGrid,
    sigmas: Sequence[float],
    gain: float,
) -> Any:
    """Kernel of ``gnc.refine_in_maps``."""
    if not (_on_cpu(T, points, loss, rows) and _are(torch.float64, T, points) and _are(torch.float32, loss)):
        return NotImplemented
    if not _fits_float32(outlier_loss):
        return NotImplemented
    assert _extension is not None
    T, cost, steps = _refinement_results(T)
    _extension.refine_in_maps(
        T.numpy(),
        _array(points),
        _camera(camera),
        grid.stride,
        grid.offset,
        _array(loss),
        _array(rows),
        outlier_loss,
        np.array(sigmas, dtype=np.float64),
        gain,
        cost.numpy(),
        steps.numpy(),
        _threads(),
    )
    return T, cost, steps


def _refinement_results(T: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A copy of the poses, and where costs and steps are written."""
    T = T.clone(memory_format=torch.contiguous_format)
    return T, torch.empty(len(T), dtype=torch.float64), torch.empty(len(T), dtype=torch.int64)


@_kernel
def _window_moments(T: torch.Tensor, points: torch.Tensor, camera: Camera, maps: LocalMaps, sigma: float) -> Any:
    """Kernel of ``gnc.window_moments``."""
    if not (_on_cpu(T, points, maps.values, maps.origin) and _are(torch.float64, T, points)):
        return NotImplemented
    assert _extension is not None
    moments = torch.empty(len(T), len(points), 3, 3)
    jacobian = torch.empty(len(T), len(points), 2, 6, dtype=torch.float64)
    pixels = torch.empty(len(T), len(points), 2, dtype=torch.float64)
    _extension.window_moments(
        _array(T),
        _array(points),
        _camera(camera),
        maps.grid.stride,
        maps.grid.offset,
        _array(maps.values),
        _array(maps.origin),
        sigma,
        moments.numpy(),
        jacobian.numpy(),
        pixels.numpy(),
        _threads(),
    )
    return moments, jacobian, pixels


@_kernel
def _window_values(
    descriptors: torch.Tensor,
    features: torch.Tensor,
    centre: torch.Tensor,
    cubic: torch.Tensor,
    half: int,
    temperature: float,
    offset: torch.Tensor,
) -> Any:
    """Kernel of ``fine.window_values``."""
    tensors = (descriptors, features, cubic, offset)
    if not (_on_cpu(*tensors, centre) and _are(torch.float32, *tensors)):
        return NotImplemented
    assert _extension is not None
    values = torch.empty(len(descriptors), len(cubic), len(cubic))
    _extension.fine_windows(
        _array(descriptors),
        _array(features.permute(1, 2, 0)),
        _array(centre),
        _array(cubic),
        _array(offset),
        temperature,
        half,
        values.numpy(),
        _threads(),
    )
    return values


KERNELS: dict[str, Callable[..., Any]] = {}
"""Operator's name -> its kernel; empty where the package was built without kernels."""
if _extension is not None:
    KERNELS = {
        "solve_p3p": _solve_p3p,
        "draw_weighted_triplets": _draw_weighted_triplets,
        "project_points": _project_points,
        "loss_maps": _loss_maps,
        "peak_heights": _peak_heights,
        "mean_losses": _mean_losses,
        "refine_in_windows": _refine_in_windows,
        "refine_in_maps": _refine_in_maps,
        "window_moments": _window_moments,
        "window_values": _window_values,
    }
