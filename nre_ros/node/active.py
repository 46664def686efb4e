# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Everything that exists while the node is active: made in order, and closed in reverse order."""

from __future__ import annotations

import time
from contextlib import ExitStack

from rclpy.lifecycle import LifecycleNode

from nre_ros.gate.gate import Gate
from nre_ros.node.camera_input import CameraInput
from nre_ros.node.clock_monitor import ClockMonitor
from nre_ros.node.engine import Engine
from nre_ros.node.image_drops import DropCounter
from nre_ros.node.initial_pose import InitialPoseInput, LastPoseFile
from nre_ros.node.interfaces import RosInterfaces
from nre_ros.node.keyframe_writer import KeyframeWriter
from nre_ros.node.logs import ThrottledLogger, log_exception
from nre_ros.node.odometry_propagation import OdometryPropagation
from nre_ros.node.operating_mode import OperatingMode
from nre_ros.node.optical_frames import OpticalFrameCheck
from nre_ros.node.parameters import value_of
from nre_ros.node.pipeline import ImagePipeline
from nre_ros.node.publishers import Displays, PosePublishers
from nre_ros.node.ros_libraries import LIBRARIES
from nre_ros.node.tf import (
    TRANSFORM_LIBRARY,
    FrameLookups,
    Frames,
    MapOdomBroadcaster,
    Transforms,
    open_transforms,
)
from nre_ros.node.worker import Worker

_REMINDER_SECONDS = 5.0
"""Between two warnings about topics without a message."""
_MAP_SUBSCRIBERS_SECONDS = 1.0
"""Between two looks at whether somebody subscribes to the map for display."""


