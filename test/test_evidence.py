# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What an estimate's evidence counts, on estimates whose answer is plain, and what the confidence makes of it."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from nre_ros.geometry import Camera
from nre_ros.keyframes.types import KeyframeStack
from nre_ros.localization import confidence
from nre_ros.localization.confidence import ConfidenceModel, load_model, read_model
from nre_ros.localization.evidence import NUMBERS, gather
from nre_ros.localization.verdict import reach_verdict
from nre_ros.nre import Estimate
from nre_ros.nre.alternatives import AlternativePose
from nre_ros.nre.inliers import inlier_score
from nre_ros.nre.uncertainty import PoseUncertainty

CAMERA = Camera(640, 480, 500.0, 500.0, 319.5, 239.5)
DEPTH = 2.0
KEYFRAMES = 4
MODEL = load_model("xfeat")


def grid(across: int = 32, down: int = 24) -> torch.Tensor:
    """Pixels [N, 2] in the middles of across x down blocks."""
    x, y = (torch.arange(across) + 0.5) * 640 / across, (torch.arange(down) + 0.5) * 480 / down
    return torch.stack(torch.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2).double()


def scene(losses: torch.Tensor, pixels: torch.Tensor, shift: float = 0.0, **changes):
    """An estimate at the origin and the stack it comes from: points on the plane z = 2, seen by four keyframes there."""
    rays = torch.cat([(pixels - torch.tensor([319.5, 239.5])) / 500, torch.ones(len(pixels), 1)], 1).double()
    points = DEPTH * rays
    counts = tuple(len(part) for part in pixels.tensor_split(KEYFRAMES))
    stack = KeyframeStack(
        tuple(range(KEYFRAMES)),
        points,
        torch.zeros(len(points), 1),
        torch.zeros(len(points), 1),
        counts,
        torch.zeros(KEYFRAMES, 0, 1),
        (1,) * KEYFRAMES,
        (points / 500).float(),
        torch.zeros(KEYFRAMES, 3).double(),
    )
    T = torch.eye(4).double()
    coarse = T.clone()
    coarse[0, 3] = shift * DEPTH / 500  # moves every projection by so many pixels
    fields = dict(
        T_cam_map=T,
        uncertainty=uncertainty(1e-6 * torch.eye(6).double()),
        losses=losses,
        pixels=pixels,
        valid=torch.ones(len(pixels), dtype=torch.bool),
        false_match_rate=torch.zeros(len(pixels)),
        fine_margins=1 - losses,
        sample_maps=torch.zeros(1, 2, 2),
        sample_points=torch.zeros(1, dtype=torch.long),
        keyframes=stack,
        camera=CAMERA,
        stages={"coarse_irls": (coarse, 0.0)},
    )
    return Estimate(**{**fields, **changes}), stack


def everywhere(share: float = 1.0, **changes):
    pixels = grid()
    agree = torch.rand(len(pixels), generator=torch.Generator().manual_seed(0)) < share
    return scene(torch.where(agree, 0.2, 0.9), pixels, **changes)


def by_accident(share: float = 0.1):
    """As in images of other places: few points agree, and loosely; the pose is vague and the fine stage moved it."""
    estimate, stack = everywhere(
        share, shift=4.0, fine_margins=torch.zeros(768), uncertainty=uncertainty(1e-3 * torch.eye(6).double())
    )
    return replace(estimate, losses=torch.where(estimate.losses < 0.5, 0.38, 0.9)), stack


def test_the_evidence_of_a_pose_that_explains_everything():
    estimate, stack = everywhere(shift=3.0)
    evidence = gather(estimate)
    assert evidence.inliers == 768 and evidence.inlier_blocks == 20 * 15
    assert evidence.inlier_ratio == evidence.compatible_inlier_ratio == evidence.confirmed_regions == 1.0
    assert evidence.effective_keyframes == pytest.approx(4.0) and evidence.alternative_score == 0.0
    assert evidence.inlier_loss == pytest.approx(0.2) and evidence.fine_margin == pytest.approx(0.8)
    assert evidence.log_refinement_shift == pytest.approx(math.log1p(3.0))
    # the median distance of a plane's points, by the closed form of each ray's length
    assert evidence.distance == pytest.approx(float(stack.points.norm(dim=1).median()))
    assert evidence.log_position_deviation == pytest.approx(math.log(math.sqrt(3e-6) / evidence.distance))
    assert evidence.log_rotation_deviation == pytest.approx(math.log(math.sqrt(3e-6)))


def test_expected_false_matches_are_no_evidence():
    estimate, _ = everywhere(false_match_rate=torch.full((768,), 0.4))
    assert gather(estimate).inlier_ratio == pytest.approx(0.6)
    estimate, _ = everywhere(0.3, false_match_rate=torch.full((768,), 0.9))
    assert gather(estimate).inlier_ratio == 0.0


