# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Everything about TF: looking transforms up, the frames of the robot, and broadcasting map -> odom.

Transforms come from tf2_ros where it is installed, else from /tf and /tf_static by our own buffer; the rest of the
node does not depend on which.  Times are integer nanoseconds, motions [4, 4] ``T_target_source``.
"""

from __future__ import annotations

import importlib
import math
import re
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from tf2_msgs.msg import TFMessage

from nre_ros.errors import one_line
from nre_ros.geometry import covariance_of_frame
from nre_ros.messages.frame_ids import frame_name
from nre_ros.messages.transform_buffer import (
    ConnectivityError,
    ExtrapolationError,
    FrameLookupError,
    TransformBuffer,
    TransformError,
)
from nre_ros.node.conversions import (
    matrix_of_transform,
    stamp_nanoseconds,
    transform_message,
    translation_rotation,
)
from nre_ros.node.interfaces import RosInterfaces
from nre_ros.node.logs import ThrottledLogger
from nre_ros.node.parameters import value_of

__all__ = [
    "TRANSFORM_LIBRARY",
    "FrameLookups",
    "Frames",
    "MapOdomBroadcaster",
    "TransformError",
    "Transforms",
    "open_transforms",
]

_POLL_SECONDS = 0.005
"""Between two tries of a look-up in tf2_ros, which does not report that a transform has arrived."""
_CACHE_SECONDS = 30.0
"""History kept, three times tf2's default: an image may take as long where a bag is played faster than recorded."""


class Transforms(ABC):
    """Looks transforms up, waiting for those that have not arrived yet, and broadcasts."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def lookup(self, target: str, source: str, stamp: int, timeout: float) -> npt.NDArray[np.float64]:
        """Looks a transform up, and waits for it.

        Never called from the executor's thread, whose callbacks bring the transforms.

        Args:
            target: Frame that coordinates are transformed into.
            source: Frame of the coordinates.
            stamp: Time, nanoseconds.
            timeout: Longest wait, seconds of real time (simulated time may stand still).

        Returns:
            ``T_target_source`` [4, 4].

        Raises:
            TransformError: The transform is not known, in tf2's words.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                return self._lookup(target, source, stamp)
            except TransformError:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or self._stopped.is_set():
                    raise
            self._wait(remaining)

    @abstractmethod
    def latest(self, target: str, source: str) -> tuple[npt.NDArray[np.float64], int]:
        """Looks up the newest transform without waiting.

        Args:
            target: Frame that coordinates are transformed into.
            source: Frame of the coordinates.

        Returns:
            ``T_target_source`` [4, 4] and its stamp in nanoseconds, 0 for a static transform.

        Raises:
            TransformError: The transform is not known.
        """

    def stop(self) -> None:
        """Ends all waiting."""
        self._stopped.set()

    def close(self) -> None:
        """Stops listening and broadcasting."""
        self.stop()

    @abstractmethod
    def clear(self) -> None:
        """Forgets the history, but not the static transforms."""

    @abstractmethod
    def frame_names(self) -> list[str]:
        """Returns the names of the frames that have been received so far."""

    @abstractmethod
    def broadcast(self, T: npt.NDArray[np.float64], parent: str, child: str, stamp: int) -> None:
        """Publishes a transform on /tf.

        Args:
            T: ``T_parent_child`` [4, 4], metres.
            parent: Name of the parent frame.
            child: Name of the child frame.
            stamp: Nanoseconds.
        """

    @abstractmethod
    def _lookup(self, target: str, source: str, stamp: int) -> npt.NDArray[np.float64]:
        """As ``lookup``, without waiting."""

    @abstractmethod
    def _wait(self, seconds: float) -> None:
        """Waits until a transform may have arrived, ``seconds`` at most."""


def _import_tf2() -> tuple[Any, str]:
    """tf2_ros, and why it cannot be imported although it is installed; None where it is absent: it has no wheel."""
    try:
        return importlib.import_module("tf2_ros"), ""
    except Exception as error:  # a compiled module of another Python raises more than ImportError
        absent = isinstance(error, ModuleNotFoundError) and error.name == "tf2_ros"
        return None, "" if absent else f"{type(error).__name__}: {one_line(error)}"


tf2_ros, _TF2_FAULT = _import_tf2()
TRANSFORM_LIBRARY = "tf2_ros" if tf2_ros else "nre_ros"
"""The package whose buffer looks transforms up."""


