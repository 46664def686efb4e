"""The ROS node: an image message in, pose, transform and status messages out.

The executor's thread only stores what arrives; a worker thread takes the newest image,
localizes it and publishes.  Whatever is wrong with an input ends as a status with the reason.
"""

from __future__ import annotations

import threading
import time
import traceback
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.task import Future
from std_msgs.msg import Header

from nre_ros.errors import ImageError, NreError
from nre_ros.geometry import Camera
from nre_ros.localization.frames import covariance_of_frame, map_to_odom
from nre_ros.localization.localizer import Localizer
from nre_ros.localization.result import LocalizationResult
from nre_ros.msg import LocalizationStatus
from nre_ros.node.conversions import camera_of, check_size, image_array, stamp_nanoseconds
from nre_ros.node.inputs import Inputs
from nre_ros.node.parameters import ParameterError, declare, value_of
from nre_ros.node.publishing import Correction, Publishers, status_message
from nre_ros.node.seldom import SeldomLog
from nre_ros.node.transforms import CACHE_SECONDS, TransformError, open_transforms
from nre_ros.node.worker import Worker
from nre_ros.srv import LocalizeImage


@dataclass
class _Frames:
    """Names of the frames, from the parameters."""

    map: str
    odom: str
    base: str
    camera: str
    pose: str


