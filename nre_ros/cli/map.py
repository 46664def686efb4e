# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros map``: the commands that make and change map files."""

from __future__ import annotations

from nre_ros.cli import (
    map_build,
    map_check,
    map_export,
    map_index,
    map_info,
    map_merge,
    map_prune,
    map_rebuild,
    map_verify,
    map_view,
)
from nre_ros.cli.arguments import Subparsers, add_command

_DESCRIPTION = """\
Makes and changes map files. A map is one SQLite file of keyframes: each has a pose, a camera, 3D points and their
descriptors.
"""
_EXAMPLE = """\
  nre_ros map build bag BAG -o office.db       # make a map of a recording
  nre_ros map info office.db                   # see what the map contains
  nre_ros map view office.db --show            # see its keyframes and points in 3D
"""


def add_parser(subparsers: Subparsers) -> None:
    """Registers ``nre_ros map`` and its commands, one module each.

    Args:
        subparsers: The commands of ``nre_ros``.
    """
    parser = add_command(
        subparsers,
        "map",
        "build a map; look at, check, verify, rebuild, merge, prune and export maps",
        _DESCRIPTION,
        _EXAMPLE,
    )
    commands = parser.add_subparsers(dest="map_command", required=True, metavar="COMMAND")
    for module in (
        map_build,
        map_check,
        map_rebuild,
        map_info,
        map_view,
        map_verify,
        map_merge,
        map_prune,
        map_index,
        map_export,
    ):
        module.add_parser(commands)