class Tf2Transforms(Transforms):
    """Transforms by tf2_ros."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._node = node
        self._buffer = tf2_ros.Buffer(cache_time=Duration(seconds=_CACHE_SECONDS))
        self._listener = tf2_ros.TransformListener(self._buffer, node)
        self._broadcaster = tf2_ros.TransformBroadcaster(node)

    def close(self) -> None:
        super().close()
        self._listener.unregister()
        self._node.destroy_publisher(self._broadcaster.pub_tf)

    def clear(self) -> None:
        self._buffer.clear()

    def frame_names(self) -> list[str]:
        return _names_of_frames(self._buffer.all_frames_as_yaml())

    def broadcast(self, T: npt.NDArray[np.float64], parent: str, child: str, stamp: int) -> None:
        self._broadcaster.sendTransform(transform_message(T, parent, child, stamp))

    def latest(self, target: str, source: str) -> tuple[npt.NDArray[np.float64], int]:
        transform = self._transform(target, source, 0)
        return matrix_of_transform(transform.transform), stamp_nanoseconds(transform.header.stamp)

    def _lookup(self, target: str, source: str, stamp: int) -> npt.NDArray[np.float64]:
        return matrix_of_transform(self._transform(target, source, stamp).transform)

    def _transform(self, target: str, source: str, stamp: int):  # type: ignore[no-untyped-def]  # of tf2_ros
        try:
            return self._buffer.lookup_transform(target, source, Time(nanoseconds=stamp))
        except tf2_ros.LookupException as error:
            raise FrameLookupError(str(error)) from None
        except tf2_ros.ConnectivityException as error:
            raise ConnectivityError(str(error)) from None
        except tf2_ros.ExtrapolationException as error:
            raise ExtrapolationError(str(error)) from None
        except tf2_ros.TransformException as error:
            raise TransformError(str(error)) from None

    def _wait(self, seconds: float) -> None:
        self._stopped.wait(min(seconds, _POLL_SECONDS))


def _names_of_frames(text: str) -> list[str]:
    """The frames in tf2's list of all frames: each child at the start of a line, its parent below it, no root.

    A parser of YAML takes a tenth of a second for a robot of some hundred frames.
    """
    children = re.findall(r"^([^\s{\[].*?):\s*$", text, re.MULTILINE)
    parents = re.findall(r"^\s+parent: *(.+?)\s*$", text, re.MULTILINE)
    return sorted({name.strip("'\"") for name in (*children, *parents)})


class OwnTransforms(Transforms):
    """Transforms by the project's ``TransformBuffer``, with the topics and QoS of tf2_ros."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._node = node
        self._log = ThrottledLogger(node.get_logger())
        self._buffer = TransformBuffer(_CACHE_SECONDS)
        moving = QoSProfile(depth=100)
        static = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._subscriptions = [
            node.create_subscription(TFMessage, "/tf", lambda message: self._insert(message, False), moving),
            node.create_subscription(TFMessage, "/tf_static", lambda message: self._insert(message, True), static),
        ]
        self._publisher = node.create_publisher(TFMessage, "/tf", moving)

    def stop(self) -> None:
        super().stop()
        with self._buffer.changed:
            self._buffer.changed.notify_all()

    def close(self) -> None:
        super().close()
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._node.destroy_publisher(self._publisher)

    def clear(self) -> None:
        self._buffer.clear()

    def frame_names(self) -> list[str]:
        return self._buffer.frame_names()

    def broadcast(self, T: npt.NDArray[np.float64], parent: str, child: str, stamp: int) -> None:
        self._publisher.publish(TFMessage(transforms=[transform_message(T, parent, child, stamp)]))

    def latest(self, target: str, source: str) -> tuple[npt.NDArray[np.float64], int]:
        stamp = self._buffer.latest_time(target, source)
        return self._buffer.lookup(target, source, stamp), stamp

    def _lookup(self, target: str, source: str, stamp: int) -> npt.NDArray[np.float64]:
        return self._buffer.lookup(target, source, stamp)

    def _wait(self, seconds: float) -> None:
        with self._buffer.changed:
            if not self._stopped.is_set():
                self._buffer.changed.wait(seconds)

    def _insert(self, message: TFMessage, static: bool) -> None:
        for transform in message.transforms:
            translation, rotation = translation_rotation(transform.transform)
            refusal = self._buffer.insert(
                stamp_nanoseconds(transform.header.stamp),
                transform.header.frame_id,
                transform.child_frame_id,
                translation,
                rotation,
                static,
            )
            if refusal:
                self._log.warning(refusal)


