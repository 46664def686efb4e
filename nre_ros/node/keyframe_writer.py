# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The topic ``keyframes``: a SLAM system's views are added to the open map, and moved when it corrects them."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np
import numpy.typing as npt
from rclpy.node import Node
from rclpy.qos import QoSProfile

from nre_ros.errors import MapError, NreError
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.building.keyframe_message import has_image, keyframe_from_message
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.messages.frame_ids import frame_name
from nre_ros.msg import Keyframe
from nre_ros.node.conversions import matrix_of_pose, stamp_nanoseconds
from nre_ros.node.engine import Engine, device_works
from nre_ros.node.interfaces import RosInterfaces
from nre_ros.node.logs import ThrottledLogger, internal_error, log_exception
from nre_ros.node.parameters import value_of
from nre_ros.node.tf import FrameLookups, Frames
from nre_ros.process import adopt_threads

_QUEUE_DEPTH = 1000
"""Depth of the topic's queue; reliable: a keyframe is sent once, and a bundle adjustment moves hundreds."""
MAX_WAITING_IMAGES = 50
"""Keyframes with an image that may wait to be written; more are rejected.  Poses alone are small: any number may."""


class KeyframeWriter:
    """Writes keyframes into the engine's map, on a thread of its own, which begins with the first message.

    The localizer uses them from its next image on.

    Attributes:
        counts: Number of keyframes added, replaced, moved and rejected so far.
    """

    def __init__(
        self, node: Node, interfaces: RosInterfaces, engine: Engine, lookups: FrameLookups, frames: Frames
    ) -> None:
        """Subscribes to ``keyframes``."""
        self._node, self._engine, self._lookups, self._frames = node, engine, lookups, frames
        self._logger = node.get_logger()
        self._log = ThrottledLogger(self._logger)
        self.counts = {"added": 0, "replaced": 0, "moved": 0, "rejected": 0}
        self._changed = threading.Condition()
        self._waiting: deque[Keyframe] = deque()
        self._stopped = False
        self._store: KeyframeStore | None = None  # opened for writing
        self._read_store: KeyframeStore | None = None  # the localizer's, of the same file
        self._builder: KeyframeBuilder | None = None
        # daemon: a computation that cannot be interrupted must not keep the process alive
        self._thread = threading.Thread(target=self._run, name="keyframes", daemon=True)
        interfaces.subscription(Keyframe, "keyframes", self._on_keyframe, QoSProfile(depth=_QUEUE_DEPTH))

    @property
    def running(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def facts(self) -> dict[str, str]:
        """Returns the values of the diagnostics, name -> value."""
        return {f"keyframes {what}": str(count) for what, count in self.counts.items() if count}

    def stop(self, timeout: float | None) -> bool:
        """Stops writing after the keyframe at work.

        Args:
            timeout: Seconds to wait for it; None: however long it takes.

        Returns:
            Whether the thread has ended.
        """
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    # --- the executor's thread ----------------------------------------------------------------------

    def _on_keyframe(self, message: Keyframe) -> None:
        if self._thread.ident is None:
            self._thread.start()
        with self._changed:
            if not has_image(message) or sum(map(has_image, self._waiting)) < MAX_WAITING_IMAGES:
                self._waiting.append(message)
                self._changed.notify()
                return
        self._reject(message.name, f"{MAX_WAITING_IMAGES} images wait to be written already")

    # --- the writer's thread ------------------------------------------------------------------------

    def _run(self) -> None:
        adopt_threads()
        try:
            while messages := self._next():
                self._write(messages)
        finally:
            self._close_store()

    def _next(self) -> list[Keyframe]:
        """All messages up to the first one with an image, which comes alone: poses go into one transaction."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._waiting)
            if self._stopped:
                if self._waiting:
                    self._logger.warning(f"{len(self._waiting)} keyframes were not written before the end")
                return []
            found = [self._waiting.popleft()]
            while not has_image(found[0]) and self._waiting and not has_image(self._waiting[0]):
                found.append(self._waiting.popleft())
            return found

    def _write(self, messages: list[Keyframe]) -> None:
        try:
            store = self._writable_store()
            with store.batch():
                for message in messages:
                    self._write_one(store, message)
        except NreError as error:  # the map as a whole cannot be written
            for message in messages:
                self._reject(message.name, str(error))
            self._close_store()
        except Exception as error:
            reason = f"the device {self._engine.device} is lost"
            if device_works(self._engine.device):
                log_exception(self._node, error)
                reason = internal_error(error)
            for message in messages:
                self._reject(message.name, reason)
            self._close_store()

    def _write_one(self, store: KeyframeStore, message: Keyframe) -> None:
        """Writes one message; what is wrong with it does not touch the others."""
        try:
            with store.batch():
                done = self._apply(store, message)
        except NreError as error:
            store.check_in_place()
            self._reject(message.name, str(error))
            return
        self.counts[done] += 1
        self._logger.debug(f"keyframe {message.name!r} {done}, {len(store)} in {store.path}")

    def _apply(self, store: KeyframeStore, message: Keyframe) -> str:
        T_map_frame, T_frame_cam = self._pose_of(message)
        known = store.find(message.name)
        if not has_image(message):
            if known is None:
                raise MapError("the map has no keyframe of that name, and the message has no image")
            store.update_pose(known, T_map_frame @ T_frame_cam)
            return "moved"
        stamp, rectified = stamp_nanoseconds(message.header.stamp), value_of(self._node, "rectified")
        builder = self._keyframe_builder()
        keyframe = keyframe_from_message(message, stamp, T_map_frame, T_frame_cam, builder, rectified)
        if known is None:
            store.add(keyframe)
            return "added"
        store.replace(known, keyframe)
        return "replaced"

    def _pose_of(self, message: Keyframe) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """``T_map_frame`` [4, 4] of the message's frame, and the camera's pose ``T_frame_cam`` [4, 4] in it."""
        frame, T_frame_cam = frame_name(message.header.frame_id), matrix_of_pose(message.pose)
        if frame in ("", self._frames.map):
            return np.eye(4), T_frame_cam
        stamp = stamp_nanoseconds(message.header.stamp)
        return self._lookups.between(self._frames.map, frame, stamp, f"it is in {frame}, not in the map"), T_frame_cam

    def _keyframe_builder(self) -> KeyframeBuilder:
        backbone = self._engine.backbone
        if self._builder is None or self._builder.backbone is not backbone:
            self._builder = KeyframeBuilder(backbone)
        return self._builder

    def _writable_store(self) -> KeyframeStore:
        """The open map for writing.

        Raises:
            MapError: The file that the localizer reads has been removed or replaced.
        """
        reading = self._engine.store
        if self._read_store is not reading:  # another map has been opened
            self._close_store()
            self._read_store = reading
        reading.check_in_place()
        if self._store is None:
            self._store = KeyframeStore.open(reading.path, readonly=False, cache_bytes=0)
            self._logger.info(f"writing keyframes into {reading.path}")
        return self._store

    def _close_store(self) -> None:
        store, self._store = self._store, None
        if store is None:
            return
        try:
            store.close()
        except MapError as error:
            self._log.warning(str(error))

    def _reject(self, name: str, reason: str) -> None:
        self.counts["rejected"] += 1
        self._log.warning(f"keyframe {name!r} is rejected: {reason}")
