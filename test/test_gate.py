# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The gate against chi-square quantiles, composed motions, and simulated robots with known trajectories."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.stats import chi2

from nre_ros.errors import PoseError
from nre_ros.gate.decision import State
from nre_ros.gate.gate import Gate
from nre_ros.gate.motion import MotionModel
from nre_ros.gate.observation import Observation
from nre_ros.gate.settings import GateSettings, SettingsError
from nre_ros.geometry import invert, pose_error
from nre_ros.localization.result import Alternative, LocalizationResult

START, SECOND = 1_700_000_000 * 10**9, 10**9
SURE = np.diag([0.01**2] * 3 + [0.002**2] * 3)
EXACT = GateSettings(
    covariance_inflation=1.0,
    min_position_stddev=1e-9,
    min_rotation_stddev=1e-9,
    motion=MotionModel(0, 0, 0, 0, 0, max_speed=2.0),
)
"""Odometry without drift and covariances as stated: closed forms hold."""
NEXT_ROOM = 20.0
"""Metres between two rooms that look the same."""


def motion(position=(0, 0, 0), turn=(0, 0, 0)):
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(turn).as_matrix()
    T[:3, 3] = position
    return T


def at(seconds, T_odom=None, T_base_cam=None, camera=""):
    """An image ``seconds`` after the start, with odometry ``T_odom`` of the camera."""
    extrinsics = {} if T_base_cam is None else {"T_base_cam": T_base_cam}
    return Observation(START + round(seconds * SECOND), camera_name=camera, T_odom_cam=T_odom, **extrinsics)


def fix(seconds, T, covariance=SURE, T_odom=None, confidence=0.9, alternatives=(), **more):
    """An image and its localization result, as ``Gate.judge`` takes them."""
    result = LocalizationResult(T, covariance, confidence, alternatives=tuple(alternatives))
    return at(seconds, T_odom, **more), result


def localized(settings=None, T=None, T_odom=None, until=0.0):
    """A gate that has accepted ``T`` at ``until`` seconds, where odometry is ``T_odom``."""
    gate = Gate(settings or GateSettings())
    T = motion() if T is None else T
    for i in range(4):
        decision = gate.judge(*fix(until - 0.5 * (3 - i), T, T_odom=T_odom))
    assert decision.accepted and gate.state == State.LOCALIZED
    return gate


class Robot:
    """A camera on a random smooth way, with odometry from another origin that drifts and fixes with noise."""

    def __init__(self, seed, drift=0.02, rate=2.0):
        self.rng = np.random.default_rng(seed)
        self.drift, self.step = drift, 1 / rate
        self.seconds, self.T, self.T_odom = 0.0, motion(), motion([3, -2, 0], [0, 0, 1.0])
        self._turn = 0.0

    def move(self):
        self.seconds += self.step
        self._turn = 0.8 * self._turn + self.rng.normal(scale=0.3)
        ahead, turn = 0.5 * self.step, self._turn * self.step
        self.T = self.T @ motion([ahead, 0, 0], [0, 0, turn])
        slip = 1 + self.rng.normal(scale=self.drift)
        self.T_odom = self.T_odom @ motion([ahead * slip, 0, 0], [0, 0, turn + self.rng.normal(scale=0.01 * ahead)])

    def fix(self, T=None, odometry=True, **more):
        """A fix at ``T`` (default: where the robot is), with noise of the covariance that it states."""
        T = self.T if T is None else T
        noise = self.rng.multivariate_normal(np.zeros(6), SURE)
        noisy = motion(T[:3, 3] + noise[:3])
        noisy[:3, :3] = Rotation.from_rotvec(noise[3:]).as_matrix() @ T[:3, :3]
        return fix(self.seconds, noisy, T_odom=self.T_odom if odometry else None, **more)


# --- agreement ----------------------------------------------------------------------------------


def test_the_threshold_is_the_chi_square_quantile_of_six_degrees_of_freedom():
    for probability in (0.9, 0.999):
        assert Gate(GateSettings(gate_probability=probability)).threshold ** 2 == pytest.approx(
            chi2.ppf(probability, 6)
        )


