# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Baselines: other methods on the same map, which match keypoints and estimate the pose with PoseLib.

Baselines are no part of the product: only the evaluation and the benchmarks import this package. The optional
dependency ``baselines`` contains the Python packages that baselines need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nre_ros.evaluation.baselines.base import Baseline

BASELINES = {
    "sift": ("sift", "Sift"),
    "xfeat": ("xfeat", "XFeat"),
    "lighterglue": ("xfeat", "LighterGlue"),
    "disk_lightglue": ("disk_lightglue", "DiskLightGlue"),
}
"""Name of a baseline to its module in this package and its class."""


def make_baseline(name: str, device: str) -> Baseline:
    """Creates a baseline.

    Args:
        name: A key of ``BASELINES``.
        device: ``cpu`` or ``cuda``.

    Returns:
        The baseline.

    Raises:
        BaselineUnavailable: A Python package that the baseline needs is not installed.
    """
    module, class_name = BASELINES[name]
    baseline: Baseline = getattr(import_module(f"{__name__}.{module}"), class_name)(device)
    return baseline
