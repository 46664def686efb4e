# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The managed node: what it has in each state of its life (REP-2002's states, by rclpy.lifecycle).

configure loads map and network and warms up; activate subscribes; deactivate drops the
subscriptions and frees the device; cleanup leaves nothing.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from nre_ros.errors import NreError
from nre_ros.gate.gate import Gate
from nre_ros.node.broadcasting import Frames
from nre_ros.node.engine import Engine
from nre_ros.node.gating import settings_of
from nre_ros.node.parameters import ParameterError, declare, value_of
from nre_ros.node.publishing import Publishers
from nre_ros.node.relocalizer import Relocalizer
from nre_ros.node.services import Services

_CAMERA_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")
"""What ROS takes as part of a topic's name."""
_SUCCESS, _FAILURE, _ERROR = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)


class LocalizeNode(LifecycleNode):
    """The node ``localize_node``.  Raises ``ParameterError`` for a parameter that cannot be.

    failure: why the last transition failed, in one line; empty after one that succeeded.
    in_transition: whether one is under way.
    """

    def __init__(self):
        super().__init__("localize_node")
        self.failure = ""
        self.in_transition = False
        self._engine: Engine | None = None
        self._relocalizer: Relocalizer | None = None
        self._parts: list = []  # of the configured node, closed in reverse order
        declare(self, lambda: self._engine is not None)
        self._service_change_state.callback = self._guarded(self._service_change_state.callback)

    def start(self) -> bool:
        """Configures and activates; false when that fails, see ``failure``."""
        return self.trigger_configure() == _SUCCESS and self.trigger_activate() == _SUCCESS

    def close(self, timeout: float) -> bool:
        """Ends everything, in whatever state; false when a computation still runs after ``timeout`` seconds."""
        if not self._close_relocalizer(timeout):
            return False
        self._clean_up()
        return True

    # --- transitions --------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt(self._configure, self._clean_up)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        done = self._attempt(self._activate, self._close_relocalizer)
        return super().on_activate(state) if done == _SUCCESS else done

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        super().on_deactivate(state)
        return self._attempt(self._deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt(self._clean_up)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        super().on_deactivate(state)
        return self._attempt(self._shut_down)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt(self._shut_down)

    def _configure(self):
        _check_cameras(self)
        engine = self._engine = Engine(self)
        self._parts.append(engine)
        self._frames = Frames.of(self, engine.map_frame)
        self._gate = Gate(settings_of(self))
        self._publishing = Publishers(self)
        self._parts.append(self._publishing)
        self._serving = Services(self, engine, self._gate, self._frames)
        self._parts.append(self._serving)

    def _activate(self):
        self._engine.acquire()
        self._gate.reset()
        self._relocalizer = Relocalizer(self, self._engine, self._gate, self._frames, self._publishing)
        self._serving.active = self._relocalizer

    def _deactivate(self):
        self._close_relocalizer()
        self._engine.release()

    def _clean_up(self):
        while self._parts:
            self._parts.pop().close()
        self._engine = None

    def _shut_down(self):
        self._close_relocalizer()
        self._clean_up()

    def _close_relocalizer(self, timeout: float | None = None) -> bool:
        """Ends what the active node does; waits for the image that is being localized."""
        if self._relocalizer is None:
            return True
        if not self._relocalizer.close(timeout):
            return False
        self._relocalizer = None
        self._serving.deactivate()
        return True

    # --- what rclpy leaves to us --------------------------------------------------------------------

    def _attempt(self, step: Callable, undo: Callable | None = None) -> TransitionCallbackReturn:
        """One step of a transition: rclpy swallows exceptions without a word."""
        self.failure, self.in_transition = "", True
        try:
            step()
            return _SUCCESS
        except NreError as error:
            self.failure = " ".join(str(error).split())
            self.get_logger().error(self.failure)
        except Exception as error:
            self.failure = f"internal error, {type(error).__name__}: {' '.join(str(error).split())}"
            self.get_logger().error(traceback.format_exc())
        finally:
            self.in_transition = False
        if undo is None:
            return _ERROR
        undo()
        return _FAILURE

    def _guarded(self, change_state: Callable) -> Callable:
        """A transition that does not exist in the present state is refused: it must not end the process."""

        def answer(request, response):
            try:
                return change_state(request, response)
            except rclpy_implementation.RCLError as error:
                self.get_logger().warning(f"transition refused: {' '.join(str(error).split())}")
                response.success = False
                return response

        return answer


def _check_cameras(node: LifecycleNode):
    names = value_of(node, "cameras")
    if not names:
        raise ParameterError("parameter cameras is an empty list: leave it out for one camera without a name")
    for name in names:
        if name and not _CAMERA_NAME.fullmatch(name):
            raise ParameterError(f"parameter cameras: {name!r} cannot be part of a topic's name")
    if len(names) == 1:
        return
    if len(set(names)) < len(names):
        raise ParameterError(f"parameter cameras names one twice: {names}")
    if value_of(node, "camera_frame"):
        raise ParameterError(f"parameter camera_frame is of one camera, there are {len(names)}: leave it empty")
    if not value_of(node, "base_frame"):
        raise ParameterError(f"{len(names)} cameras need the parameter base_frame, in which TF knows where they are")
