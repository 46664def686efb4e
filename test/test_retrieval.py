# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Retrieval: the descriptor is what the paper says, and finds keyframes that truly overlap."""

import cv2
import numpy as np
import pytest
import scipy.linalg
import scipy.special
import torch
from keyframe_samples import random_keyframe, unit
from retrieval_samples import clusters, small_keyframe

from nre_ros.errors import FeatureMismatchError
from nre_ros.features import load_backbone
from nre_ros.features.base import FeatureGrid, FeatureMap
from nre_ros.geometry import invert
from nre_ros.keyframes.global_descriptor import global_descriptor
from nre_ros.keyframes.importers.colmap.cameras import read_cameras_txt
from nre_ros.keyframes.importers.text_trajectory import parse_tum_pose
from nre_ros.keyframes.retrieval.reranking import mean_peak_heights
from nre_ros.keyframes.retrieval.retriever import Retriever
from nre_ros.keyframes.storage.store import KeyframeStore

GRID = FeatureGrid(8, 3.5)


def feature_map(seed, channels=8, height=12, width=16):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(channels, channels))
    return torch.as_tensor(mixing @ rng.normal(size=(channels, height * width)), dtype=torch.float32).reshape(
        channels, height, width
    )


def test_descriptor_is_the_signed_root_of_the_covariance_root():
    data = feature_map(0)
    root = scipy.linalg.sqrtm(np.cov(data.reshape(8, -1).numpy().astype(np.float64))).real
    # <A, B> of symmetric matrices is the dot product of their upper triangles with sqrt(2) off the diagonal
    expected = (root * (np.sqrt(2) - (np.sqrt(2) - 1) * np.eye(8)))[np.triu_indices(8)]
    expected = np.sign(expected) * np.abs(expected) ** 0.5
    found = global_descriptor(FeatureMap(data, GRID))
    assert found.dtype == np.float32 and found.shape == (36,)
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-5)


def test_descriptor_ignores_where_cells_are_and_a_common_shift():
    data = feature_map(1)
    shuffled = data.flatten(1)[:, torch.randperm(192, generator=torch.Generator().manual_seed(0))].reshape(data.shape)
    found = [global_descriptor(FeatureMap(d, GRID)) for d in (data, shuffled, data + 0.7, feature_map(2))]
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    np.testing.assert_allclose(found[0], found[2], atol=1e-4)
    assert found[0] @ found[3] < 0.95


def test_a_featureless_image_has_a_finite_descriptor():
    assert np.isfinite(global_descriptor(FeatureMap(torch.ones(8, 4, 4), GRID))).all()


