# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The life of an image in the node, from top to bottom: message, observation, localizer, odometry, gate, messages.

``on_image`` runs on the executor's thread and only stores the image for the worker; ``process`` runs on the worker's
thread.  An image that is not localized is dropped with a reason (``nre_ros.node.image_drops``).
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field, replace
from functools import cache, partial

import numpy as np
import numpy.typing as npt
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from nre_ros.errors import ImageError, MapError, NreError
from nre_ros.gate.decision import Decision, State
from nre_ros.gate.gate import Gate
from nre_ros.gate.observation import Observation
from nre_ros.geometry import Camera, camera_warnings, map_to_odom
from nre_ros.images import check_image_size
from nre_ros.keyframes.retrieval.pose_prior import PosePrior
from nre_ros.localization.localizer import Depth, Prior
from nre_ros.localization.result import LocalizationResult
from nre_ros.messages.camera_info import camera_from_info
from nre_ros.messages.frame_ids import frame_name
from nre_ros.msg import LocalizationStatus
from nre_ros.node.camera_input import CameraInput
from nre_ros.node.clock_monitor import ClockMonitor
from nre_ros.node.conversions import image_pixels, stamp_message, stamp_nanoseconds
from nre_ros.node.depth_input import DepthInput
from nre_ros.node.engine import DeviceError, Engine
from nre_ros.node.image_drops import DropCounter, ImageDrop
from nre_ros.node.initial_pose import InitialPoseInput, LastPoseFile
from nre_ros.node.logs import ThrottledLogger, internal_error, log_exception
from nre_ros.node.odometry_propagation import OdometryPropagation
from nre_ros.node.operating_mode import OperatingMode
from nre_ros.node.optical_frames import OpticalFrameCheck
from nre_ros.node.parameters import gate_settings, value_of
from nre_ros.node.publishers import Displays, PosePublishers, set_decision, status_of_result
from nre_ros.node.serialized_image import SerializedImage
from nre_ros.node.tf import FrameLookups, Frames, MapOdomBroadcaster, TransformError
from nre_ros.node.worker import Worker

_ODOMETRY_PATIENCE = 0.05
"""Seconds to wait for odometry before an image is localized: the next reading is on its way, at 20 Hz or more."""
_SINGLE = "~/localize_image"
"""Stands for the name of a camera whose image came with a call; no camera of the robot can have it."""


@dataclass(eq=False)
class _OutgoingPose:
    """What is published of an accepted pose; None and empty where TF does not know what it takes.

    ``faults``: why, in order and each once; ``seconds``: what the look-ups took.
    """

    T_map_cam: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]
    published: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None = None
    T_map_odom: npt.NDArray[np.float64] | None = None
    T_map_child: npt.NDArray[np.float64] | None = None
    child: str = ""
    faults: dict[str, bool] = field(default_factory=dict)
    seconds: float = 0.0