@pytest.mark.parametrize("axis", range(6))
def test_the_mahalanobis_distance_of_a_shift_or_turn_is_in_standard_deviations(axis):
    deviations = np.array([0.01, 0.02, 0.03, 0.004, 0.005, 0.006])
    covariance = np.diag(deviations**2)
    gate = localized(EXACT)
    error = np.zeros(6)
    error[axis] = 3 * deviations[axis]
    assert gate.judge(*fix(0.5, motion(), covariance, motion())).accepted
    decision = gate.judge(*fix(1.0, motion(error[:3], error[3:]), covariance, motion()))
    # both fixes have the covariance: the difference has twice as much
    assert decision.accepted and decision.mahalanobis == pytest.approx(3 / math.sqrt(2), rel=1e-6)
    assert decision.metres == pytest.approx(np.linalg.norm(error[:3]))
    assert decision.degrees == pytest.approx(math.degrees(np.linalg.norm(error[3:])))


@pytest.mark.parametrize("factor, accepted", [(0.99, True), (1.01, False)])
def test_a_fix_is_accepted_up_to_the_threshold(factor, accepted):
    gate = localized(EXACT, T_odom=motion())
    x = factor * math.sqrt(chi2.ppf(0.999, 6) * 2) * 0.01
    decision = gate.judge(*fix(0.5, motion([x, 0, 0]), T_odom=motion()))
    assert decision.accepted == accepted and decision.jump != accepted
    assert f"{x:.2f} m" in decision.reason and f"of {gate.threshold:.1f}" in decision.reason


def test_the_gate_probability_is_the_share_of_correct_fixes_that_pass():
    rng = np.random.default_rng(0)
    settings = replace(EXACT, gate_probability=0.9)
    refused = 0
    for _ in range(400):
        gate = Gate(settings)
        gate.set_initial_pose(motion(), SURE, START, motion())
        noise = rng.multivariate_normal(np.zeros(6), 2 * SURE)
        refused += not gate.judge(*fix(0.5, motion(noise[:3], noise[3:]), T_odom=motion())).accepted
    assert 20 < refused < 62  # 40 expected, three and a half standard deviations


def test_the_pose_is_propagated_by_odometry():
    """Seen from another origin, through a camera that is turned, over a motion in all axes."""
    T_before, T_step = motion([1, 2, 0.5], [0.3, -0.2, 2.0]), motion([0.4, -0.3, 0.1], [0.2, 0.1, -0.6])
    T_odom = motion([7, -3, 0], [0, 0, 1.2])
    gate = localized(T=T_before, T_odom=T_odom)
    T_now, covariance = gate.predict(at(1, T_odom @ T_step))
    np.testing.assert_allclose(T_now, T_before @ T_step, atol=1e-9)
    assert np.linalg.eigvalsh(covariance)[0] > 0
    decision = gate.judge(*fix(1.0, T_before @ T_step, T_odom=T_odom @ T_step))
    assert decision.accepted and decision.mahalanobis < 1e-6 and "from odometry" in decision.reason


def test_two_cameras_confirm_each_other_through_their_places_on_the_robot():
    ahead, behind = motion([0.3, 0, 0]), motion([-0.3, 0, 0], [0, 0, math.pi - 0.1])
    T_base, T_odom = motion([4, 1, 0], [0, 0, 0.7]), motion([0, 2, 0], [0, 0, -0.4])
    gate = Gate()
    first = gate.judge(*fix(0.0, T_base @ ahead, T_odom=T_odom @ ahead, T_base_cam=ahead, camera="ahead"))
    second = gate.judge(*fix(0.5, T_base @ behind, T_odom=T_odom @ behind, T_base_cam=behind, camera="behind"))
    assert not first.accepted and second.accepted
    np.testing.assert_allclose(second.T_map_cam, T_base @ behind)
    T_now, _ = gate.predict(at(1, T_odom @ ahead, ahead))
    np.testing.assert_allclose(T_now, T_base @ ahead, atol=1e-9)
    assert gate.judge(*fix(0.95, T_base @ ahead, T_odom=T_odom @ ahead, T_base_cam=ahead)).accepted
    # one that comes a little late is judged at its own time, and the newer pose stays
    late = gate.judge(*fix(0.9, T_base @ behind, T_odom=T_odom @ behind, T_base_cam=behind))
    assert late.accepted and late.mahalanobis < 1e-6


