# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The active node: an image message in, pose, transform and status messages out.

The executor's thread only stores what arrives; a worker thread takes the newest image, localizes
it, has the gate judge it and publishes.  Whatever is wrong with an input ends as a status with the
reason.
"""

from __future__ import annotations

import threading
import time
import traceback
from dataclasses import replace
from functools import partial

from rclpy.lifecycle import LifecycleNode

from nre_ros.gate.gate import Gate, State
from nre_ros.geometry import map_to_odom
from nre_ros.localization.result import LocalizationResult
from nre_ros.msg import LocalizationStatus
from nre_ros.node import gating
from nre_ros.node.broadcasting import Correction, FrameLookups, Frames
from nre_ros.node.conversions import stamp_nanoseconds
from nre_ros.node.demand import Demand
from nre_ros.node.engine import Engine
from nre_ros.node.entities import Entities
from nre_ros.node.follow import Follower
from nre_ros.node.hints import Hints, LastPoseFile
from nre_ros.node.inputs import CameraInput
from nre_ros.node.judging import Judge, Look
from nre_ros.node.mapping import Mapper
from nre_ros.node.outputs import Outputs
from nre_ros.node.parameters import value_of
from nre_ros.node.publishing import Publishers, status_message, tell_decision
from nre_ros.node.seldom import SeldomLog
from nre_ros.node.shot import Outcome, Shot
from nre_ros.node.times import Times
from nre_ros.node.transforms import TransformError, open_transforms
from nre_ros.node.verdicts import Seen
from nre_ros.node.worker import Worker

REMIND_SECONDS = 5.0
"""Between two reminders of topics on which nothing has come yet."""


class Relocalizer:
    """Localizes the images of a robot's cameras in one map, from ``__init__`` to ``close``.

    node: has the parameters of ``nre_ros.node.declarations``.
    """

    def __init__(self, node: LifecycleNode, engine: Engine, gate: Gate, frames: Frames, publishers: Publishers):
        self._node, self._logger, self._engine, self._gate = node, node.get_logger(), engine, gate
        self._frames, self._publishers = frames, publishers
        self._log = SeldomLog(self._logger)
        self._lock = threading.Lock()  # of what is forgotten when time goes back
        self._epoch = 0  # counts how often
        self._forgotten = ""  # why, the last time
        try:
            self._make(node, engine, gate, frames, publishers)
        except BaseException:
            self._take_apart()
            raise
        topics = [topic for each in self._inputs for topic in each.topics]
        self._logger.info(
            f"localizing in {engine.store.path} ({engine}), listening to {', '.join(topics)}, "
            f"broadcasting {frames.map} -> {frames.child or 'camera'}"
        )

    def _make(self, node: LifecycleNode, engine: Engine, gate: Gate, frames: Frames, publishers: Publishers):
        self._entities = Entities(node)
        self._outputs = Outputs(node, frames.map, self._facts)
        self.worker = Worker(self._report)
        cameras = value_of(node, "cameras")
        self._transforms = open_transforms(node)
        self._lookups = FrameLookups(node, self._transforms, frames, several_cameras=len(cameras) > 1)
        self._correction = Correction(node, self._entities, self._transforms, frames)
        self.demand = Demand(node, self._entities, gate)
        self._hints = Hints(node, self._entities, self._lookups, frames, self.forget)
        self.mapper = Mapper(node, self._entities, engine, self._lookups, frames)
        self._last_pose = LastPoseFile(node, frames)
        self._hints.give(self._last_pose.hint())
        self._judge = Judge(node, engine, self._lookups, gate, self._hints, self._report)
        self._follower = Follower(node, self._entities, self._transforms, self._lookups, frames, gate, publishers)
        self._times = Times(node, self._log, self._time_went_back)
        self._entities.timer(REMIND_SECONDS, self._tell_what_is_missing, steady=True)
        self._inputs = [CameraInput(node, self._entities, name, self._offer) for name in cameras]
        self.worker.start()

    def _take_apart(self):
        """Ends what has been made of a relocalizer that could not be made."""
        for name in ("_entities", "_times", "demand", "_transforms", "_outputs"):  # the threads begin last
            part = getattr(self, name, None)
            if part is not None:
                part.close()

    def close(self, timeout: float | None = None) -> bool:
        """Ends the work; false when a computation still runs after ``timeout`` seconds (None: waits for it)."""
        self._entities.close()
        self._times.close()
        self.demand.close()
        self._transforms.stop()  # nobody waits for a transform any more
        began = time.monotonic()
        ended = self.mapper.stop(timeout)
        ended &= self.worker.stop(None if timeout is None else max(0.0, began + timeout - time.monotonic()))
        self._transforms.close()
        self._outputs.close()
        self._last_pose.save()
        return ended

    def forget(self, why: str):
        """Forgets the pose and all that follows from it: what comes is as before the first image."""
        with self._lock:
            self._epoch += 1
            self._forgotten = why
            self._hints.give(None)  # first: one that is just being told goes with the rest
            self._gate.reset()
            self._correction.forget()
            self._follower.forget()
        self._outputs.path.clear()
        self.worker.forget()
        self._logger.warning(f"{why}: pose and correction are forgotten")

    def localize(self, image, info) -> LocalizationResult:
        """What an image shows by itself, without prior, odometry and the gate; for the worker's thread."""
        return self._judge.verdicts.verdict(image, info).result

    def _time_went_back(self, what: str):
        """All that is known belongs to a time that has not come yet (a looped bag, a reset simulation)."""
        self._transforms.clear()
        self.forget(what)

    # --- one image: offered by the executor's thread, worked on by the worker's --------------------

    def _offer(self, source: CameraInput, message):
        self._outputs.diagnostics.arrived()
        self._times.arrived(stamp_nanoseconds(message.header.stamp))
        if self.demand.wanted():
            work = partial(self._process, source, message, time.monotonic(), source.received)
            self.worker.offer(source.name, work)

    def _process(self, source: CameraInput, message, arrival: float, received: int):
        """Localizes one image and publishes all that follows from it; there is a status in any case."""
        info = source.info_at(stamp_nanoseconds(message.header.stamp))  # now: it may have come after its image
        frame = self._frames.camera or message.header.frame_id or (info.header.frame_id if info else "")
        shot = Shot(source.name, message, info, frame, arrival, received)
        try:
            self._localize(shot)
        except Exception as error:
            self._report(error)
            reason = f"internal error, {type(error).__name__}: {' '.join(str(error).split())}"
            self._publishers.status(self._status(shot, Outcome(Seen(LocalizationResult(reason=reason)))))

    def _localize(self, shot: Shot):
        refusal = self._times.refusal(shot.stamp)
        gating.refresh(self._gate, self._node)
        epoch = self._epoch
        look = Look(Seen(LocalizationResult(reason=refusal))) if refusal else self._judge.look(shot)
        with self._lock:
            before = self._gate.state
            if refusal:
                if now := self._times.by_now():
                    self._gate.miss(now)
                outcome = Outcome(look.seen)
            elif epoch == self._epoch:
                outcome = self._judge.decide(shot, look)
            else:
                outcome = Outcome(replace(look.seen, result=LocalizationResult(reason=f"{self._forgotten} meanwhile")))
            status = self._status(shot, outcome)
        self._tell_state(before, status)
        if outcome.accepted:
            started = time.perf_counter()
            status.reason = self._publish_fix(shot, outcome, look, epoch)
            status.stages = [*status.stages, "publish"]
            status.stage_milliseconds = [*status.stage_milliseconds, (time.perf_counter() - started) * 1e3]
        status.total_milliseconds = (time.monotonic() - shot.arrival) * 1e3
        self._publishers.status(status)
        self.demand.told(shot.arrival, status)
        self._outputs.update(
            outcome.seen.result,
            outcome.decision,
            State(status.state),
            stamp=shot.stamp,
            camera_frame=shot.frame,
            image=outcome.seen.image,
            store=self._engine.store,
            milliseconds=status.total_milliseconds,
            trouble=outcome.seen.trouble,
        )

    def _status(self, shot: Shot, outcome: Outcome) -> LocalizationStatus:
        status = status_message(outcome.seen.result, self._gate.state)
        status.header.stamp, status.header.frame_id = shot.message.header.stamp, self._frames.map
        status.camera, status.camera_frame, status.images_received = shot.name, shot.frame, shot.received
        if outcome.decision is not None:
            tell_decision(status, outcome.decision, self._gate.threshold)
        return status

    def _publish_fix(self, shot: Shot, outcome: Outcome, look: Look, epoch: int) -> str:
        """Publishes pose and transform; returns what TF could not answer."""
        T_map_cam, covariance = outcome.decision.T_map_cam, outcome.decision.covariance
        troubles = {}  # in order, each once
        try:
            pose = self._lookups.published_pose(T_map_cam, covariance, shot.frame, shot.stamp)
            self._publishers.pose(*pose, self._frames.map, shot.stamp)
            self._outputs.path.update(pose[0], shot.stamp)
        except TransformError as error:
            troubles[str(error)] = True
        try:
            self._publish_transform(shot, outcome, look, epoch)
        except TransformError as error:
            troubles[str(error)] = True
        self._follower.accepted(shot.frame, outcome.T_body_cam, shot.stamp)
        self._last_pose.accepted(T_map_cam, covariance, shot.frame, shot.stamp)
        trouble = "; ".join(troubles)
        if trouble:
            self._log.warning(trouble)
        return trouble

    def _publish_transform(self, shot: Shot, outcome: Outcome, look: Look, epoch: int):
        T_map_cam = outcome.decision.T_map_cam
        if not self._frames.odom:
            if value_of(self._node, "publish_tf"):
                self._lookups.broadcast_child(T_map_cam, shot.frame, shot.stamp)
            return
        if look.T_odom_cam is None:
            raise TransformError(look.trouble)
        with self._lock:
            if epoch == self._epoch:
                self._correction.update(map_to_odom(T_map_cam, look.T_odom_cam))

    def _facts(self) -> dict[str, str]:
        return {**self._engine.facts(), **self.mapper.facts()}

    # --- words --------------------------------------------------------------------------------------

    def _tell_state(self, before: State, status: LocalizationStatus):
        if not status.pose_valid:
            self._log.warning(f"no pose: {status.reason}")
        if status.pose_valid and before != State.LOCALIZED:
            p = status.pose.pose.position
            self._logger.info(
                f"localized at {p.x:.2f} {p.y:.2f} {p.z:.2f} in {self._frames.map}, confidence {status.confidence:.2f}: "
                f"{status.verdict}"
            )
        elif before == State.LOCALIZED and status.state == State.LOST:
            self._logger.warning(f"lost: {status.reason}")

    def _tell_what_is_missing(self):
        for topics in (topics for each in self._inputs for topics in each.silent()):
            self._logger.warning(f"no message on {topics} yet")
        if value_of(self._node, "use_sim_time") and self._node.get_clock().now().nanoseconds == 0:
            self._logger.warning("use_sim_time is set, but there is no /clock yet")

    def _report(self, error: Exception):
        """Logs an error that nobody foresaw with its traceback."""
        if self._node.context.ok():  # while the node is torn down, publishing may fail
            self._logger.error("".join(traceback.format_exception(type(error), error, error.__traceback__)))