class ImagePipeline:
    """Localizes the images of a robot's cameras and publishes what follows from them.

    Every image has the epoch in which it arrived, and ``forget`` ends the epoch.  The lock guards the epoch and all that
    ``forget`` resets.  Whatever leaves the node because of an image leaves with the lock held, in the image's own epoch.
    ``forget`` may be called by any thread.
    """

    def __init__(
        self,
        node: Node,
        engine: Engine,
        gate: Gate,
        frames: Frames,
        lookups: FrameLookups,
        *,
        worker: Worker,
        mode: OperatingMode,
        clock: ClockMonitor,
        drops: DropCounter,
        initial_pose: InitialPoseInput,
        map_odom: MapOdomBroadcaster,
        propagation: OdometryPropagation,
        last_pose: LastPoseFile,
        publishers: PosePublishers,
        displays: Displays,
        optical_frames: OpticalFrameCheck,
    ) -> None:
        """Connects the parts; see their classes.  ``lookups`` waits for TF and is used on the worker's thread only."""
        self._node, self._engine, self._gate, self._frames, self._lookups = node, engine, gate, frames, lookups
        self._worker, self._mode, self._clock, self._drops = worker, mode, clock, drops
        self._initial_pose, self._map_odom, self._propagation = initial_pose, map_odom, propagation
        self._last_pose, self._publishers, self._displays = last_pose, publishers, displays
        self._optical_frames = optical_frames
        self._logger = node.get_logger()
        self._log = ThrottledLogger(self._logger)
        self._lock = threading.Lock()
        self._epoch = 0  # how often the pose has been forgotten
        self._forget_reason = ""
        self._cameras: dict[str, Camera] = {}  # camera name -> intrinsics of the image before
        self._device_lost = self._closed = False

    # --- 1. an image arrives (executor's thread) ----------------------------------------------------

    def on_image(self, source: CameraInput, image: SerializedImage) -> None:
        """Stores an image that has arrived for the worker, in place of the one of this camera that waits there.

        Args:
            source: The camera's subscriptions.
            image: The image.
        """
        stamp = image.stamp
        self._displays.diagnostics.image_arrived()
        self._clock.arrived(stamp)  # may find that time went back, and forget the pose
        if not self._mode.wants_image():
            self._drops.add(source.name, ImageDrop.MODE)
            return
        observation = Observation(
            stamp,
            camera_name=source.name,
            arrival=time.monotonic(),
            images_received=source.received,
            epoch=self._epoch,
        )
        if self._worker.offer(source.name, partial(self.process, observation, source, image)):
            self._drops.add(source.name, ImageDrop.REPLACED)

    # --- 2. the whole way (worker's thread, as all that follows) ------------------------------------

    def process(self, observation: Observation, source: CameraInput, image: SerializedImage | None = None) -> None:
        """Localizes one image and publishes what follows from it; a status is published in any case.

        Args:
            observation: The image as it arrived; what is found out about its camera is filled in.
            source: The camera's subscriptions, which have the intrinsics.
            image: The message, which is deserialized here; None: the observation has it.
        """
        try:
            if image is not None:
                observation.message = image.message()
        except ImageError as error:
            observation.message_fault = str(error)
        # the newest camera_info now: it may have arrived after its image
        info = source.camera_info_at(observation.stamp)
        frame_id = observation.message.header.frame_id if observation.message is not None else ""
        frame_id = frame_name(frame_id) or (frame_name(info.header.frame_id) if info else "")
        observation.camera_frame = self._frames.camera or frame_id
        pose = None
        try:
            result, decision, status = self._process(observation, info, source.depth)
            if decision.accepted:
                pose = self._pose_to_publish(observation, decision)
        except Exception as error:
            log_exception(self._node, error)
            result = self._drop(observation, ImageDrop.INTERNAL_ERROR, internal_error(error))
            decision = Decision(False, self._gate.state, result.reason, judged=False)
            status = self._status(observation, result, decision)
        result, decision, status = self._publish(observation, result, decision, status, pose)
        self._check_frame(observation.camera_frame)
        if self._closed:  # the displays are gone
            return
        try:
            self._displays.update(observation, result, decision, self._engine.store)
        except Exception as error:  # the pose and the status are out: a picture that fails takes nothing back
            log_exception(self._node, error)

    def _process(
        self, observation: Observation, info: CameraInfo | None, depth: DepthInput
    ) -> tuple[LocalizationResult, Decision, LocalizationStatus]:
        """Localizes and judges one image; nothing is published yet."""
        self._update_gate_settings()
        with self._lock:
            current = observation.epoch == self._epoch
            dropped = self._clock.check(observation.stamp) if current else None
        if not current:
            return self._forgotten(observation)
        result = self._localize(observation, info, depth) if dropped is None else self._drop(observation, *dropped)
        with self._lock:
            state_before = self._gate.state
            result, decision = self._judge(observation, result, bool(dropped))
            status = self._status(observation, result, decision)
        self._log_state(state_before, status)
        return result, decision, status

    # --- 3. observation and localizer ---------------------------------------------------------------

    def _localize(self, observation: Observation, info: CameraInfo | None, depth: DepthInput) -> LocalizationResult:
        """Completes the observation by extrinsics and odometry, and localizes the image; a bad image gives a reason."""
        try:
            observation.T_base_cam = self._lookups.extrinsics(observation.camera_frame, observation.stamp)
        except TransformError as error:
            return self._drop(observation, ImageDrop.NO_EXTRINSICS, str(error))
        # once, after the features have been computed: meanwhile the odometry arrives that an image overtakes
        predict = cache(lambda: self._predict(observation))
        if info is None:
            result = self._drop(observation, ImageDrop.NO_CAMERA_INFO, "no camera_info has come yet")
        else:
            try:
                size = (info.width, info.height)
                find_depth = partial(depth.at, observation.stamp, observation.camera_frame, size)
                result = self._estimate(observation, info, predict, find_depth)
            except MapError as error:
                observation.map_fault = str(error)
                result = self._drop(observation, ImageDrop.UNREADABLE_MAP, str(error))
            except DeviceError as error:
                observation.device_fault = str(error)
                self._report_lost_device(str(error))
                result = self._drop(observation, ImageDrop.LOST_DEVICE, str(error))
            except NreError as error:
                result = self._drop(observation, ImageDrop.INVALID_IMAGE, str(error))
            except Exception as error:  # the node outlives whatever one image does to the estimator
                log_exception(self._node, error)
                result = self._drop(observation, ImageDrop.INTERNAL_ERROR, internal_error(error))
        predict()  # also of an image without features: the gate needs its odometry
        if observation.odometry_fault:
            self._look_up_odometry(observation, math.inf if result.hypotheses else 0)
        return replace(result, milliseconds={**result.milliseconds, "odometry": observation.odometry_milliseconds})

    def _predict(self, observation: Observation) -> PosePrior | None:
        """Looks up the odometry, applies a pending initial pose, and predicts the pose of the image.

        That is before the image is localized: for the prior, and because TF forgets (a slow machine, a fast replay).
        """
        self._look_up_odometry(observation, math.inf if self._initial_pose.pending else _ODOMETRY_PATIENCE)
        self._initial_pose.apply(self._gate, observation)
        return self._prior(observation)

    def _look_up_odometry(self, observation: Observation, patience: float) -> None:
        """Fills in the odometry of the image or why it is not known, and adds the time that this takes."""
        started = time.perf_counter()
        try:
            observation.T_odom_cam = self._lookups.odometry(observation.camera_frame, observation.stamp, patience)
            observation.odometry_fault = ""
        except TransformError as error:
            observation.T_odom_cam, observation.odometry_fault = None, str(error)
        observation.odometry_milliseconds += (time.perf_counter() - started) * 1e3

    def _prior(self, observation: Observation) -> PosePrior | None:
        """The pose predicted from the last accepted or initial one; None where the robot is lost, or nothing is known."""
        predicted = self._gate.predict(observation)
        if predicted is None or self._gate.state == State.LOST or not value_of(self._node, "use_prior"):
            return None
        try:
            return PosePrior(*predicted)
        except NreError:
            return None

    def _estimate(
        self, observation: Observation, info: CameraInfo, prior: Prior = None, depth: Depth = None
    ) -> LocalizationResult:
        """Decodes and localizes an image.

        Raises:
            NreError: Image, intrinsics or map cannot be used.
        """
        if observation.message is None:
            raise ImageError(observation.message_fault or "image has no message")
        started = time.perf_counter()
        image = image_pixels(observation.message)
        camera = camera_from_info(info, value_of(self._node, "rectified"))
        # the camera object of the image before, where nothing has changed: it keeps what it has computed
        if camera != self._cameras.get(observation.camera_name):
            self._cameras[observation.camera_name] = camera
            if observation.camera_name != _SINGLE:
                self._report_intrinsics(observation.camera_name, camera)
        camera = self._cameras[observation.camera_name]
        check_image_size(image, camera)
        decoded = time.perf_counter()
        result = self._engine.localize(image, camera, prior, depth)
        observation.image, observation.camera = image, camera
        result = replace(result, milliseconds={"decode": (decoded - started) * 1e3, **result.milliseconds})
        return _finite(result)

    def localize_single(self, image: Image | CompressedImage, info: CameraInfo) -> LocalizationResult:
        """Localizes one image by itself, without prior, odometry and gate.

        Args:
            image: The image.
            info: Intrinsics of the camera.

        Returns:
            What the localizer found.

        Raises:
            NreError: Image, intrinsics or map cannot be used.
        """
        stamp = stamp_nanoseconds(image.header.stamp)
        return self._estimate(Observation(stamp, camera_name=_SINGLE, message=image), info)

    # --- 4. gate ------------------------------------------------------------------------------------

    def _judge(
        self, observation: Observation, result: LocalizationResult, bad_stamp: bool
    ) -> tuple[LocalizationResult, Decision]:
        """The gate's decision about a result; with the lock held.

        An image with an unusable stamp only tells the gate that time goes on.  An image that arrived before the pose
        was forgotten gets no pose.
        """
        if bad_stamp:
            if stamp := self._clock.current_stamp():
                self._gate.miss(Observation(stamp))
        elif observation.epoch == self._epoch:
            return result, self._gate.judge(observation, result)
        else:
            result = LocalizationResult(reason=f"{self._forget_reason} meanwhile")
        return result, Decision(False, self._gate.state, result.reason, judged=False)

    def _forgotten(self, observation: Observation) -> tuple[LocalizationResult, Decision, LocalizationStatus]:
        """Result, decision and status of an image that arrived before the pose was forgotten."""
        result = LocalizationResult(reason=f"{self._forget_reason} meanwhile")
        decision = Decision(False, self._gate.state, result.reason, judged=False)
        return result, decision, self._status(observation, result, decision)

    def _update_gate_settings(self) -> None:
        settings = gate_settings(self._node)
        if settings != self._gate.settings:
            self._gate.settings = settings

    # --- 5. messages --------------------------------------------------------------------------------

    def _status(self, observation: Observation, result: LocalizationResult, decision: Decision) -> LocalizationStatus:
        status = status_of_result(result, decision.state)
        status.header.stamp = stamp_message(observation.stamp)
        status.header.frame_id = self._frames.map
        status.camera, status.camera_frame = observation.camera_name, observation.camera_frame
        status.images_received = observation.images_received
        drops = self._drops.of_camera(observation.camera_name)
        status.dropped_reasons, status.dropped_counts = list(drops), list(drops.values())
        set_decision(status, decision, self._gate.threshold)
        return status

    def _pose_to_publish(self, observation: Observation, decision: Decision) -> _OutgoingPose:
        """Looks up what an accepted pose needs of TF, before the lock is taken; may wait."""
        started = time.perf_counter()
        T_map_cam, covariance = decision.T_map_cam, decision.covariance
        assert T_map_cam is not None and covariance is not None  # of an accepted pose
        pose = _OutgoingPose(T_map_cam, covariance)
        frame, stamp = observation.camera_frame, observation.stamp
        try:
            pose.published = self._lookups.published_pose(T_map_cam, covariance, frame, stamp)
        except TransformError as error:
            pose.faults[str(error)] = True
        try:
            if self._frames.odom:
                if observation.T_odom_cam is None:
                    raise TransformError(observation.odometry_fault)
                pose.T_map_odom = map_to_odom(T_map_cam, observation.T_odom_cam)
            else:
                child, T_cam_child = self._lookups.broadcast_frame(frame, stamp)
                pose.child, pose.T_map_child = child, T_map_cam @ T_cam_child
        except TransformError as error:
            pose.faults[str(error)] = True
        pose.seconds = time.perf_counter() - started
        return pose

    def _publish(
        self,
        observation: Observation,
        result: LocalizationResult,
        decision: Decision,
        status: LocalizationStatus,
        pose: _OutgoingPose | None,
    ) -> tuple[LocalizationResult, Decision, LocalizationStatus]:
        """Publishes pose, transform and status; if the pose has been forgotten since the decision, the status alone."""
        with self._lock:
            if observation.epoch != self._epoch:
                if pose is not None:
                    result, decision, status = self._forgotten(observation)
                decision = replace(decision, state=self._gate.state)
                status.state = int(decision.state)
            elif pose is not None:
                try:
                    self._publish_pose(observation, pose, status)
                except Exception as error:  # the status goes out in any case
                    log_exception(self._node, error)
                    status.reason = internal_error(error)
            status.total_milliseconds = (time.monotonic() - observation.arrival) * 1e3
            self._publishers.publish_status(status)
            self._mode.image_processed(observation.arrival, status)
            self._displays.diagnostics.update(observation, decision, status.total_milliseconds)
        if pose is not None and pose.faults:
            self._log.warning(status.reason)
        return result, decision, status

    def _publish_pose(self, observation: Observation, pose: _OutgoingPose, status: LocalizationStatus) -> None:
        """Publishes an accepted pose on topics and TF, with the lock held; nothing here waits.

        The status gets the reason of what TF does not know.
        """
        started, stamp = time.perf_counter(), observation.stamp
        if pose.published is not None:
            self._publishers.publish_pose(*pose.published, self._frames.map, stamp)
            self._displays.path.update(pose.published[0], stamp)
        if pose.T_map_odom is not None:
            self._map_odom.update(pose.T_map_odom)
        if pose.T_map_child is not None:
            self._map_odom.broadcast_child(pose.T_map_child, pose.child, stamp)
        self._propagation.start_from(observation)
        self._last_pose.update(pose.T_map_cam, pose.covariance, observation.camera_frame, stamp)
        status.reason = "; ".join(pose.faults)
        status.stages = [*status.stages, "publish"]
        seconds = pose.seconds + time.perf_counter() - started
        status.stage_milliseconds = [*status.stage_milliseconds, seconds * 1e3]

    def _check_frame(self, camera_frame: str) -> None:
        """Reports a camera frame that is no optical frame."""
        warning = self._optical_frames.check(camera_frame)
        if warning:
            self._logger.warning(warning)
            self._displays.diagnostics.warn(f"frame {camera_frame}", warning)

    def _report_intrinsics(self, camera_name: str, camera: Camera) -> None:
        """Reports what is unusual about new intrinsics, and probably wrong."""
        name = f"camera {camera_name}" if camera_name else "the camera"
        warnings = "; ".join(camera_warnings(camera))
        if warnings:
            self._log.warning(f"intrinsics of {name} are unusual: {warnings}")
        self._displays.diagnostics.warn(f"intrinsics of {name}", warnings)

    def _report_lost_device(self, fault: str) -> None:
        """Logs once that the device is lost; no later image can change that.  A process that ends by it logs it itself."""
        if not self._device_lost and value_of(self._node, "lost_device") != "exit":
            self._logger.error(fault)
        self._device_lost = True

    def _log_state(self, before: State, status: LocalizationStatus) -> None:
        if not status.pose_valid:
            self._log.warning(f"no pose: {status.reason}")
        if status.pose_valid and before != State.LOCALIZED:
            p = status.pose.pose.position
            self._logger.info(
                f"localized at {p.x:.2f} {p.y:.2f} {p.z:.2f} in {self._frames.map}, "
                f"confidence {status.confidence:.2f}: {status.gate_reason}"
            )
        elif before == State.LOCALIZED and status.state == State.LOST:
            self._logger.warning(f"lost: {status.reason}")

    # --- dropping an image, and forgetting the pose --------------------------------------------------

    def _drop(self, observation: Observation, drop: ImageDrop, reason: str) -> LocalizationResult:
        """Counts an image that cannot be localized; returns the result without a pose that goes into its status."""
        self._drops.add(observation.camera_name, drop)
        observation.image = None
        return LocalizationResult(reason=reason)

    def forget(self, reason: str) -> int:
        """Forgets the pose and all that follows from it, as before the first image; called by any thread.

        Args:
            reason: For the log, and for the status of an image that is being localized.

        Returns:
            The new epoch; images of it arrive from now on.
        """
        with self._lock:
            self._epoch += 1
            epoch = self._epoch
            self._forget_reason = reason
            self._initial_pose.set(None)  # first: one that is just being applied is forgotten with the rest
            self._gate.reset()
            self._clock.forget()
            self._map_odom.forget()
            self._propagation.forget()
            self._last_pose.forget()
            self._displays.path.clear()
            self._displays.diagnostics.forget(reason)
        for name in self._worker.discard_offers():
            self._drops.add(str(name), ImageDrop.RESET)
        self._logger.warning(f"{reason}: the pose and map -> odom are forgotten")
        return epoch

    def close(self) -> None:
        """Lets nothing leave any more; an image that is being localized gets no pose."""
        with self._lock:
            self._epoch += 1
            self._forget_reason, self._closed = "the node was deactivated", True


def _finite(result: LocalizationResult) -> LocalizationResult:
    """The result; without its pose where that is not finite: NaN spreads through the filters that fuse our pose."""
    if result.T_map_cam is None or result.covariance is None:
        return result
    if np.isfinite(result.T_map_cam).all() and np.isfinite(result.covariance).all():
        return result
    return replace(result, T_map_cam=None, covariance=None, reason="pose or covariance is not finite")
