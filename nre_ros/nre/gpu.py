# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The operators' kernels for NVIDIA GPUs, in Triton (``triton_kernels``), which comes with torch's CUDA builds.

Each kernel has the arguments and the results of the operator of its name. A kernel returns ``NotImplemented`` for
tensors that the kernel does not take, and where Triton is missing (some builds for Jetson): the reference in torch then
runs on the GPU. The references describe the functions.

Triton's interpreter runs the kernels on a CPU, which is how they are tested (``interpreted``).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from itertools import accumulate
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from nre_ros.device_constants import device_constant
from nre_ros.geometry import EQUIDISTANT, PINHOLE, RADIAL_TANGENTIAL, Camera

if TYPE_CHECKING:
    from nre_ros.features.base import FeatureGrid
    from nre_ros.nre.gnc import LocalMaps

_LOG = logging.getLogger(__name__)
_MODELS = {PINHOLE: 0, RADIAL_TANGENTIAL: 1, EQUIDISTANT: 2}
_POINTS = 128
"""Points that a program treats at once."""
_interpreted: ContextVar[bool] = ContextVar("interpreted", default=False)


@lru_cache(maxsize=1)
def _kernels() -> ModuleType | None:
    """The module of the kernels; None without Triton."""
    try:
        from nre_ros.nre import triton_kernels
    except ImportError as error:
        _LOG.warning("Triton is missing (%s): estimation on the GPU takes several times as long", error)
        return None
    return triton_kernels


@contextmanager
def interpreted() -> Iterator[None]:
    """Runs the kernels on tensors of the CPU, by Triton's interpreter.

    ``TRITON_INTERPRET=1`` must be in the environment before the kernels are first used.
    """
    token = _interpreted.set(True)
    try:
        yield
    finally:
        _interpreted.reset(token)


def runs_on(arguments: Iterable[object]) -> bool:
    """Returns whether an operator with these arguments is one for the GPU: one of the arguments is a tensor there.

    Args:
        arguments: The operator's arguments.
    """
    return _interpreted.get() or any(isinstance(value, torch.Tensor) and value.is_cuda for value in arguments)


