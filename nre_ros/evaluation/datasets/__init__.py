# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Public benchmarks, read in the layout in which they are downloaded.

Each data set defines the official split into map and queries, and the official table or submission file.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nre_ros.evaluation.datasets.dataset import Dataset

DATASETS = {
    "7scenes": ("seven_scenes", "SevenScenes"),
    "cambridge": ("cambridge", "Cambridge"),
    "aachen": ("aachen", "Aachen"),
    "inloc": ("inloc", "Inloc"),
    "tum": ("tum", "Tum"),
    "euroc": ("euroc", "Euroc"),
}
"""Name of a data set to its module in this package and its class."""


def make_dataset(name: str) -> Dataset:
    """Creates a data set.

    Args:
        name: A key of ``DATASETS``.

    Returns:
        The data set.
    """
    module, class_name = DATASETS[name]
    dataset: Dataset = getattr(import_module(f"{__name__}.{module}"), class_name)()
    return dataset
