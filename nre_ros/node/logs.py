# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Log messages of the node: warnings that do not flood, and unexpected exceptions."""

from __future__ import annotations

import re
import time
import traceback

from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.node import Node

from nre_ros.errors import one_line

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
        """Logs a warning unless it was logged less than ``PERIOD_SECONDS`` of real time ago.

        Args:
            text: The warning; its numbers are ignored in the comparison.
        """
        now, kind = time.monotonic(), re.sub(r"[-+\d.]+", "", text)
        self._logged = {key: logged for key, logged in self._logged.items() if now - logged < PERIOD_SECONDS}
        if kind not in self._logged:
            self._logged[kind] = now
            self._logger.warning(text)


def internal_error(error: Exception) -> str:
    """Returns the reason that is reported where an unexpected error has happened.

    Args:
        error: The error.
    """
    return f"internal error, {type(error).__name__}: {one_line(error)}"


def log_exception(node: Node, error: Exception) -> None:
    """Logs an unexpected error with its traceback.

    Args:
        node: The node whose logger is used.
        error: The error.
    """
    if node.context.ok():  # while the node is being destroyed, publishing may fail
        node.get_logger().error("".join(traceback.format_exception(type(error), error, error.__traceback__)))
