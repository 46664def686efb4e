# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The keyframe database: how maps are built, stored, searched and maintained.

* ``types``: what a keyframe is, and the stack of keyframes that the estimator takes.
* ``global_descriptor``: one vector for a whole image.
* ``storage``: the map file; ``KeyframeStore`` reads and writes it.
* ``retrieval``: which keyframes may show what a query image shows.
* ``building``, ``importers``: keyframes from images, and sources of images with poses.
* ``tools``: what ``nre_ros map info``, ``verify``, ``merge``, ``prune`` and ``export`` do.

The order of dependencies: ``types`` and ``global_descriptor``, then ``storage``, then ``retrieval``, then the others.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nre_ros.keyframes.storage.store import KeyframeStore
    from nre_ros.keyframes.types import Keyframe, KeyframeStack, stack_keyframes

__all__ = ["Keyframe", "KeyframeStack", "KeyframeStore", "stack_keyframes"]


def __getattr__(name: str) -> Any:
    # at the first use: a map file can be checked without the seconds that importing torch takes
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'storage.store' if name == 'KeyframeStore' else 'types'}"), name)