def test_inliers_at_one_place_count_once():
    heap = (
        torch.full((300, 2), 100.0).double() + torch.rand(300, 2, generator=torch.Generator().manual_seed(1)).double()
    )
    evidence = gather(scene(torch.full((300,), 0.2), heap)[0])
    assert evidence.inliers == 300 and evidence.inlier_blocks == 1


def test_a_region_without_inliers_is_not_confirmed():
    """The left half of the image agrees, the right half does not: half of the regions, and of the points."""
    pixels = grid()
    estimate, _stack = scene(torch.where(pixels[:, 0] < 320, 0.2, 0.9), pixels)
    evidence = gather(estimate)
    assert evidence.inlier_ratio == pytest.approx(0.5) and 0.35 < evidence.confirmed_regions < 0.65
    assert evidence.effective_keyframes == pytest.approx(
        2.0
    )  # the stack is sorted by columns: two keyframes agree, two do not


def test_the_first_blocks_and_keyframes_that_agree_count_most():
    pixels = grid()
    half = gather(scene(torch.where(pixels[:, 0] < 320, 0.2, 0.9), pixels)[0])
    assert half.few_inlier_blocks == 0.0 and half.few_keyframes == pytest.approx(1 - math.log(2))
    dot = torch.full((300, 2), 100.0).double()
    heap = gather(scene(torch.full((300,), 0.2), dot)[0])
    assert heap.few_inlier_blocks == pytest.approx(3.5 - math.log(2)) and heap.few_keyframes == 0.0


def with_more_keyframes(estimate, losses: torch.Tensor, copies: int):
    """The estimate with so many copies of its keyframes added, whose points have the given losses."""
    stack, losses = estimate.keyframes, losses.to(estimate.losses.dtype)
    times = 1 + copies
    more = replace(
        stack,
        ids=tuple(range(times * KEYFRAMES)),
        points=stack.points.repeat(times, 1),
        directions=stack.directions.repeat(times, 1),
        counts=stack.counts * times,
        centres=stack.centres.repeat(times, 1),
    )
    return replace(
        estimate,
        keyframes=more,
        losses=torch.cat([*[losses] * copies, estimate.losses]),  # the best keyframes are the last ones
        pixels=estimate.pixels.repeat(times, 1),
        valid=estimate.valid.repeat(times),
        false_match_rate=estimate.false_match_rate.repeat(times),
    )


def test_keyframes_that_see_nothing_of_the_place_are_no_evidence_against_a_pose():
    """Four keyframes agree. Of twenty retrieved ones the best five count: those, and one that is as useless as the rest."""
    estimate, _ = everywhere(0.7, shift=2.0)
    useless = torch.full((768,), 0.95)
    one_more = with_more_keyframes(estimate, useless, 1)
    first = 3 * 768 // KEYFRAMES  # of the useless keyframes the last one stays
    rows, stack = slice(first, None), one_more.keyframes
    five = replace(
        one_more,
        keyframes=replace(
            stack,
            ids=stack.ids[3:],
            points=stack.points[rows],
            directions=stack.directions[rows],
            counts=stack.counts[3:],
        ),
        losses=one_more.losses[rows],
        pixels=one_more.pixels[rows],
        false_match_rate=one_more.false_match_rate[rows],
    )
    twenty = with_more_keyframes(estimate, useless, 4)
    counted = gather(twenty, 20)
    assert counted.inliers == gather(estimate).inliers
    assert counted.effective_keyframes == pytest.approx(gather(estimate).effective_keyframes)
    assert counted.inlier_ratio == pytest.approx(gather(five).inlier_ratio) != gather(twenty).inlier_ratio
    assert counted.inlier_ratio == pytest.approx(0.8 * gather(estimate).inlier_ratio)
    influence = twenty.uncertainty.influence.repeat(5, 1, 1)
    twenty = replace(twenty, uncertainty=replace(twenty.uncertainty, influence=influence))
    assert reach_verdict(twenty, MODEL, 0.5, retrieved=20).evidence == counted


def test_keyframes_that_agree_are_no_weaker_evidence_where_more_are_retrieved():
    estimate, _ = everywhere(0.7, shift=2.0)
    five, twenty = gather(estimate), with_more_keyframes(estimate, estimate.losses, 4)
    assert gather(twenty, 20).effective_keyframes == pytest.approx(5.0, rel=0.01)
    all_count = gather(twenty)  # as the fit has seen those that a search that was cut has added
    assert all_count.effective_keyframes == pytest.approx(5 * five.effective_keyframes)
    confidence_of = {n: float(MODEL.logit(gather(twenty, n).numbers())) for n in (5, 20)}
    assert confidence_of[20] > confidence_of[5] + 4
    assert confidence_of[20] == pytest.approx(float(MODEL.logit(five.numbers())), abs=1.0)  # of four


