# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Maps whose keyframes have given global descriptors, for the tests of retrieval."""

import numpy as np
from keyframe_samples import random_keyframe, unit

from nre_ros.keyframes.global_descriptor import GLOBAL_DESCRIPTOR
from nre_ros.keyframes.storage.store import KeyframeStore


def make_map(path, descriptors, retrieval=GLOBAL_DESCRIPTOR) -> KeyframeStore:
    """A new map, open for writing, whose keyframes 1, 2, ... have these global descriptors."""
    store = KeyframeStore.create(path, "xfeat", "abc", retrieval=retrieval)
    with store.batch():  # one transaction is much faster
        for i, descriptor in enumerate(descriptors):
            store.add(small_keyframe(f"{i}", i, descriptor))
    return store


def small_keyframe(name, seed, descriptor):
    return random_keyframe(name, seed, points=2, background=2, channels=4, global_descriptor=descriptor)


def clusters(count, dimensions=60, seed=0):
    """Unit rows around a tenth as many places."""
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(count // 10, dimensions))
    return unit(places[rng.integers(len(places), size=count)] + 0.4 * rng.normal(size=(count, dimensions)))
