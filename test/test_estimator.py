# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The whole estimator on rendered views with exact truth, and on input that cannot give a pose."""

from copy import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import CAMERA, QUERIES, opencv_pixels, small_room

from nre_ros.errors import CameraError, NreError
from nre_ros.features import FeatureMap
from nre_ros.gallery import Gallery, build_room, camera_pose
from nre_ros.geometry import Camera, invert, pose_error
from nre_ros.keyframes.types import stack_keyframes
from nre_ros.localization.confidence import load_model
from nre_ros.localization.verdict import reach_verdict
from nre_ros.nre import EstimatorConfig, NREEstimator

MODEL = load_model("xfeat")


@pytest.fixture(scope="module")
def room():
    return small_room()


@pytest.fixture(scope="module")
def stack(room):
    return stack_keyframes(room.keyframes)


@pytest.fixture(scope="module")
def queries(room):
    """Features and true T_map_cam of three views."""
    views = [room.view(*place) for place in QUERIES]
    return [(room.backbone.extract(image), T) for image, T in views]


def errors(estimate, T_map_cam):
    metres, radians = pose_error(invert(estimate.T_cam_map.numpy()), T_map_cam)
    return metres, np.degrees(radians)


@pytest.mark.parametrize("query", range(len(QUERIES)))
def test_rendered_views_are_localized_within_centimetres(room, stack, queries, query):
    features, truth = queries[query]
    estimate = NREEstimator(room.backbone).localize(features, stack, CAMERA)
    metres, degrees = errors(estimate, truth)
    assert metres < 0.03 and degrees < 0.6 and estimate.reason == ""
    assert reach_verdict(estimate, MODEL, 0.5).confidence > 0.9
    assert set(estimate.milliseconds) == {"maps", "consensus", "coarse", "fine", "verdict"}
    # the covariance knows the size of its own error: within 5 sigma, and of the order of centimetres
    sigma = estimate.covariance.diagonal().sqrt()
    off = invert(estimate.T_cam_map.numpy())[:3, 3] - truth[:3, 3]
    assert (np.abs(off) < 5 * sigma[:3].numpy()).all() and sigma[:3].max() < 0.05


def test_projections_and_inliers_are_those_of_the_pose(room, stack, queries):
    features, truth = queries[0]
    estimate = NREEstimator(room.backbone).localize(features, stack, CAMERA)
    seen = estimate.valid.numpy()
    expected = opencv_pixels(stack.points.numpy()[seen], estimate.T_cam_map.numpy())
    np.testing.assert_allclose(estimate.pixels.numpy()[seen], expected, atol=1e-6)
    assert estimate.losses.shape == (len(stack),) and (estimate.losses <= 1).all()
    assert (
        estimate.inlier_count
        == int((estimate.losses < 0.5).sum())
        > 10 * float(estimate.false_match_rate[estimate.losses < 1].sum())
    )
    # a map point seen in the query supports the pose more often than not
    away = opencv_pixels(stack.points.numpy(), np.linalg.inv(truth))
    inside = seen & (away > 8).all(1) & (away < [CAMERA.width - 8, CAMERA.height - 8]).all(1)
    assert (estimate.losses.numpy()[inside] < 0.5).mean() > 0.5


def test_each_stage_is_better_than_the_one_before(room, stack, queries):
    """Over all queries, for two seeds: consensus alone, then refined."""
    totals = []
    for config in (EstimatorConfig(skip_gnc=True), EstimatorConfig()):
        estimator = NREEstimator(room.backbone, config)
        totals.append(
            np.median(
                [
                    errors(estimator.localize(features, stack, CAMERA, seed), truth)[0]
                    for features, truth in queries
                    for seed in range(2)
                ]
            )
        )
    assert totals[1] < 0.5 * totals[0] < 0.2


def test_the_same_seed_gives_the_same_pose_bit_for_bit(room, stack, queries):
    features, _ = queries[1]
    estimator = NREEstimator(room.backbone, EstimatorConfig(skip_gnc=True))
    first, again, other = (estimator.localize(features, stack, CAMERA, seed) for seed in (7, 7, 8))
    assert torch.equal(first.T_cam_map, again.T_cam_map) and not torch.equal(first.T_cam_map, other.T_cam_map)
    estimator = NREEstimator(room.backbone)
    first, again = (estimator.localize(features, stack, CAMERA, 7) for _ in range(2))
    assert torch.equal(first.T_cam_map, again.T_cam_map) and torch.equal(first.covariance, again.covariance)
    assert first.cost == again.cost and first.inlier_count == again.inlier_count


