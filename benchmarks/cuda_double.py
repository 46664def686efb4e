# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A stand-in for a CUDA device, with data, on a machine that has none: it counts what a GPU would be asked to do.

Tensors of the stand-in say that they are on ``cuda:0`` and hold their numbers on the CPU. Code that treats a GPU in a
special way therefore takes its path for GPUs, with the numbers that it needs to get to its end. Each operation is checked
and counted as on a GPU:

* Tensors of two devices that meet raise, and so does ``numpy()``.
* A *launch* is an operation that computes; views and allocations are none. One operation may take several kernels on a
  real device: the count is a lower bound.
* A *wait* is an operation whose answer, or the size of whose answer, the host needs: ``item()``, ``bool(tensor)``,
  ``tolist()``, ``cpu()``, ``nonzero``, indexing by a mask, checked linear algebra.
* A *copy* moves a tensor from the host to the device or back. The number that ``item()`` brings is part of its wait.

torch's own ``FakeTensorMode`` has no numbers, and stops at the first of the waits.
"""

from __future__ import annotations

import ctypes
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("cuda:0")
_CPU = torch.device("cpu")
_SOURCES = f"{Path(__file__).resolve().parents[1] / 'nre_ros'}/"
_REGISTRY = "_ZN3c104impl26device_guard_impl_registryE"
_CPU_GUARD, _CUDA_GUARD = 0, 1  # places in torch's table of device guards

_FREE = {
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh", "detach", "detach_",
    "_unsafe_view", "_local_scalar_dense", "_reshape_alias", "is_same_size", "set_",
}  # fmt: skip
"""Operations that are not views and start no kernel."""
_WAITS = {
    "_local_scalar_dense", "nonzero", "bincount", "masked_select", "_unique", "_unique2", "unique_dim",
    "unique_consecutive", "equal", "is_nonzero", "_linalg_check_errors", "_linalg_eigh", "linalg_eig", "histc",
}  # fmt: skip
"""Operations after which the host needs the answer or its size."""


def available() -> bool:
    """Returns whether the stand-in can be used here: on a build of torch without CUDA whose internals are as known."""
    return torch.version.cuda is None and _guards() is not None


@dataclass
class Counts:
    """What one piece of work asked of the device.

    Attributes:
        launches: Operations by name.
        waits: What made the host wait, by operation and place.
        copies: What was copied, by direction, operation and place.
    """

    launches: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)

    def totals(self) -> dict[str, int]:
        """Returns the number of launches, waits and copies."""
        return {name: sum(getattr(self, name).values()) for name in ("launches", "waits", "copies")}


class DoubleTensor(torch.Tensor):
    """A tensor that says that it is on the GPU.

    Attributes:
        inner: Its numbers, on the CPU.
    """

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self) -> str:  # type: ignore[override]
        return f"double({self.inner})"

    def tolist(self) -> Any:
        """Returns the numbers as lists, as ``torch.Tensor.tolist`` does: a wait and a copy."""
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Raises ``TypeError``, as it does for tensors on a GPU."""
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    __array__ = numpy

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func}: a tensor of the stand-in was used outside of its context")