def test_the_covariance_grows_with_time_and_path_length_and_by_the_speed_without_odometry():
    model = MotionModel(max_speed=1.5, max_turn_rate=1.0)
    gate = localized(GateSettings(motion=model), T_odom=motion())

    def deviation(seconds, T_odom):
        return math.sqrt(gate.predict(at(seconds, T_odom))[1][0, 0])

    still, later = deviation(1, motion()), deviation(4, motion())
    near, far = deviation(5, motion([1, 0, 0])), deviation(6, motion([3, 0, 0]))
    assert still < later < near < far
    assert deviation(7, motion()) > far, "the way back drifts as well"
    at_start = SURE + np.diag([0.02**2] * 3 + [math.radians(0.5) ** 2] * 3)
    expected = at_start[0, 0] + (1.5 * 8 / 3) ** 2  # the largest speed is three standard deviations
    assert deviation(8, None) ** 2 == pytest.approx(expected)


def test_stated_covariances_are_inflated_and_have_a_floor():
    settings = GateSettings(covariance_inflation=3.0, min_position_stddev=0.05, min_rotation_stddev=0.02)
    gate = Gate(settings)
    gate.judge(*fix(0, motion()))
    accepted = gate.judge(*fix(0.5, motion())).covariance
    np.testing.assert_allclose(accepted, 9 * SURE + np.diag([0.05**2] * 3 + [0.02**2] * 3))


# --- before the first pose ----------------------------------------------------------------------


def test_one_fix_is_not_accepted_and_one_that_agrees_is():
    gate = Gate()
    first = gate.judge(*fix(0, motion(), T_odom=motion()))
    assert not first.accepted and first.state == State.UNLOCALIZED and "1 of 2 fixes" in first.reason
    assert first.T_map_cam is None and math.isnan(first.mahalanobis) and gate.predict(at(0, motion())) is None
    other = gate.judge(*fix(0.5, motion([4, 0, 0]), T_odom=motion()))
    assert not other.accepted and "1 of 2 fixes" in other.reason
    last = gate.judge(*fix(1.0, motion([4.3, 0, 0]), T_odom=motion([0.3, 0, 0])))
    assert last.accepted and last.state == State.LOCALIZED and not last.jump
    assert gate.judge(*fix(1.5, motion([4.3, 0, 0]), T_odom=motion([0.3, 0, 0]))).accepted


def test_fixes_of_nearly_the_same_image_are_not_independent_evidence():
    gate = Gate(GateSettings(first_seconds=0.5))
    accepted = [gate.judge(*fix(i / 30, motion(), T_odom=motion())).accepted for i in range(17)]
    assert accepted == [False] * 15 + [True] * 2


def test_a_single_fix_is_accepted_where_the_settings_allow_it():
    gate = Gate(GateSettings(single_confidence=0.95))
    assert not gate.judge(*fix(0, motion(), confidence=0.94)).accepted
    assert gate.judge(*fix(0.1, motion([5, 0, 0]), confidence=0.96)).accepted
    # not for a jump
    assert not gate.judge(*fix(0.2, motion(), confidence=1.0)).accepted


def test_fixes_too_far_apart_in_time_do_not_confirm_each_other_without_odometry():
    gate = Gate()
    for i in range(5):
        assert not gate.judge(*fix(5.0 * i, motion())).accepted
    assert gate.judge(*fix(20.5, motion())).accepted


