# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a process of ours asks of OpenMP and of the C library before it computes."""

from __future__ import annotations

import ctypes
import os
import sys

# <malloc.h>
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_TOP_PAD = 64 * 2**20


def prepare() -> None:
    """Threads that wait passively, memory that is kept; call it before torch is first imported, from an entry point."""
    wait_passively()
    keep_memory()


def wait_passively() -> None:
    """Lets idle OpenMP threads sleep.

    By default they spin for a while after every operation.  With anything else running on the
    machine the spinning ones keep those with work off the cores: with all cores busy an image
    then took five times as long (docs/estimator.md).  Set OMP_WAIT_POLICY yourself to have it
    otherwise.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def keep_memory() -> None:
    """Has glibc's malloc keep what is freed for the next image, whose tensors have the same sizes.

    By default it gives every large block back to the kernel at once, which then clears new pages
    for the next one; what that costs is in docs/estimator.md.  Nothing is done with another
    C library, or where the environment configures malloc (MALLOC_..., GLIBC_TUNABLES).
    """
    configured = "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ)
    mallopt = _function("mallopt")
    if configured or mallopt is None:
        return
    mallopt(_M_ARENA_MAX, 1)  # the others cannot hold large blocks
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TOP_PAD, _TOP_PAD)
    mallopt(_M_TRIM_THRESHOLD, -1)  # never


def return_memory() -> None:
    """Gives what is kept back to the kernel: after something large that does not come again."""
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def _function(name: str):
    """A function of glibc; None with another C library."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
