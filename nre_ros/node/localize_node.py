# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The process of the node: signals, the environment, and errors at the start in one line.

Exit codes: 0 after SIGINT or SIGTERM, 2 when the map, a parameter or an argument cannot be used
(a managed node, ``autostart:=false``, goes on when it cannot be configured).
"""

from __future__ import annotations

import os
import signal
import sys

_PATIENCE = 1.0
"""Seconds that an ending process waits for the image that is being localized."""


class _Signals:
    """SIGINT and SIGTERM end loading and transitions at once, and the spinning in good order."""

    def __init__(self):
        self.loading = True
        self.node = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number, frame):
        if self.loading or (self.node is not None and self.node.in_transition):
            self.loading = False
            raise SystemExit(0)
        # while spinning, rclpy's own handler (which calls this one) has shut the context down


def main(args: list[str] | None = None) -> int:
    """Runs the node until a signal comes, and ends the process; ``args``: as for ``rclpy.init``, default sys.argv.

    Returns only where there has been no node: its exit code.
    """
    signals = _Signals()
    try:
        code = _run(args, signals)
    except SystemExit as stop:
        code = stop.code
    if signals.node is not None:
        _end(signals.node)
        # All is closed but for an estimator at work, which cannot be interrupted and would keep Python from
        # ending; and taking torch and DDS apart object by object takes Python seconds on a busy machine.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _run(args: list[str] | None, signals: _Signals) -> int:
    from nre_ros import process
    from nre_ros.node import bootstrap

    process.prepare()
    bootstrap.prepare()
    import rclpy
    from rclpy.exceptions import ParameterException
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.impl.implementation_singleton import rclpy_implementation

    from nre_ros.errors import NreError

    rcl_errors = (rclpy_implementation.RCLError, rclpy_implementation.RCLInvalidROSArgsError)
    try:
        rclpy.init(args=args)
        from nre_ros.node.lifecycle import LocalizeNode

        node = signals.node = LocalizeNode()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        if node.get_parameter("autostart").value and not node.start():
            raise NreError(node.failure)
    except (NreError, ParameterException, *rcl_errors) as error:
        signals.loading = False
        print(f"nre_ros node: {' '.join(str(error).split())}", file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    signals.loading = False
    _spin(executor)
    return 0


def _spin(executor) -> None:
    """Until the context is shut down."""
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


def _end(node) -> None:
    """Tears the node down, unless a computation still runs."""
    import rclpy

    if not node.close(_PATIENCE):
        return
    if node.executor is not None:
        node.executor.shutdown(timeout_sec=0)
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