def test_an_initial_pose_is_confirmed_by_one_fix_and_propagated_by_odometry():
    gate = Gate()
    T, T_odom, step = motion([10, 5, 0], [0, 0, 2]), motion([1, 0, 0]), motion([0.5, 0, 0], [0, 0, 0.2])
    gate.set_initial_pose(T, np.diag([0.5**2] * 2 + [0] * 3 + [0.26**2]), START, T_odom)
    assert gate.state == State.UNLOCALIZED
    np.testing.assert_allclose(gate.predict(at(1, T_odom @ step))[0], T @ step, atol=1e-9)
    decision = gate.judge(*fix(1.0, motion([0.6, 0.3, 0]) @ T @ step, T_odom=T_odom @ step))
    assert decision.accepted and decision.state == State.LOCALIZED


def test_a_wrong_initial_pose_is_overruled_by_fixes_that_agree():
    gate = Gate()
    gate.set_initial_pose(motion([10, 5, 0]), np.eye(6) * 0.05, START)
    accepted = [gate.judge(*fix(i, motion(), T_odom=motion())).accepted for i in range(1, 5)]
    assert accepted == [False, False, True, True]


def test_an_invalid_initial_pose_changes_nothing():
    gate = localized()
    for T, covariance, words in [
        (motion() * np.nan, SURE, "not finite"),
        (motion(), -SURE, "negative variance"),
        (motion(), np.eye(3), r"shape \(3, 3\)"),
    ]:
        with pytest.raises(PoseError, match=words):
            gate.set_initial_pose(T, covariance, START)
    assert gate.state == State.LOCALIZED and gate.judge(*fix(0.5, motion())).accepted


# --- jumps, kidnaps, perceptual aliasing ----------------------------------------------------------------


