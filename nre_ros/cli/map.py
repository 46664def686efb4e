# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros map``: build keyframe maps, look at them, check, merge, prune and export them."""

from __future__ import annotations

from nre_ros.cli import map_build, map_export, map_index, map_info, map_merge, map_prune, map_verify, map_view


def add_parser(subparsers) -> None:
    """Registers the commands about map files, one module each."""
    parser = subparsers.add_parser(
        "map", help="build a keyframe map; look at, check, merge, prune, export one", description=__doc__
    )
    commands = parser.add_subparsers(dest="map_command", required=True, metavar="COMMAND")
    for module in (map_build, map_info, map_view, map_verify, map_merge, map_prune, map_index, map_export):
        module.add_parser(commands)
