# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A prior of the pose: which views it makes likely, and that it rules nothing out."""

from dataclasses import replace

import numpy as np
import pytest
from keyframe_samples import unit
from retrieval_samples import small_keyframe
from scipy.spatial.transform import Rotation

from nre_ros.errors import PoseError
from nre_ros.keyframes.retrieval.descriptor_index import update_index
from nre_ros.keyframes.retrieval.pose_prior import PosePrior, viewpoints_of
from nre_ros.keyframes.retrieval.retriever import RetrievalConfig, Retriever

PLAIN = RetrievalConfig(diversity=0.0)


def prior_at(x, yaw=0.0, metres=0.5, degrees=10.0):
    """Somewhere on the x axis, looking along y when yaw is 0."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("z", yaw, degrees=True).as_matrix() @ [[1, 0, 0], [0, 0, 1], [0, -1, 0]]
    T[0, 3] = x
    return PosePrior(T, np.diag([metres**2] * 3 + [np.radians(degrees) ** 2] * 3))


@pytest.mark.parametrize("with_index", [False, True])
def test_a_prior_prefers_views_that_can_overlap(make_map, small_is_large, with_index):
    """60 places that look alike, 10 m apart: only the prior tells which it is."""
    rng = np.random.default_rng(0)
    alike = unit(rng.normal(size=80) + 0.05 * rng.normal(size=(60, 80)))
    store = make_map([])
    for i, descriptor in enumerate(alike):
        store.add(replace(small_keyframe(f"{i}", i, descriptor), T_map_cam=prior_at(10.0 * i).T_map_cam))
    if with_index:
        pytest.importorskip("faiss", reason="needs faiss-cpu")
        update_index(store)
    retriever = Retriever(store, PLAIN)
    query = unit(alike[0] + 0.05 * rng.normal(size=80))
    for place in (0, 23, 59):
        assert retriever.query(query, 1, prior_at(10.0 * place + 1.5))[0] == [place + 1]
    without = retriever.query(query, 5)[0]
    assert retriever.query(query, 5, prior_at(230.0, metres=1e6, degrees=1e3))[0] == without
    # nothing is near: all fit as badly
    assert retriever.query(query, 5, prior_at(1e4))[0] == without


def test_a_prior_rules_nothing_out(make_map):
    """What looks entirely different is not taken for the sake of a prior."""
    descriptors = unit(np.random.default_rng(0).normal(size=(30, 100)))
    store = make_map([])
    for i, descriptor in enumerate(descriptors):
        store.add(replace(small_keyframe(f"{i}", i, descriptor), T_map_cam=prior_at(10.0 * i).T_map_cam))
    assert Retriever(store).query(descriptors[4], 1, prior_at(200.0))[0] == [5]


def test_a_moved_keyframe_is_where_it_was_moved_to(make_map, small_is_large):
    alike = unit(np.ones(80) + 0.05 * np.random.default_rng(0).normal(size=(60, 80)))
    store = make_map([])
    for i, descriptor in enumerate(alike):
        store.add(replace(small_keyframe(f"{i}", i, descriptor), T_map_cam=prior_at(10.0 * i).T_map_cam))
    update_index(store)
    retriever = Retriever(store, PLAIN)
    store.update_pose(12, prior_at(-500.0).T_map_cam)
    for looking in (retriever, Retriever(store, PLAIN)):
        assert looking.query(alike[0], 1, prior_at(-500.0))[0] == [12]


def test_weights_of_a_prior_fall_with_distance_and_angle_and_not_with_uncertainty():
    views = viewpoints_of(
        np.stack([prior_at(x, yaw).T_map_cam for x, yaw in ((0, 0), (1, 0), (4, 0), (0, 60), (0, 180))])
    )
    sharp = prior_at(0.0).log_weights(views, distance=3.0)
    assert sharp[0] == pytest.approx(0, abs=1e-6) and sharp[0] > sharp[1] > sharp[2] and sharp[0] > sharp[3] > sharp[4]
    assert (prior_at(0.0, metres=5, degrees=90).log_weights(views, 3.0)[1:] > sharp[1:]).all()
    assert np.abs(prior_at(0.0, metres=1e4, degrees=1e4).log_weights(views, 3.0)).max() < 1e-3


def test_the_spread_of_a_prior_is_that_of_poses_drawn_from_it():
    """The middle of the view of poses with a covariance that mixes position and rotation, against Monte Carlo."""
    rng = np.random.default_rng(0)
    root = rng.normal(scale=0.02, size=(6, 6))
    prior = PosePrior(prior_at(2.0, 40).T_map_cam, root @ root.T)
    draws = rng.normal(size=(200_000, 6)) @ root.T
    turned = Rotation.from_rotvec(draws[:, 3:]).apply(prior.T_map_cam[:3, 2])
    middle = prior.T_map_cam[:3, 3] + draws[:, :3] + 3.0 * turned
    spread = np.cov(middle.T) + 1.5**2 * np.eye(3)  # and half of what a view takes in at 3 m
    at = np.array([0.3, -0.2, 0.4])
    views = np.hstack([prior.T_map_cam[:3, 3] + at, prior.T_map_cam[:3, 2]])[None]
    assert prior.log_weights(views, 3.0)[0] == pytest.approx(-0.5 * at @ np.linalg.solve(spread, at), rel=0.01)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(T_map_cam=np.full((4, 4), np.nan)), "finite"),
        (dict(T_map_cam=2 * np.eye(4)), "rotation"),
        (dict(T_map_cam=np.eye(3)), "expected .4, 4."),
        (dict(covariance=np.full((6, 6), np.inf)), "finite"),
        (dict(covariance=np.eye(3)), "expected .6, 6."),
        (dict(covariance=-np.eye(6)), "negative"),
        (dict(covariance=np.triu(np.ones((6, 6)))), "symmetric"),
    ],
)
def test_an_invalid_prior_is_refused(change, message):
    with pytest.raises(PoseError, match=message):
        PosePrior(**{"T_map_cam": np.eye(4), "covariance": np.eye(6), **change})