@pytest.mark.parametrize("retrieved", [1, 4, 5])
def test_up_to_five_retrieved_keyframes_all_count(retrieved):
    estimate, _ = everywhere(0.7, shift=2.0)
    more = with_more_keyframes(estimate, torch.full((768,), 0.95), 1)
    assert gather(more, retrieved) == gather(more)
    assert gather(estimate, 20) == gather(estimate)  # no more than four were found


def test_keyframes_that_a_search_that_was_cut_has_added_count_as_in_the_fit():
    """Eight agree: 5 were retrieved and 3 added, or 6 and 2, so that 7 count; or all of 20 that the map has."""
    estimate, _ = everywhere(0.7, shift=2.0)
    eight = with_more_keyframes(estimate, estimate.losses, 1)
    for retrieved, counted in ((5, 8), (6, 7), (7, 6), (8, 5), (20, 5)):
        assert gather(eight, retrieved).effective_keyframes == pytest.approx(counted, rel=0.01)


def test_points_without_a_compatible_view_do_not_count_against_a_pose():
    """Those that a keyframe saw from the other side, or ten times as near, may look like anything."""
    pixels = grid()
    disagree = pixels[:, 0] > 320
    estimate, stack = scene(torch.where(disagree, 0.9, 0.2), pixels)
    for change in (-1.0, 0.1):
        directions = torch.where(disagree[:, None], change * stack.directions, stack.directions)
        evidence = gather(replace(estimate, keyframes=replace(stack, directions=directions)))
        assert (
            evidence.compatible_inlier_ratio == 1.0
            and evidence.confirmed_regions == 1.0
            and evidence.inlier_ratio == pytest.approx(0.5)
        )


def uncertainty(covariance):
    """An uncertainty with this covariance, as if every keyframe had the same influence."""
    return PoseUncertainty(covariance, torch.eye(6).double().repeat(KEYFRAMES, 1, 1) / KEYFRAMES, covariance)


def alternative_at(T, losses, estimate, stack, covariance=None):
    """A second pose at which the points have other losses."""
    theirs, own = (inlier_score(each, estimate.false_match_rate, stack.counts) for each in (losses, estimate.losses))
    return AlternativePose(T, theirs / own, None if covariance is None else uncertainty(covariance))


@pytest.mark.parametrize("relative_score", [0.0, 0.25, 1.0])
def test_the_alternative_is_scored_by_its_best_keyframe(relative_score):
    """It may be a place of which the map shows one keyframe only."""
    estimate, stack = everywhere()
    losses = torch.full((768,), 0.9)
    losses[: round(relative_score * stack.counts[0])] = 0.2
    elsewhere = torch.eye(4).double()
    evidence = gather(replace(estimate, alternative=alternative_at(elsewhere, losses, estimate, stack)))
    assert evidence.alternative_score == pytest.approx(relative_score)


def test_the_evidence_of_a_pose_without_inliers_is_finite():
    evidence = gather(everywhere(0.0)[0])
    assert evidence.inliers == evidence.inlier_blocks == 0 and np.isfinite(evidence.numbers()).all()


# --- confidence -----------------------------------------------------------------------------------------


def model(**changes) -> ConfidenceModel:
    weights = np.zeros(len(NUMBERS))
    weights[NUMBERS.index("inlier_ratio")] = 2.0
    fields = dict(
        mean=np.zeros(len(NUMBERS)),
        scale=np.ones(len(NUMBERS)),
        weights=weights,
        bias=-1.0,
        backbone="xfeat",
        alternative_exponent=4.0,
        inflation=2.0,
        outlier_inflation=1.5,
        position_floor=0.0,
        rotation_floor=0.0,
    )
    return ConfidenceModel(**{**fields, **changes})


def numbers(**values) -> np.ndarray:
    return np.array([values.get(name, 0.0) for name in NUMBERS])


def test_the_probability_is_logistic_and_is_shared_with_the_alternative():
    for share in (0.0, 0.5, 1.0):
        expected = 1 / (1 + math.exp(1 - 2 * share))
        assert model().probability(numbers(inlier_ratio=share)) == pytest.approx(expected)
        assert model().probability(numbers(inlier_ratio=share, alternative_score=1.0)) == pytest.approx(expected / 2)
    assert model().share(0.0) == 1.0 and model().share(0.5) == pytest.approx(16 / 17)


def test_fewer_inliers_inflate_the_covariance_more():
    reported = np.diag([1.0, 2, 3, 4, 5, 6]) * 1e-6
    np.testing.assert_allclose(model().covariance(reported, numbers(inlier_ratio=1.0), 2.0), 4 * reported)
    two = np.stack([numbers(inlier_ratio=0.5), numbers()])
    several = model().covariance(np.stack([reported, reported]), two, np.array([1.0, 2.0]))
    np.testing.assert_allclose(several[0], 4 * math.exp(1.5) * reported)
    np.testing.assert_allclose(several[1], 4 * math.exp(3.0) * reported)


