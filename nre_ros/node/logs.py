# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Log messages of the node: warnings that do not flood, and unexpected exceptions."""

from __future__ import annotations

import re
import time
import traceback

from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.node import Node

PERIOD_SECONDS = 5.0
"""The same warning is logged once in this time."""


class ThrottledLogger:
    """Logs the same warning once in five seconds; texts that differ in their numbers alone count as the same.

    rclpy's own throttling counts by the line of code, so that one warning would hide another, and by the node's
    clock, which stands still in a paused simulation.
    """

    def __init__(self, logger: RcutilsLogger) -> None:
        self._logger = logger
        self._logged: dict[str, float] = {}  # text without numbers -> when it was logged last

    def warning(self, text: str) -> None:
        """Logs ``text`` unless it was logged less than ``PERIOD_SECONDS`` of real time ago."""
        now, kind = time.monotonic(), re.sub(r"[-+\d.]+", "", text)
        self._logged = {key: logged for key, logged in self._logged.items() if now - logged < PERIOD_SECONDS}
        if kind not in self._logged:
            self._logged[kind] = now
            self._logger.warning(text)


def one_line(error: BaseException) -> str:
    """The message of an error on one line."""
    return " ".join(str(error).split())


def internal_error(error: Exception) -> str:
    """The reason that is given where an unexpected error has happened."""
    return f"internal error, {type(error).__name__}: {one_line(error)}"


def log_exception(node: Node, error: Exception) -> None:
    """Logs an unexpected error with its traceback."""
    if node.context.ok():  # while the node is being destroyed, publishing may fail
        node.get_logger().error("".join(traceback.format_exception(type(error), error, error.__traceback__)))