def launch(kernel: Any, programs: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Starts a kernel.

    Args:
        kernel: A function of ``triton_kernels``.
        programs: How many programs, in each direction; nothing is started for none.
        arguments: Tensors and numbers.
        constants: The kernel's ``constexpr`` arguments, and Triton's options.
    """
    if all(programs):
        kernel[programs](*arguments, **constants)


def _takes(*tensors: torch.Tensor) -> bool:
    """Whether the kernels run on these tensors: all on a GPU, none needs a gradient, and Triton is there."""
    if not all(tensor.is_cuda or _interpreted.get() for tensor in tensors):
        return False
    return not any(tensor.requires_grad for tensor in tensors) and _kernels() is not None


def _are(dtype: torch.dtype, *tensors: torch.Tensor) -> bool:
    return all(tensor.dtype == dtype for tensor in tensors)


def _intrinsics(camera: Camera, device: torch.device) -> torch.Tensor:
    """fx fy cx cy, eight coefficients of the distortion, and the square of the largest radius, float64."""
    coefficients = (*camera.distortion, *(0.0,) * (8 - len(camera.distortion)))
    values = (camera.fx, camera.fy, camera.cx, camera.cy, *coefficients, camera.max_radius**2)
    return device_constant(values, torch.float64, device)


def _model(camera: Camera) -> int:
    undistorted = camera.model == RADIAL_TANGENTIAL and not any(camera.distortion)
    return 0 if undistorted else _MODELS[camera.model]


def _power_of_two(number: int, least: int = 16) -> int:
    return max(least, 1 << (number - 1).bit_length())


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
    """Kernel of ``maps.loss_maps``. ``loss`` may be of half precision."""
    tensors = (descriptors, background, features)
    if not (_takes(*tensors, loss) and _are(torch.float32, *tensors) and loss.is_contiguous() and features.numel()):
        return NotImplemented
    kernels = _kernels()
    assert kernels is not None
    device, (_, height, width) = descriptors.device, features.shape
    cells, points, frames, behind = height * width, len(descriptors), len(counts), background.shape[1]
    flat = features.flatten(1)
    longest = torch.cat([descriptors, background.flatten(0, 1)]).norm(dim=1).amax() if points else flat.new_zeros(())
    bound = longest * flat.norm(dim=0).amax() / temperature  # of z, by Cauchy and Schwarz: nothing overflows
    z = loss.flatten(1) if loss.dtype == torch.float32 else torch.empty(points, cells, device=device)
    torch.mm(descriptors / temperature, flat, out=z)
    sampled = torch.mm(background.flatten(0, 1) / temperature, flat)
    ends = tuple(accumulate(counts, initial=0))
    starts = device_constant(ends, torch.int32, device)
    share = tuple(number / max(behind, 1) for number in background_cells)
    reverse = torch.empty(frames, cells, device=device)
    launch(
        kernels.normalisers,
        (frames, -(-cells // 64)),
        z,
        sampled,
        starts,
        device_constant(share, torch.float32, device),
        bound,
        reverse,
        cells,
        behind,
        ROWS=16,
        CELLS=64,
    )
    owners = torch.searchsorted(starts[1:], torch.arange(points, device=device, dtype=torch.int32), right=True)
    entropy, lowest, rate = torch.empty(3, points, device=device).unbind(0)
    best = torch.empty(points, dtype=torch.int64, device=device)
    limits = device_constant((math.log(cells + 1), math.log(cells), match_limit), torch.float32, device)
    across, down = -(-width // rate_stride), -(-height // rate_stride)
    launch(
        kernels.losses,
        (points,),
        z,
        reverse,
        owners,
        bound,
        limits,
        loss,
        entropy,
        lowest,
        best,
        rate,
        cells,
        width,
        across,
        across * down,
        STRIDE=rate_stride,
        CELLS=1024,
    )
    return entropy, lowest, best, rate


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
    if not (_takes(T, points, loss, rows) and _are(torch.float64, T, points) and loss.dtype != torch.float64):
        return NotImplemented
    if not len(points):
        return NotImplemented
    kernels = _kernels()
    assert kernels is not None
    _, height, width = loss.shape
    mean = torch.empty(len(T), dtype=torch.float64, device=T.device)
    launch(
        kernels.mean_losses,
        (len(T),),
        T.contiguous(),
        points.contiguous(),
        loss.contiguous(),
        rows.contiguous(),
        _intrinsics(camera, T.device),
        device_constant((grid.stride, grid.offset, outlier_loss), torch.float64, T.device),
        mean,
        len(points),
        height,
        width,
        MODEL=_model(camera),
        POINTS=_POINTS,
    )
    return mean


def _refine_in_windows(
    T: torch.Tensor, points: torch.Tensor, camera: Camera, maps: LocalMaps, sigmas: Sequence[float], gain: float
) -> Any:
    """Kernel of ``gnc.refine_in_windows``."""
    values = maps.values
    if not (_takes(T, points, values) and _are(torch.float64, T, points) and values.dtype != torch.float64):
        return NotImplemented
    if len(values) != 1 or values.shape[-1] != values.shape[-2]:
        return NotImplemented
    rows = torch.arange(len(points), device=T.device)
    origins, side = maps.origin[0].to(torch.int32).contiguous(), values.shape[-1]
    radii = (side // 2,) * len(sigmas)
    return _refine(
        T, points, camera, values.contiguous(), rows, origins, maps.grid, 0.0, sigmas, radii, gain, side, (0, 0)
    )


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
    if not (_takes(T, points, loss, rows) and _are(torch.float64, T, points) and loss.dtype != torch.float64):
        return NotImplemented
    radii = tuple(math.ceil(3 * sigma) + 1 for sigma in sigmas)
    side, size = 2 * max(radii, default=0) + 1, (loss.shape[1], loss.shape[2])
    loss, rows = loss.contiguous(), rows.contiguous()
    return _refine(T, points, camera, loss, rows, rows, grid, outlier_loss, sigmas, radii, gain, side, size)


def _refine(
    T: torch.Tensor,
    points: torch.Tensor,
    camera: Camera,
    maps: torch.Tensor,
    rows: torch.Tensor,
    origins: torch.Tensor,
    grid: FeatureGrid,
    outlier_loss: float,
    sigmas: Sequence[float],
    radii: tuple[int, ...],
    gain: float,
    side: int,
    size: tuple[int, int],
) -> Any:
    """Both refinements; ``size`` is that of the maps, (0, 0) for windows."""
    if side > 64:
        return NotImplemented
    kernels, device = _kernels(), T.device
    assert kernels is not None
    T = T.clone(memory_format=torch.contiguous_format)
    costs = torch.empty(len(T), dtype=torch.float64, device=device)
    steps = torch.empty(len(T), dtype=torch.int64, device=device)
    launch(
        kernels.refine,
        (len(T),),
        T,
        points.contiguous(),
        maps,
        rows,
        origins,
        _intrinsics(camera, device),
        device_constant((grid.stride, grid.offset, outlier_loss), torch.float64, device),
        device_constant(tuple(sigmas), torch.float64, device),
        device_constant(radii, torch.int32, device),
        device_constant((gain,), torch.float64, device),
        costs,
        steps,
        torch.empty(len(T), 2, 16, dtype=torch.float64, device=device),
        len(sigmas),
        side,
        len(points),
        *size,
        MODEL=_model(camera),
        CUT=size != (0, 0),
        POINTS=32,
        SIDE=_power_of_two(side),
    )
    return T, costs, steps


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
    if not (_takes(*tensors, centre) and _are(torch.float32, *tensors)):
        return NotImplemented
    kernels = _kernels()
    assert kernels is not None
    (channels, height, width), (fine, side) = features.shape, cubic.shape
    values = torch.empty(len(descriptors), fine, fine, device=features.device)
    launch(
        kernels.window_values,
        (len(descriptors),),
        descriptors.contiguous(),
        features.permute(1, 2, 0).contiguous(),  # a cell's channels side by side
        centre.contiguous(),
        cubic.contiguous(),
        offset.contiguous(),
        values,
        half,
        device_constant((temperature,), torch.float64, features.device),
        channels,
        height,
        width,
        side,
        fine,
        CHANNELS=_power_of_two(channels),
        CELLS=_power_of_two(side),
        FINE=_power_of_two(fine),
    )
    return values


KERNELS: dict[str, Callable[..., Any]] = {
    kernel.__name__[1:]: kernel
    for kernel in (_loss_maps, _mean_losses, _refine_in_windows, _refine_in_maps, _window_values)
}
"""Kernels by the names of their operators."""
