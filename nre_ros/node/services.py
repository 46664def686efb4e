# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The node's services; they are there while it is configured."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable

from rclpy.lifecycle import LifecycleNode
from rclpy.task import Future
from std_srvs.srv import Trigger

from nre_ros.errors import NreError
from nre_ros.gate.gate import Gate
from nre_ros.localization.result import LocalizationResult
from nre_ros.msg import LocalizationStatus
from nre_ros.node.broadcasting import Frames
from nre_ros.node.engine import Engine
from nre_ros.node.entities import Entities
from nre_ros.node.parameters import value_of
from nre_ros.node.publishing import status_message, tell_pose
from nre_ros.node.relocalizer import Relocalizer
from nre_ros.srv import LoadMap, LocalizeImage, Relocalize, SaveMap

_PATIENCE = 10.0
"""Seconds that ~/relocalize waits when the call names none."""
_INACTIVE = "the node is not active"


class Services:
    """Answers calls.  What takes long is done on the worker's thread, while the executor's goes on.

    active: the relocalizer while the node is active, else None.
    """

    def __init__(self, node: LifecycleNode, engine: Engine, gate: Gate, frames: Frames):
        self._node, self._engine, self._gate, self._frames = node, engine, gate, frames
        self.active: Relocalizer | None = None
        self._pending: set[Future] = set()  # work that is not done
        self._calls: set[Future] = set()  # calls that are not answered
        self._entities = Entities(node)
        for kind, name, callback in (
            (LocalizeImage, "~/localize_image", self._localize_image),
            (Relocalize, "~/relocalize", self._relocalize),
            (LoadMap, "~/load_map", self._load_map),
            (SaveMap, "~/save_map", self._save_map),
        ):
            self._entities.service(kind, name, self._followed(callback))
        self._entities.service(Trigger, "~/clear", self._clear)

    def deactivate(self):
        """There is no worker any more; whoever waits for it is told."""
        self.active = None
        for answer in list(self._pending):
            if not answer.done():
                answer.set_exception(NreError(_INACTIVE))

    def close(self):
        """Ends the services: at once, or when the executor has sent the answers to those who were waiting."""
        if self._calls and self._node.executor is not None:
            self._node.executor.create_task(self._close_after, list(self._calls))
        else:
            self._entities.close()

    async def _close_after(self, calls: list[Future]):
        for call in calls:
            await call
        self._entities.close()

    def _followed(self, callback):
        """The callback of a service, known to be under way until its answer goes out."""

        async def follow(request, response):
            call = Future(executor=self._node.executor)
            self._calls.add(call)
            try:
                return await callback(request, response)
            finally:
                self._calls.discard(call)
                call.set_result(None)

        return follow

    async def _localize_image(self, request, response):
        """One image by itself; the node's state is not touched."""
        started, active = time.monotonic(), self.active
        try:
            if active is None:
                raise NreError(_INACTIVE)
            result = await self._done(lambda: active.localize(request.image, request.camera_info))
        except NreError as error:
            result = LocalizationResult(reason=str(error))
        state = LocalizationStatus.LOCALIZED if result.success else LocalizationStatus.UNLOCALIZED
        status = status_message(result, state)
        if result.success:
            tell_pose(status, result.T_map_cam, result.covariance)
        status.header.stamp, status.header.frame_id = request.image.header.stamp, self._frames.map
        status.camera_frame = request.image.header.frame_id or request.camera_info.header.frame_id
        status.total_milliseconds = (time.monotonic() - started) * 1e3
        response.status = status
        return response

    async def _relocalize(self, request, response):
        if self.active is None:
            response.message = _INACTIVE
        elif not 0 <= request.timeout < 1e6:
            response.message = f"timeout is {request.timeout:g} s, expected 0 to a million"
        else:
            response.success, response.message, response.status = await self.active.demand.wait(
                request.timeout or _PATIENCE
            )
        return response

    async def _load_map(self, request, response):
        def load():
            self._engine.load(request.map_file, "" if value_of(self._node, "map_frame") else self._frames.map)
            if self.active is None:  # the device is for the active node
                self._engine.release()
            self._forget(f"{request.map_file} has been loaded")
            return f"{request.map_file}: {self._engine}"

        return await self._answered(load, response)

    async def _save_map(self, request, response):
        def save():
            self._engine.save(request.map_file, request.overwrite)
            return f"{request.map_file}: {len(self._engine.store)} keyframes"

        return await self._answered(save, response)

    def _clear(self, request, response):
        """Forgets pose, correction and hints."""
        self._forget("~/clear was called")
        response.success, response.message = True, "pose, correction and hints are forgotten"
        return response

    def _forget(self, why: str):
        active = self.active
        if active is None:
            self._gate.reset()
        else:
            active.forget(why)

    async def _answered(self, work: Callable[[], str], response):
        """The response with the words of ``work``, or of its error."""
        try:
            response.message = await self._done(work)
            response.success = True
            self._node.get_logger().info(response.message)
        except NreError as error:
            response.message = str(error)
            self._node.get_logger().warning(response.message)
        return response

    async def _done(self, work: Callable):
        """The result of ``work``, from the worker's thread where there is one; raises ``NreError``."""
        active = self.active
        if active is None:
            return self._safely(work)
        answer = Future(executor=self._node.executor)

        def run():
            try:
                result = self._safely(work)
                if not answer.done():
                    answer.set_result(result)
            except NreError as error:
                if not answer.done():
                    answer.set_exception(error)
            finally:
                if self._node.executor is not None:
                    self._node.executor.wake()  # the waiting coroutine goes on at the executor's next turn

        if not active.worker.request(run):
            raise NreError("too many requests wait already")
        self._pending.add(answer)
        try:
            return await answer
        finally:
            self._pending.discard(answer)

    def _safely(self, work: Callable):
        """The result of ``work``; what nobody foresaw goes to the log with its traceback, and on as an ``NreError``."""
        try:
            return work()
        except NreError:
            raise
        except Exception as error:
            self._node.get_logger().error(traceback.format_exc())
            raise NreError(f"internal error, {type(error).__name__}: {error}") from error
