"""The process of the node: signals, the environment, and errors at the start in one line.

Exit codes: 0 after SIGINT or SIGTERM, 2 when the map, a parameter or an argument cannot be used.
"""

from __future__ import annotations

import os
import signal
import sys


class _Signals:
    """SIGINT and SIGTERM end the loading at once, and later the spinning in good order."""

    def __init__(self):
        self.loading = True
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number, frame):
        if self.loading:
            self.loading = False
            raise SystemExit(0)
        # while spinning, rclpy's own handler (which calls this one) has shut the context down


def main(args: list[str] | None = None) -> int:
    """Runs the node until a signal comes; ``args``: as for ``rclpy.init``, default sys.argv."""
    signals = _Signals()
    try:
        return _run(args, signals)
    except SystemExit as stop:
        return stop.code


def _run(args: list[str] | None, signals: _Signals) -> int:
    from nre_ros.node import bootstrap
    from nre_ros.threads import wait_passively

    wait_passively()
    bootstrap.prepare()
    import rclpy
    from rclpy.exceptions import ParameterException
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
    from rclpy.impl.implementation_singleton import rclpy_implementation

    from nre_ros.errors import NreError

    rcl_errors = (rclpy_implementation.RCLError, rclpy_implementation.RCLInvalidROSArgsError)
    try:
        rclpy.init(args=args)
        from nre_ros.node.parameters import declare
        from nre_ros.node.relocalizer import Relocalizer

        node = rclpy.create_node("localize_node")
        declare(node)
        relocalizer = Relocalizer(node)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
    except (NreError, ParameterException, *rcl_errors) as error:
        signals.loading = False
        print(f"nre_ros node: {' '.join(str(error).split())}", file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    signals.loading = False
    try:
        executor.spin()
    except ExternalShutdownException:
        pass
    except (rclpy_implementation.RCLError, rclpy_implementation.InvalidHandle):
        # a timer was about to publish when the signal shut the context down
        if rclpy.ok():
            raise
    if not relocalizer.close():
        # the estimator cannot be interrupted, and Python cannot end while it runs
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    executor.shutdown(timeout_sec=0)
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