def test_a_call_leaves_torch_as_it_was(room, stack, queries):
    state = torch.random.get_rng_state()
    NREEstimator(room.backbone).localize(queries[0][0], stack, CAMERA)
    assert torch.is_grad_enabled() and torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    "config",
    [
        EstimatorConfig(use_re=True),
        EstimatorConfig(reciprocal=False),
        EstimatorConfig(starts=5),
        EstimatorConfig(window_size=8),
    ],
)
def test_every_option_leads_to_the_pose(room, stack, queries, config):
    for features, truth in queries:
        metres, degrees = errors(NREEstimator(room.backbone, config).localize(features, stack, CAMERA), truth)
        assert metres < 0.06 and degrees < 1.2


def test_the_order_of_the_keyframes_does_not_matter(room, queries):
    features, truth = queries[0]
    stack = stack_keyframes(room.keyframes[::-1])
    assert errors(NREEstimator(room.backbone).localize(features, stack, CAMERA), truth)[0] < 0.03


def unsupported(estimate) -> bool:
    """Either no pose, or one that the verdict refuses; with words in both cases."""
    verdict = reach_verdict(estimate, MODEL, 0.5)
    return (
        bool(verdict.reason)
        and "\n" not in verdict.reason
        and (estimate.T_cam_map is not None or bool(estimate.reason))
    )


@pytest.mark.parametrize("kind", ["noise", "black", "white", "other scene"])
def test_images_that_show_nothing_of_the_map_give_no_pose(room, stack, kind):
    other = Gallery(build_room(seed=9, pixels_per_metre=60, furniture=False))
    image = {
        "noise": lambda: np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8),
        "black": lambda: np.zeros((240, 320, 3), np.uint8),
        "white": lambda: np.full((240, 320, 3), 255, np.uint8),
        "other scene": lambda: other.render(CAMERA, camera_pose([0, 0, 1.5], 2.0, -1.2)).image,
    }[kind]()
    estimate = NREEstimator(room.backbone).localize(room.backbone.extract(image), stack, CAMERA)
    assert unsupported(estimate)


def taking(stack, rows):
    """The stack with the given rows of its first keyframe only."""
    return replace(
        stack,
        ids=stack.ids[:1],
        points=stack.points[rows],
        coarse=stack.coarse[rows],
        fine=stack.fine[rows],
        directions=stack.directions[rows],
        counts=(len(stack.points[rows]),),
        background=stack.background[:1],
        background_cells=stack.background_cells[:1],
    )


@pytest.mark.parametrize("count", [0, 1, 3])
def test_fewer_than_four_points_give_no_pose(room, stack, queries, count):
    estimate = NREEstimator(room.backbone).localize(queries[0][0], taking(stack, slice(0, count)), CAMERA)
    assert estimate.T_cam_map is None and str(count) in estimate.reason and estimate.inlier_count == 0


def test_a_pose_from_four_points_is_refused(room, stack, queries):
    four = taking(stack, slice(0, 4))
    assert unsupported(NREEstimator(room.backbone).localize(queries[0][0], four, CAMERA))


@pytest.mark.parametrize("place", ["one point", "line"])
def test_coincident_and_collinear_points_give_no_pose(room, stack, queries, place):
    steps = torch.arange(len(stack), dtype=torch.float64)[:, None]
    points = {"one point": torch.ones(1, 3).double().expand(len(stack), 3), "line": steps * torch.ones(1, 3).double()}
    estimate = NREEstimator(room.backbone).localize(queries[0][0], replace(stack, points=points[place].clone()), CAMERA)
    assert estimate.T_cam_map is None and "triplets" in estimate.reason


@pytest.mark.parametrize("config", [EstimatorConfig(), EstimatorConfig(use_re=True), EstimatorConfig(skip_gnc=True)])
def test_flat_maps_give_no_pose(room, stack, queries, config):
    """Every cell of the query has the same features."""
    features = queries[0][0]
    flat = torch.full_like(features.coarse.data, 1 / np.sqrt(len(features.coarse.data)))
    features = replace(features, coarse=FeatureMap(flat, features.coarse.grid))
    estimate = NREEstimator(room.backbone, config).localize(features, stack, CAMERA)
    assert estimate.T_cam_map is None and estimate.reason


