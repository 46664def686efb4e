# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Public benchmarks as they are downloaded: map by the official split, queries, the official table or submission."""

from __future__ import annotations

from nre_ros.evaluation.datasets.scene import Dataset

DATASETS = {
    "7scenes": ("seven_scenes", "SevenScenes"),
    "cambridge": ("cambridge", "Cambridge"),
    "aachen": ("aachen", "Aachen"),
    "inloc": ("inloc", "Inloc"),
    "tum": ("tum", "Tum"),
    "euroc": ("euroc", "Euroc"),
}
"""Name -> module in this room, and class."""


def make_dataset(name: str) -> Dataset:
    """The data set of a name in ``DATASETS``."""
    from importlib import import_module

    module, kind = DATASETS[name]
    return getattr(import_module(f"{__name__}.{module}"), kind)()