def open_transforms(node: Node) -> Transforms:
    """Opens the transforms of this machine, which are received from now on.

    Args:
        node: The node.

    Returns:
        Transforms by tf2_ros where it is installed, else by our own buffer.
    """
    if tf2_ros:
        return Tf2Transforms(node)
    if _TF2_FAULT:
        node.get_logger().warning(
            f"tf2_ros is installed but cannot be imported, transforms come from nre_ros's own buffer: {_TF2_FAULT}"
        )
    return OwnTransforms(node)


@dataclass(frozen=True)
class Frames:
    """Names of the frames (REP-105); empty ones as ``nre_ros.node.parameters`` describes them."""

    map: str
    odom: str
    base: str
    camera: str
    pose: str

    @classmethod
    def of(cls, node: Node, map_frame: str) -> Frames:
        """Returns the frames by the node's parameters.

        Args:
            node: The node.
            map_frame: Name of the map's frame in the map file, for an empty parameter ``map_frame``.
        """
        names = {
            name: frame_name(value_of(node, f"{name}_frame")) for name in ("map", "odom", "base", "camera", "pose")
        }
        # the poses of several cameras would follow each other without a sign which is whose
        several = len(value_of(node, "cameras")) > 1
        pose = names["pose"] or (names["base"] if several else "")
        return cls(**{**names, "map": names["map"] or frame_name(map_frame), "pose": pose})

    @property
    def child(self) -> str:
        """Frame that is connected with the map on /tf; empty: the camera."""
        return self.odom or self.base


