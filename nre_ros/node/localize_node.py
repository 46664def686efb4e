# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The process of the node: its signals, its environment, and errors at the start in one line.

Exit codes: 0 after SIGINT or SIGTERM; 2 when the map, a parameter or an argument cannot be used (with
``autostart:=false`` the node stays unconfigured instead); 3 when the device is lost and ``lost_device`` is exit.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

from nre_ros.packages import missing_package

if TYPE_CHECKING:
    from rclpy.executors import Executor

    from nre_ros.node.lifecycle import LocalizeNode

_NAME = "localize_node"
_HELP = """\
usage: localize_node --ros-args -p map_file:=MAP.db [-p NAME:=VALUE] [--params-file FILE] [-r OLD:=NEW]

The ROS 2 node that localizes camera images in a map.  It subscribes to image (sensor_msgs/Image), image/compressed
and camera_info, and publishes pose, pose_with_covariance, status and the transform map -> odom.

  -p NAME:=VALUE      sets a parameter; `nre_ros node --parameters` lists all
  --params-file FILE  YAML file of parameters under the key /**; config/localize.yaml has all with their defaults
  -r OLD:=NEW         renames a topic or the node (__node:=NAME, __ns:=/NAMESPACE)
  --log-level LEVEL   debug, info, warn, error or fatal

`ros2 launch nre_ros localize.launch.py --show-args` and `nre_ros node --help` describe other ways to start the node.
exit codes: 0 after Ctrl-C or SIGTERM; 2 when the map, a parameter or an argument cannot be used;
3 when the GPU is lost and lost_device is exit"""
_LOST_DEVICE = 3
"""Exit code for a supervisor that starts the node again, unlike after an argument that cannot be used."""
_END_SECONDS = 1.0
"""How long a process that ends waits for the image that is being localized."""
_END_LIMIT_SECONDS = 20.0
"""After so long a process that ends does not wait any longer for DDS to close."""
_WAKE_SECONDS = 1.0
"""How often the spinning thread looks whether the context is shut down: rclpy can lose the wake-up of a signal."""
_PATIENCE_SECONDS = 3.0
"""A signal that comes so long after the first one ends the process at once."""


class _Signals:
    """SIGINT and SIGTERM end loading at once, a transition at its next step, and the spinning node in order.

    Further signals change nothing: launch and the terminal both send SIGINT after Ctrl-C.

    Attributes:
        loading: Whether the process still loads.
        received: Whether a signal has come.
        node: The node, None before it exists.
    """

    def __init__(self) -> None:
        self.loading, self.received = True, False
        self.node: LocalizeNode | None = None
        self._first = 0.0  # monotonic seconds
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.node is None:
            os._exit(0)  # nothing to close; an exception could be swallowed by what is being imported
        if self.received:
            if time.monotonic() - self._first > _PATIENCE_SECONDS:
                os._exit(0)
            return
        self.received, self._first = True, time.monotonic()
        if self.loading or self.node.in_transition:
            raise SystemExit(0)
        # while spinning, rclpy's own handler (which calls this one) has shut the context down


def main(args: list[str] | None = None) -> int:
    """Runs the node until a signal comes, and ends the process.

    Args:
        args: As for ``rclpy.init``; default ``sys.argv``.

    Returns:
        The exit code; only after ``--help``.
    """
    arguments = sys.argv if args is None else args
    if _asks_for_help(arguments):
        print(_HELP)
        return 0
    signals = _Signals()
    try:
        code = _run(arguments, signals)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except ImportError as error:  # of a package that is needed before check_start
        missing = missing_package(error)
        if missing is None:
            raise
        code = _refuse(missing)
    if signals.node is not None:
        limit = threading.Timer(_END_LIMIT_SECONDS, os._exit, (code,))
        limit.daemon = True
        limit.start()
        _end(signals.node)
    # Everything is closed except for an estimator at work, which cannot be interrupted and would keep Python from
    # ending.  Destroying torch and DDS object by object takes Python seconds on a busy machine, and a signal during
    # that time would kill the process.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _asks_for_help(arguments: Sequence[str]) -> bool:
    own = arguments[1:]
    if "--ros-args" in own:
        own = own[: own.index("--ros-args")]
    return "-h" in own or "--help" in own


def _run(arguments: list[str], signals: _Signals) -> int:
    from nre_ros import process, ros_environment
    from nre_ros.errors import NreError
    from nre_ros.node.start_checks import check_start

    process.prepare()
    ros_environment.prepare()
    try:
        check_start(arguments, _NAME)
    except NreError as error:
        return _refuse(error)
    import rclpy
    from rclpy.exceptions import ParameterException
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.impl.implementation_singleton import rclpy_implementation

    rcl_errors = (rclpy_implementation.RCLError, rclpy_implementation.RCLInvalidROSArgsError)
    try:
        rclpy.init(args=arguments)
        from nre_ros.node.lifecycle import LocalizeNode

        node = signals.node = LocalizeNode(arguments)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        if not node.get_parameter("autostart").value:
            node.get_logger().info("unconfigured, because autostart is false: waiting for a lifecycle manager")
        elif not node.start():
            return 0 if signals.received else 2  # the node has logged the reason
    except (NreError, ParameterException, *rcl_errors) as error:
        rclpy.try_shutdown()
        return 0 if signals.received else _refuse(error)  # a signal shuts the context down
    finally:
        signals.loading = False
    return _spin(executor, node)


def _refuse(error: Exception) -> int:
    """Prints why the node cannot start; returns the exit code."""
    print(f"nre_ros node: {_explained(str(error))}", file=sys.stderr)
    return 2


def _explained(text: str) -> str:
    """An error's message on one line, with the cure where rcl does not name it."""
    line = " ".join(text.split())
    empty = re.search(r"parse parameter override rule: '(?:-p|--param) (\S+):='", line)
    if empty:
        return f"parameter {empty[1]} has no value: an empty text is -p {empty[1]}:='\"\"'"
    return line


def _spin(executor: Executor, node: LocalizeNode) -> int:
    """Spins until the context is shut down or the process has to end; returns the exit code."""
    import rclpy
    from rclpy.executors import ExternalShutdownException
    from rclpy.impl.implementation_singleton import rclpy_implementation

    try:
        while rclpy.ok():
            executor.spin_once(timeout_sec=_WAKE_SECONDS)
            if node.loss and node.get_parameter("lost_device").value == "exit":
                node.get_logger().fatal(f"{node.loss} (parameter lost_device: exit code {_LOST_DEVICE})")
                return _LOST_DEVICE
    except ExternalShutdownException:
        pass
    except (rclpy_implementation.RCLError, rclpy_implementation.InvalidHandle):
        # a timer was about to publish when the signal shut the context down
        if rclpy.ok():
            raise
    return 0


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