def test_a_floor_is_always_added_to_the_covariance():
    at_two_metres = model(position_floor=1e-3, rotation_floor=2e-3).covariance(np.zeros((6, 6)), numbers(), 2.0)
    np.testing.assert_allclose(at_two_metres, np.diag([4e-6] * 6))


def test_a_model_of_other_evidence_is_refused(tmp_path):
    path = tmp_path / "model.json"
    path.write_text(json.dumps(model().to_json()))
    assert read_model(path).bias == -1.0 and (read_model(path).weights == model().weights).all()
    for change in ({"version": 0}, {"numbers": ["share"]}):
        other = tmp_path / f"{next(iter(change))}.json"
        other.write_text(json.dumps({**model().to_json(), **change}))
        with pytest.raises(ValueError, match="other evidence"):
            read_model(other)


def test_a_backbone_without_a_fit_of_its_own_gets_a_warning():
    load_model.cache_clear()
    with pytest.warns(UserWarning, match="fitted to the features xfeat, not to nre"):
        other = load_model("nre")
    np.testing.assert_array_equal(other.weights, load_model("xfeat").weights)


def test_the_fitted_model_separates_plain_cases():
    fitted = load_model("xfeat")
    assert (fitted.scale > 0).all() and fitted.inflation > 0
    sure = gather(everywhere(0.9)[0]).numbers()
    chance = gather(by_accident()[0]).numbers()
    assert fitted.probability(sure) > 0.95 and fitted.probability(chance) < 0.05


# --- the verdict ----------------------------------------------------------------------------------------


def test_estimates_are_accepted_or_refused_with_a_reason():
    estimate, _ = everywhere(0.9)
    good = reach_verdict(estimate, MODEL, 0.5)
    assert good.reason == "" and good.alternatives == ()
    np.testing.assert_allclose(
        good.covariance,
        load_model("xfeat").covariance(estimate.covariance.numpy(), good.evidence.numbers(), good.evidence.distance),
    )
    few = reach_verdict(by_accident(0.05)[0], MODEL, 0.5)
    assert (
        few.confidence < 0.5 and f"{few.evidence.inliers} inliers at {few.evidence.inlier_blocks} places" in few.reason
    )
    assert "covariance" in reach_verdict(replace(estimate, uncertainty=None), MODEL, 0.5).reason
    none = reach_verdict(Estimate(reason="nothing seen"), MODEL, 0.0)
    assert none.reason == "nothing seen" and none.confidence == 0.0


def test_two_equal_poses_are_both_reported():
    estimate, stack = everywhere(0.9)
    elsewhere = torch.eye(4).double()
    elsewhere[0, 3] = 12.0
    alternative = alternative_at(elsewhere, estimate.losses, estimate, stack, 100 * estimate.covariance)
    verdict = reach_verdict(replace(estimate, alternative=alternative), MODEL, 0.9)
    assert verdict.confidence == pytest.approx(0.5, abs=0.03) and "alternative pose" in verdict.reason
    # this one could be accepted without the other: both are reported, for odometry may tell which is right
    first, other = verdict.alternatives
    assert first.share == pytest.approx(0.5) and other.share == pytest.approx(0.5)
    np.testing.assert_allclose(first.T_map_cam, np.eye(4))
    assert first.covariance.shape == (6, 6)
    floor = np.diag([(MODEL.position_floor * verdict.evidence.distance) ** 2] * 3 + [MODEL.rotation_floor**2] * 3)
    np.testing.assert_allclose(other.covariance - floor, 100 * (first.covariance - floor))
    np.testing.assert_allclose(other.T_map_cam[:3, 3], [-12, 0, 0])


def test_a_weaker_alternative_is_reported_beside_the_accepted_pose():
    estimate, stack = everywhere(0.9)
    losses = torch.full((768,), 0.9)
    losses[: int(0.6 * stack.counts[0])] = 0.2
    alternative = alternative_at(torch.eye(4).double(), losses, estimate, stack)
    verdict = reach_verdict(replace(estimate, alternative=alternative), MODEL, 0.5)
    assert verdict.reason == "" and 0.5 < verdict.confidence < 1.0
    (other,) = verdict.alternatives
    assert 0 < other.share < 0.35


def test_right_means_ten_centimetres_at_two_metres():
    assert confidence.POSITION_BOUND * 2.0 == pytest.approx(0.10)
    assert math.degrees(confidence.ROTATION_BOUND) == pytest.approx(5.0)
    assert chi2.ppf(0.9, 6) == pytest.approx(10.64, abs=0.01)  # what docs/confidence.md says of the ellipsoids
