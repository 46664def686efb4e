"""How torch's threads share the cores with the rest of a robot."""

from __future__ import annotations

import os


def wait_passively() -> None:
    """Lets idle OpenMP threads sleep; call it before torch is first imported, from an entry point.

    By default they spin for a while after every operation.  With anything else running on the
    machine the spinning ones keep those with work off the cores: with all cores busy an image
    then took five times as long (docs/estimator.md).  Set OMP_WAIT_POLICY yourself to have it
    otherwise.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
