# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The node's services; they exist while the node is configured."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from rclpy.lifecycle import LifecycleNode
from rclpy.task import Future
from std_srvs.srv import Trigger

from nre_ros.errors import NreError
from nre_ros.gate.gate import Gate
from nre_ros.localization.result import LocalizationResult
from nre_ros.messages.frame_ids import frame_name
from nre_ros.msg import LocalizationStatus
from nre_ros.node.active import ActiveNode
from nre_ros.node.engine import Engine
from nre_ros.node.interfaces import RosInterfaces
from nre_ros.node.logs import internal_error, log_exception
from nre_ros.node.parameters import value_of
from nre_ros.node.publishers import set_pose, status_of_result
from nre_ros.node.tf import Frames
from nre_ros.srv import LoadMap, LocalizeImage, Relocalize, SaveMap

_DEFAULT_TIMEOUT = 10.0
"""Seconds that ~/relocalize waits when the call names none."""
_INACTIVE = "the node is not active"

_T = TypeVar("_T")
_Callback = Callable[[Any, Any], Coroutine[Any, Any, Any]]


class Services:
    """Answers calls.  What takes long is done on the worker's thread, while the executor's thread goes on.

    Attributes:
        active: The parts of the active node, None while it is inactive.
    """

    def __init__(
        self,
        node: LifecycleNode,
        engine: Engine,
        gate: Gate,
        frames: Frames,
        on_map_loaded: Callable[[str], None] = lambda map_file: None,
    ) -> None:
        """Offers the services.

        Args:
            node: The node.
            engine: Map and network.
            gate: The validation gate.
            frames: Names of the frames.
            on_map_loaded: Called with the map that ~/load_map has opened, on the executor's thread.
        """
        self._node, self._engine, self._gate, self._frames = node, engine, gate, frames
        self._on_map_loaded = on_map_loaded
        self.active: ActiveNode | None = None
        self._pending: set[Future] = set()  # work that is not done
        self._calls: set[Future] = set()  # calls that are not answered
        self._interfaces = RosInterfaces(node)
        for service_type, name, callback in (
            (LocalizeImage, "~/localize_image", self._localize_image),
            (Relocalize, "~/relocalize", self._relocalize),
            (LoadMap, "~/load_map", self._load_map),
            (SaveMap, "~/save_map", self._save_map),
        ):
            self._interfaces.service(service_type, name, self._registered(callback))
        self._interfaces.service(Trigger, "~/clear", self._clear)

    def deactivate(self) -> None:
        """Answers the calls that wait for the worker, which has ended."""
        self.active = None
        for answer in list(self._pending):
            if not answer.done():
                answer.set_exception(NreError(_INACTIVE))

    def close(self) -> None:
        """Ends the services: at once, or when the executor has sent the answers to the calls that wait."""
        if self._calls and self._node.executor is not None:
            self._node.executor.create_task(self._close_after, list(self._calls))
        else:
            self._interfaces.close()

    async def _close_after(self, calls: list[Future]) -> None:
        for call in calls:
            await call
        self._interfaces.close()

    def _registered(self, callback: _Callback) -> _Callback:
        """The callback of a service, whose call is known to ``close`` until its answer goes out."""

        async def answer(request: Any, response: Any) -> Any:
            call: Future = Future(executor=self._node.executor)
            self._calls.add(call)
            try:
                return await callback(request, response)
            finally:
                self._calls.discard(call)
                call.set_result(None)

        return answer

    async def _localize_image(
        self, request: LocalizeImage.Request, response: LocalizeImage.Response
    ) -> LocalizeImage.Response:
        """One image by itself; the node's state is not touched."""
        started, active = time.monotonic(), self.active
        try:
            if active is None:
                raise NreError(_INACTIVE)
            result = await self._done(lambda: active.pipeline.localize_single(request.image, request.camera_info))
        except NreError as error:
            result = LocalizationResult(reason=str(error))
        state = LocalizationStatus.LOCALIZED if result.success else LocalizationStatus.UNLOCALIZED
        status = status_of_result(result, state)
        if result.T_map_cam is not None and result.covariance is not None:
            set_pose(status, result.T_map_cam, result.covariance)
        status.header.stamp, status.header.frame_id = request.image.header.stamp, self._frames.map
        status.camera_frame = frame_name(request.image.header.frame_id or request.camera_info.header.frame_id)
        status.total_milliseconds = (time.monotonic() - started) * 1e3
        response.status = status
        return response

    async def _relocalize(self, request: Relocalize.Request, response: Relocalize.Response) -> Relocalize.Response:
        """Waits for an image whose pose is accepted."""
        if self.active is None:
            response.message = _INACTIVE
        elif not 0 <= request.timeout < 1e6:
            response.message = f"timeout is {request.timeout:g} s, expected 0 to a million"
        else:
            answer = await self.active.mode.wait_for_pose(request.timeout or _DEFAULT_TIMEOUT)
            answered = cast(tuple[bool, str, LocalizationStatus], answer)
            response.success, response.message, response.status = answered
        return response

    async def _load_map(self, request: LoadMap.Request, response: LoadMap.Response) -> LoadMap.Response:
        def load() -> str:
            self._engine.load(request.map_file, "" if value_of(self._node, "map_frame") else self._frames.map)
            if self.active is None:  # the device is for the active node
                self._engine.release()
            self._forget(f"{request.map_file} has been loaded")
            return f"{request.map_file}: {self._engine}"

        await self._answered(load, response)
        if response.success:
            self._on_map_loaded(request.map_file)
        return response

    async def _save_map(self, request: SaveMap.Request, response: SaveMap.Response) -> SaveMap.Response:
        def save() -> str:
            self._engine.save(request.map_file, request.overwrite)
            return f"{request.map_file}: {len(self._engine.store)} keyframes"

        return await self._answered(save, response)

    def _clear(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Forgets the accepted pose, map -> odom and the initial pose."""
        self._forget("~/clear was called")
        response.success, response.message = True, "the accepted pose, map -> odom and the initial pose are forgotten"
        return response

    def _forget(self, reason: str) -> None:
        active = self.active
        if active is None:
            self._gate.reset()
        else:
            active.forget(reason)

    async def _answered(self, work: Callable[[], str], response: Any) -> Any:
        """The response with the message of ``work``, or of its error."""
        try:
            response.message = await self._done(work)
            response.success = True
            self._node.get_logger().info(response.message)
        except NreError as error:
            response.message = str(error)
            self._node.get_logger().warning(response.message)
        return response

    async def _done(self, work: Callable[[], _T]) -> _T:
        """The result of ``work``, from the worker's thread where there is one; raises ``NreError``."""
        active = self.active
        if active is None:
            return self._checked(work)
        answer: Future = Future(executor=self._node.executor)

        def run() -> None:
            try:
                result = self._checked(work)
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
            return cast(_T, await answer)  # it is done
        finally:
            self._pending.discard(answer)

    def _checked(self, work: Callable[[], _T]) -> _T:
        """The result of ``work``; an unexpected error is logged with its traceback and becomes an ``NreError``."""
        try:
            return work()
        except NreError:
            raise
        except Exception as error:
            log_exception(self._node, error)
            raise NreError(internal_error(error)) from error
