# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Logging that does not flood: the same trouble is told once in five seconds."""

from __future__ import annotations

import re
import time

SECONDS = 5.0


class SeldomLog:
    """Warnings of one logger; texts that differ in their numbers alone count as the same.

    rclpy's own throttling counts by the line of code, so that one trouble would hide another, and
    by the node's clock, which stands still in a paused simulation.
    """

    def __init__(self, logger):
        self._logger = logger
        self._told: dict[str, float] = {}

    def warning(self, text: str):
        """Logs ``text`` unless it was logged less than ``SECONDS`` of real time ago."""
        now, kind = time.monotonic(), re.sub(r"[-+\d.]+", "", text)
        self._told = {key: told for key, told in self._told.items() if now - told < SECONDS}
        if kind not in self._told:
            self._told[kind] = now
            self._logger.warning(text)
