# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The managed node and its transitions (rclpy.lifecycle).

configure loads map and network and warms them up; activate subscribes; deactivate ends the subscriptions and frees the
device; cleanup leaves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from nre_ros.errors import NreError, one_line
from nre_ros.gate.gate import Gate
from nre_ros.node.active import ActiveNode
from nre_ros.node.engine import Engine
from nre_ros.node.logs import internal_error, log_exception
from nre_ros.node.parameters import ParameterError, declare, gate_settings, value_of
from nre_ros.node.publishers import PosePublishers
from nre_ros.node.services import Services
from nre_ros.node.tf import Frames

_CAMERA_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")
"""What ROS accepts as a part of a topic's name."""
_END_SECONDS = 10.0
"""How long a transition waits for the image that is being localized; meanwhile no callback of the node runs."""
_SUCCESS, _FAILURE, _ERROR = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)


class LocalizeNode(LifecycleNode):
    """The node ``localize_node``.

    Attributes:
        failure: Why the last transition failed, in one line; empty after one that succeeded.
        in_transition: Whether a transition is under way.

    Raises:
        ParameterError: A parameter has a value that cannot be used.
    """

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        """Creates the node, unconfigured.

        Args:
            arguments: The command line that rclpy was initialized with.
        """
        super().__init__("localize_node")
        self.failure = ""
        self.in_transition = False
        self._engine: Engine | None = None
        self._active: ActiveNode | None = None
        self._configured = ExitStack()  # closes the parts of the configured node, the last one first
        self._adopts_map = False  # whether map_file is being set to the map that is open
        declare(self, lambda: self._engine is not None and not self._adopts_map, arguments)
        self._service_change_state.callback = self._refusing(self._service_change_state.callback)

    def start(self) -> bool:
        """Configures and activates the node.

        Returns false when that fails; ``failure`` has the reason.
        """
        return self.trigger_configure() == _SUCCESS and self.trigger_activate() == _SUCCESS

    @property
    def loss(self) -> str:
        """Error of the device that is lost; empty: the device works, or the node is not configured."""
        return self._engine.loss if self._engine is not None else ""

    def close(self, timeout: float) -> bool:
        """Ends everything, whatever the state.

        Args:
            timeout: Seconds to wait for a computation.

        Returns:
            Whether everything has ended: false when a computation still runs after the time-out.
        """
        if not self._close_active(timeout):
            return False
        self._clean_up()
        return True

    # --- transitions --------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt(self._configure, self._clean_up)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        done = self._attempt(self._activate, lambda: self._close_active(_END_SECONDS))
        return super().on_activate(state) if done == _SUCCESS else done

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        super().on_deactivate(state)
        return self._attempt(self._deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt(self._clean_up)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        super().on_deactivate(state)
        return self._attempt(lambda: self._shut_down(_END_SECONDS))

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt(lambda: self._shut_down(0.0))  # the failed transition has waited already

    def _configure(self) -> None:
        _check_cameras(self)
        engine = self._engine = Engine(self)
        self._configured.callback(engine.close)
        self._frames = Frames.of(self, engine.map_frame)
        self._gate = Gate(gate_settings(self), watch_stamps=False)  # the clock monitor does
        self._pose_publishers = PosePublishers(self)
        self._configured.callback(self._pose_publishers.close)
        self._offered_services = Services(self, engine, self._gate, self._frames, self._adopt_map)
        self._configured.callback(self._offered_services.close)

    def _adopt_map(self, map_file: str) -> None:
        """Sets the parameter ``map_file``, so that the next configuration opens the map that is open now."""
        self._adopts_map = True
        try:
            self.set_parameters([Parameter("map_file", value=map_file)])
        finally:
            self._adopts_map = False

    def _activate(self) -> None:
        assert self._engine is not None  # of the configured node
        self._engine.acquire()
        self._gate.reset()
        self._active = ActiveNode(self, self._engine, self._gate, self._frames, self._pose_publishers)
        self._offered_services.active = self._active

    def _deactivate(self) -> None:
        self._end_active(_END_SECONDS)
        assert self._engine is not None  # of the configured node
        self._engine.release()

    def _clean_up(self) -> None:
        self._configured.close()
        self._engine = None

    def _shut_down(self, timeout: float) -> None:
        self._end_active(timeout)
        self._clean_up()

    def _end_active(self, timeout: float) -> None:
        """Ends what the active node does.

        Raises:
            NreError: A computation does not end; whatever it uses has to stay.
        """
        if not self._close_active(timeout):
            raise NreError("the computation under way does not end: end the process and start it again")

    def _close_active(self, timeout: float) -> bool:
        """Ends what the active node does; waits for the image that is being localized, ``timeout`` seconds at most."""
        if self._active is None:
            return True
        if not self._active.close(timeout):
            return False
        self._active = None
        self._offered_services.deactivate()
        return True

    # --- what rclpy does not do ---------------------------------------------------------------------

    def _attempt(
        self, step: Callable[[], object], undo: Callable[[], object] | None = None
    ) -> TransitionCallbackReturn:
        """Runs one step of a transition and logs its error, which rclpy would swallow."""
        self.failure, self.in_transition = "", True
        try:
            step()
            return _SUCCESS
        except NreError as error:
            self.failure = one_line(error)
            self.get_logger().error(self.failure)
        except Exception as error:
            self.failure = internal_error(error)
            log_exception(self, error)
        finally:
            self.in_transition = False
        if undo is None:
            return _ERROR
        undo()
        return _FAILURE

    def _refusing(self, change_state: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """A callback that refuses a transition that does not exist in the present state, instead of raising."""

        def answer(request: Any, response: Any) -> Any:
            try:
                return change_state(request, response)
            except rclpy_implementation.RCLError as error:
                self.get_logger().warning(f"transition refused: {one_line(error)}")
                response.success = False
                return response

        return answer


def _check_cameras(node: LifecycleNode) -> None:
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