class ActiveNode:
    """The parts of the active node; how they work together is in ``nre_ros.node.pipeline``.

    Attributes:
        pipeline: Localizes the images.
        worker: The thread on which it does, which also does the work of the services.
        mode: Which images are localized.
    """

    def __init__(
        self, node: LifecycleNode, engine: Engine, gate: Gate, frames: Frames, publishers: PosePublishers
    ) -> None:
        """Makes all parts and begins to listen; if that fails, those that were made are closed.

        Args:
            node: Has the parameters of ``nre_ros.node.parameters``.
            engine: Map and network, on their device.
            gate: The validation gate, after a reset.
            frames: Names of the frames.
            publishers: Pose and status.
        """
        self._node = node
        self._deadline: float | None = None  # monotonic seconds, of closing
        with ExitStack() as parts:
            self._make_parts(parts, node, engine, gate, frames, publishers)
            self._parts = parts.pop_all()
        topics = [topic for source in self._inputs for topic in source.topics]
        node.get_logger().info(
            f"localizing in {engine.store.path} ({engine}), listening to {', '.join(topics)}, "
            f"broadcasting {frames.map} -> {frames.child or 'camera'}, transforms by {TRANSFORM_LIBRARY}"
        )

    def _make_parts(
        self,
        parts: ExitStack,
        node: LifecycleNode,
        engine: Engine,
        gate: Gate,
        frames: Frames,
        publishers: PosePublishers,
    ) -> None:
        """Makes the parts; ``parts`` gets what closes them, and is closed from the last to the first."""
        cameras = value_of(node, "cameras")
        drops = DropCounter()
        interfaces = RosInterfaces(node)
        parts.callback(interfaces.close)
        last_pose = LastPoseFile(node, frames)
        parts.callback(lambda: last_pose.close(self._remaining()))
        displays = Displays(node, frames.map, lambda: self._facts(engine, drops))
        parts.callback(displays.close)
        transforms = open_transforms(node)
        parts.callback(transforms.close)
        lookups = FrameLookups(node, transforms, frames, several_cameras=len(cameras) > 1)
        self.worker = Worker(lambda error: log_exception(node, error))
        parts.callback(lambda: self.worker.stop(self._remaining()))
        self.keyframe_writer = KeyframeWriter(node, interfaces, engine, lookups, frames)
        parts.callback(lambda: self.keyframe_writer.stop(self._remaining()))
        parts.callback(transforms.stop)  # before the threads are joined: nobody waits for a transform any more
        self.mode = OperatingMode(node, interfaces, gate)
        parts.callback(self.mode.close)
        initial_pose = InitialPoseInput(node, interfaces, lookups, frames, self.forget)
        initial_pose.set(last_pose.read())
        clock = ClockMonitor(
            node, ThrottledLogger(node.get_logger()), lambda reason: self._on_time_went_back(transforms, reason)
        )
        parts.callback(clock.close)
        self.pipeline = ImagePipeline(
            node,
            engine,
            gate,
            frames,
            lookups,
            worker=self.worker,
            mode=self.mode,
            clock=clock,
            drops=drops,
            initial_pose=initial_pose,
            map_odom=MapOdomBroadcaster(node, interfaces, transforms, frames),
            propagation=OdometryPropagation(node, interfaces, transforms, lookups, frames, gate, publishers),
            last_pose=last_pose,
            publishers=publishers,
            displays=displays,
            optical_frames=OpticalFrameCheck(transforms, frames),
        )
        parts.callback(self.pipeline.close)
        interfaces.timer(_REMINDER_SECONDS, self._log_silent_topics, steady=True)
        self._map_requested = False
        interfaces.timer(_MAP_SUBSCRIBERS_SECONDS, lambda: self._request_map(engine, displays), steady=True)
        self._inputs = [CameraInput(node, interfaces, name, drops, self.pipeline.on_image) for name in cameras]
        parts.callback(interfaces.close)  # first of all: no message arrives any more
        self.worker.start()

    def close(self, timeout: float | None = None) -> bool:
        """Closes all parts, and waits for the image that is being localized.

        Args:
            timeout: Seconds to wait; None: however long it takes.

        Returns:
            Whether no computation runs any more.
        """
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._parts.close()
        # once more: after a time-out the parts are closed, and a later call waits for the computation alone
        ended = [part.stop(self._remaining()) for part in (self.worker, self.keyframe_writer)]
        return all(ended)

    def forget(self, reason: str) -> int:
        """Forgets the pose and all that follows from it.

        Args:
            reason: Why the pose is forgotten, for the log.

        Returns:
            The new epoch.
        """
        return self.pipeline.forget(reason)

    def _remaining(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _on_time_went_back(self, transforms: Transforms, reason: str) -> None:
        """All that is known belongs to a time that has not come yet (a looped bag, a reset simulation)."""
        transforms.clear()
        self.forget(reason)

    def _request_map(self, engine: Engine, displays: Displays) -> None:
        """Has the worker, which alone may use the map, publish the map for displays while somebody subscribes."""

        def publish() -> None:
            self._map_requested = False
            displays.publish_map(engine.store)

        if displays.map_has_subscribers and not self._map_requested:
            self._map_requested = self.worker.request(publish)

    def _facts(self, engine: Engine, drops: DropCounter) -> dict[str, str]:
        """Values of the diagnostics: map, device, keyframes written, libraries in use, images dropped."""
        dropped = {f"dropped images, {reason}": str(count) for reason, count in drops.totals().items()}
        libraries = {
            "ROS libraries in use": ", ".join(LIBRARIES.available) or "none",
            "transforms by": TRANSFORM_LIBRARY,
        }
        return {**engine.facts(), **self.keyframe_writer.facts(), **libraries, **dropped}

    def _log_silent_topics(self) -> None:
        logger = self._node.get_logger()
        for topics in (topics for source in self._inputs for topics in source.silent_topics()):
            logger.warning(f"no message on {topics}")
        if value_of(self._node, "use_sim_time") and self._node.get_clock().now().nanoseconds == 0:
            logger.warning("use_sim_time is set, but there is no /clock yet")
