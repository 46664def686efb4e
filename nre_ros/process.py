# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Settings of OpenMP, of the C library and of signals for a process that localizes image after image."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

# <malloc.h>
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_TOP_PAD = 64 * 2**20


def prepare() -> None:
    """Makes idle threads sleep and freed memory stay; an entry point calls it before torch is first imported."""
    wait_passively()
    keep_memory()


def exit_at_signals() -> None:
    """Makes SIGINT and SIGTERM end the process with exit code 0, until the node has handlers of its own."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))


def wait_passively() -> None:
    """Lets idle OpenMP threads sleep.

    By default they spin for a while after every operation. When other processes run, spinning threads keep threads with
    work off the cores: with all cores busy, an image took five times as long (docs/estimator.md). An OMP_WAIT_POLICY in
    the environment is respected.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def use_threads(count: int) -> None:
    """Sets the number of CPU threads of torch, of the operators and of OpenCV.

    They hold for the calling thread and for threads that call ``adopt_threads``.

    Args:
        count: At least 1; 0 changes nothing (torch takes one for each core).
    """
    if count > 0:
        import cv2
        import torch

        torch.set_num_threads(count)
        cv2.setNumThreads(count)


def adopt_threads() -> None:
    """Gives the calling thread the number that ``use_threads`` has set; a new thread calls it before it computes.

    OpenMP keeps the number for each thread. Torch sets it in a new thread only when the number is asked for or one of
    its own loops runs: without that the convolutions of oneDNN take all cores.
    """
    import torch

    torch.get_num_threads()


def keep_memory() -> None:
    """Makes glibc's malloc keep freed memory for the next image, whose tensors have the same sizes.

    By default it returns every large block to the kernel at once, and the kernel clears new pages for the next block
    (docs/estimator.md has the cost). Nothing is done with another C library, or where the environment configures malloc
    (``MALLOC_*``, ``GLIBC_TUNABLES``).
    """
    configured = "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ)
    mallopt = _function("mallopt")
    if configured or mallopt is None:
        return
    mallopt(_M_ARENA_MAX, 1)  # other arenas cannot hold large blocks
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TOP_PAD, _TOP_PAD)
    mallopt(_M_TRIM_THRESHOLD, -1)  # never


def return_memory() -> None:
    """Returns kept memory to the kernel, after a large computation that is not repeated."""
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def _function(name: str) -> Callable[..., int] | None:
    """A function of glibc; None with another C library."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
