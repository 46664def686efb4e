# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The validation gate between the localizer and everything that is published.

An image can fit a wrong place perfectly: the room next door that looks the same.  The robot's own motion tells the
two apart.  A pose is accepted

* if it agrees with the pose predicted from the last accepted one and odometry, while that prediction is certain enough
  to tell places apart and the robot is not lost;
* otherwise, before the first accepted pose, after a loss and for a jump, if several consecutive poses agree with each
  other through odometry.  A jump needs more poses, over a longer time, and as confident as those that support the present
  pose.  If the present pose is confirmed in between, the other place is remembered as one that looks alike, and
  needs twice as many poses after each such refutation, eight times as many at most.

So a kidnapped robot is found after a second or two, and a similar place that shows up from time to time does not
move the robot.  docs/gate.md describes the details.
"""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from nre_ros.errors import PoseError
from nre_ros.gate.aliasing import AliasedPlaces
from nre_ros.gate.decision import Decision, State
from nre_ros.gate.hypotheses import (
    PoseHypothesis,
    body_odometry,
    fault_of,
    hypotheses_of,
    largest_alternative_share,
    min_covariance,
)
from nre_ros.gate.motion import (
    BodyPose,
    OdometryReading,
    OdometryTrack,
    PoseDifference,
    Prediction,
    difference,
    predict,
)
from nre_ros.gate.observation import Observation
from nre_ros.gate.settings import GateSettings
from nre_ros.gate.stamp_order import StampOrder
from nre_ros.geometry import covariance_of_frame
from nre_ros.pose_faults import covariance_fault, pose_fault

if TYPE_CHECKING:
    from nre_ros.localization.result import LocalizationResult

_CONFIDENCE_WEIGHT = 0.1
"""Weight of the newest pose in the mean confidence of the accepted poses."""


class Gate:
    """Judges the poses of one robot's images, whatever the camera, in the order in which they are localized.

    May be used by several threads.

    Attributes:
        state: Whether the robot's pose is known.
        threshold: Mahalanobis distance up to which two poses agree.
        settings: May be replaced at any time; the accepted pose stays.
    """

    def __init__(self, settings: GateSettings = GateSettings(), watch_stamps: bool = True) -> None:
        """Creates a gate without an accepted pose.

        Args:
            settings: When a pose is accepted.
            watch_stamps: Whether stamps that go back by more than a second reset the gate.  False where the caller
                watches the order of arrival and calls ``reset``, as the node does.
        """
        self._lock = threading.RLock()
        self._track = OdometryTrack(settings.motion)
        self._aliased = AliasedPlaces()
        self._stamps = StampOrder() if watch_stamps else None
        self.settings = settings
        self.reset()

    @property
    def settings(self) -> GateSettings:
        return self._settings

    @settings.setter
    def settings(self, settings: GateSettings) -> None:
        with self._lock:
            self._settings = settings
            self._threshold = math.sqrt(chi2.ppf(settings.gate_probability, 6))
            self._track.model = settings.motion

    @property
    def state(self) -> State:
        return self._state

    @property
    def threshold(self) -> float:
        return self._threshold

    def reset(self) -> None:
        """Forgets everything, as before the first image."""
        with self._lock:
            self._state = State.UNLOCALIZED
            self._accepted: BodyPose | None = None  # the last accepted pose, or an initial pose
            self._mean_confidence = 0.0  # of the accepted poses
            self._run: list[BodyPose] = []  # consecutive poses that agree with each other, not accepted yet
            self._aliased.clear()
            if self._stamps is not None:
                self._stamps.reset()
            self._track.reset()

    def set_initial_pose(
        self,
        T_map_base: npt.NDArray[np.float64],
        covariance: npt.NDArray[np.float64],
        stamp: int,
        T_odom_base: npt.NDArray[np.float64] | None = None,
    ) -> None:
        """Starts anew from a pose that a user or the last run states.

        The pose is not accepted by itself: the state is ``UNLOCALIZED`` until an image agrees with it, and one such
        image is enough.

        Args:
            T_map_base: Pose [4, 4] of the body in the map (of the camera, where it is the body).
            covariance: [6, 6] of (x, y, z, rotation about x, y, z) in the map's axes.
            stamp: Time of the pose, nanoseconds.
            T_odom_base: Odometry [4, 4] at that time; None without.

        Raises:
            PoseError: Pose or covariance are invalid; the gate is left as it was.
        """
        fault = pose_fault("the pose", T_map_base) or covariance_fault("the covariance", covariance)
        if fault:
            raise PoseError(f"initial pose is invalid: {fault}")
        with self._lock:
            self.reset()
            if self._stamps is not None:
                self._stamps.reset(stamp)
            reading, _ = self._track.read(stamp, T_odom_base)
            T_map_base, covariance = (np.array(value, dtype=np.float64) for value in (T_map_base, covariance))
            self._accepted = BodyPose(stamp, T_map_base, covariance + min_covariance(self._settings), reading)

    def predict(self, observation: Observation) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
        """Predicts the camera's pose at the time of an observation.

        Args:
            observation: Stamp, extrinsics and odometry of the camera.

        Returns:
            Pose [4, 4] in the map and covariance [6, 6], from the last accepted or initial pose; None before.  See
            ``state`` for whether the robot is lost meanwhile.
        """
        with self._lock:
            if self._accepted is None:
                return None
            reading, _ = self._track.read(observation.stamp, body_odometry(observation))
            self._update_lost(observation.stamp, reading)
            prediction = predict(self._accepted, observation.stamp, reading, self._settings.motion)
            T_base_cam = np.asarray(observation.T_base_cam)
            covariance = covariance_of_frame(prediction.covariance, prediction.T_map_base, T_base_cam)
            return prediction.T_map_base @ T_base_cam, covariance

    def miss(self, observation: Observation) -> State:
        """Notes that an image gave no pose: time and path length go on, and the robot may be lost.

        Args:
            observation: Stamp, and extrinsics and odometry of the camera where they are known.

        Returns:
            The state after it.
        """
        with self._lock:
            self._check_order(observation.stamp)
            reading, _ = self._track.read(observation.stamp, body_odometry(observation))
            self._update_lost(observation.stamp, reading)
            return self._state

    def judge(self, observation: Observation, result: LocalizationResult) -> Decision:
        """Decides whether a pose of an image is accepted.

        Args:
            observation: Stamp, extrinsics and odometry of the camera.
            result: What the localizer found in the image: a pose, alternatives, or neither (then as ``miss``).

        Returns:
            The decision, with the accepted pose.
        """
        with self._lock:
            if not result.hypotheses:
                return Decision(False, self.miss(observation), result.reason, judged=False)
            fault = fault_of(observation, result, self._settings)
            if fault:
                return Decision(False, self._state, f"rejected: {fault}")
            time_remark = self._check_order(observation.stamp)
            reading, odometry_remark = self._track.read(observation.stamp, body_odometry(observation))
            self._update_lost(observation.stamp, reading)
            hypotheses = list(hypotheses_of(observation, result, reading, self._settings))
            decision = self._weigh(hypotheses, largest_alternative_share(result), not result.success)
            remarks = [remark for remark in (time_remark, odometry_remark) if remark]
            return replace(decision, reason="; ".join([decision.reason, *remarks])) if remarks else decision

    # --- comparison with the prediction -------------------------------------------------------------

    def _weigh(self, hypotheses: list[PoseHypothesis], share: float, undecided: bool) -> Decision:
        """Compares the poses of an image with the prediction, and accepts one or collects evidence.

        Args:
            hypotheses: The first pose of the image, and the alternatives that can be judged.
            share: Share of the most probable alternative.
            undecided: Whether the image has several poses and none of its own, because the first one is not confident
                enough.  Odometry may choose one of them; without odometry they are no evidence.
        """
        first = hypotheses[0]
        if self._accepted is None:
            return self._collect(share, first, False, None, "no pose has been accepted yet", undecided=undecided)
        prediction = predict(self._accepted, first.body.stamp, first.body.reading, self._settings.motion)
        gaps = [difference(prediction, h.body.T_map_base, h.body.covariance) for h in hypotheses]
        best = min(range(len(gaps)), key=lambda i: gaps[i].mahalanobis)
        best = 0 if gaps[0].mahalanobis <= self._threshold else best
        gap, hypothesis = gaps[best], hypotheses[best]
        if gap.mahalanobis > self._threshold:
            reason = self._comparison(prediction, gaps[0])
            return self._collect(share, first, True, gaps[0], reason, prediction, undecided)
        reason = self._comparison(prediction, gap)
        if self._state == State.LOST or prediction.stddev > self._settings.max_prediction_stddev:
            # a pose far from an uncertain prediction is as good as a jump
            jump = gap.metres > self._settings.max_prediction_stddev
            reason = f"it agrees with a prediction that is too uncertain to confirm it: {reason}"
            return self._collect(share, hypothesis, jump, gap, reason, prediction)
        self._refute_run(prediction, hypothesis.body)
        if best:
            reason = f"one of {len(hypotheses) - 1} alternative poses agrees: {reason}"
        return self._accept(hypothesis, gap, False, reason)

    # --- consecutive poses that agree with each other -----------------------------------------------

    def _collect(
        self,
        share: float,
        hypothesis: PoseHypothesis,
        jump: bool,
        gap: PoseDifference | None,
        reason: str,
        prediction: Prediction | None = None,
        undecided: bool = False,
    ) -> Decision:
        """Adds a pose to the run of those that agree with each other, and accepts it if they are enough."""
        body, settings = hypothesis.body, self._settings
        if undecided:
            reason = f"not accepted yet: {reason}; none of the image's poses has the confidence min_confidence"
            return self._decision(False, gap, jump, reason)
        if share > settings.max_alternative_share:
            reason = f"not accepted yet: {reason}; an alternative pose of the image has a share of {share:.0%}"
            return self._decision(False, gap, jump, reason)
        continues = self._continues_run(body)
        if prediction and not (jump or continues):
            self._refute_run(prediction, body)
        self._run = [*self._run, body] if continues else [body]
        if jump and prediction:
            needed = settings.jump_fixes * 2 ** self._aliased.doublings(prediction, body, self._threshold)
            seconds, confidence_needed = settings.jump_seconds, (needed - 0.5) * self._mean_confidence
        else:
            needed, seconds, confidence_needed = settings.first_fixes, settings.first_seconds, 0.0
            if 0 < settings.single_confidence <= body.confidence:
                needed, seconds = 1, 0.0
        count = len(self._run)
        span = abs(self._run[-1].stamp - self._run[0].stamp) / 1e9
        confidence = sum(pose.confidence for pose in self._run)
        if count >= needed and (needed == 1 or span >= seconds) and confidence >= confidence_needed:
            evidence = f"{count} consecutive fixes within {span:.1f} s agree with each other"
            return self._accept(hypothesis, gap, jump, f"{reason}; {evidence}")
        missing = f"{count} of {needed} fixes that agree with each other, {span:.1f} of {seconds:.1f} s"
        if confidence < confidence_needed and count >= needed:
            missing += f", sum of confidences {confidence:.1f} of {confidence_needed:.1f}"
        return self._decision(False, gap, jump, f"not accepted yet: {reason}; {missing}")

    def _continues_run(self, body: BodyPose) -> bool:
        if not self._run:
            return False
        prediction = predict(self._run[-1], body.stamp, body.reading, self._settings.motion)
        if prediction.stddev > self._settings.max_prediction_stddev:
            return False
        return difference(prediction, body.T_map_base, body.covariance).mahalanobis <= self._threshold

    def _refute_run(self, prediction: Prediction, body: BodyPose) -> None:
        """Remembers the place of the run as aliased, now that the robot is where it was expected."""
        if self._run:
            other = predict(self._run[-1], body.stamp, body.reading, self._settings.motion)
            self._aliased.refute(prediction, other, body, self._threshold)

    # --- the decision -------------------------------------------------------------------------------

    def _accept(self, hypothesis: PoseHypothesis, gap: PoseDifference | None, jump: bool, reason: str) -> Decision:
        body = hypothesis.body
        if self._state == State.UNLOCALIZED or jump:
            self._mean_confidence = float(np.mean([pose.confidence for pose in self._run] or [body.confidence]))
        if jump:
            self._aliased.clear()
        self._mean_confidence += _CONFIDENCE_WEIGHT * (body.confidence - self._mean_confidence)
        self._run = []
        if self._accepted is None or jump or body.stamp >= self._accepted.stamp:
            self._accepted = body
        self._state = State.LOCALIZED
        return self._decision(True, gap, jump, reason, hypothesis)

    def _decision(
        self,
        accepted: bool,
        gap: PoseDifference | None,
        jump: bool,
        reason: str,
        hypothesis: PoseHypothesis | None = None,
    ) -> Decision:
        decision = Decision(accepted, self._state, reason, jump=jump)
        if gap is not None:
            degrees = math.degrees(gap.radians)
            decision = replace(decision, mahalanobis=gap.mahalanobis, metres=gap.metres, degrees=degrees)
        if hypothesis is None:
            return decision
        return replace(
            decision,
            T_map_cam=hypothesis.T_map_cam,
            covariance=hypothesis.covariance,
            confidence=hypothesis.body.confidence,
        )

    def _comparison(self, prediction: Prediction, gap: PoseDifference) -> str:
        source = "odometry" if prediction.by_odometry else "the last pose, without odometry"
        return f"{gap} from {source}, Mahalanobis {gap.mahalanobis:.1f} of {self._threshold:.1f}"

    # --- time and path length -----------------------------------------------------------------------

    def _check_order(self, stamp: int) -> str:
        """Starts anew where time went back, and returns a remark about it."""
        if self._stamps is None:
            return ""
        seconds = self._stamps.add(stamp)
        if not seconds:
            return ""
        self.reset()
        self._stamps.reset(stamp)
        return f"time went back by {seconds:.1f} s, the gate starts anew"

    def _update_lost(self, stamp: int, reading: OdometryReading | None) -> None:
        if self._state != State.LOCALIZED or self._accepted is None:
            return
        seconds, metres, before = (stamp - self._accepted.stamp) / 1e9, 0.0, self._accepted.reading
        if reading and before and reading.segment == before.segment:
            metres = reading.path_length - before.path_length
        if seconds > self._settings.lost_seconds or metres > self._settings.lost_metres:
            self._state = State.LOST
