# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros train evaluate``: how accurate the poses are with trained weights, on a map that they were not trained on."""

from __future__ import annotations

from nre_ros.cli.arguments import Subparsers


def add_parser(commands: Subparsers) -> None:
    """Registers the command.

    Args:
        commands: The commands of ``nre_ros train``.
    """
