# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which fixes are believed: the gate between the localizer and everything that is published.

An image can be localized perfectly in the wrong place: in the room next door that looks the same.
What tells the two apart is the robot's own motion.  So a fix is believed

* when it agrees with where the last believed pose and odometry say that the robot is;
* else, before the first believed pose and for a jump, when several fixes in a row agree with each
  other through odometry.  A jump needs more of them, over some time, and as strong as those that the
  present pose rests on; each time that the present pose is confirmed in between, that place is
  remembered as one which looks alike, and needs twice as many.

A kidnapped robot is thereby found after a second or two, and a look-alike place whose fixes come and
go does not move the robot.  docs/gate.md tells it at length.
"""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import numpy as np
from scipy.stats import chi2

from nre_ros.errors import PoseError
from nre_ros.gate.aliasing import LookAlikes
from nre_ros.gate.candidates import Candidate, base_odometry, candidates_of, floor, uncertainty_fault
from nre_ros.gate.decision import Decision, State
from nre_ros.gate.fix import AT_BASE, Fix
from nre_ros.gate.motion import (
    Gap,
    OdometryTrack,
    Prediction,
    Reading,
    Waypoint,
    gap_between,
    predict,
)
from nre_ros.gate.settings import GateSettings
from nre_ros.geometry import covariance_of_frame
from nre_ros.pose_faults import covariance_fault, pose_fault

_BACKWARDS = 10**9
"""Nanoseconds by which a stamp may be older than the newest (several cameras); more, and time went back."""
_STANDING_MEMORY = 0.1
"""Weight of the newest fix in the mean confidence that the believed pose rests on."""


class Gate:
    """Judges the fixes of one robot, whatever its cameras, in the order in which they come.

    May be used by several threads.
    """

    def __init__(self, settings: GateSettings = GateSettings()):
        self._lock = threading.RLock()
        self._track = OdometryTrack(settings.motion)
        self._look_alikes = LookAlikes()
        self.settings = settings
        self.reset()

    @property
    def settings(self) -> GateSettings:
        """May be replaced at any time; what is believed stays so."""
        return self._settings

    @settings.setter
    def settings(self, settings: GateSettings):
        with self._lock:
            self._settings = settings
            self._threshold = math.sqrt(chi2.ppf(settings.agreement, 6))
            self._track.model = settings.motion

    @property
    def state(self) -> State:
        return self._state

    @property
    def threshold(self) -> float:
        """Mahalanobis distance up to which a fix agrees."""
        return self._threshold

    def reset(self) -> None:
        """Forgets everything: as before the first fix."""
        with self._lock:
            self._state = State.UNLOCALIZED
            self._believed: Waypoint | None = None
            self._standing = 0.0  # mean confidence of the fixes that the believed pose rests on
            self._run: list[Waypoint] = []  # fixes in a row that agree with each other, not believed yet
            self._look_alikes.clear()
            self._newest = 0
            self._track.reset()

    def hint(self, T_map_base, covariance, stamp: int, T_odom_base=None) -> None:
        """Starts anew from a pose that somebody states: ``initialpose``, or the one saved at the last run.

        It is of the body (the camera, where fixes come without ``T_base_cam``) at ``stamp`` nanoseconds.
        A fix that agrees with it is believed at once; until then nothing is.  Raises ``PoseError``.
        """
        fault = pose_fault("the pose", T_map_base) or covariance_fault("the covariance", covariance)
        if fault:
            raise PoseError(f"pose hint is of no use: {fault}")
        with self._lock:
            self.reset()
            self._newest = stamp
            reading, _ = self._track.read(stamp, T_odom_base)
            T_map_base, covariance = (np.array(value, dtype=np.float64) for value in (T_map_base, covariance))
            self._believed = Waypoint(stamp, T_map_base, covariance + floor(self._settings), reading)

    def predict(self, stamp: int, T_odom_cam=None, T_base_cam=AT_BASE) -> tuple[np.ndarray, np.ndarray] | None:
        """Pose [4, 4] of a camera (or of the base, given its odometry) in the map and its covariance [6, 6] at ``stamp``.

        Carried on from the last believed pose or hint; None before.  Whether to tell anybody of it: see ``state``.
        """
        with self._lock:
            if self._believed is None:
                return None
            reading, _ = self._track.read(stamp, base_odometry(T_odom_cam, T_base_cam))
            self._notice_loss(stamp, reading)
            prediction = predict(self._believed, stamp, reading, self._settings.motion)
            covariance = covariance_of_frame(prediction.covariance, prediction.T_map_base, np.asarray(T_base_cam))
            return prediction.T_map_base @ T_base_cam, covariance

    def miss(self, stamp: int, T_odom_cam=None, T_base_cam=AT_BASE) -> State:
        """An image without a pose: tells the time and the way that have gone by."""
        with self._lock:
            self._notice_time(stamp)
            reading, _ = self._track.read(stamp, base_odometry(T_odom_cam, T_base_cam))
            self._notice_loss(stamp, reading)
            return self._state

    def judge(self, fix: Fix) -> Decision:
        """Whether the fix is believed, and what follows."""
        with self._lock:
            fault = fix.fault() or uncertainty_fault(fix.covariance, self._settings)
            if fault:
                return Decision(False, self._state, f"refused: {fault}")
            remarks = [self._notice_time(fix.stamp)]
            reading, remark = self._track.read(fix.stamp, base_odometry(fix.T_odom_cam, fix.T_base_cam))
            self._notice_loss(fix.stamp, reading)
            decision = self._weigh(fix, reading)
            remarks = [remark for remark in (*remarks, remark) if remark]
            return _with_remarks(decision, remarks)

    # --- weighing -----------------------------------------------------------------------------------

    def _weigh(self, fix: Fix, reading: Reading | None) -> Decision:
        candidates = list(candidates_of(fix, reading, self._settings))
        if self._believed is None:
            return self._gather(fix, candidates[0], False, None, "no pose is believed yet")
        prediction = predict(self._believed, fix.stamp, reading, self._settings.motion)
        gaps = [gap_between(prediction, c.waypoint.T_map_base, c.waypoint.covariance) for c in candidates]
        best = min(range(len(gaps)), key=lambda i: gaps[i].mahalanobis)
        best = 0 if gaps[0].mahalanobis <= self._threshold else best
        gap, candidate = gaps[best], candidates[best]
        words = self._comparison(prediction, gap)
        if gap.mahalanobis > self._threshold:
            return self._gather(fix, candidates[0], True, gaps[0], self._comparison(prediction, gaps[0]), prediction)
        if self._state == State.LOST or prediction.spread > self._settings.informative_metres:
            # far off, it is the same to the robot as a jump
            far = gap.metres > self._settings.informative_metres
            words = f"it agrees, but that says little after so long: {words}"
            return self._gather(fix, candidate, far, gap, words, prediction)
        self._refute(prediction, candidate.waypoint)
        if best:
            words = f"one of its {len(candidates) - 1} other poses agrees: {words}"
        return self._believe(candidate, gap, False, words)

    def _gather(
        self,
        fix: Fix,
        candidate: Candidate,
        jump: bool,
        gap: Gap | None,
        words: str,
        prediction: Prediction | None = None,
    ) -> Decision:
        """Adds a fix to those that agree with each other, and believes it when they are enough."""
        waypoint, settings = candidate.waypoint, self._settings
        rival = max((other.share for other in fix.alternatives), default=0.0)
        if rival > settings.max_rival:
            told = f"not believed yet: {words}; the image shows another place as well, with a share of {rival:.0%}"
            return self._decision(False, gap, jump, told)
        continues = self._continues_run(waypoint)
        if prediction and not (jump or continues):
            self._refute(prediction, waypoint)
        self._run = [*self._run, waypoint] if continues else [waypoint]
        if jump:
            needed = settings.jump_fixes * 2 ** self._look_alikes.doublings(prediction, waypoint, self._threshold)
            seconds, strength = settings.jump_seconds, (needed - 0.5) * self._standing
        else:
            needed, seconds, strength = settings.first_fixes, settings.first_seconds, 0.0
            if 0 < settings.single_confidence <= waypoint.confidence:
                needed, seconds = 1, 0.0
        span = abs(self._run[-1].stamp - self._run[0].stamp) / 1e9
        gathered = sum(w.confidence for w in self._run)
        if len(self._run) >= needed and (needed == 1 or span >= seconds) and gathered >= strength:
            how = f"{len(self._run)} fixes in {span:.1f} s agree with each other"
            return self._believe(candidate, gap, jump, f"{words}; {how}" if words else how)
        waits = f"{len(self._run)} of {needed} fixes that agree with each other, {span:.1f} of {seconds:.1f} s"
        if gathered < strength and len(self._run) >= needed:
            waits += f", confidence {gathered:.1f} of {strength:.1f} in all"
        return self._decision(False, gap, jump, f"not believed yet: {words}; {waits}")

    def _believe(self, candidate: Candidate, gap: Gap | None, jump: bool, words: str) -> Decision:
        waypoint = candidate.waypoint
        if self._state == State.UNLOCALIZED or jump:
            self._standing = np.mean([w.confidence for w in self._run] or [waypoint.confidence])
        if jump:
            self._look_alikes.clear()
        self._standing += _STANDING_MEMORY * (waypoint.confidence - self._standing)
        self._run = []
        if self._believed is None or jump or waypoint.stamp >= self._believed.stamp:
            self._believed = waypoint
        self._state = State.LOCALIZED
        return self._decision(True, gap, jump, words, candidate)

    def _continues_run(self, waypoint: Waypoint) -> bool:
        if not self._run:
            return False
        last = self._run[-1]
        prediction = predict(last, waypoint.stamp, waypoint.reading, self._settings.motion)
        if prediction.spread > self._settings.informative_metres:
            return False
        return gap_between(prediction, waypoint.T_map_base, waypoint.covariance).mahalanobis <= self._threshold

    def _refute(self, prediction: Prediction, waypoint: Waypoint) -> None:
        """Remembers where the gathered fixes would have put the robot, now that it is seen where it was expected."""
        if self._run:
            other = predict(self._run[-1], waypoint.stamp, waypoint.reading, self._settings.motion)
            self._look_alikes.refute(prediction, other, waypoint, self._threshold)

    # --- time and way -------------------------------------------------------------------------------

    def _notice_time(self, stamp: int) -> str:
        """Starts anew where time went back; says so."""
        back = self._newest - stamp
        if back > _BACKWARDS:
            self.reset()
        self._newest = max(self._newest, stamp)
        return f"time went back by {back / 1e9:.1f} s, all before is forgotten" if back > _BACKWARDS else ""

    def _notice_loss(self, stamp: int, reading: Reading | None) -> None:
        if self._state != State.LOCALIZED:
            return
        seconds, metres, before = (stamp - self._believed.stamp) / 1e9, 0.0, self._believed.reading
        if reading and before and reading.segment == before.segment:
            metres = reading.path - before.path
        if seconds > self._settings.lost_seconds or metres > self._settings.lost_metres:
            self._state = State.LOST

    # --- words --------------------------------------------------------------------------------------

    def _comparison(self, prediction: Prediction, gap: Gap) -> str:
        source = "odometry" if prediction.followed else "the last pose, without odometry"
        return f"{gap.words()} from {source}, Mahalanobis {gap.mahalanobis:.1f} of {self._threshold:.1f}"

    def _decision(self, accepted, gap: Gap | None, jump: bool, words: str, candidate=None) -> Decision:
        numbers = {}
        if gap:
            numbers = {"mahalanobis": gap.mahalanobis, "metres": gap.metres, "degrees": math.degrees(gap.radians)}
        pose = {}
        if candidate:
            confidence = candidate.waypoint.confidence
            pose = {"T_map_cam": candidate.T_map_cam, "covariance": candidate.covariance, "confidence": confidence}
        return Decision(accepted, self._state, words, jump=jump, **numbers, **pose)


def _with_remarks(decision: Decision, remarks: list[str]) -> Decision:
    return replace(decision, reason="; ".join([decision.reason, *remarks])) if remarks else decision
