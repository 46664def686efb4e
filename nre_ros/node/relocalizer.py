"""The ROS node: an image message in, pose, transform and status messages out.

The executor's thread only stores what arrives; a worker thread takes the newest image,
localizes it and publishes.  Whatever is wrong with an input ends as a status with the reason.
"""

from __future__ import annotations

import threading
import time
import traceback
from dataclasses import replace
from functools import partial

from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.task import Future

from nre_ros.localization.localizer import Localizer
from nre_ros.localization.result import LocalizationResult
from nre_ros.msg import LocalizationStatus
from nre_ros.node.broadcasting import Correction, FrameLookups, Frames
from nre_ros.node.conversions import stamp_nanoseconds
from nre_ros.node.inputs import Inputs
from nre_ros.node.parameters import ParameterError, value_of
from nre_ros.node.publishing import Publishers, status_message
from nre_ros.node.seldom import SeldomLog
from nre_ros.node.transforms import CACHE_SECONDS, TransformError, open_transforms
from nre_ros.node.verdicts import Verdicts
from nre_ros.node.worker import Worker
from nre_ros.srv import LocalizeImage

REMIND_SECONDS = 5.0
"""Between two reminders of topics on which nothing has come yet."""


class Relocalizer:
    """Localizes the images of one camera in one map.

    node: has the parameters of ``nre_ros.node.parameters``.
    Raises ``NreError`` when a parameter or the map cannot be used.  The map and the network are
    loaded and warmed up before the node listens, so that the first image is as fast as the others.
    """

    def __init__(self, node: Node):
        self._node, self._logger = node, node.get_logger()
        self._log = SeldomLog(self._logger)
        self._localizer = _load(node)
        self._frames = Frames.of(node, self._localizer.frame_id)
        self._publishers = Publishers(node)
        self._transforms = open_transforms(node)
        self._lookups = FrameLookups(node, self._transforms, self._frames)
        self._correction = Correction(node, self._transforms, self._frames)
        self._verdicts = Verdicts(node, self._localizer, self._report)
        self._lock = threading.Lock()  # of what a jump in time resets
        self._state = LocalizationStatus.UNLOCALIZED
        self._epoch = 0  # counts the jumps
        self._newest_stamp = 0
        self._worker = Worker(self._report)
        self._inputs = Inputs(node, self._offer)
        node.create_service(LocalizeImage, "~/localize_image", self._serve)
        self._jump_handle = node.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False),
            post_callback=lambda jump: self._time_went_back("the clock"),
        )
        # by real time: simulated time may not have begun
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(REMIND_SECONDS, self._tell_what_is_missing, clock=steady)
        self._worker.start()
        self._logger.info(
            f"localizing in {value_of(node, 'map_file')} ({_words(self._localizer)}), listening to "
            f"{', '.join(self._inputs.topics)}, broadcasting {self._frames.map} -> {self._frames.child or 'camera'}"
        )

    def close(self, timeout: float = 1.0) -> bool:
        """Ends the work; false when a computation still runs after ``timeout`` seconds."""
        self._transforms.close()
        if not self._worker.stop(timeout):
            return False
        self._localizer.close()
        return True

    # --- one image: offered by the executor's thread, worked on by the worker's --------------------

    def _offer(self, message):
        self._worker.offer(partial(self._process, message, time.monotonic()))

    def _process(self, message, arrival: float):
        """Localizes one image and publishes all that follows from it."""
        info, stamp = self._inputs.camera_info, stamp_nanoseconds(message.header.stamp)
        camera_frame = self._frames.camera or message.header.frame_id or (info.header.frame_id if info else "")
        self._check_stamp(stamp)
        epoch = self._epoch
        if stamp == 0:
            result = LocalizationResult(reason="image has no time stamp (0): nobody could use its pose")
        else:
            result = self._verdicts.verdict(message, info)
        with self._lock:
            if epoch != self._epoch:
                result = LocalizationResult(reason="time went back while the image was localized")
            self._update_state(result)
            state = self._state
        if result.success:
            started = time.perf_counter()
            reason = self._publish_fix(result, camera_frame, stamp, epoch)
            waited = {"publish": (time.perf_counter() - started) * 1e3}  # with the wait for TF
            result = replace(result, reason=reason, milliseconds={**result.milliseconds, **waited})
        self._publishers.status(self._status(result, message.header, camera_frame, state, arrival))

    def _publish_fix(self, result: LocalizationResult, camera_frame: str, stamp: int, epoch: int) -> str:
        """Publishes pose and transform; returns what TF could not answer."""
        troubles = {}  # in order, each once
        try:
            self._publishers.pose(*self._lookups.published_pose(result, camera_frame, stamp), self._frames.map, stamp)
        except TransformError as error:
            troubles[str(error)] = True
        try:
            if value_of(self._node, "publish_tf"):
                self._publish_transform(result, camera_frame, stamp, epoch)
        except TransformError as error:
            troubles[str(error)] = True
        trouble = "; ".join(troubles)
        if trouble:
            self._log.warning(trouble)
        return trouble

    def _publish_transform(self, result: LocalizationResult, camera_frame: str, stamp: int, epoch: int):
        if not self._frames.odom:
            self._lookups.broadcast_child(result, camera_frame, stamp)
            return
        T_map_odom = self._lookups.correction(result, camera_frame, stamp)
        with self._lock:
            if epoch == self._epoch:
                self._correction.update(T_map_odom)

    def _update_state(self, result: LocalizationResult):
        """Unlocalized until the first pose, then localized or lost by the latest image."""
        before = self._state
        if result.success:
            self._state = LocalizationStatus.LOCALIZED
            if before != self._state:
                x, y, z = result.T_map_cam[:3, 3]
                self._logger.info(
                    f"localized at {x:.2f} {y:.2f} {z:.2f} in {self._frames.map}, confidence {result.confidence:.2f}"
                )
            return
        if before != LocalizationStatus.UNLOCALIZED:
            self._state = LocalizationStatus.LOST
        self._log.warning(f"no pose: {result.reason}")

    def _status(self, result, image_header, camera_frame: str, state: int, arrival: float) -> LocalizationStatus:
        status = status_message(result, camera_frame, state)
        status.header.stamp, status.header.frame_id = image_header.stamp, self._frames.map
        status.total_milliseconds = (time.monotonic() - arrival) * 1e3
        status.images_received = self._inputs.received
        return status

    # --- time ---------------------------------------------------------------------------------------

    def _check_stamp(self, stamp: int):
        """Notices a bag that starts again, and one that is played without its clock."""
        if not stamp:
            return
        if stamp < self._newest_stamp - 10**9:
            self._time_went_back(f"the images' stamps, by {(self._newest_stamp - stamp) / 1e9:.1f} s,")
        self._newest_stamp = max(stamp, self._newest_stamp)
        age = (self._node.get_clock().now().nanoseconds - stamp) / 1e9
        if abs(age) > CACHE_SECONDS:
            self._log.warning(
                f"the image's stamp is {age:.1f} s behind this node's clock (for a bag: use_sim_time and --clock)"
            )

    def _time_went_back(self, what: str):
        """Forgets all that belongs to a time that has not come yet (a looped bag, a reset simulation)."""
        with self._lock:
            self._epoch += 1
            self._state = LocalizationStatus.UNLOCALIZED
            self._newest_stamp = 0
            self._correction.forget()
        self._worker.forget()
        self._transforms.clear()
        self._logger.warning(f"{what} went back: transforms and the last correction are forgotten")

    # --- words --------------------------------------------------------------------------------------

    def _tell_what_is_missing(self):
        for topics in self._inputs.silent():
            self._logger.warning(f"no message on {topics} yet")
        if value_of(self._node, "use_sim_time") and self._node.get_clock().now().nanoseconds == 0:
            self._logger.warning("use_sim_time is set, but there is no /clock yet")

    def _report(self, error: Exception):
        """Logs an error that nobody foresaw with its traceback."""
        if self._node.context.ok():  # while the node is torn down, publishing may fail
            self._logger.error("".join(traceback.format_exception(type(error), error, error.__traceback__)))

    # --- service ------------------------------------------------------------------------------------

    async def _serve(self, request, response):
        """Localizes the request's image on the worker's thread, while this one goes on."""
        arrival, answer = time.monotonic(), Future(executor=self._node.executor)
        if self._worker.request(partial(self._answer, request, arrival, answer)):
            response.status = await answer
        else:
            result = LocalizationResult(reason="too many requests wait already")
            response.status = self._reply(request, result, arrival)
        return response

    def _answer(self, request, arrival: float, answer: Future):
        result = self._verdicts.verdict(request.image, request.camera_info)
        answer.set_result(self._reply(request, result, arrival))
        self._node.executor.wake()  # the waiting coroutine goes on at the executor's next turn

    def _reply(self, request, result, arrival: float) -> LocalizationStatus:
        state = LocalizationStatus.LOCALIZED if result.success else LocalizationStatus.UNLOCALIZED
        frame = request.image.header.frame_id or request.camera_info.header.frame_id
        return self._status(result, request.image.header, frame, state, arrival)


def _load(node: Node) -> Localizer:
    map_file = value_of(node, "map_file")
    if not map_file:
        raise ParameterError("parameter map_file is empty: name a map made by `nre_ros map build`")
    node.get_logger().info(f"loading {map_file}")
    localizer = Localizer(
        map_file, device=value_of(node, "device"), seed=value_of(node, "seed"), retrieve=value_of(node, "retrieve")
    )
    localizer.warm_up()
    return localizer


def _words(localizer: Localizer) -> str:
    return f"{len(localizer.store)} keyframes, {localizer.backbone.name} features, on {localizer.device}"