class Relocalizer(Node):
    """Localizes the images of one camera in one map.

    Raises ``NreError`` when a parameter or the map cannot be used.  The map and the network are
    loaded and warmed up before the node listens, so that the first image is as fast as the others.
    """

    def __init__(self, **node_arguments):
        super().__init__("localize_node", **node_arguments)
        declare(self)
        self._log = SeldomLog(self.get_logger())
        self._localizer = self._load()
        names = {name: value_of(self, f"{name}_frame") for name in ("map", "odom", "base", "camera", "pose")}
        self._frames = _Frames(**names)
        self._frames.map = self._frames.map or self._localizer.frame_id
        self._publishers = Publishers(self)
        self._transforms = open_transforms(self)
        self._correction = Correction(self, self._transforms, self._frames.map, self._frames.odom)
        self._state = LocalizationStatus.UNLOCALIZED
        self._camera: Camera | None = None
        self._newest_stamp = 0
        self._epoch = 0  # counts the jumps back in time
        self._lock = threading.Lock()  # of what a jump resets: state, correction, epoch
        self._worker = Worker(self._report)
        self._inputs = Inputs(self, self._offer)
        self.create_service(LocalizeImage, "~/localize_image", self._serve)
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False),
            post_callback=lambda jump: self._time_went_back("the clock"),
        )
        self.create_timer(5.0, self._tell_what_is_missing, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._worker.start()
        self._tell_ready()

    def close(self, timeout: float = 1.0) -> bool:
        """Ends the work; false when a computation still runs after ``timeout`` seconds."""
        self._transforms.close()
        if not self._worker.stop(timeout):
            return False
        self._localizer.close()
        return True

    def _load(self) -> Localizer:
        map_file = value_of(self, "map_file")
        if not map_file:
            raise ParameterError("parameter map_file is empty: name a map made by `nre_ros map build`")
        self.get_logger().info(f"loading {map_file}")
        localizer = Localizer(
            map_file, device=value_of(self, "device"), seed=value_of(self, "seed"), retrieve=value_of(self, "retrieve")
        )
        localizer.warm_up()
        return localizer

    def _tell_ready(self):
        target = self._frames.odom or self._frames.base or "camera"
        self.get_logger().info(
            f"localizing in {value_of(self, 'map_file')} ({self._localizer.describe()}), listening to "
            f"{', '.join(self._inputs.topics)}, broadcasting {self._frames.map} -> {target}"
        )

    def _tell_what_is_missing(self):
        for topics in self._inputs.silent():
            self._log.warning(f"no message on {topics} yet")
        if value_of(self, "use_sim_time") and self.get_clock().now().nanoseconds == 0:
            self._log.warning("use_sim_time is set, but there is no /clock yet")

    # --- images of the subscription: offered by the executor's thread, worked on by the worker's ---

    def _offer(self, message):
        self._worker.offer(partial(self._process, message, time.monotonic()))

    def _process(self, message, arrival: float):
        """Localizes one image and publishes all that follows from it."""
        stamp = stamp_nanoseconds(message.header.stamp)
        self._check_stamp(stamp)
        epoch = self._epoch
        result = self._localize(message, self._inputs.camera_info, needs_stamp=True)
        camera_frame = self._camera_frame(message)
        with self._lock:
            if epoch != self._epoch:
                result = LocalizationResult(reason="time went back while the image was localized")
            self._update_state(result)
            state = self._state
        if result.success:
            result = self._publish_fix(result, camera_frame, stamp, epoch)
        self._publish_status(result, message.header, camera_frame, state, arrival)

    def _localize(self, message, info, needs_stamp: bool) -> LocalizationResult:
        """The verdict on an image message; nothing that goes wrong in it leaves here."""
        try:
            if needs_stamp and stamp_nanoseconds(message.header.stamp) == 0:
                raise ImageError("image has no time stamp (0): nobody could use its pose")
            if info is None:
                raise ImageError(f"no camera_info on {self._inputs.camera_info_topic} yet")
            started = time.perf_counter()
            image = image_array(message)
            camera = self._same_camera(camera_of(info, value_of(self, "rectified")))
            check_size(image, camera)
            decoded = {"decode": (time.perf_counter() - started) * 1e3}
            result = self._localizer.localize(image, camera)
            return self._check(replace(result, milliseconds={**decoded, **result.milliseconds}))
        except NreError as error:
            return LocalizationResult(reason=str(error))
        except Exception as error:  # the node outlives whatever one image does to the estimator
            self._report(error)
            return LocalizationResult(reason=f"internal error, {type(error).__name__}: {error}")

    def _check(self, result: LocalizationResult) -> LocalizationResult:
        """Turns a pose that must not be published into a reason."""
        if not result.success:
            return result
        if not (np.isfinite(result.T_map_cam).all() and np.isfinite(result.covariance).all()):
            return replace(result, T_map_cam=None, covariance=None, reason="pose or covariance is not finite")
        least = value_of(self, "min_confidence")
        if result.confidence < least:
            reason = f"confidence {result.confidence:.2f} is below min_confidence {least:.2f}"
            return replace(result, T_map_cam=None, covariance=None, reason=reason)
        return result

    def _same_camera(self, camera: Camera) -> Camera:
        """The camera of the images before, where nothing has changed: it keeps what it has computed."""
        if camera != self._camera:
            self._camera = camera
        return self._camera

    def _camera_frame(self, message) -> str:
        info = self._inputs.camera_info
        return self._frames.camera or message.header.frame_id or (info.header.frame_id if info else "")

    def _check_stamp(self, stamp: int):
        """Notices a bag that starts again, and one that is played without its clock."""
        if stamp < self._newest_stamp - 1e9 and stamp:
            self._time_went_back(f"the images' stamps, by {(self._newest_stamp - stamp) / 1e9:.1f} s,")
        self._newest_stamp = max(stamp, self._newest_stamp)
        age = (self.get_clock().now().nanoseconds - stamp) / 1e9
        if stamp and abs(age) > CACHE_SECONDS:
            self._log.warning(
                f"the image's stamp is {age:.1f} s behind this node's clock (bags: use_sim_time and --clock)"
            )

    def _time_went_back(self, what: str):
        """Forgets all that belongs to a time that has not come yet (a looped bag, a reset simulation)."""
        with self._lock:
            self._epoch += 1
            self._state = LocalizationStatus.UNLOCALIZED
            self._correction.forget()
        self._worker.forget()
        self._transforms.clear()
        self._newest_stamp = 0
        self.get_logger().warning(f"{what} went back: transforms and the last correction are forgotten")

    # --- what follows from a verdict --------------------------------------------------------------

    def _update_state(self, result: LocalizationResult):
        """Unlocalized until the first pose, then localized or lost by the latest image."""
        before = self._state
        if result.success:
            self._state = LocalizationStatus.LOCALIZED
            if before != self._state:
                x, y, z = result.T_map_cam[:3, 3]
                self.get_logger().info(
                    f"localized at {x:.2f} {y:.2f} {z:.2f} in {self._frames.map}, confidence {result.confidence:.2f}"
                )
            return
        if before != LocalizationStatus.UNLOCALIZED:
            self._state = LocalizationStatus.LOST
        self._log.warning(f"no pose: {result.reason}")

    def _publish_fix(self, result: LocalizationResult, camera_frame: str, stamp: int, epoch: int):
        """Pose topics, then the transform; the result, with the reason when TF could not answer."""
        reasons = []
        for publish in (self._publish_pose, self._publish_transform):
            try:
                publish(result, camera_frame, stamp, epoch)
            except TransformError as error:
                reasons.append(str(error))
        if not reasons:
            return result
        reason = "; ".join(dict.fromkeys(reasons))
        self._log.warning(reason)
        return replace(result, reason=reason)

    def _publish_pose(self, result, camera_frame, stamp, epoch):
        T, covariance, frame = result.T_map_cam, result.covariance, self._frames.pose
        if frame and frame != camera_frame:
            T_cam_frame = self._look_up("no pose", camera_frame, frame, stamp)
            covariance = covariance_of_frame(covariance, T, T_cam_frame)
            T = T @ T_cam_frame
        self._publishers.pose(T, covariance, self._frames.map, stamp)

    def _publish_transform(self, result, camera_frame, stamp, epoch):
        if not value_of(self, "publish_tf"):
            return
        frames = self._frames
        if frames.odom:
            what = f"no {frames.map} -> {frames.odom}"
            T_odom_cam = self._look_up(what, frames.odom, camera_frame, stamp)
            with self._lock:
                if epoch == self._epoch:
                    self._correction.update(map_to_odom(result.T_map_cam, T_odom_cam))
            return
        child = frames.base or camera_frame
        what = f"no {frames.map} -> {child or 'camera'}"
        T_cam_child = self._look_up(what, camera_frame, child, stamp)
        self._transforms.broadcast(result.T_map_cam @ T_cam_child, frames.map, child, stamp)

    def _look_up(self, what: str, target: str, source: str, stamp: int) -> np.ndarray:
        if not (target and source):
            raise TransformError(f"{what}: neither image nor camera_info has a frame_id, set camera_frame")
        try:
            return self._transforms.lookup(target, source, stamp, value_of(self, "transform_timeout"))
        except TransformError as error:
            raise TransformError(f"{what}: {error}") from None

    def _publish_status(self, result, image_header, camera_frame, state, arrival):
        status = self._status(result, image_header, camera_frame, state)
        status.total_milliseconds = (time.monotonic() - arrival) * 1e3
        self._publishers.status(status)

    def _status(self, result, image_header, camera_frame, state) -> LocalizationStatus:
        header = Header(stamp=image_header.stamp, frame_id=self._frames.map)
        return status_message(result, header, camera_frame, state)

    def _report(self, error: Exception):
        """Logs an error that nobody foresaw with its traceback."""
        if self.context.ok():  # while the node is torn down, publishing may fail
            self.get_logger().error("".join(traceback.format_exception(error)))

    # --- service --------------------------------------------------------------------------------

    async def _serve(self, request, response):
        """Localizes the request's image on the worker's thread, while this one goes on."""
        arrival, answer = time.monotonic(), Future(executor=self.executor)
        if not self._worker.request(partial(self._answer, request, arrival, answer)):
            response.status = self._reply(request, LocalizationResult(reason="too many requests wait"), arrival)
            return response
        response.status = await answer
        return response

    def _answer(self, request, arrival: float, answer: Future):
        result = self._localize(request.image, request.camera_info, needs_stamp=False)
        answer.set_result(self._reply(request, result, arrival))
        if self.executor:
            self.executor.wake()  # the waiting coroutine is resumed by its next turn only

    def _reply(self, request, result, arrival: float) -> LocalizationStatus:
        state = LocalizationStatus.LOCALIZED if result.success else LocalizationStatus.UNLOCALIZED
        frame = request.image.header.frame_id or request.camera_info.header.frame_id
        status = self._status(result, request.image.header, frame, state)
        status.total_milliseconds = (time.monotonic() - arrival) * 1e3
        return status