def test_many_channels_are_projected_and_similar_maps_stay_similar():
    """64 dimensions for 1280 channels; a noisy copy stays nearer than another map."""
    rng = np.random.default_rng(4)

    def wide(data):  # 12 strong directions, other ones in each map, in 1280 channels
        return FeatureMap(torch.as_tensor(data, dtype=torch.float32).reshape(1280, 20, 15), GRID)

    data, other = rng.normal(size=(2, 1280, 12)) @ rng.normal(size=(2, 12, 300))
    noisy = data + 0.3 * data.std() * rng.normal(size=data.shape)
    found = [global_descriptor(wide(d)) for d in (data, noisy, other)]
    assert found[0].shape == (64 * 65 // 2,) and np.linalg.norm(found[0]) == pytest.approx(1, abs=1e-5)
    assert found[0] @ found[1] > found[0] @ found[2] + 0.2
    np.testing.assert_array_equal(found[0], global_descriptor(wide(data)))


def test_similarities_are_cosines_best_first(make_map):
    descriptors = unit(np.random.default_rng(0).normal(size=(40, 100)))
    retriever = Retriever(make_map(descriptors))
    for i in (0, 17, 39):
        ids, similarities = retriever.query(descriptors[i], count=6)
        assert ids[0] == i + 1 and len(set(ids)) == 6
        np.testing.assert_allclose(similarities, descriptors[np.array(ids) - 1] @ descriptors[i], atol=0.01)
        assert (np.diff(similarities) <= 0).all()
        assert retriever.query(descriptors[i], count=6)[0] == ids


def test_small_and_empty_maps(make_map):
    descriptors = unit(np.random.default_rng(0).normal(size=(3, 100)))
    assert len(Retriever(make_map(descriptors)).query(descriptors[0], count=5)[0]) == 3
    ids, similarities = Retriever(make_map([])).query(descriptors[0])
    assert ids == [] and len(similarities) == 0


def test_near_duplicates_do_not_take_all_places(make_map):
    rng = np.random.default_rng(3)
    query, other = unit(rng.normal(size=(2, 400)))
    duplicates = unit(query + 0.02 * rng.normal(size=(6, 400)))
    second_view = unit(0.9 * query + 0.35 * other)  # similar to the query, less so to the duplicates
    unrelated = unit(rng.normal(size=(5, 400)))
    retriever = Retriever(make_map([*duplicates, second_view, *unrelated]))
    ids, _ = retriever.query(query, count=3)
    assert 7 in ids and not set(ids) & set(range(8, 13))


def test_a_keyframe_added_later_is_found(make_map):
    descriptors = unit(np.random.default_rng(0).normal(size=(4, 100)))
    store = make_map(descriptors[:3])
    with KeyframeStore.open(store.path) as reader:
        retriever = Retriever(reader)
        store.add(small_keyframe("new", 9, descriptors[3]))
        assert retriever.query(descriptors[3], count=1)[0] == [4]


def test_maps_for_another_descriptor_are_refused(make_map):
    descriptors = unit(np.random.default_rng(0).normal(size=(2, 100)))
    with pytest.raises(FeatureMismatchError, match="netvlad"):
        Retriever(make_map(descriptors, retrieval="netvlad"))
    with pytest.raises(FeatureMismatchError, match="shape"):
        Retriever(make_map(descriptors)).query(descriptors[0][:50])


def test_peak_heights_are_those_of_a_softmax():
    rng = np.random.default_rng(0)
    features, points = unit(rng.normal(size=(48, 16))), unit(rng.normal(size=(5, 16)))
    grid = FeatureMap(torch.from_numpy(features.T.reshape(16, 6, 8)), GRID)
    samples = [torch.from_numpy(points[:2]), torch.zeros(0, 16), torch.from_numpy(points[2:])]
    heights = scipy.special.softmax(points @ features.T / 0.1, axis=1).max(axis=1)
    expected = [heights[:2].mean(), 0.0, heights[2:].mean()]
    np.testing.assert_allclose(mean_peak_heights(samples, grid, 0.1), expected, rtol=1e-4)


def test_of_two_keyframes_with_similar_descriptors_the_one_whose_points_are_visible_comes_first(make_map):
    rng = np.random.default_rng(0)
    cells = unit(rng.normal(size=(60, 32)))
    features = FeatureMap(torch.from_numpy(cells.T.reshape(32, 6, 10).copy()), GRID)
    descriptors = unit(np.ones(50) + 0.01 * rng.normal(size=(2, 50)))

    def keyframe(name, number, seen):
        points = cells[[7, 33]] if seen else unit(rng.normal(size=(2, 32)))
        sizes = dict(points=2, background=2, channels=32, global_descriptor=descriptors[number])
        return random_keyframe(name, number, **sizes, coarse=points)

    store = make_map([])
    for number in (0, 1):
        store.add(keyframe(f"{number}", number, seen=number == 1))
    retriever = Retriever(store)
    assert retriever.query(descriptors[0], 2)[0] == [1, 2]
    assert retriever.query(descriptors[0], 2, features=features, temperature=0.1)[0] == [2, 1]
    store.replace(1, keyframe("0", 0, seen=True))
    store.replace(2, keyframe("1", 1, seen=False))
    assert retriever.query(descriptors[1], 2, features=features, temperature=0.1)[0] == [1, 2]


def test_a_query_that_is_not_finite_is_refused(make_map):
    descriptors = clusters(10)
    with pytest.raises(FeatureMismatchError, match="1 of its 60 numbers"):
        Retriever(make_map(descriptors)).query(np.where(np.arange(60) == 3, np.nan, descriptors[0]))


class Kitchen:
    """The walk's poses and depths, and how much of a keyframe a query truly sees."""

    def __init__(self, folder):
        self.folder = folder
        self.camera = next(iter(read_cameras_txt(folder / "sparse/cameras.txt").values()))
        self.poses = {}
        for part in ("map", "query"):
            lines = (folder / f"{part}_poses.txt").read_text().splitlines()[1:]
            names = (folder / f"{part}.txt").read_text().split()
            self.poses.update({name: parse_tum_pose(line)[1] for name, line in zip(names, lines)})
            setattr(self, part, names)

    def depth(self, name):
        return cv2.imread(str(self.folder / "depth" / name.replace("jpg", "png")), cv2.IMREAD_UNCHANGED) / 1e3

    def overlap(self, keyframe, query):
        """Share of the keyframe's depth points that project into the query at the query's depth there."""
        y, x = np.mgrid[8:480:16, 8:640:16].reshape(2, -1)
        z = self.depth(keyframe)[y, x]
        x, y, z = x[z > 0], y[z > 0], z[z > 0]
        K, distortion = self.camera.K, np.array(self.camera.distortion)
        xy = cv2.undistortPoints(np.stack([x, y], 1).astype(np.float64)[:, None], K, distortion)[:, 0]
        T = invert(self.poses[query]) @ self.poses[keyframe]
        points = np.column_stack([xy * z[:, None], z]) @ T[:3, :3].T + T[:3, 3]
        pixels = cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, distortion)[0][:, 0].round().astype(int)
        inside = (points[:, 2] > 0) & (pixels >= 0).all(1) & (pixels < (640, 480)).all(1)
        seen = np.zeros(len(z))
        seen[inside] = self.depth(query)[pixels[inside, 1], pixels[inside, 0]]
        return np.mean((seen > 0) & (np.abs(seen - points[:, 2]) < 0.05 * points[:, 2] + 0.05))


@pytest.fixture(scope="module")
def kitchen(shared):
    kitchen = Kitchen(shared / "data/kitchen")
    backbone = load_backbone("xfeat")
    kitchen.descriptors = {
        name: global_descriptor(backbone.extract(cv2.imread(str(kitchen.folder / "images" / name)), fine=False).coarse)
        for name in kitchen.map + kitchen.query
    }
    return kitchen


@pytest.mark.parametrize("step, share", [(1, 0.99), (6, 0.97)])
def test_kitchen_queries_find_keyframes_that_overlap(kitchen, make_map, step, share):
    """All 63 keyframes, and 11 of them."""
    names = kitchen.map[::step]
    retriever = Retriever(make_map([kitchen.descriptors[name] for name in names]))
    found = 0
    for query in kitchen.query:
        ids, _ = retriever.query(kitchen.descriptors[query], count=5)
        assert len(set(ids)) == 5
        found += any(kitchen.overlap(names[i - 1], query) >= 0.3 for i in ids)
    assert found >= share * len(kitchen.query)
