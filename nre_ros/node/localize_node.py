# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The process of the node: its signals, its environment, and errors at the start in one line.

Exit codes: 0 after SIGINT or SIGTERM; 2 when the map, a parameter or an argument cannot be used (with
``autostart:=false`` the node stays unconfigured instead).
"""

from __future__ import annotations

import os
import re
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.executors import Executor

    from nre_ros.node.lifecycle import LocalizeNode

_END_SECONDS = 1.0
"""How long a process that ends waits for the image that is being localized."""


class _Signals:
    """SIGINT and SIGTERM end loading and transitions at once, and the spinning node in order.

    Attributes:
        loading: Whether the process still loads; a signal ends it then.
        node: The node, None before it exists.
    """

    def __init__(self) -> None:
        self.loading = True
        self.node: LocalizeNode | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.loading or (self.node is not None and self.node.in_transition):
            self.loading = False
            raise SystemExit(0)
        # while spinning, rclpy's own handler (which calls this one) has shut the context down


def main(args: list[str] | None = None) -> int:
    """Runs the node until a signal comes, and ends the process.

    Args:
        args: As for ``rclpy.init``; default ``sys.argv``.

    Returns:
        The exit code; only if the node could not be created.
    """
    signals = _Signals()
    try:
        code = _run(args, signals)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    if signals.node is not None:
        _end(signals.node)
        # Everything is closed except for an estimator at work, which cannot be interrupted and would keep Python
        # from ending.  Destroying torch and DDS object by object takes Python seconds on a busy machine.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _run(args: list[str] | None, signals: _Signals) -> int:
    from nre_ros import process, ros_environment

    process.prepare()
    ros_environment.prepare()
    import rclpy
    from rclpy.exceptions import ParameterException
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.impl.implementation_singleton import rclpy_implementation

    from nre_ros.errors import NreError

    rcl_errors = (rclpy_implementation.RCLError, rclpy_implementation.RCLInvalidROSArgsError)
    try:
        rclpy.init(args=args)
        from nre_ros.node.lifecycle import LocalizeNode

        node = signals.node = LocalizeNode(sys.argv if args is None else args)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        if node.get_parameter("autostart").value and not node.start():
            raise NreError(node.failure)
    except (NreError, ParameterException, *rcl_errors) as error:
        signals.loading = False
        print(f"nre_ros node: {_explained(str(error))}", file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    signals.loading = False
    _spin(executor)
    return 0


def _explained(text: str) -> str:
    """An error's message on one line, with the cure where rcl does not name it."""
    line = " ".join(text.split())
    empty = re.search(r"parse parameter override rule: '(?:-p|--param) (\S+):='", line)
    if empty:
        return f"parameter {empty[1]} has no value: an empty text is -p {empty[1]}:='\"\"'"
    return line


def _spin(executor: Executor) -> None:
    """Spins until the context is shut down."""
    import rclpy
    from rclpy.executors import ExternalShutdownException
    from rclpy.impl.implementation_singleton import rclpy_implementation

    try:
        executor.spin()
    except ExternalShutdownException:
        pass
    except (rclpy_implementation.RCLError, rclpy_implementation.InvalidHandle):
        # a timer was about to publish when the signal shut the context down
        if rclpy.ok():
            raise


def _end(node: LocalizeNode) -> None:
    """Destroys the node, unless a computation still runs."""
    import rclpy

    if not node.close(_END_SECONDS):
        return
    if node.executor is not None:
        node.executor.shutdown(timeout_sec=0)
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