class CudaDouble(TorchDispatchMode):
    """The context in which the stand-in's tensors can be used; ``counts`` says what was asked of it."""

    # makes torch create tensors on "cuda" without a driver; the same place that FakeTensorMode takes
    _mode_key = torch._C._TorchDispatchModeKey.FAKE

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counts()
        self._entered: list[ExitStack] = []

    def __enter__(self) -> CudaDouble:
        stack = ExitStack()
        stack.enter_context(device_guard())
        stack.enter_context(patch.object(torch.cuda, "synchronize", self._synchronize))
        self._entered.append(stack)  # the mode enters itself again
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._entered.pop().close()

    def _synchronize(self, device: Any = None) -> None:
        self.counts.waits[f"synchronize {_place()}"] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # in inference mode, operations that consist of others arrive whole
        if _is_composite(func):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        leaves = [*_leaves(args), *_leaves(kwargs.values())]
        doubles = [leaf for leaf in leaves if isinstance(leaf, DoubleTensor)]
        device = kwargs.get("device")
        if not doubles and (device is None or device.type == "cpu"):
            return func(*args, **kwargs)
        name = func.overloadpacket._qualified_op_name.partition("::")[2]
        if not name.startswith(("_to_copy", "copy", "lift")):
            self._check_devices(name, leaves, doubles)
        self._count(func, name, args, kwargs, doubles)
        result = func(*_mapped(_inner, args), **{key: _mapped(_inner, value) for key, value in kwargs.items()})
        if name in ("squeeze_", "unsqueeze_", "transpose_", "t_"):
            with no_dispatch():
                func(*args, **kwargs)  # the stand-in's own shape
        if func._schema.is_mutable:
            return self._mutated(func, args, kwargs, result)
        on_device = device.type != "cpu" if device is not None else bool(doubles)
        if not on_device:
            return result
        if _is_view(func):  # the view of a tensor that was made outside of inference mode is such a tensor, too
            with torch.inference_mode(args[0].is_inference()):
                return _mapped(_double, result)
        return _mapped(_double, result)

    def _count(self, func: Any, name: str, args: Any, kwargs: Any, doubles: list[DoubleTensor]) -> None:
        counts = self.counts
        if name in ("_to_copy", "copy_"):
            source = args[1] if name == "copy_" else args[0]
            target = args[0].device if name == "copy_" else kwargs.get("device") or source.device
            if source.device.type != target.type:
                downwards = target.type == "cpu"
                counts.copies[f"{'device to host' if downwards else 'host to device'} {_place()}"] += 1
                if downwards:
                    counts.waits[f"copy to the host {_place()}"] += 1
                return
        if name in ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"):
            for index in args[1]:
                if index is not None and index.dtype in (torch.bool, torch.uint8):
                    counts.waits[f"index by a mask {_place()}"] += 1
                if index is not None and not isinstance(index, DoubleTensor):
                    counts.copies[f"host to device (index) {_place()}"] += 1
        if name in _WAITS or (name == "repeat_interleave" and kwargs.get("output_size") is None):
            counts.waits[f"{name} {_place()}"] += 1
        if name not in _FREE and not _is_view(func):
            counts.launches[name] += 1

    @staticmethod
    def _check_devices(name: str, leaves: list[Any], doubles: list[DoubleTensor]) -> None:
        for leaf in leaves:
            if isinstance(leaf, torch.Tensor) and not isinstance(leaf, DoubleTensor) and leaf.dim() and doubles:
                if name.startswith(("index", "_index", "_unsafe_index")) and not leaf.is_floating_point():
                    continue  # an index may be on the host; it is copied
                raise RuntimeError(f"{name}: expected all tensors to be on the same device, found cuda:0 and cpu")

    @staticmethod
    def _mutated(func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        """The arguments that an operation has written to, in place of its result."""
        written = []
        for i, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = kwargs[argument.name] if argument.name in kwargs else args[i]
                if isinstance(value, DoubleTensor) and value.shape != value.inner.shape:
                    raise RuntimeError(f"{func}: the stand-in cannot change a tensor's shape")
                written.append(value)
        return written[0] if len(func._schema.returns) == 1 else tuple(written)


@torch.inference_mode()  # as all of the estimator's tensors
def to_device(tensor: torch.Tensor) -> DoubleTensor:
    """Puts a tensor on the stand-in without counting it."""
    return DoubleTensor(tensor)


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """Returns a tensor's numbers without counting it."""
    return tensor.inner if isinstance(tensor, DoubleTensor) else tensor


@cache
def _is_composite(func: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


@cache
def _is_view(func: Any) -> bool:
    return any(result.alias_info is not None and not result.alias_info.is_write for result in func._schema.returns)


def _leaves(values: Iterable[Any]) -> Iterator[Any]:
    """The values, and those within lists and tuples."""
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _leaves(value)
        else:
            yield value


def _mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """A value, or the values within lists and tuples, after a function."""
    if isinstance(value, (list, tuple)):
        return type(value)(_mapped(function, part) for part in value)
    return function(value)


def _inner(value: Any) -> Any:
    if isinstance(value, DoubleTensor):
        return value.inner
    return _CPU if isinstance(value, torch.device) else value


def _double(value: Any) -> Any:
    return DoubleTensor(value) if isinstance(value, torch.Tensor) else value


def _place() -> str:
    """The function of the package that the operation comes from."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith(_SOURCES):
            module = frame.f_code.co_filename[len(_SOURCES) :].removesuffix(".py").replace("/", ".")
            return f"in {module}.{frame.f_code.co_qualname if sys.version_info >= (3, 11) else frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"


def _guards() -> Any:
    """torch's table of device guards; None where it cannot be found."""
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib/libc10.so"))
        table = (ctypes.c_void_p * 2).in_dll(library, _REGISTRY)
    except (OSError, ValueError):
        return None
    return table if table[_CPU_GUARD] else None


@contextmanager
def device_guard():
    """Gives a build without CUDA a device guard for it that does nothing, as a CUDA build without a device has one.

    Without it, indexing, ``item()`` and others end in "PyTorch is not linked with support for cuda devices" before they
    reach ``FakeTensorMode`` or ``CudaDouble``. An index must be given with the device's name: ``cuda:0``.
    """
    guards = _guards()
    if guards is None or guards[_CUDA_GUARD]:
        yield
        return
    lifted = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)
    guards[_CUDA_GUARD] = guards[_CPU_GUARD]
    try:
        yield
    finally:
        guards[_CUDA_GUARD] = None
        torch._C._set_only_lift_cpu_tensors(lifted)