class FrameLookups:
    """The transforms that one image needs.

    All methods raise ``TransformError`` with the consequence of the missing transform.
    """

    def __init__(self, node: Node, transforms: Transforms, frames: Frames, several_cameras: bool = False) -> None:
        self._node, self._transforms, self._frames = node, transforms, frames
        self._several_cameras = several_cameras

    def extrinsics(self, camera: str, stamp: int) -> npt.NDArray[np.float64]:
        """Looks up the pose of a camera on the robot.

        Args:
            camera: The camera's optical frame.
            stamp: Nanoseconds.

        Returns:
            ``T_base_cam`` [4, 4]; the identity for a single camera, which is the body itself.

        Raises:
            TransformError: The transform is not known.
        """
        return self.between(self._frames.base, camera, stamp, "no pose") if self._several_cameras else np.eye(4)

    def between(self, target: str, source: str, stamp: int, consequence: str) -> npt.NDArray[np.float64]:
        """Looks up the transform between two frames.

        Args:
            target: Frame that coordinates are transformed into.
            source: Frame of the coordinates.
            stamp: Nanoseconds.
            consequence: What a missing transform prevents, for the beginning of the error's message.

        Returns:
            ``T_target_source`` [4, 4].

        Raises:
            TransformError: The transform is not known.
        """
        return self._lookup(consequence, target, source, stamp)

    def now_between(self, target: str, source: str, stamp: int, consequence: str) -> npt.NDArray[np.float64]:
        """Looks up the transform between two frames without waiting: at a stamp if it is known there, else the newest.

        Args:
            target: Frame that coordinates are transformed into.
            source: Frame of the coordinates.
            stamp: Nanoseconds; 0: the newest.
            consequence: What a missing transform prevents, for the beginning of the error's message.

        Returns:
            ``T_target_source`` [4, 4].

        Raises:
            TransformError: The frames are not connected.
        """
        try:
            try:
                return self._transforms.lookup(target, source, stamp, timeout=0)
            except ExtrapolationError:
                return self._transforms.latest(target, source)[0]
        except TransformError as error:
            raise TransformError(f"{consequence}: {error}") from None

    def broadcast_frame(self, camera: str, stamp: int) -> tuple[str, npt.NDArray[np.float64]]:
        """Looks up the frame that is broadcast below the map for a robot without odometry.

        Args:
            camera: The camera's optical frame.
            stamp: Stamp of the image, nanoseconds.

        Returns:
            The frame, and its pose [4, 4] in that of the camera.

        Raises:
            TransformError: The transform is not known.
        """
        frames, child = self._frames, self._frames.base or camera
        return child, self._lookup(f"no {frames.map} -> {child or 'camera'}", camera, child, stamp)

    def odometry(self, camera: str, stamp: int, patience: float = math.inf) -> npt.NDArray[np.float64] | None:
        """Looks up the odometry of a camera at an image's stamp.

        Args:
            camera: The camera's optical frame.
            stamp: Nanoseconds.
            patience: Longest wait, seconds; never longer than the parameter ``transform_timeout``.

        Returns:
            ``T_odom_cam`` [4, 4]; None where the robot has no odometry.

        Raises:
            TransformError: The transform is not known.
        """
        frames = self._frames
        if not frames.odom:
            return None
        return self._lookup(f"no {frames.map} -> {frames.odom}", frames.odom, camera, stamp, patience)

    def published_pose(
        self,
        T_map_cam: npt.NDArray[np.float64],
        covariance: npt.NDArray[np.float64],
        camera: str,
        stamp: int,
        patience: float = math.inf,
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Converts the pose of the camera to that of the parameter ``pose_frame``, or keeps it where that is empty.

        Args:
            T_map_cam: Pose [4, 4] of the camera in the map.
            covariance: [6, 6] of (x, y, z, rotation about x, y, z) in the map's axes.
            camera: The camera's optical frame.
            stamp: Nanoseconds.
            patience: Longest wait, seconds; never longer than the parameter ``transform_timeout``.

        Returns:
            Pose [4, 4] in the map and covariance [6, 6] in the map's axes.

        Raises:
            TransformError: The transform is not known.
        """
        frame = self._frames.pose
        if frame in ("", camera):
            return T_map_cam, covariance
        T_cam_frame = self._lookup("no pose", camera, frame, stamp, patience)
        return T_map_cam @ T_cam_frame, covariance_of_frame(covariance, T_map_cam, T_cam_frame)

    def _lookup(
        self, consequence: str, target: str, source: str, stamp: int, patience: float = math.inf
    ) -> npt.NDArray[np.float64]:
        if not (target and source):
            raise TransformError(f"{consequence}: neither image nor camera_info has a frame_id, set camera_frame")
        timeout = min(value_of(self._node, "transform_timeout"), patience)
        try:
            return self._transforms.lookup(target, source, stamp, timeout)
        except TransformError as error:
            raise TransformError(f"{consequence}: {error}") from None


class MapOdomBroadcaster:
    """Broadcasts the latest map -> odom by a timer, dated into the future (REP-105).

    Nothing is broadcast before the first ``update``, nor without a running clock.
    """

    def __init__(self, node: Node, interfaces: RosInterfaces, transforms: Transforms, frames: Frames) -> None:
        self._node, self._transforms, self._frames = node, transforms, frames
        self._lock = threading.Lock()
        self._T_map_odom: npt.NDArray[np.float64] | None = None
        self._last_broadcast = 0  # nanoseconds
        interfaces.timer(1.0 / value_of(node, "transform_rate"), self.broadcast)

    def broadcast_child(self, T_map_child: npt.NDArray[np.float64], child: str, stamp: int) -> None:
        """Broadcasts map -> child once, for a robot without odometry, unless nothing is to be broadcast.

        Args:
            T_map_child: [4, 4], metres.
            child: Frame of the base or of the camera.
            stamp: Stamp of the image, nanoseconds.
        """
        if value_of(self._node, "publish_tf"):
            self._transforms.broadcast(T_map_child, self._frames.map, child, stamp)

    def update(self, T_map_odom: npt.NDArray[np.float64]) -> None:
        """Replaces map -> odom and broadcasts it at once.

        Args:
            T_map_odom: [4, 4], metres.
        """
        with self._lock:
            self._T_map_odom = T_map_odom
        self.broadcast()

    def forget(self) -> None:
        """Ends the broadcasts until the next ``update``."""
        with self._lock:
            self._T_map_odom, self._last_broadcast = None, 0

    def broadcast(self) -> None:
        """Broadcasts map -> odom, unless a paused clock would repeat a stamp."""
        now = self._node.get_clock().now().nanoseconds
        if now == 0 or not value_of(self._node, "publish_tf"):
            return
        with self._lock:
            if self._T_map_odom is None or now <= self._last_broadcast:
                return
            self._last_broadcast = now
            stamp = now + round(value_of(self._node, "transform_tolerance") * 1e9)
            self._transforms.broadcast(self._T_map_odom, self._frames.map, self._frames.odom, stamp)
