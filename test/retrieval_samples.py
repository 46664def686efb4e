"""Maps whose keyframes have given global descriptors, for the tests of retrieval."""

import numpy as np
import pytest
from keyframe_samples import random_keyframe, unit

from nre_ros.keyframes.retrieval import GLOBAL_DESCRIPTOR
from nre_ros.keyframes.store import KeyframeStore


@pytest.fixture
def make_map(tmp_path):
    stores = []

    def make(descriptors, retrieval=GLOBAL_DESCRIPTOR):
        path = tmp_path / f"{len(stores)}.db"
        store = KeyframeStore.create(path, "xfeat", "abc", retrieval=retrieval)
        stores.append(store)
        for i, descriptor in enumerate(descriptors):
            store.add(small_keyframe(f"{i}", i, descriptor))
        return store

    yield make
    for store in stores:
        store.close()


def small_keyframe(name, seed, descriptor):
    return random_keyframe(name, seed, points=2, background=2, channels=4, global_descriptor=descriptor)


def clusters(count, dimensions=60, seed=0):
    """Unit rows around a tenth as many places."""
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(count // 10, dimensions))
    return unit(places[rng.integers(len(places), size=count)] + 0.4 * rng.normal(size=(count, dimensions)))


@pytest.fixture
def small_is_large(monkeypatch):
    """Maps of more than 50 keyframes count as large."""
    monkeypatch.setattr("nre_ros.keyframes.index.SMALL", 50)
    monkeypatch.setattr("nre_ros.keyframes.catalogue.SMALL", 50)