@pytest.mark.parametrize("odometry", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_every_fix_of_a_moving_robot_is_accepted(seed, odometry):
    robot, gate = Robot(seed), Gate()
    decisions = []
    for _ in range(300):
        robot.move()
        decisions.append(gate.judge(*robot.fix(odometry=odometry)))
    assert not decisions[0].accepted and all(decision.accepted for decision in decisions[1:])
    assert not any(decision.jump for decision in decisions)
    assert pose_error(gate.predict(at(robot.seconds))[0], robot.T)[0] < 0.1


@pytest.mark.parametrize("seed", range(4))
def test_outliers_are_never_accepted(seed):
    """A third of the fixes is anywhere."""
    robot, gate = Robot(seed), Gate()
    lost = 0
    for i in range(300):
        robot.move()
        wrong = robot.rng.random() < 1 / 3
        T = motion(robot.rng.uniform(-10, 10, 3), robot.rng.normal(size=3)) if wrong else None
        decision = gate.judge(*robot.fix(T))
        assert not (wrong and decision.accepted), decision.reason
        lost += i > 20 and not wrong and not decision.accepted
    assert not lost


@pytest.mark.parametrize("odometry", ["lies", "jumps", "absent"])
def test_a_kidnapped_robot_is_found_within_three_seconds(odometry):
    robot, gate = Robot(0), Gate()
    for _ in range(20):
        robot.move()
        gate.judge(*robot.fix(odometry=odometry != "absent"))
    robot.T = motion([6, 3, 0], [0, 0, 2.0]) @ robot.T
    if odometry == "jumps":
        robot.T_odom = motion([-4, 0, 0]) @ robot.T_odom
    accepted = []
    for _ in range(8):
        robot.move()
        decision = gate.judge(*robot.fix(odometry=odometry != "absent"))
        accepted.append(decision.accepted)
        if decision.accepted:
            assert pose_error(decision.T_map_cam, robot.T)[0] < 0.1
        assert decision.jump == (not decision.accepted or accepted.count(True) == 1)
    assert accepted == [False] * 3 + [True] * 5, "four fixes at 2 Hz span 1.5 s"


def test_a_jump_needs_time_as_well_as_fixes():
    gate = localized(T_odom=motion())
    there = [gate.judge(*fix(i / 30, motion([5, 0, 0]), T_odom=motion())) for i in range(1, 60)]
    first = next(i for i, decision in enumerate(there) if decision.accepted)
    assert first == 45 and there[first].jump and "confidence" not in there[first].reason


def test_weaker_fixes_need_more_of_them():
    gate = localized(T_odom=motion())  # rests on fixes of confidence 0.9
    T = motion([5, 0, 0])
    accepted = [gate.judge(*fix(i, T, T_odom=motion(), confidence=0.5)).accepted for i in range(1, 7)]
    assert accepted == [False] * 4 + [True] * 2, "2.5 x 0.9 is reached by five"


def test_fixes_that_alternate_do_not_teleport():
    for seed in range(2):
        robot, gate = Robot(seed), Gate()
        for i in range(300):
            robot.move()
            decision = gate.judge(*robot.fix(motion([NEXT_ROOM, 0, 0]) @ robot.T if i % 3 == 2 else None))
            assert decision.accepted == (i % 3 != 2) or i == 0, decision.reason


@pytest.mark.parametrize("odometry, metres, rate", [(True, NEXT_ROOM, 1.0), (False, 60.0, 2.0)])
def test_a_place_that_was_refuted_needs_twice_as_much_each_time(odometry, metres, rate):
    robot, gate = Robot(1, rate=rate), Gate()
    for _ in range(5):
        robot.move()
        gate.judge(*robot.fix(odometry=odometry))
    lasted = []
    for wrong_in_a_row in (2, 2, 2, 2, 40):
        for i in range(wrong_in_a_row):
            robot.move()
            decision = gate.judge(*robot.fix(motion([metres, 0, 0]) @ robot.T, odometry))
            if decision.accepted:
                lasted.append(i + 1)
                break
        else:
            robot.move()
            assert gate.judge(*robot.fix(odometry=odometry)).accepted
    assert lasted == [24], "three fixes, doubled three times"


def test_another_place_is_not_blamed_for_the_one_that_was_refuted():
    robot, gate = Robot(2, rate=1.0), Gate()
    for wrong in (0, 0, 0, 1, 1, 0, 1, 1, 0):
        robot.move()
        gate.judge(*robot.fix(motion([wrong * NEXT_ROOM, 0, 0]) @ robot.T))
    accepted = []
    for _ in range(4):
        robot.move()
        accepted.append(gate.judge(*robot.fix(motion([0, 15, 0]) @ robot.T)).accepted)
    assert accepted == [False, False, True, True]


def test_an_alternative_that_agrees_is_accepted_instead():
    """The image of one of two equal rooms supports both; odometry knows which it is."""
    robot, gate = Robot(3), Gate()
    for _ in range(5):
        robot.move()
        gate.judge(*robot.fix())
    for _ in range(50):
        robot.move()
        true = Alternative(robot.T, 0.4)
        decision = gate.judge(*robot.fix(motion([NEXT_ROOM, 0, 0]) @ robot.T, alternatives=(true,)))
        assert decision.accepted and not decision.jump and "alternative pose" in decision.reason
        np.testing.assert_array_equal(decision.T_map_cam, robot.T)


def test_an_improbable_or_uncertain_alternative_does_not_hold_a_carried_robot_at_its_old_place():
    """It agrees with odometry, which lies: the new place must not be refuted by it."""
    wide = np.diag([3.0**2] * 3 + [0.5**2] * 3)
    for other in (Alternative(motion(), 0.011), Alternative(motion([8, 0, 0]), 0.4, wide)):
        gate = localized()
        accepted = []
        for i in range(1, 8):
            decision = gate.judge(*fix(i, motion([NEXT_ROOM, 0, 0]), T_odom=motion(), alternatives=(other,)))
            accepted.append(decision.accepted)
            assert not decision.accepted or decision.T_map_cam[0, 3] == NEXT_ROOM
        assert any(accepted) == (other.share < 0.35)  # else the image is of two places


def test_the_reported_confidence_is_that_of_the_accepted_pose():
    gate = localized()
    other = Alternative(motion(), 0.4, SURE)
    decision = gate.judge(*fix(1, motion([NEXT_ROOM, 0, 0]), T_odom=motion(), confidence=0.6, alternatives=(other,)))
    assert decision.accepted and decision.confidence == pytest.approx(0.4)  # of 0.6 + 0.4
    decision = gate.judge(*fix(2, motion(), T_odom=motion(), confidence=0.9))
    assert decision.confidence == 0.9


def test_an_image_of_two_places_is_no_evidence_for_either():
    gate = Gate()
    both = {"alternatives": (Alternative(motion([NEXT_ROOM, 0, 0]), 0.45),)}
    for i in range(5):
        decision = gate.judge(*fix(i, motion(), T_odom=motion(), **both))
        assert not decision.accepted and "a share of 45%" in decision.reason
    # of a place that looks a little alike, it is
    little = {"alternatives": (Alternative(motion([NEXT_ROOM, 0, 0]), 0.05),)}
    assert [gate.judge(*fix(i, motion(), T_odom=motion(), **little)).accepted for i in (5, 6)] == [False, True]
    # nor for a jump
    third = {"alternatives": (Alternative(motion([0, 9, 0]), 0.45),)}
    for i in range(7, 15):
        assert not gate.judge(*fix(i, motion([NEXT_ROOM, 0, 0]), T_odom=motion(), **third)).accepted


# --- lost ---------------------------------------------------------------------------------------


def test_lost_after_time_or_path_length_without_an_accepted_fix():
    settings = GateSettings(lost_seconds=5.0, lost_metres=2.0)
    gate = localized(settings, T_odom=motion())
    assert gate.miss(at(5, motion())) == State.LOCALIZED
    assert gate.miss(at(6, motion())) == State.LOST
    gate = localized(settings, T_odom=motion())
    for i in range(1, 5):  # there and back: the way counts, not the distance
        state = gate.miss(at(i, motion([0.7 * (i % 2), 0, 0])))
        assert state == (State.LOST if i * 0.7 > 2 else State.LOCALIZED)
    assert gate.predict(at(5, motion()))[1][0, 0] > 0.05**2
    # one fix that agrees is not enough any more
    again = [gate.judge(*fix(5.0 + i / 2, motion(), T_odom=motion())) for i in range(2)]
    assert [d.accepted for d in again] == [False, True] and [d.state for d in again] == [State.LOST, State.LOCALIZED]
    assert "too uncertain to confirm it" in again[0].reason


@pytest.mark.parametrize("metres, needed", [(1.0, 2), (8.0, 3)])
def test_a_pose_that_only_the_long_time_explains_needs_as_much_as_a_jump(metres, needed):
    gate = localized()
    decisions = [gate.judge(*fix(20.0 + i, motion([metres, 0, 0]))) for i in range(4)]
    assert all("too uncertain to confirm it" in d.reason for d in decisions[:needed])
    assert [d.accepted for d in decisions] == [i + 1 >= needed for i in range(4)]
    assert decisions[needed - 1].jump == (metres > 2.0)


def test_a_miss_before_the_first_pose_is_not_being_lost():
    gate = Gate()
    assert gate.miss(at(0)) == State.UNLOCALIZED == gate.miss(at(100))


# --- what is judged -----------------------------------------------------------------------------


def test_the_hypotheses_of_a_result_are_its_pose_and_alternatives_or_those_of_an_ambiguous_image():
    first, second = Alternative(motion(), 0.5, SURE), Alternative(motion([1, 0, 0]), 0.4)
    own, other = LocalizationResult(motion(), SURE, 0.9, alternatives=(second,)).hypotheses
    assert own.covariance is SURE and own.share == pytest.approx(0.6) and other is second
    ambiguous = LocalizationResult(reason="two places", confidence=0.45, alternatives=(first, second))
    assert ambiguous.hypotheses == (first, second)
    assert LocalizationResult(reason="dark").hypotheses == ()
    assert LocalizationResult(reason="doubtful", alternatives=(second,)).hypotheses == ()


def test_an_image_without_a_pose_is_not_judged_and_counts_as_missed():
    gate = localized(GateSettings(lost_seconds=5.0))
    decision = gate.judge(at(4), LocalizationResult(reason="dark"))
    assert not decision.accepted and not decision.judged and decision.reason == "dark"
    assert decision.state == State.LOCALIZED and math.isnan(decision.mahalanobis)
    assert gate.judge(at(6), LocalizationResult(reason="dark")).state == State.LOST


def test_an_ambiguous_image_is_decided_by_odometry():
    gate = localized(T_odom=motion())
    poses = (Alternative(motion([NEXT_ROOM, 0, 0]), 0.55, SURE), Alternative(motion(), 0.45, SURE))
    result = LocalizationResult(reason="two places", confidence=0.45, alternatives=poses)
    decision = gate.judge(at(0.5, motion()), result)
    assert decision.accepted and np.array_equal(decision.T_map_cam, motion())


def test_a_pose_below_the_smallest_confidence_is_no_evidence_unless_odometry_chooses_it():
    """Its share of 70% is above that of a candidate which counts for neither place, its confidence below 0.5."""
    here, there = Alternative(motion(), 0.7, SURE), Alternative(motion([NEXT_ROOM, 0, 0]), 0.3, SURE)
    ambiguous = LocalizationResult(reason="two places", confidence=0.45, alternatives=(here, there))
    gate = Gate(GateSettings())
    for i in range(10):
        decision = gate.judge(at(i, motion()), ambiguous)
        assert not decision.accepted and "min_confidence" in decision.reason
    assert gate.state == State.UNLOCALIZED
    elsewhere = localized(T=motion([2 * NEXT_ROOM, 0, 0]), T_odom=motion())
    assert not any(elsewhere.judge(at(1 + i, motion()), ambiguous).accepted for i in range(10))
    assert localized(T_odom=motion()).judge(at(1, motion()), ambiguous).accepted


def test_one_of_several_poses_has_a_smallest_confidence_of_its_own():
    """With a limit of at least min_confidence, no pose below min_confidence is accepted."""
    here, there = Alternative(motion(), 0.55, SURE), Alternative(motion([NEXT_ROOM, 0, 0]), 0.45, SURE)
    ambiguous = LocalizationResult(reason="two places", confidence=0.45, alternatives=(here, there))
    sure = LocalizationResult(motion([NEXT_ROOM, 0, 0]), SURE, 0.8, alternatives=(Alternative(motion(), 0.3, SURE),))
    for smallest, of_two, of_sure in ((0.0, True, True), (0.3, True, True), (0.5, False, False), (0.9, False, False)):
        settings = GateSettings(min_alternative_confidence=smallest)
        decision = localized(settings, T_odom=motion()).judge(at(0.5, motion()), ambiguous)
        assert decision.accepted == of_two
        assert of_two or "min_alternative_confidence" in decision.reason
        decision = localized(settings, T_odom=motion()).judge(at(0.5, motion()), sure)
        assert decision.accepted == of_sure, (smallest, decision.reason)
        assert not decision.accepted or decision.confidence >= smallest
    # a confident pose of its own is none of several
    settings = GateSettings(min_alternative_confidence=1.0)
    own = LocalizationResult(motion(), SURE, 0.6, alternatives=(there,))
    assert localized(settings, T_odom=motion()).judge(at(0.5, motion()), own).accepted


# --- faults -------------------------------------------------------------------------------------


def test_an_invalid_fix_is_rejected_with_the_reason():
    gate = localized()
    reflected, crooked = motion(), SURE.copy()
    reflected[0, 0] = -1
    crooked[0, 1] = 0.01
    for bad, words in [
        (fix(1, motion() * np.nan), "its pose is not finite"),
        (fix(1, np.eye(3)), "its pose has the shape (3, 3)"),
        (fix(1, reflected), "its pose is no rotation"),
        (fix(1, motion(), SURE * np.nan), "its covariance is not finite"),
        (fix(1, motion(), crooked), "its covariance is not symmetric"),
        (fix(1, motion(), -SURE), "its covariance has a negative variance"),
        (fix(1, motion(), 1e4 * SURE), "the standard deviation of its position is 1.00 m"),
        (fix(1, motion(), np.diag([1e-4] * 3 + [0.2**2] * 3)), "the standard deviation of its rotation is 11.5 deg"),
        (fix(1, motion(), confidence=math.nan), "its confidence is nan"),
        ((Observation(0), fix(1, motion())[1]), "its stamp is 0"),
    ]:
        decision = gate.judge(*bad)
        assert not decision.accepted and decision.reason.startswith("rejected: ") and words in decision.reason
        assert decision.T_map_cam is None and decision.state == State.LOCALIZED
    assert gate.judge(*fix(1, motion())).accepted


def test_invalid_odometry_is_ignored():
    gate = localized(T_odom=motion())
    decision = gate.judge(*fix(0.5, motion(), T_odom=motion() * np.nan))
    assert decision.accepted and "odometry is not finite" in decision.reason and "without odometry" in decision.reason
    assert gate.judge(*fix(1.0, motion(), T_odom=motion())).accepted
    assert "from odometry" in gate.judge(*fix(1.5, motion(), T_odom=motion())).reason


def test_odometry_that_jumps_is_ignored_until_the_next_fix():
    gate = localized(T_odom=motion())
    decision = gate.judge(*fix(0.5, motion(), T_odom=motion([30, 0, 0])))
    assert decision.accepted and "odometry jumped by 30.00 m" in decision.reason
    decision = gate.judge(*fix(1.0, motion([0.1, 0, 0]), T_odom=motion([30.1, 0, 0])))
    assert decision.accepted and decision.mahalanobis < 1e-6 and "from odometry" in decision.reason


def test_the_gate_starts_anew_when_time_goes_back():
    gate = localized()
    decision = gate.judge(*fix(-60, motion([5, 0, 0])))
    assert (
        not decision.accepted and decision.state == State.UNLOCALIZED and "time went back by 60.0 s" in decision.reason
    )
    assert gate.judge(*fix(-59.5, motion([5, 0, 0]))).accepted


def test_a_gate_that_does_not_watch_stamps_leaves_their_order_to_the_caller():
    gate = Gate(watch_stamps=False)
    gate.judge(*fix(0, motion()))
    assert gate.judge(*fix(0.5, motion())).accepted
    gate.miss(at(1000))  # an image that is refused for its stamp
    decision = gate.judge(*fix(1.0, motion()))
    assert "time went back" not in decision.reason and decision.state != State.UNLOCALIZED


def test_settings_out_of_range_are_named():
    for wrong in (
        dict(gate_probability=1.0),
        dict(first_fixes=0),
        dict(covariance_inflation=-1.0),
        dict(lost_seconds=math.nan),
        dict(jump_seconds=-1.0),
        dict(motion=MotionModel(max_speed=-2.0)),
    ):
        name = next(iter(wrong)) if "motion" not in wrong else "max_speed"
        with pytest.raises(SettingsError, match=f"{name} is "):
            GateSettings(**wrong)


def test_settings_may_change_while_it_runs():
    gate = localized(T_odom=motion())
    assert not gate.judge(*fix(0.5, motion([0.3, 0, 0]), T_odom=motion())).accepted
    gate.settings = GateSettings(covariance_inflation=10.0)
    assert gate.judge(*fix(1.0, motion([0.3, 0, 0]), T_odom=motion())).accepted


def test_reset_forgets():
    gate = localized()
    gate.reset()
    assert gate.state == State.UNLOCALIZED and gate.predict(at(1)) is None
    assert not gate.judge(*fix(1, motion())).accepted


def test_map_to_odom_is_constant_without_drift():
    """map->odom, as the node computes it from an accepted fix, is the same for every camera and time without drift."""
    T_map_odom = motion([1, 2, 0], [0, 0, 0.5])
    gate = Gate()
    for i in range(6):
        T_odom = motion([0.2 * i, 0, 0], [0, 0, 0.1 * i])
        gate.judge(*fix(i, T_map_odom @ T_odom, T_odom=T_odom))
    T_odom = motion([2, 1, 0])
    T_now, _ = gate.predict(at(7, T_odom))
    np.testing.assert_allclose(T_now @ invert(T_odom), T_map_odom, atol=1e-9)