def spoilt(tensor, value):
    tensor = tensor.clone(memory_format=torch.contiguous_format)
    tensor.view(-1)[tensor.numel() // 2] = value
    return tensor


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["coarse", "fine"])
def test_query_features_that_are_not_finite_are_named(room, stack, queries, where, value):
    features = queries[0][0]
    map_ = getattr(features, where)
    features = replace(features, **{where: FeatureMap(spoilt(map_.data, value), map_.grid)})
    estimate = NREEstimator(room.backbone).localize(features, stack, CAMERA)
    assert estimate.T_cam_map is None and "query features are not finite" in estimate.reason


def test_a_prior_that_is_not_finite_is_named(room, stack, queries):
    prior = spoilt(torch.eye(4, dtype=torch.float64), float("nan"))
    estimate = NREEstimator(room.backbone).localize(queries[0][0], stack, CAMERA, prior=prior)
    assert estimate.T_cam_map is None and estimate.reason == "the prior pose is not finite"


@pytest.mark.parametrize("where", ["points", "coarse", "fine", "background"])
def test_keyframes_that_are_not_finite_are_named(room, stack, queries, where):
    broken = replace(stack, **{where: spoilt(getattr(stack, where), float("nan"))})
    estimate = NREEstimator(room.backbone).localize(queries[0][0], broken, CAMERA)
    assert estimate.T_cam_map is None and "not finite" in estimate.reason


@pytest.mark.parametrize(
    "where, shape",
    [
        ("points", (-1, 2)),
        ("points", (7, 3)),
        ("coarse", (-1, 63)),
        ("coarse", (7, 64)),
        ("fine", (-1, 88)),
        ("fine", (7, 32)),
        ("background", (-1, 256, 32)),
        ("background", (2, 256, 64)),
        ("background", (256, 64)),
    ],
)
def test_keyframes_of_wrong_shape_give_no_pose(room, stack, queries, where, shape):
    """Each is named with the shape that it has."""
    tensor = getattr(stack, where)
    shape = tuple(tensor.shape[i] if side == -1 else side for i, side in enumerate(shape))
    broken = replace(stack, **{where: torch.zeros(shape, dtype=tensor.dtype)})
    estimate = NREEstimator(room.backbone).localize(queries[0][0], broken, CAMERA)
    assert estimate.T_cam_map is None and estimate.reason


def test_query_features_of_another_length_are_named(room, stack, queries):
    features = queries[0][0]
    features = replace(features, coarse=FeatureMap(features.coarse.data[:32], features.coarse.grid))
    estimate = NREEstimator(room.backbone).localize(features, stack, CAMERA)
    assert estimate.T_cam_map is None and "[1200, 64], expected [1200, 32]" in estimate.reason


def test_cameras_without_focal_length_are_refused():
    with pytest.raises(CameraError, match="fx=0"):
        Camera(320, 240, 0.0, 258.0, 161.0, 118.0)


def test_the_fine_stage_is_more_precise_than_the_coarse_one(room, stack, queries):
    coarse, fine = [], []
    for features, truth in queries:
        estimate = NREEstimator(room.backbone).localize(features, stack, CAMERA)
        metres, degrees = errors(estimate, truth)
        assert metres < 0.02 and degrees < 0.3
        T, _ = estimate.stages["coarse_irls"]
        coarse.append(np.linalg.norm(invert(T)[:3, 3].numpy() - truth[:3, 3]))
        fine.append(metres)
    assert np.median(fine) < 0.7 * np.median(coarse)


def test_keyframes_without_points_do_not_disturb_the_others(room, queries):
    features, truth = queries[0]
    first = room.keyframes[0]
    empty = replace(first, points=first.points[:0], coarse=first.coarse[:0], fine=first.fine[:0])
    stack = stack_keyframes([empty, *room.keyframes, empty])
    assert errors(NREEstimator(room.backbone).localize(features, stack, CAMERA), truth)[0] < 0.03


def test_a_window_that_does_not_fit_the_backbone_is_refused(room):
    backbone = copy(room.backbone)
    backbone.fine_enlarge = 3
    with pytest.raises(NreError, match="window_size=16 must be a multiple of 6 for the features xfeat"):
        NREEstimator(backbone)
    NREEstimator(backbone, EstimatorConfig(window_size=12))
