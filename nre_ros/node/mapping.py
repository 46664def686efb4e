# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The topic ``keyframes``: a SLAM stack's views become part of the open map, and move as it corrects them."""

from __future__ import annotations

import threading
import traceback
from collections import deque

import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile

from nre_ros.errors import MapError, NreError
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.building.from_message import has_image, keyframe_of
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.msg import Keyframe
from nre_ros.node.broadcasting import FrameLookups, Frames
from nre_ros.node.conversions import matrix_of_pose, stamp_nanoseconds
from nre_ros.node.engine import Engine
from nre_ros.node.entities import Entities
from nre_ros.node.parameters import value_of
from nre_ros.node.seldom import SeldomLog

_DEPTH = 1000
"""Of the topic's queue; reliable: a keyframe is sent once, and a bundle adjustment moves hundreds."""
MAX_WAITING = 50
"""Images that may wait to be written; more are turned away, and that is said.  Moves are small: any number may."""


class Mapper:
    """Writes keyframes into the engine's map, on a thread of its own, which begins with the first message.

    The localizer uses them at its next image.  counts: keyframes added, replaced, moved and refused so far.
    """

    def __init__(self, node: Node, entities: Entities, engine: Engine, lookups: FrameLookups, frames: Frames):
        self._node, self._engine, self._lookups, self._frames = node, engine, lookups, frames
        self._logger = node.get_logger()
        self._log = SeldomLog(self._logger)
        self.counts = {"added": 0, "replaced": 0, "moved": 0, "refused": 0}
        self._changed = threading.Condition()
        self._waiting: deque[Keyframe] = deque()
        self._stopped = False
        self._store: KeyframeStore | None = None
        self._of: KeyframeStore | None = None  # the reading half that the localizer has, of the same file
        self._builder: KeyframeBuilder | None = None
        # daemon: a computation that cannot be interrupted must not keep the process alive
        self._thread = threading.Thread(target=self._run, name="keyframes", daemon=True)
        entities.subscription(Keyframe, "keyframes", self._take, QoSProfile(depth=_DEPTH))

    def facts(self) -> dict[str, str]:
        """What there is to tell about keyframes, name -> value."""
        return {f"keyframes {what}": str(count) for what, count in self.counts.items() if count}

    def stop(self, timeout: float | None) -> bool:
        """Writes no more after the keyframe at work; false when that takes longer than ``timeout`` seconds."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    # --- the executor's thread ----------------------------------------------------------------------

    def _take(self, message: Keyframe):
        if self._thread.ident is None:
            self._thread.start()
        with self._changed:
            if not has_image(message) or sum(map(has_image, self._waiting)) < MAX_WAITING:
                self._waiting.append(message)
                self._changed.notify()
                return
        self._refuse(message.name, f"{MAX_WAITING} images wait to be written already")

    # --- the writer's -------------------------------------------------------------------------------

    def _run(self):
        try:
            while messages := self._next():
                self._write(messages)
        finally:
            self._close_store()

    def _next(self) -> list[Keyframe]:
        """All messages up to the first one with an image, which comes alone: moves go into one transaction."""
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

    def _write(self, messages: list[Keyframe]):
        try:
            store = self._writer()
            with store.batch():
                for message in messages:
                    self._try(store, message)
        except NreError as error:  # the map as such cannot be written
            for message in messages:
                self._refuse(message.name, str(error))
            self._close_store()
        except Exception as error:
            self._logger.error(traceback.format_exc())
            for message in messages:
                self._refuse(message.name, f"internal error, {type(error).__name__}: {error}")
            self._close_store()

    def _try(self, store: KeyframeStore, message: Keyframe):
        """One message; what is wrong with it does not touch the others."""
        try:
            with store.batch():
                done = self._apply(store, message)
        except NreError as error:
            store.check_in_place()
            self._refuse(message.name, str(error))
            return
        self.counts[done] += 1
        self._logger.debug(f"keyframe {message.name!r} {done}, {len(store)} in {store.path}")

    def _apply(self, store: KeyframeStore, message: Keyframe) -> str:
        T_map_frame, T_frame_cam = self._placed(message)
        known = store.find(message.name)
        if not has_image(message):
            if known is None:
                raise MapError("the map has no keyframe of that name, and the message has no image")
            store.update_pose(known, T_map_frame @ T_frame_cam)
            return "moved"
        stamp, rectified = stamp_nanoseconds(message.header.stamp), value_of(self._node, "rectified")
        keyframe = keyframe_of(message, stamp, T_map_frame, T_frame_cam, self._building(), rectified)
        if known is None:
            store.add(keyframe)
            return "added"
        store.replace(known, keyframe)
        return "replaced"

    def _placed(self, message: Keyframe) -> tuple[np.ndarray, np.ndarray]:
        """``T_map_frame`` of the message's frame, and the pose ``T_frame_cam`` in it."""
        frame, T_frame_cam = message.header.frame_id, matrix_of_pose(message.pose)
        if frame in ("", self._frames.map):
            return np.eye(4), T_frame_cam
        stamp = stamp_nanoseconds(message.header.stamp)
        return self._lookups.between(self._frames.map, frame, stamp, f"it is in {frame}, not in the map"), T_frame_cam

    def _building(self) -> KeyframeBuilder:
        backbone = self._engine.backbone
        if self._builder is None or self._builder.backbone is not backbone:
            self._builder = KeyframeBuilder(backbone)
        return self._builder

    def _writer(self) -> KeyframeStore:
        """The open map for writing; ``MapError`` when the file that the localizer reads is not there any more."""
        reading = self._engine.store
        if self._of is not reading:  # another map has been opened
            self._close_store()
            self._of = reading
        reading.check_in_place()
        if self._store is None:
            self._store = KeyframeStore.open(reading.path, readonly=False, cache_bytes=0)
            self._logger.info(f"writing keyframes into {reading.path}")
        return self._store

    def _close_store(self):
        store, self._store = self._store, None
        if store is None:
            return
        try:
            store.close()
        except MapError as error:
            self._log.warning(str(error))

    def _refuse(self, name: str, why: str):
        self.counts["refused"] += 1
        self._log.warning(f"keyframe {name!r} is refused: {why}")
