# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The operator layer: the few operations in which a query spends its time, each with several implementations.

An operator is a function of tensors. Its body in plain torch is the reference: it runs on any device, and can be
differentiated. Where all tensors are on the CPU and none needs a gradient, the kernel of the same name in ``native`` takes
its place, if the package was built with its kernels. A kernel may decline by ``NotImplemented`` (another type of numbers,
for example), and the reference answers. Where all tensors are on a GPU, the kernel of the same name in ``gpu``
takes its place, if Triton is there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Generic, ParamSpec, TypeVar

from nre_ros.nre import gpu, native

P = ParamSpec("P")
R = TypeVar("R")

REFERENCE, NATIVE = "torch", "native"
OPERATORS: dict[str, Operator] = {}
"""All operators by name."""

_reference_only: ContextVar[bool] = ContextVar("reference_only", default=False)


class Operator(Generic[P, R]):
    """A function with a reference in torch and, perhaps, a kernel.

    Args:
        reference: The implementation in torch.

    Attributes:
        reference: The implementation in torch.
    """

    def __init__(self, reference: Callable[P, R]):
        functools.update_wrapper(self, reference)
        self.reference = reference
        name = reference.__name__
        self._kernel: Callable[P, R] | None = native.KERNELS.get(name)
        self._gpu_kernel: Callable[P, R] | None = gpu.KERNELS.get(name)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if not _reference_only.get():
            on_gpu = gpu.runs_on((*args, *kwargs.values()))
            kernel = self._gpu_kernel if on_gpu else self._kernel
            result = kernel(*args, **kwargs) if kernel is not None else NotImplemented
            if result is not NotImplemented:
                return result
        return self.reference(*args, **kwargs)

    @property
    def has_kernel(self) -> bool:
        """Whether there is a kernel for CPUs."""
        return self._kernel is not None


def operator(reference: Callable[P, R]) -> Operator[P, R]:
    """Makes a function in torch an operator, as a decorator.

    Args:
        reference: The function.
    """
    made = Operator(reference)
    OPERATORS[reference.__name__] = made
    return made


@contextmanager
def reference_only() -> Iterator[None]:
    """Uses the references in torch alone, in this thread, for tests and comparisons."""
    token = _reference_only.set(True)
    try:
        yield
    finally:
        _reference_only.reset(token)


def implementation() -> str:
    """Returns which implementation runs on a CPU: ``native (INSTRUCTION SET)`` or ``torch``."""
    return f"{NATIVE} ({native.instruction_set()})" if native.available() else REFERENCE
